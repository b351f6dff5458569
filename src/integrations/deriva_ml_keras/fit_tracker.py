"""One Keras fit: its steps and samples, its checkpoints, and why it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from deriva_ml_core.training import TrainingReporter
from deriva_ml_keras.backup_restore import Backups
from deriva_ml_keras.call_context import CallContext
from deriva_ml_keras.checkpoints import UserCheckpoints, add_framework_knowledge
from deriva_ml_keras.stop_reason import find_stop_reason

__all__ = ["FitTracker", "count_optimizer_steps"]

log = logging.getLogger(__name__)


def count_optimizer_steps(model: Any) -> int | None:
    """Return the optimizer steps of a model so far; None if its optimizer does not count them."""
    try:
        return int(model.optimizer.iterations)
    except (AttributeError, TypeError, ValueError):  # no optimizer, or a custom one
        return None


class FitTracker:
    """Reports the progress of one fit.

    Args:
        model: The model.
        reporter: Reporter of the training.
        context: Context of the Keras call.
        epochs: Total number of epochs, or None if unknown.
    """

    def __init__(self, model: Any, reporter: TrainingReporter, context: CallContext, epochs: int | None) -> None:
        self._model = model
        self._epochs = epochs
        self._reporter = reporter
        self._context = context
        # the option checkpoints replaces those of the user's callbacks
        self._user_checkpoints = UserCheckpoints(context.callbacks if reporter.options.checkpoints is None else ())
        self._backups = Backups(context.callbacks)
        self._steps_per_execution = int(getattr(model, "steps_per_execution", 1) or 1)
        self._accumulation_steps = int(
            getattr(getattr(model, "optimizer", None), "gradient_accumulation_steps", 1) or 1
        )
        self._should_scan_steps = self._user_checkpoints.has_step_saves or self._backups.has_step_saves
        self._loss: SupportsFloat | None = None
        self._epoch = 0
        self._previous_batches = 0
        """Batches of the previous epochs."""
        self._epoch_batches = 0
        self._validation: Mapping[str, SupportsFloat] | None = None
        """Metrics of the validation of an epoch that has not ended."""

    @property
    def is_managed(self) -> bool:
        """Whether the user's callbacks keep checkpoints."""
        return self._user_checkpoints.has_callbacks

    @property
    def epoch(self) -> int | None:
        """Number of the current epoch, from 1; None before the first one."""
        return self._epoch or None

    def resume_from_backup(self) -> None:
        """Resume the run of a backup, if there is one."""
        self._backups.resume_from_backup(self._reporter)

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, from 1."""
        self.scan_callbacks()
        self._epoch, self._epoch_batches, self._validation = epoch, 0, None
        steps = count_optimizer_steps(self._model)
        self._previous_batches = self._previous_batches if steps is None else steps * self._accumulation_steps

    def begin_batch(self, batch: int) -> None:
        """Count a batch, from 0; with ``steps_per_execution``, Keras trains several batches in one call."""
        self._epoch_batches = batch + self._steps_per_execution
        if self._should_scan_steps:
            self._user_checkpoints.scan_within_epoch(self._reporter)
            self._backups.update_run_files(self._reporter)

    def end_step(self, batch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Report a step and save its checkpoint, each if due."""
        step, rest = divmod(self._previous_batches + batch + 1, self._accumulation_steps)
        if rest:
            return
        if self._reporter.should_report_step(step):
            self._reporter.end_step(step, self._epoch, metrics)
        if self._reporter.checkpoints.is_due_at_step(step):
            path = self._reporter.checkpoint_path(self._epoch, self._suffix, metrics, step=step, in_step=True)
            if path is not None:
                with self._reporter.writing_checkpoint(path):
                    self._reporter.checkpoints.write(path, self._save_function)

    def end_epoch(self, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Report an epoch and save its checkpoint."""
        self._validation = None
        steps = count_optimizer_steps(self._model)
        if steps is None:
            steps = self._previous_batches = self._previous_batches + self._epoch_batches
        add_framework_knowledge(self._reporter, self._model, self._context.callbacks)  # metrics are built by now
        self._reporter.save_checkpoint(epoch, self._suffix, self._save_function, metrics, step=steps)
        self._reporter.end_epoch(
            epoch,
            metrics,
            step=steps,
            samples=self._context.count_samples(self._epoch_batches),
            learning_rates=learning_rates(self._model, metrics),
        )
        self._loss = metrics.get("loss")
        self._user_checkpoints.end_epoch(metrics)
        self.scan_callbacks()

    def end_validation(self, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep the metrics of a validation until the epoch ends, whose metrics include them."""
        self._validation = {f"val_{name}": value for name, value in metrics.items()}

    def interrupt(self) -> None:
        """Report what is left of a fit that an exception has ended."""
        self.scan_callbacks()
        if self._validation is not None:
            steps = count_optimizer_steps(self._model)
            add_framework_knowledge(self._reporter, self._model, self._context.callbacks)
            self._reporter.end_validation(
                self._previous_batches + self._epoch_batches if steps is None else steps, self._epoch, self._validation
            )

    def end(self) -> None:
        """Report the end of the fit."""
        self._user_checkpoints.scan(self._reporter)
        try:
            reason = find_stop_reason(
                self._context.callbacks,
                epoch=self._epoch,
                epochs=self._epochs,
                loss=self._loss,
                is_stopped=bool(self._model.stop_training),
            )
        except Exception:  # attributes of a custom callback may have any value
            log.warning("Failed to find out why the fit ended.", exc_info=True)
            reason = ""
        self._reporter.end_fit(reason)

    def scan_callbacks(self) -> None:
        """Record the checkpoints and backups that the user's callbacks have written."""
        self._user_checkpoints.scan(self._reporter)
        self._backups.update_run_files(self._reporter)

    @property
    def _suffix(self) -> str:
        return ".weights.h5" if self._reporter.options.weights_only else ".keras"

    @property
    def _save_function(self) -> Callable[[Path], object]:
        model = self._model
        return model.save_weights if self._reporter.options.weights_only else model.save  # type: ignore[no-any-return]


def learning_rates(model: Any, metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """Return the learning rates of an epoch by optimizer.

    A rate in the metrics takes precedence: a callback may have logged it and then changed it for the next epoch.
    """
    try:
        return _read_learning_rates(getattr(model, "optimizer", None), metrics)
    except Exception:
        log.debug("Failed to read the learning rates.", exc_info=True)
        return {}


def _read_learning_rates(optimizer: Any, metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    optimizers = getattr(optimizer, "optimizers", None) or ([] if optimizer is None else [optimizer])
    rates: dict[str, float] = {}
    for number, each in enumerate(optimizers, 1):
        name = type(getattr(each, "inner_optimizer", each)).__name__
        logged = metrics.get("learning_rate" if len(optimizers) == 1 else f"learning_rate_{each.name}")
        value = float(each.learning_rate if logged is None else logged)
        rates[name if name not in rates else f"{name}-{number}"] = value
    return rates
