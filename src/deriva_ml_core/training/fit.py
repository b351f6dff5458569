"""One fit: its pace, its checkpoints, and what is told and kept of its epochs and steps."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, SupportsFloat

from deriva_ml_core._text import format_duration
from deriva_ml_core.metric_modes import select_monitored, update_summaries
from deriva_ml_core.models import MetricSummary, Progress
from deriva_ml_core.training.best_effort import log_failure
from deriva_ml_core.training.checkpoints import CheckpointInfo, Checkpoints
from deriva_ml_core.training.files import TrainingFiles
from deriva_ml_core.training.metrics_file import extract_floats
from deriva_ml_core.training.options import TrainingOptions

__all__ = ["Fit", "FitTimer", "epoch_message", "peak_memory", "stage_message", "step_message"]

log = logging.getLogger(__name__)


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


@dataclass
class Fit:
    """A fit of an execution.

    Args:
        number: Its number among the fits of its execution, from 1.
        options: What is told and kept.
        files: The files that it writes to.
        checkpoints: Its checkpoints.
        timer: Its clock.
        report_status: Tells a status: its words, and the same as numbers.
    """

    number: int
    options: TrainingOptions
    files: TrainingFiles
    checkpoints: Checkpoints
    timer: FitTimer
    report_status: Callable[[str, Progress | None], None]
    is_open: bool = True
    """Whether it has not ended yet."""
    _pending_status: Callable[[], None] | None = field(default=None, repr=False)
    _unreported_metrics: dict[tuple[str, str], MetricSummary] = field(default_factory=dict, repr=False)
    """Where the metrics stand of the epochs since the last that had a status."""

    def should_log_step(self, step: int) -> bool:
        """Whether the metrics of a step are kept."""
        every = self.options.log_every_n_steps
        return every is not None and step % every == 0

    def end_step(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep a step's metrics and tell its status, each where it is due."""
        values, _ = extract_floats(metrics)
        if self.should_log_step(step):
            self._log_step(step, epoch, values)
        if self.timer.should_report_step(step):
            progress = Progress(
                epoch=epoch, epochs=self.timer.epochs, step=step, metrics=values, **self._extra_progress_fields(values)
            )
            self.report_status(step_message(progress), progress)

    def end_validation(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep the metrics of a validation within an epoch."""
        values, _ = extract_floats(metrics)
        self._log_step(step, epoch, values)

    def end_epoch(
        self,
        epoch: int,
        metrics: Mapping[str, SupportsFloat],
        step: int | None,
        samples: int | None,
        learning_rates: Mapping[str, float] | None,
    ) -> None:
        """Keep an epoch's metrics, and tell its status where one is due; else the fit's end does if it is the last."""
        seconds, left = self.timer.end_epoch(epoch)
        values, others = extract_floats(metrics)
        if others:
            log.warning("Epoch %d: %s left out, for they are no single numbers.", epoch, ", ".join(others))
        more: dict[str, object] = {"seconds": round(seconds, 6), "peak_memory": peak_memory()}
        if samples and seconds:
            more["samples_per_second"] = round(samples / seconds, 3)
        if learning_rates:
            more["learning_rates"] = dict(learning_rates)
        with log_failure(f"keep the metrics of epoch {epoch}"):
            self.files.append("fit", "epoch", self.number, epoch, step, values, more)
        epochs = self.timer.epochs
        sides = self._extra_progress_fields(values)
        progress = Progress(epoch=epoch, epochs=epochs, step=step, metrics=values, seconds=seconds, left=left, **sides)
        message = epoch_message(progress, seconds, left)
        self._pending_status = None
        if self.timer.should_report_epoch(epoch):
            self._unreported_metrics = {}
            self.report_status(message, progress)
        else:
            self._unreported_metrics |= update_summaries(self._unreported_metrics, progress)
            self._pending_status = lambda: self.report_status(message, progress)

    def _extra_progress_fields(self, values: Mapping[str, float]) -> dict[str, Any]:
        """What a status tells beside the values: which are the better ones, and the best of epochs without a status."""
        found: dict[str, Any] = {}
        mode = self.options.mode
        if mode is not None and (score := select_monitored(values, self.options.monitor, mode)) is not None:
            found["modes"] = {score.name: mode}
        if self._unreported_metrics:
            stood = ((name, each) for (_, name), each in self._unreported_metrics.items() if name in values)
            found["bests"] = {name: (each.best, each.best_at) for name, each in stood if each.best is not None}
        return found

    def register(self, info: CheckpointInfo, suffix: str) -> Path | None:
        """Register a checkpoint; None where it is not kept, or could not be registered."""
        with log_failure(f"register the checkpoint of epoch {info.epoch}"):
            return self.checkpoints.register(info, suffix)
        return None

    def begin(self, fields: Mapping[str, object]) -> None:
        """Keep how the fit is set up.

        Args:
            fields: What is known of that.
        """
        began = datetime.now(UTC).isoformat()
        self.files.queue_summary(self.number, {"began": began, "epochs": self.timer.epochs, **fields})

    def end(self, outcome: str) -> None:
        """Tell what is untold, mark the best and the last checkpoint, and keep how the fit ended; only once.

        Args:
            outcome: How, in words.
        """
        if not self.is_open:
            return
        self.is_open = False
        if self._pending_status is not None:
            self._pending_status()
        with log_failure("tell the best and the last checkpoint apart"):
            self.checkpoints.finish()
        best = self.checkpoints.best
        facts = {
            "ended": datetime.now(UTC).isoformat(),
            "outcome": outcome,
            "epochs_done": self.timer.epochs_done,
            "best": best and {"epoch": best[0], "metric": best[1].name, "value": best[1].value},
        }
        with log_failure("keep how the fit ended"):
            self.files.queue_summary(self.number, facts)

    def _log_step(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        with log_failure(f"keep the metrics of step {step}"):
            self.files.append("fit", "step", self.number, epoch, step, values)


MAX_STATUS_METRICS = 8
"""Metrics that a status names; the others are in its `Progress` and in the metrics file."""

STAGE_NAMES: Mapping[str, str] = {"fit": "Fit", "validate": "Validation", "test": "Test", "predict": "Prediction"}


def epoch_message(progress: Progress, seconds: float, left: float | None) -> str:
    """Say how an epoch went, such as ``Epoch 3/10: loss=0.1234, val_loss=0.1456 (12.3 s, 2 min left)``.

    Args:
        progress: The epoch and its values.
        seconds: How long the epoch took.
        left: Seconds until the last epoch ends; None where nobody knows, or no epoch is left.
    """
    to_go = "" if left is None else f", {format_duration(left, digits=0)} left"
    return f"{_format_epoch(progress)}{_format_metrics(progress)} ({format_duration(seconds)}{to_go})"


def step_message(progress: Progress) -> str:
    """Say how a step went, such as ``Epoch 3/10, step 1200: loss=0.1234``."""
    return f"{_format_epoch(progress)}, step {progress.step}{_format_metrics(progress)}"


def stage_message(progress: Progress, seconds: float) -> str:
    """Say how a stage beside the fit went, such as ``Test: test_accuracy=0.98 (1.2 s)``."""
    return f"{STAGE_NAMES.get(progress.stage, progress.stage)}{_format_metrics(progress)} ({format_duration(seconds)})"


def _format_epoch(progress: Progress) -> str:
    return f"Epoch {progress.epoch}{'' if progress.epochs is None else f'/{progress.epochs}'}"


def _format_metrics(progress: Progress) -> str:
    training_first = sorted(progress.metrics.items(), key=lambda metric: metric[0].startswith("val"))
    told = [f"{name}={value:.4g}" for name, value in training_first]
    if len(told) > MAX_STATUS_METRICS:
        told = [*told[:MAX_STATUS_METRICS], f"{len(told) - MAX_STATUS_METRICS} more"]
    return f": {', '.join(told)}" if told else ""
