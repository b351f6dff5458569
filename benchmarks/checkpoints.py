"""What a large checkpoint costs a training: time of its thread, memory, and disk; ours, Lightning's and the peers'."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.contest.recorders import NOTHING, OWN, PLAIN
from benchmarks.figures import Figure, compared
from benchmarks.fresh import measured, peers
from benchmarks.measure import Beside
from benchmarks.scale import Scale

EPOCHS = 8
"""Checkpoints a process."""

KEEPING = ("mlflow autolog", "mlflow logger", "wandb", "dvclive")
"""The peers that keep a Trainer's checkpoints; aim's logger and Lightning's CSVLogger do not."""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Let all take turns, in fresh processes that fit one step an epoch; then time what follows a checkpoint."""
    names = [NOTHING, PLAIN, "bare", "ours", OWN, *(name for name in KEEPING if name in peers(scale))]
    held, ratios, grown, twice = _turns(names, scale, folder / "turns")
    for name in names[1:]:
        ours = name in ("ours", OWN)
        shown = "lightning alone" if name == "bare" else name
        ratio = None if name == PLAIN else median(ratios[name])
        floor = median(held[PLAIN])
        yield Figure("the training is held", median(held[name]), "s", PLAIN, floor, ratio, 1.3 if ours else None, shown)
        yield Figure("extra memory", max(grown[name]) / 2**20, "MiB", target=25 if ours else None, of=shown)
        yield Figure("lies twice", max(twice[name]) / 2**20, "MiB", target=0 if ours else None, of=shown)
    told = measured("sending", folder / "sending", scale.heavy_rounds, scale.big_bytes).figures
    ratio = median(one / least for one, least in zip(told["taken"], told["passes"], strict=True))
    what = f"{scale.big_bytes / 2**20:g} MiB: from the file's last byte to its row"
    taken = Beside(median(told["taken"]), median(told["passes"]), ratio)
    yield compared(what, "one md5 pass", taken, target=1.3)


def _turns(names: list[str], scale: Scale, folder: Path) -> tuple[dict[str, list[float]], ...]:
    held, ratios, grown, twice = (defaultdict[str, list[float]](list) for _ in range(4))
    for _ in range(max(1, scale.heavy_rounds * 3 // 5)):
        here: dict[str, float] = {}
        for name in random.sample(names, len(names)):
            os.sync()  # what the last one wrote is not to be waited for by this one
            told = measured("saving", folder, EPOCHS, scale.big_bytes, recorder=name).figures
            shutil.rmtree(folder)
            here[name] = median(told["held"])
            grown[name].append(max(told["grown"]))
            twice[name].append(told["twice"])
        for name in names[1:]:  # an epoch without checkpoints takes a little too
            held[name].append(max(here[name] - here[NOTHING], 1e-9))
            ratios[name].append(held[name][-1] / held[PLAIN][-1] if name != PLAIN else 1)
    return held, ratios, grown, twice
