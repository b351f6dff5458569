"""How fast a training goes, how long it will take, and when it is time for the next status."""

from __future__ import annotations

import sys
from time import monotonic

from deriva_ml_core.training.options import TrainingOptions

__all__ = ["Pace", "peak_memory"]


class Pace:
    """The clock of one fit.

    Args:
        options: How far apart statuses are.
        epochs: The number of the last epoch; None where nobody knows.
    """

    def __init__(self, options: TrainingOptions, epochs: int | None = None) -> None:
        self._options = options
        self._done = 0
        self._began = self._mark = monotonic()
        self._told = -float("inf")
        self.epochs = epochs

    @property
    def done(self) -> int:
        """Epochs that have ended in this fit."""
        return self._done

    def end_epoch(self, epoch: int) -> tuple[float, float | None]:
        """Note an epoch's end.

        Returns:
            Seconds that it took, and seconds until the last epoch ends; None where nobody knows, or none is left.
        """
        now = monotonic()
        seconds, self._mark, self._done = now - self._mark, now, self._done + 1
        if self.epochs is None or epoch >= self.epochs:
            return seconds, None
        return seconds, (now - self._began) / self._done * (self.epochs - epoch)

    def since_epoch(self) -> float:
        """Seconds since the last epoch ended."""
        return monotonic() - self._mark

    def is_time(self, epoch: int) -> bool:
        """Whether the status of an epoch that has ended is due, and note that it is told then."""
        last = self.epochs is not None and epoch >= self.epochs
        return (last or epoch % self._options.every_n_epochs == 0) and self._take_turn(always=last)

    def is_time_in_step(self, step: int) -> bool:
        """Whether the status of a step is due, and note that it is told then."""
        every = self._options.every_n_steps
        return every is not None and step % every == 0 and self._take_turn(always=False)

    def _take_turn(self, *, always: bool) -> bool:
        if not self._options.min_interval:
            return True
        now = monotonic()
        if not always and now - self._told < self._options.min_interval:
            return False
        self._told = now
        return True


def peak_memory() -> int | None:
    """The most memory in bytes that this process has had so far: on its GPU where it uses one, else in RAM.

    Returns:
        None where the system does not tell.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return None
    # getrusage(2): kilobytes on Linux, bytes on macOS
    return int(getrusage(RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
