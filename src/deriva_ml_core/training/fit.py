"""One fit: its pace, its checkpoints, and what is told and kept of its epochs and steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, SupportsFloat

from deriva_ml_core.models import MetricSummary, Progress
from deriva_ml_core.scores import select_monitored, update_summaries
from deriva_ml_core.training.checkpoints import CheckpointInfo, Checkpoints
from deriva_ml_core.training.metrics import extract_floats
from deriva_ml_core.training.options import TrainingOptions
from deriva_ml_core.training.pace import FitTimer, peak_memory
from deriva_ml_core.training.record import TrainingFiles
from deriva_ml_core.training.sparing import log_failure
from deriva_ml_core.training.wording import epoch_message, step_message

__all__ = ["Fit"]

log = logging.getLogger(__name__)


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
