"""One fit of Keras: its steps and samples, its checkpoints, and why it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from deriva_ml_core.training import TrainingReporter
from deriva_ml_keras.backup_restore import Backups
from deriva_ml_keras.call_context import CallContext
from deriva_ml_keras.checkpoints import UserCheckpoints
from deriva_ml_keras.stop_reason import find_stop_reason

__all__ = ["FitTracker", "count_optimizer_steps"]

log = logging.getLogger(__name__)


def count_optimizer_steps(model: Any) -> int | None:
    """Optimizer steps of a model so far; None where it has no optimizer that counts."""
    try:
        return int(model.optimizer.iterations)
    except (AttributeError, TypeError, ValueError):  # none, or one of somebody's own kind
        return None


class FitTracker:
    """Tells a reporter how one fit goes.

    Args:
        model: The model.
        reporter: Whom to tell.
        context: What stands around the callback.
        epochs: The number of the last epoch; None where nobody knows.
    """

    def __init__(self, model: Any, reporter: TrainingReporter, context: CallContext, epochs: int | None) -> None:
        self._model = model
        self._epochs = epochs
        self._reporter = reporter
        self._context = context
        # who asks for others by name does not want these
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
        """Batches of the epochs before."""
        self._epoch_batches = 0

    @property
    def is_managed(self) -> bool:
        """Whether the user's own callbacks keep checkpoints."""
        return self._user_checkpoints.has_callbacks

    def resume_from_backup(self) -> None:
        """Go on from the run that a backup is of, where there is one."""
        self._backups.resume_from_backup(self._reporter)

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, from 1."""
        self.scan_callbacks()
        self._epoch, self._epoch_batches = epoch, 0
        done = count_optimizer_steps(self._model)
        self._previous_batches = self._previous_batches if done is None else done * self._accumulation_steps

    def begin_batch(self, batch: int) -> None:
        """Count a batch, from 0; Keras may train several at once."""
        self._epoch_batches = batch + self._steps_per_execution
        if self._should_scan_steps:
            self._user_checkpoints.scan_within_epoch(self._reporter)
            self._backups.update_run_files(self._reporter)

    def end_step(self, batch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Tell how a step went, where that is due."""
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
        """Tell how an epoch went, and keep its checkpoint."""
        done = count_optimizer_steps(self._model)
        if done is None:
            done = self._previous_batches = self._previous_batches + self._epoch_batches
        self._reporter.save_checkpoint(epoch, self._suffix, self._save_function, metrics, step=done)
        self._reporter.end_epoch(
            epoch,
            metrics,
            step=done,
            samples=self._context.count_samples(self._epoch_batches),
            learning_rates=learning_rates(self._model, metrics),
        )
        self._loss = metrics.get("loss")
        self._user_checkpoints.end_epoch(metrics)
        self.scan_callbacks()

    def end(self) -> None:
        """Tell that the fit has ended."""
        self._user_checkpoints.scan(self._reporter)
        try:
            why = find_stop_reason(
                self._context.callbacks,
                epoch=self._epoch,
                epochs=self._epochs,
                loss=self._loss,
                is_stopped=bool(self._model.stop_training),
            )
        except Exception:  # a callback of the user's own kind may hold anything
            log.warning("Why the fit ended is not told.", exc_info=True)
            why = ""
        self._reporter.end_fit(why)

    def scan_callbacks(self) -> None:
        """Take up what the user's own callbacks have kept since."""
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
    """The learning rates of an epoch by optimizer.

    Where a callback that changes it at the epoch's end has logged it, that is the one which the epoch had.
    """
    try:
        return _read_learning_rates(getattr(model, "optimizer", None), metrics)
    except Exception:
        log.debug("The learning rates are not told.", exc_info=True)
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
