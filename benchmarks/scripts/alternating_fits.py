"""Alternating fits with different trackers in one process, which makes small differences measurable.

``python -m benchmarks.scripts.alternating_fits <folder> <rounds> <epochs> <steps> <tracker>…`` writes the seconds of a
step and of a fit in each round, by tracker. A tracker with ``+saved`` after its name stores checkpoints. A warm-up
round is not counted.
"""

from __future__ import annotations

import gc
import random
import shutil
import sys
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from benchmarks.scripts.model import Tiny, batches, create_trainer, time_call, write_figures
from benchmarks.scripts.recorders import RECORDERS


def main(folder: Path, rounds: int, epochs: int, steps: int, trackers: list[str]) -> None:
    """Fit with each tracker in each round, in random order."""
    times: dict[str, list[dict[str, float]]] = {name: [] for name in trackers}
    for number in range(rounds + 1):
        for name in random.sample(trackers, len(trackers)):
            fit_epochs = epochs if number else min(epochs, 3)
            figures = _fit(name, folder / f"{number}-{name.replace(' ', '-')}", fit_epochs, steps)
            if number:
                times[name].append(figures)
    write_figures(folder, **times)


def _fit(name: str, folder: Path, epochs: int, steps: int) -> dict[str, float]:
    folder.mkdir()
    module, data = Tiny(), batches(steps)
    tracker, _, saved = name.partition("+")
    gc.collect()
    with RECORDERS[tracker](folder, bool(saved)) as arguments:
        training = create_trainer(folder, max_epochs=epochs, **{"enable_checkpointing": bool(saved), **arguments})
        fit = time_call(lambda: training.fit(module, data))
    shutil.rmtree(folder)
    step_times = [after - before for before, after in pairwise(module.step_starts)]
    return {"fit": fit, "step": mean(step_times), "typical step": median(step_times)}


if __name__ == "__main__":
    _, run_folder, *arguments = sys.argv
    main(Path(run_folder), int(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[3:])
