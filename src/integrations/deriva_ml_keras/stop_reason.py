"""Text that says why a Keras fit ended before its last epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, SupportsFloat

import keras

__all__ = ["find_stop_reason"]


def find_stop_reason(
    callbacks: Iterable[Any], *, epoch: int, epochs: int | None, loss: SupportsFloat | None, is_stopped: bool
) -> str:
    """Return what ended a fit before its last epoch, and the epoch of restored weights.

    Args:
        callbacks: All callbacks of the fit.
        epoch: Last trained epoch, from 1.
        epochs: Number of epochs that were requested.
        loss: Loss of the last trained epoch; None if it has none.
        is_stopped: Whether the model's ``stop_training`` is set.

    Returns:
        The text; empty if the fit ran to its end.
    """
    callbacks = list(callbacks)
    early = [each for each in callbacks if isinstance(each, keras.callbacks.EarlyStopping)]
    reasons = []
    if is_stopped and epoch != epochs:
        stopping = next((each for each in early if each.stopped_epoch + 1 == epoch and each.stopped_epoch), None)
        if stopping is not None:
            reasons.append(_early_stopping_message(stopping))
        elif any(isinstance(each, keras.callbacks.TerminateOnNaN) for each in callbacks) and not _is_finite(loss):
            reasons.append(f"TerminateOnNaN in epoch {epoch}: the loss was {float(loss or 0)}")
        else:
            reasons.append(f"model.stop_training was set in epoch {epoch}")
    reasons += [
        f"the weights of epoch {each.best_epoch + 1} were restored"
        for each in early
        if each.restore_best_weights and each.best_weights is not None and each.best_epoch + 1 != epoch
    ]
    return "; ".join(reasons)


def _early_stopping_message(stopping: Any) -> str:
    best = "" if stopping.best is None else f"best {float(stopping.best):.4g} in epoch {stopping.best_epoch + 1}, "
    return (
        f"early stopping in epoch {stopping.stopped_epoch + 1}: {stopping.monitor} did not improve in {stopping.wait} "
        f"epochs ({best}patience {stopping.patience})"
    )


def _is_finite(loss: SupportsFloat | None) -> bool:
    return loss is None or math.isfinite(float(loss))
