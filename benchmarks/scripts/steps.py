"""One fit of many steps: ``python -m benchmarks.scripts.steps <tracker> <folder> <steps>``."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic

from benchmarks.scripts.model import Tiny, batches, create_trainer, time_call, write_figures
from benchmarks.scripts.recorders import RECORDERS

WARM_UP_STEPS = 20
"""Steps at the start that are not counted."""


def main(tracker: str, folder: Path, steps: int) -> None:
    """Write the seconds of a step and of the fit, and when the fit and the script ended."""
    module = Tiny()
    with RECORDERS[tracker](folder, False) as arguments:
        training = create_trainer(folder, max_epochs=1, **arguments)
        fit = time_call(lambda: training.fit(module, batches(steps)))
        fitted = monotonic()
    counted = module.step_starts[min(WARM_UP_STEPS, steps // 2) :]
    step = (counted[-1] - counted[0]) / (len(counted) - 1)
    write_figures(folder, step=step, fit=fit, fitted=fitted, last=monotonic())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
