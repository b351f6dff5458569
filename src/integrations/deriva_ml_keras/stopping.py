"""Why a fit of Keras stopped before its last epoch, in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

__all__ = ["why_stopped"]


def why_stopped(model: Any, callbacks: Iterable[Any], epoch: int) -> str:
    """Say who stopped a fit, and where its weights come from if not from its last epoch.

    Args:
        model: The model.
        callbacks: All callbacks of the fit.
        epoch: The last epoch, from 1.

    Returns:
        Empty where it was trained to its end.
    """
    callbacks = list(callbacks)
    early = [each for each in callbacks if isinstance(each, keras.callbacks.EarlyStopping)]
    for each in early:
        if each.stopped_epoch > 0:
            return _early(each)
    if model.stop_training:
        if any(isinstance(each, keras.callbacks.TerminateOnNaN) for each in callbacks):
            return f"stopped in epoch {epoch}, by TerminateOnNaN if the loss is not finite, else by stop_training"
        return f"stop_training was set in epoch {epoch}"
    restored = next((each for each in early if _restores(each)), None)
    return "" if restored is None else f"EarlyStopping restored the weights of epoch {restored.best_epoch + 1}"


def _early(stopping: Any) -> str:
    epoch, best = stopping.stopped_epoch + 1, stopping.best_epoch + 1
    value = "" if stopping.best is None else f" {float(stopping.best):.4g}"
    restored = ", whose weights were restored" if _restores(stopping) else ""
    return (
        f"EarlyStopping in epoch {epoch}: for {stopping.wait} epochs {stopping.monitor} was no better than"
        f"{value} of epoch {best}{restored}"
    )


def _restores(stopping: Any) -> bool:
    return bool(stopping.restore_best_weights) and stopping.best_weights is not None
