"""One fit of Keras: its steps and samples, its checkpoints, and why it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from deriva_ml_core.training import TrainingReporter
from deriva_ml_keras.checkpointing import UserCheckpoints
from deriva_ml_keras.resuming import Backups
from deriva_ml_keras.stopping import why_stopped
from deriva_ml_keras.surroundings import Surroundings

__all__ = ["Fit", "steps_done"]

log = logging.getLogger(__name__)


def steps_done(model: Any) -> int | None:
    """Optimizer steps of a model so far; None where it has no optimizer that counts."""
    try:
        return int(model.optimizer.iterations)
    except (AttributeError, TypeError, ValueError):  # none, or one of somebody's own kind
        return None


class Fit:
    """Tells a reporter how one fit goes.

    Args:
        model: The model.
        reporter: Whom to tell.
        around: What stands around the callback.
        epochs: The number of the last epoch; None where nobody knows.
    """

    def __init__(self, model: Any, reporter: TrainingReporter, around: Surroundings, epochs: int | None) -> None:
        self._model = model
        self._epochs = epochs
        self._reporter = reporter
        self._around = around
        # who asks for others by name does not want these
        self._users = UserCheckpoints(around.callbacks if reporter.options.checkpoints is None else ())
        self._backups = Backups(around.callbacks)
        self._at_once = int(getattr(model, "steps_per_execution", 1) or 1)
        self._gathered = int(getattr(getattr(model, "optimizer", None), "gradient_accumulation_steps", 1) or 1)
        self._watches_steps = self._users.are_kept_in_steps or self._backups.are_kept_in_steps
        self._loss: SupportsFloat | None = None
        self._epoch = 0
        self._before = 0
        """Batches of the epochs before."""
        self._batches = 0

    @property
    def is_managed(self) -> bool:
        """Whether the user's own callbacks keep checkpoints."""
        return self._users.are_there

    def take_up(self) -> None:
        """Go on from the run that a backup is of, where there is one."""
        self._backups.take_up(self._reporter)

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, from 1."""
        self.look()
        self._epoch, self._batches = epoch, 0
        done = steps_done(self._model)
        self._before = self._before if done is None else done * self._gathered

    def begin_batch(self, batch: int) -> None:
        """Count a batch, from 0; Keras may train several at once."""
        self._batches = batch + self._at_once
        if self._watches_steps:
            self._users.look_in_step(self._reporter)
            self._backups.look(self._reporter)

    def end_step(self, batch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Tell how a step went, where that is due."""
        step, rest = divmod(self._before + batch + 1, self._gathered)
        if rest:
            return
        if self._reporter.wants_step(step):
            self._reporter.end_step(step, self._epoch, metrics)
        if self._reporter.checkpoints.due_in_step(step):
            path = self._reporter.checkpoint_path(self._epoch, self._suffix, metrics, step=step, in_step=True)
            if path is not None:
                with self._reporter.writing_checkpoint(path):
                    self._reporter.checkpoints.write(path, self._write)

    def end_epoch(self, epoch: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Tell how an epoch went, and keep its checkpoint."""
        done = steps_done(self._model)
        if done is None:
            done = self._before = self._before + self._batches
        self._reporter.save_checkpoint(epoch, self._suffix, self._write, metrics, step=done)
        self._reporter.end_epoch(
            epoch,
            metrics,
            step=done,
            samples=self._around.samples(self._batches),
            learning_rates=learning_rates(self._model, metrics),
        )
        self._loss = metrics.get("loss")
        self._users.end_epoch(metrics)
        self.look()

    def end(self) -> None:
        """Tell that the fit has ended."""
        self._users.look(self._reporter)
        try:
            why = why_stopped(
                self._around.callbacks,
                epoch=self._epoch,
                epochs=self._epochs,
                loss=self._loss,
                is_stopped=bool(self._model.stop_training),
            )
        except Exception:  # a callback of the user's own kind may hold anything
            log.warning("Why the fit ended is not told.", exc_info=True)
            why = ""
        self._reporter.end_fit(why)

    def look(self) -> None:
        """Take up what the user's own callbacks have kept since."""
        self._users.look(self._reporter)
        self._backups.look(self._reporter)

    @property
    def _suffix(self) -> str:
        return ".weights.h5" if self._reporter.options.weights_only else ".keras"

    @property
    def _write(self) -> Callable[[Path], object]:
        model = self._model
        return model.save_weights if self._reporter.options.weights_only else model.save  # type: ignore[no-any-return]


def learning_rates(model: Any, metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """The learning rates of an epoch by optimizer.

    Where a callback that changes it at the epoch's end has logged it, that is the one which the epoch had.
    """
    try:
        return _learning_rates(getattr(model, "optimizer", None), metrics)
    except Exception:
        log.debug("The learning rates are not told.", exc_info=True)
        return {}


def _learning_rates(optimizer: Any, metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    optimizers = getattr(optimizer, "optimizers", None) or ([] if optimizer is None else [optimizer])
    rates: dict[str, float] = {}
    for number, each in enumerate(optimizers, 1):
        name = type(getattr(each, "inner_optimizer", each)).__name__
        logged = metrics.get("learning_rate" if len(optimizers) == 1 else f"learning_rate_{each.name}")
        value = float(each.learning_rate if logged is None else logged)
        rates[name if name not in rates else f"{name}-{number}"] = value
    return rates
