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
from pathlib import Path

from benchmarks.contest.model import Tiny, batches, timed, told, trainer
from benchmarks.contest.recorders import RECORDERS


def main(folder: Path, rounds: int, epochs: int, steps: int, recorders: list[str]) -> None:
    """Fit in turn, in another order each round."""
    taken: dict[str, dict[str, list[float]]] = {name: {"step": [], "fit": []} for name in recorders}
    for turn in range(rounds + 1):
        for name in random.sample(recorders, len(recorders)):
            step, fit = _fit(name, folder / f"{turn}-{name.replace(' ', '-')}", epochs, steps)
            if turn:
                taken[name]["step"].append(step)
                taken[name]["fit"].append(fit)
    told(folder, **taken)


def _fit(name: str, folder: Path, epochs: int, steps: int) -> tuple[float, float]:
    folder.mkdir()
    module, data = Tiny(), batches(steps)
    recorder, _, saved = name.partition("+")
    gc.collect()
    with RECORDERS[recorder](folder, bool(saved)) as arguments:
        training = trainer(folder, max_epochs=epochs, **{"enable_checkpointing": bool(saved), **arguments})
        fit = timed(lambda: training.fit(module, data))
    shutil.rmtree(folder)
    return (module.begun[-1] - module.begun[0]) / (len(module.begun) - 1), fit


if __name__ == "__main__":
    _, place, *numbers = sys.argv
    main(Path(place), int(numbers[0]), int(numbers[1]), int(numbers[2]), numbers[3:])
