"""One fit: timing, checkpoints, and what is reported and recorded for its epochs and steps."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, SupportsFloat

from deriva_ml_core._text import format_duration
from deriva_ml_core.metric_modes import Monitor, update_summaries
from deriva_ml_core.models import MetricSummary, Progress
from deriva_ml_core.training.checkpoints import CheckpointInfo, Checkpoints
from deriva_ml_core.training.files import TrainingFiles
from deriva_ml_core.training.metrics_file import extract_floats
from deriva_ml_core.training.options import TrainingOptions

__all__ = ["log_failure", "Fit", "FitTimer", "epoch_message", "peak_memory", "stage_message", "step_message"]

log = logging.getLogger(__name__)


class FitTimer:
    """Timer of one fit, which decides when a status is due.

    Args:
        options: Options with the intervals between status updates.
        epochs: Total number of epochs, or None if unknown.
    """

    def __init__(self, options: TrainingOptions, epochs: int | None = None) -> None:
        self._options = options
        self._epochs_done = 0
        self._started_at = self._epoch_started_at = monotonic()
        self._last_status_at = -float("inf")
        self.epochs = epochs

    @property
    def epochs_done(self) -> int:
        """Number of epochs that have ended in this fit."""
        return self._epochs_done

    def end_epoch(self, epoch: int) -> tuple[float, float | None]:
        """Record the end of an epoch.

        Returns:
            Duration of the epoch in seconds, and estimated seconds until the fit ends; None if unknown or after the
            last epoch.
        """
        now = monotonic()
        seconds, self._epoch_started_at, self._epochs_done = now - self._epoch_started_at, now, self._epochs_done + 1
        if self.epochs is None or epoch >= self.epochs:
            return seconds, None
        return seconds, (now - self._started_at) / self._epochs_done * (self.epochs - epoch)

    def seconds_since_last_epoch(self) -> float:
        """Return the seconds since the last epoch ended."""
        return monotonic() - self._epoch_started_at

    def should_report_epoch(self, epoch: int) -> bool:
        """Whether a status is due for an epoch that has ended; if so, the interval starts anew."""
        last = self.epochs is not None and epoch >= self.epochs
        return (last or epoch % self._options.every_n_epochs == 0) and self._check_interval(force=last)

    def should_report_step(self, step: int) -> bool:
        """Whether a status is due for a step; if so, the interval starts anew."""
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
    """Return the peak memory of this process in bytes: of its GPU if it uses one, else RAM.

    Returns:
        The number of bytes; None if the system does not report it.
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


@dataclass
class Fit:
    """A fit of an execution.

    Args:
        number: Number of the fit in its execution, from 1.
        options: Options of the training.
        files: Training files of the execution.
        checkpoints: Checkpoints of the fit.
        monitor: The metric that decides which checkpoint is the best.
        timer: Timer of the fit.
        report_status: Reports a status, with its message and its progress.
    """

    number: int
    options: TrainingOptions
    files: TrainingFiles
    checkpoints: Checkpoints
    monitor: Monitor
    timer: FitTimer
    report_status: Callable[[str, Progress | None], None]
    is_open: bool = True
    """Whether the fit has not ended."""
    _pending_status: Callable[[], None] | None = field(default=None, repr=False)
    _pending_validation: Callable[[], None] | None = field(default=None, repr=False)
    """Reports the last validation of an epoch that has not ended."""
    _unreported_metrics: dict[tuple[str, str], MetricSummary] = field(default_factory=dict, repr=False)
    """Summaries of the metrics of the epochs since the last status."""

    def should_log_step(self, step: int) -> bool:
        """Whether the metrics of a step are written to the metrics file."""
        every = self.options.log_every_n_steps
        return every is not None and step % every == 0

    def end_step(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Log the metrics of a step and report its status, each if due."""
        values, _ = extract_floats(metrics)
        if self.should_log_step(step):
            self._log_step(step, epoch, values)
        if self.timer.should_report_step(step):
            progress = Progress(
                epoch=epoch, epochs=self.timer.epochs, step=step, metrics=values, **self._extra_progress_fields(values)
            )
            self.report_status(step_message(progress), progress)

    def end_validation(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Log the metrics of a validation within an epoch."""
        values, _ = extract_floats(metrics)
        self.monitor.observe(values)
        self._log_step(step, epoch, values)
        fields = self._extra_progress_fields(values)
        progress = Progress(epoch=epoch, epochs=self.timer.epochs, step=step, metrics=values, **fields)
        self._pending_validation = lambda: self.report_status(step_message(progress), progress)

    def end_epoch(
        self,
        epoch: int,
        metrics: Mapping[str, SupportsFloat],
        step: int | None,
        samples: int | None,
        learning_rates: Mapping[str, float] | None,
    ) -> None:
        """Log the metrics of an epoch and report its status if due; the last one is reported when the fit ends."""
        seconds, left = self.timer.end_epoch(epoch)
        values, others = extract_floats(metrics)
        self.monitor.observe(values)
        if others:
            log.warning("Epoch %d: skipped metrics that are not single numbers: %s.", epoch, ", ".join(others))
        extra: dict[str, object] = {"seconds": round(seconds, 6), "peak_memory": peak_memory()}
        if samples and seconds:
            extra["samples_per_second"] = round(samples / seconds, 3)
        if learning_rates:
            extra["learning_rates"], _ = extract_floats(learning_rates)
        with log_failure(f"log the metrics of epoch {epoch}"):
            self.files.append("fit", "epoch", self.number, epoch, step, values, extra)
        epochs = self.timer.epochs
        fields = self._extra_progress_fields(values)
        progress = Progress(epoch=epoch, epochs=epochs, step=step, metrics=values, seconds=seconds, left=left, **fields)
        message = epoch_message(progress, seconds, left)
        self._pending_status = self._pending_validation = None
        if self.timer.should_report_epoch(epoch):
            self._unreported_metrics = {}
            self.report_status(message, progress)
        else:
            self._unreported_metrics |= update_summaries(self._unreported_metrics, progress)
            self._pending_status = lambda: self.report_status(message, progress)

    def _extra_progress_fields(self, values: Mapping[str, float]) -> dict[str, Any]:
        """Return the fields of a status besides the values: modes of metrics, best values of unreported epochs."""
        fields: dict[str, Any] = {}
        if modes := self.monitor.known_modes(values):
            fields["modes"] = modes
        if self._unreported_metrics:
            summaries = ((name, each) for (_, name), each in self._unreported_metrics.items() if name in values)
            fields["bests"] = {name: (each.best, each.best_at) for name, each in summaries if each.best is not None}
        return fields

    def register(self, info: CheckpointInfo, suffix: str) -> Path | None:
        """Register a checkpoint and return its path; None if it is not kept or could not be registered."""
        with log_failure(f"register the checkpoint of epoch {info.epoch}"):
            return self.checkpoints.register(info, suffix)
        return None

    def begin(self, fields: Mapping[str, object]) -> None:
        """Record the start of the fit.

        Args:
            fields: Fields for the fit's summary, such as its settings.
        """
        began = datetime.now(UTC).isoformat()
        self.files.queue_summary(self.number, {"began": began, "epochs": self.timer.epochs, **fields})

    def end(self, outcome: str) -> None:
        """Report a pending status, mark the best and the last checkpoint, and record the outcome; only once.

        Args:
            outcome: Text that says how the fit ended.
        """
        if not self.is_open:
            return
        self.is_open = False
        self.monitor.log_choice()
        for report in filter(None, (self._pending_status, self._pending_validation)):
            report()
        with log_failure("mark the best and the last checkpoint"):
            self.checkpoints.finish()
        best = self.checkpoints.best
        with log_failure("record the outcome of the fit"):
            fields = {
                "ended": datetime.now(UTC).isoformat(),
                "outcome": outcome,
                "epochs_done": self.timer.epochs_done,
                "best": best and {"epoch": best[0], "metric": best[1].name, "value": best[1].value},
                "best_checkpoint": self.files.describe_best(self.checkpoints.best_checkpoint),
                "monitor": self.monitor.to_summary(),
            }
            self.files.queue_summary(self.number, fields)

    def _log_step(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        with log_failure(f"log the metrics of step {step}"):
            self.files.append("fit", "step", self.number, epoch, step, values)


MAX_STATUS_METRICS = 8
"""Maximum number of metrics in a status message; the others are in its `Progress` and in the metrics file."""

STAGE_NAMES: Mapping[str, str] = {"fit": "Fit", "validate": "Validation", "test": "Test", "predict": "Prediction"}


def epoch_message(progress: Progress, seconds: float, left: float | None) -> str:
    """Return the message for an epoch, such as ``Epoch 3/10: loss=0.1234, val_loss=0.1456 (12.3 s, 2 min left)``.

    Args:
        progress: Epoch and metric values.
        seconds: Duration of the epoch in seconds.
        left: Estimated seconds until the fit ends; None if unknown or after the last epoch.
    """
    remaining = "" if left is None else f", {format_duration(left, digits=0)} left"
    return f"{_format_epoch(progress)}{_format_metrics(progress)} ({format_duration(seconds)}{remaining})"


def step_message(progress: Progress) -> str:
    """Return the message for a step, such as ``Epoch 3/10, step 1200: loss=0.1234``."""
    return f"{_format_epoch(progress)}, step {progress.step}{_format_metrics(progress)}"


def stage_message(progress: Progress, seconds: float) -> str:
    """Return the message for a stage outside a fit, such as ``Test: test_accuracy=0.98 (1.2 s)``."""
    return f"{STAGE_NAMES.get(progress.stage, progress.stage)}{_format_metrics(progress)} ({format_duration(seconds)})"


def _format_epoch(progress: Progress) -> str:
    return f"Epoch {progress.epoch}{'' if progress.epochs is None else f'/{progress.epochs}'}"


def _format_metrics(progress: Progress) -> str:
    training_first = sorted(progress.metrics.items(), key=lambda metric: metric[0].startswith("val"))
    parts = [f"{name}={value:.4g}" for name, value in training_first]
    if len(parts) > MAX_STATUS_METRICS:
        parts = [*parts[:MAX_STATUS_METRICS], f"{len(parts) - MAX_STATUS_METRICS} more"]
    return f": {', '.join(parts)}" if parts else ""


@contextmanager
def log_failure(task: str) -> Iterator[None]:
    """Log an exception as a warning instead of raising it.

    Args:
        task: The task as an imperative phrase, which follows "Failed to" in the message.
    """
    try:
        yield
    except Exception:
        log.warning("Failed to %s; training continues.", task, exc_info=True)
