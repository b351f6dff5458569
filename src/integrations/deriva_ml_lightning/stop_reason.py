"""Text that says why a Lightning fit ended before its last epoch."""

from __future__ import annotations

import math
from typing import Any

from deriva_ml_lightning.compat import find_callbacks, find_classes

__all__ = ["StopReason"]


class StopReason:
    """Tracks the EarlyStoppings of one fit, which do not record their best epoch themselves."""

    def __init__(self) -> None:
        self._best_scores: dict[int, tuple[float, int]] = {}

    def record_epoch(self, trainer: Any, epoch: int) -> None:
        """Record the best scores after an epoch."""
        for each in _find_early_stoppings(trainer):
            score = float(each.best_score)
            if id(each) not in self._best_scores or self._best_scores[id(each)][0] != score:
                self._best_scores[id(each)] = (score, epoch)

    def describe(self, trainer: Any) -> str:
        """Return why an ending fit ends before its last epoch; empty if it does not."""
        if trainer.fast_dev_run:
            return "fast_dev_run: a test of the code, not a training"
        epochs, done = trainer.max_epochs, trainer.current_epoch
        if epochs is not None and 0 <= epochs <= done:
            return ""
        if trainer.should_stop:
            return (
                self._describe_early_stopping(trainer) or _describe_time_limit(trainer) or "trainer.should_stop was set"
            )
        steps = trainer.max_steps
        if steps is not None and 0 <= steps <= trainer.global_step and epochs is not None and epochs >= 0:
            return f"max_steps={steps} reached"
        return ""

    def _describe_early_stopping(self, trainer: Any) -> str:
        for each in _find_early_stoppings(trainer):
            has_stopped = each.wait_count >= each.patience or getattr(each, "stopping_reason_message", None)
            if has_stopped and each.stopped_epoch + 1 == trainer.current_epoch:
                reason = f"{_early_stopping_message(each)}{self._format_best(each)}"
                return f"early stopping in epoch {each.stopped_epoch + 1}: {reason}"
        return ""

    def _format_best(self, stopping: Any) -> str:
        score, epoch = self._best_scores.get(id(stopping), (float(stopping.best_score), None))
        if not math.isfinite(score):  # no finite score yet
            return ""
        return f" (best {score:.4g}{'' if epoch is None else f' in epoch {epoch}'}, patience {stopping.patience})"


def _early_stopping_message(stopping: Any) -> str:
    if stopping.wait_count >= stopping.patience:
        return f"{stopping.monitor} did not improve in {stopping.wait_count} checks"
    message = getattr(stopping, "stopping_reason_message", None) or f"{stopping.monitor} met its limit"
    return str(message).partition(" Signaling")[0].rstrip(".")


def _describe_time_limit(trainer: Any) -> str:
    for each in find_callbacks(trainer, *find_classes("callbacks", "Timer")):
        left = each.time_remaining()
        if left is not None and left <= 0:
            return "max_time reached"
    return ""


def _find_early_stoppings(trainer: Any) -> list[Any]:
    return find_callbacks(trainer, *find_classes("callbacks", "EarlyStopping"))
