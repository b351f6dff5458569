"""One training that ends in a certain way: ``python -m benchmarks.contest.ending <recorder> <folder> <how>``.

Each point that it logs is a number of its own, written to ``emitted.txt`` first, so that what a store kept can be told.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.contest.model import METRICS, Tiny, batches, trainer
from benchmarks.contest.recorders import RECORDERS

EPOCHS, STEPS = 5, 20
LAST = 50
"""The step after which a training that does not end well ends: in its third epoch."""

FIRST = 100_003
"""The first point's number: none is an epoch, a step or a count of bytes, and a 32-bit float holds each exactly."""

SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}


class Emitting(Tiny):
    """Logs four numbers a step, two an epoch, two a validation, six a test.

    Args:
        file: Where each is noted first.
        how: How the training ends.
    """

    def __init__(self, file: Path, how: str) -> None:
        super().__init__()
        self.emitted = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.number = FIRST
        self.how = how
        self.done = 0

    def training_step(self, batch: list[Tensor]) -> Tensor:
        ended = self.done == LAST and self._end()
        self.done += 1
        loss = self.layer(batch[0]).square().mean()
        if not ended:
            self._emit(*METRICS, on_step=True, on_epoch=False)
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        """Log nothing: the end of the validation does."""

    test_step = validation_step

    def on_train_epoch_end(self) -> None:
        self._emit("delta", "epsilon")

    def on_validation_epoch_end(self) -> None:
        self._emit("val_loss", "val_delta")

    def on_test_epoch_end(self) -> None:
        self._emit(*(f"test_{name}" for name in ("loss", "one", "two", "three", "four", "five")))

    def _emit(self, *names: str, **how: bool) -> None:
        for name in names:
            os.write(self.emitted, f"{self.number}\n".encode())
            self.log(name, float(self.number), **how)
            self.number += 1

    def _end(self) -> bool:
        """End in the way that was asked for; returns whether the training ends soon."""
        if self.how == "exception":
            raise RuntimeError("A step that fails")
        if self.how in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.how])
            return True
        return False


def main(recorder: str, folder: Path, how: str) -> None:
    """Train once, or twice with a test."""
    module = Emitting(folder / "emitted.txt", how)
    with RECORDERS[recorder](folder, False) as arguments:
        for last in (False, True) if how == "fit + fit + test" else (False,):
            following: dict[str, Any] = {"max_epochs": EPOCHS, "num_sanity_val_steps": 0, **arguments}
            training = trainer(folder, **following)
            training.fit(module, batches(STEPS), batches(1))
            if last:
                training.test(module, batches(1), verbose=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
