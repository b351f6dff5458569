"""How fast a training goes, how long it will take, and when it is time for the next status."""

from __future__ import annotations

import sys
from time import monotonic

from deriva_ml_core.training.options import TrainingOptions

__all__ = ["FitTimer", "peak_memory"]


class FitTimer:
    """The clock of one fit.

    Args:
        options: How far apart statuses are.
        epochs: The number of the last epoch; None where nobody knows.
    """

    def __init__(self, options: TrainingOptions, epochs: int | None = None) -> None:
        self._options = options
        self._epochs_done = 0
        self._started_at = self._epoch_started_at = monotonic()
        self._last_status_at = -float("inf")
        self.epochs = epochs

    @property
    def epochs_done(self) -> int:
        """Epochs that have ended in this fit."""
        return self._epochs_done

    def end_epoch(self, epoch: int) -> tuple[float, float | None]:
        """Note an epoch's end.

        Returns:
            Seconds that it took, and seconds until the last epoch ends; None where nobody knows, or none is left.
        """
        now = monotonic()
        seconds, self._epoch_started_at, self._epochs_done = now - self._epoch_started_at, now, self._epochs_done + 1
        if self.epochs is None or epoch >= self.epochs:
            return seconds, None
        return seconds, (now - self._started_at) / self._epochs_done * (self.epochs - epoch)

    def seconds_since_last_epoch(self) -> float:
        """Seconds since the last epoch ended."""
        return monotonic() - self._epoch_started_at

    def should_report_epoch(self, epoch: int) -> bool:
        """Whether the status of an epoch that has ended is due, and note that it is told then."""
        last = self.epochs is not None and epoch >= self.epochs
        return (last or epoch % self._options.every_n_epochs == 0) and self._check_interval(force=last)

    def should_report_step(self, step: int) -> bool:
        """Whether the status of a step is due, and note that it is told then."""
        every = self._options.every_n_steps
        return every is not None and step % every == 0 and self._check_interval(force=False)

    def _check_interval(self, *, force: bool) -> bool:
        if not self._options.min_interval:
            return True
        now = monotonic()
        if not force and now - self._last_status_at < self._options.min_interval:
            return False
        self._last_status_at = now
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
