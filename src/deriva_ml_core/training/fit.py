"""One fit: its pace, its checkpoints, and what is told and kept of its epochs and steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, SupportsFloat

from deriva_ml_core.models import MetricSummary, Progress
from deriva_ml_core.scores import monitored, summed_up
from deriva_ml_core.training.checkpoints import Checkpoints, Moment
from deriva_ml_core.training.metrics import as_floats
from deriva_ml_core.training.options import TrainingOptions
from deriva_ml_core.training.pace import Pace, peak_memory
from deriva_ml_core.training.record import Record
from deriva_ml_core.training.sparing import spared
from deriva_ml_core.training.wording import epoch_message, step_message

__all__ = ["Fit"]

log = logging.getLogger(__name__)


@dataclass
class Fit:
    """A fit of an execution.

    Args:
        number: Its number among the fits of its execution, from 1.
        options: What is told and kept.
        record: The files that it writes to.
        checkpoints: Its checkpoints.
        pace: Its clock.
        say: Tells a status: its words, and the same as numbers.
    """

    number: int
    options: TrainingOptions
    record: Record
    checkpoints: Checkpoints
    pace: Pace
    say: Callable[[str, Progress | None], None]
    is_open: bool = True
    """Whether it has not ended yet."""
    _untold: Callable[[], None] | None = field(default=None, repr=False)
    _between: dict[tuple[str, str], MetricSummary] = field(default_factory=dict, repr=False)
    """Where the metrics stand of the epochs since the last that had a status."""

    def is_logged(self, step: int) -> bool:
        """Whether the metrics of a step are kept."""
        every = self.options.log_every_n_steps
        return every is not None and step % every == 0

    def end_step(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep a step's metrics and tell its status, each where it is due."""
        values, _ = as_floats(metrics)
        if self.is_logged(step):
            self._keep_step(step, epoch, values)
        if self.pace.is_time_in_step(step):
            progress = Progress(epoch=epoch, epochs=self.pace.epochs, step=step, metrics=values, **self._sides(values))
            self.say(step_message(progress), progress)

    def end_validation(self, step: int, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep the metrics of a validation within an epoch."""
        values, _ = as_floats(metrics)
        self._keep_step(step, epoch, values)

    def end_epoch(
        self,
        epoch: int,
        metrics: Mapping[str, SupportsFloat],
        step: int | None,
        samples: int | None,
        learning_rates: Mapping[str, float] | None,
    ) -> None:
        """Keep an epoch's metrics, and tell its status where one is due; else the fit's end does if it is the last."""
        seconds, left = self.pace.end_epoch(epoch)
        values, others = as_floats(metrics)
        if others:
            log.warning("Epoch %d: %s left out, for they are no single numbers.", epoch, ", ".join(others))
        more: dict[str, object] = {"seconds": round(seconds, 6), "peak_memory": peak_memory()}
        if samples and seconds:
            more["samples_per_second"] = round(samples / seconds, 3)
        if learning_rates:
            more["learning_rates"] = dict(learning_rates)
        with spared(f"keep the metrics of epoch {epoch}"):
            self.record.append("fit", "epoch", self.number, epoch, step, values, more)
        epochs = self.pace.epochs
        sides = self._sides(values)
        progress = Progress(epoch=epoch, epochs=epochs, step=step, metrics=values, seconds=seconds, left=left, **sides)
        message = epoch_message(progress, seconds, left)
        self._untold = None
        if self.pace.is_time(epoch):
            self._between = {}
            self.say(message, progress)
        else:
            self._between |= summed_up(self._between, progress)
            self._untold = lambda: self.say(message, progress)

    def _sides(self, values: Mapping[str, float]) -> dict[str, Any]:
        """What a status tells beside the values: which are the better ones, and the best of epochs without a status."""
        found: dict[str, Any] = {}
        mode = self.options.mode
        if mode is not None and (score := monitored(values, self.options.monitor, mode)) is not None:
            found["modes"] = {score.name: mode}
        if self._between:
            stood = ((name, each) for (_, name), each in self._between.items() if name in values)
            found["bests"] = {name: (each.best, each.best_at) for name, each in stood if each.best is not None}
        return found

    def register(self, moment: Moment, suffix: str) -> Path | None:
        """Register a checkpoint; None where it is not kept, or could not be registered."""
        with spared(f"register the checkpoint of epoch {moment.epoch}"):
            return self.checkpoints.register(moment, suffix)
        return None

    def begin(self, facts: Mapping[str, object]) -> None:
        """Keep how the fit is set up.

        Args:
            facts: What is known of that.
        """
        began = datetime.now(UTC).isoformat()
        self.record.hold(self.number, {"began": began, "epochs": self.pace.epochs, **facts})

    def end(self, outcome: str) -> None:
        """Tell what is untold, mark the best and the last checkpoint, and keep how the fit ended; only once.

        Args:
            outcome: How, in words.
        """
        if not self.is_open:
            return
        self.is_open = False
        if self._untold is not None:
            self._untold()
        with spared("tell the best and the last checkpoint apart"):
            self.checkpoints.finish()
        best = self.checkpoints.best
        facts = {
            "ended": datetime.now(UTC).isoformat(),
            "outcome": outcome,
            "epochs_done": self.pace.done,
            "best": best and {"epoch": best[0], "metric": best[1].name, "value": best[1].value},
        }
        with spared("keep how the fit ended"):
            self.record.hold(self.number, facts)

    def _keep_step(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        with spared(f"keep the metrics of step {step}"):
            self.record.append("fit", "step", self.number, epoch, step, values)
