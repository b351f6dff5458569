"""Fits with and without ours in one process, in turn, so that small differences show.

``python -m benchmarks.contest.turns <folder> <rounds> <epochs> <steps> <recorder>…`` tells what a step and a fit took
in each round, by recorder; with ``+saved`` after its name, a recorder keeps checkpoints. The first round warms up and
is left out.
"""

from __future__ import annotations

import gc
import random
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from benchmarks.contest.model import Tiny, batches, timed, told, trainer
from benchmarks.contest.recorders import RECORDERS


def main(folder: Path, rounds: int, epochs: int, steps: int, recorders: list[str]) -> None:
    """Fit in turn, in another order each round."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in recorders}
    for turn in range(rounds + 1):
        for name in random.sample(recorders, len(recorders)):
            some = epochs if turn else min(epochs, 3)
            figures = _fit(name, folder / f"{turn}-{name.replace(' ', '-')}", some, steps)
            if turn:
                taken[name].append(figures)
    told(folder, **taken)


def _fit(name: str, folder: Path, epochs: int, steps: int) -> dict[str, float]:
    folder.mkdir()
    module, data = Tiny(), batches(steps)
    recorder, _, saved = name.partition("+")
    gc.collect()
    with RECORDERS[recorder](folder, bool(saved)) as arguments:
        training = trainer(folder, max_epochs=epochs, **{"enable_checkpointing": bool(saved), **arguments})
        fit = timed(lambda: training.fit(module, data))
    shutil.rmtree(folder)
    steps_taken = [after - before for before, after in pairwise(module.begun)]
    return {"fit": fit, "step": mean(steps_taken), "typical step": median(steps_taken)}


if __name__ == "__main__":
    _, place, *numbers = sys.argv
    main(Path(place), int(numbers[0]), int(numbers[1]), int(numbers[2]), numbers[3:])
