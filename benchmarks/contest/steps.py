"""One fit of many steps: ``python -m benchmarks.contest.steps <recorder> <folder> <steps>``."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic

from benchmarks.contest.model import Tiny, batches, timed, told, trainer
from benchmarks.contest.recorders import RECORDERS

WARMING = 20
"""Steps at the start that do not count."""


def main(recorder: str, folder: Path, steps: int) -> None:
    """Tell what a step and the fit took, in seconds; when the fit ended; and when the script did."""
    module = Tiny()
    with RECORDERS[recorder](folder, False) as arguments:
        training = trainer(folder, max_epochs=1, **arguments)
        fit = timed(lambda: training.fit(module, batches(steps)))
        fitted = monotonic()
    counted = module.begun[min(WARMING, steps // 2) :]
    step = (counted[-1] - counted[0]) / (len(counted) - 1)
    told(folder, step=step, fit=fit, fitted=fitted, last=monotonic())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
