"""One training that ends in a given way: ``python -m benchmarks.scripts.termination <tracker> <folder> <termination>``.

Each logged point is a unique number, which is first written to ``logged.txt`` to find out later which were stored.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.scripts.model import METRICS, Tiny, batches, create_trainer
from benchmarks.scripts.recorders import RECORDERS

EPOCHS, STEPS = 5, 20
LAST_STEP = 50
"""The step after which an interrupted training ends, in its third epoch."""

FIRST_POINT = 100_003
"""The first point: larger than any epoch, step or count, and exact as a 32-bit float."""

SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}


class PointLogger(Tiny):
    """Logs four points per step, two per epoch, two per validation and six per test.

    Args:
        file: The file to which each point is written before it is logged.
        termination: How the training ends.
    """

    def __init__(self, file: Path, termination: str) -> None:
        super().__init__()
        self.file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.point = FIRST_POINT
        self.termination = termination
        self.steps = 0

    def training_step(self, batch: list[Tensor]) -> Tensor:
        ending = self.steps == LAST_STEP and self._terminate()
        self.steps += 1
        loss = self.layer(batch[0]).square().mean()
        if not ending:
            self._log_points(*METRICS, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        """Log nothing; points are logged at the end of the validation."""

    test_step = validation_step

    def on_train_epoch_end(self) -> None:
        self._log_points("delta", "epsilon")

    def on_validation_epoch_end(self) -> None:
        self._log_points("val_loss", "val_delta")

    def on_test_epoch_end(self) -> None:
        self._log_points(*(f"test_{name}" for name in ("loss", "one", "two", "three", "four", "five")))

    def _log_points(self, *names: str, **options: bool) -> None:
        for name in names:
            os.write(self.file, f"{self.point}\n".encode())
            self.log(name, float(self.point), **options)
            self.point += 1

    def _terminate(self) -> bool:
        """Terminate as selected; return whether the training is about to end."""
        if self.termination == "exception":
            raise RuntimeError("the benchmark asked for a failure")
        if self.termination in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.termination])
            return True
        return False


def main(tracker: str, folder: Path, termination: str) -> None:
    """Fit once, or twice with a test afterwards."""
    module = PointLogger(folder / "logged.txt", termination)
    with RECORDERS[tracker](folder, False) as arguments:
        for is_last in (False, True) if termination == "fit + fit + test" else (False,):
            options: dict[str, Any] = {"max_epochs": EPOCHS, "num_sanity_val_steps": 0, **arguments}
            training = create_trainer(folder, **options)
            training.fit(module, batches(STEPS), batches(1))
            if is_last:
                training.test(module, batches(1), verbose=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
