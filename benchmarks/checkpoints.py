"""Cost of a large checkpoint: blocked training time, memory and disk space, for this software and other trackers."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, comparison_figure
from benchmarks.processes import installed_trackers, run_script
from benchmarks.scale import Scale
from benchmarks.scripts.recorders import KEPT, NOTHING, OWN, PLAIN
from benchmarks.timing import Comparison

EPOCHS = 8
"""Checkpoints per process."""

STORING = ("mlflow autolog", "mlflow logger", "wandb", "dvclive")
"""Trackers that store a Trainer's checkpoints; aim's logger and Lightning's CSVLogger do not."""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Measure trackers in random order, in new processes with one step per epoch; then time a checkpoint's upload."""
    storing = (name for name in STORING if name in installed_trackers(scale))
    names = [NOTHING, PLAIN, "bare", "deriva-ml", OWN, KEPT, *storing]
    blocked, ratios, memory, duplicates, kept = _measure_trackers(names, scale, folder / "trackers")
    for name in names[1:]:
        own = name in ("deriva-ml", OWN, KEPT)
        label = "lightning alone" if name == "bare" else name
        ratio = None if name == PLAIN else median(ratios[name])
        floor = median(blocked[PLAIN])
        yield Figure("training blocked", median(blocked[name]), "s", PLAIN, floor, ratio, 1.3 if own else None, label)
        yield Figure("extra memory", max(memory[name]) / 2**20, "MiB", target=25 if own else None, of=label)
        # what the user's own ModelCheckpoint keeps is copied once, or shared by a reflink
        limit = max(kept[name]) / 2**20 if own else None
        yield Figure("stored twice", max(duplicates[name]) / 2**20, "MiB", target=limit, of=label)
    figures = run_script("checkpoint_upload", folder / "upload", scale.heavy_rounds, scale.big_bytes).figures
    uploads, passes = figures["uploads"], figures["passes"]
    ratio = median(upload / md5_pass for upload, md5_pass in zip(uploads, passes, strict=True))
    what = f"{scale.big_bytes / 2**20:g} MiB: from the file's last byte to its row"
    yield comparison_figure(what, "one MD5 pass", Comparison(median(uploads), median(passes), ratio), target=1.3)


def _measure_trackers(names: list[str], scale: Scale, folder: Path) -> tuple[dict[str, list[float]], ...]:
    blocked, ratios, memory, duplicates, kept = (defaultdict[str, list[float]](list) for _ in range(5))
    for _ in range(max(1, scale.heavy_rounds * 3 // 5)):
        medians: dict[str, float] = {}
        for name in random.sample(names, len(names)):
            os.sync()  # so that this process does not wait for writes of the last one
            figures = run_script("checkpoint_writes", folder, EPOCHS, scale.big_bytes, recorder=name).figures
            shutil.rmtree(folder)
            medians[name] = median(figures["blocked"])
            memory[name].append(max(figures["memory"]))
            duplicates[name].append(figures["duplicates"])
            kept[name].append(figures["kept"])
        for name in names[1:]:  # subtracts what an epoch without checkpoints takes
            blocked[name].append(max(medians[name] - medians[NOTHING], 1e-9))
            ratios[name].append(blocked[name][-1] / blocked[PLAIN][-1] if name != PLAIN else 1)
    return blocked, ratios, memory, duplicates, kept
