"""How a fit of Keras is set up: model, optimizer, data and callbacks, as plain values."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from deriva_ml_keras.call_context import CallContext

__all__ = ["collect_settings"]

MAX_LAYERS = 200
"""A model of more layers is told by its summary alone: its configuration would be longer than all else on record."""

log = logging.getLogger(__name__)


def collect_settings(model: Any, params: Mapping[str, Any], context: CallContext) -> dict[str, object]:
    """Read what is to be kept; what cannot be read is left out, whatever it raises.

    Args:
        model: The model, built and compiled.
        params: What Keras tells its callbacks: epochs, steps.
        context: The other callbacks and the data.
    """
    parts: dict[str, Callable[[], object]] = {
        "framework": lambda: f"keras {keras.__version__}",
        "backend": keras.backend.backend,
        "dtype_policy": lambda: model.dtype_policy.name,
        "seed": _seed,
        "batch_size": lambda: context.batch_size,
        "epochs": lambda: params.get("epochs"),
        "steps_per_epoch": lambda: params.get("steps"),
        "compiled": lambda: model.get_compile_config(),
        "model": lambda: _model_settings(model),
        "summary": lambda: _model_summary(model),
        "callbacks": lambda: [_callback_settings(each) for each in context.callbacks if not _is_own_callback(each)],
    }
    told = {name: _read_or_none(name, part) for name, part in parts.items()}
    return {name: value for name, value in told.items() if value is not None}


def _read_or_none(name: str, part: Callable[[], object]) -> object:
    try:
        return part()
    except Exception:  # user code may answer anything
        log.debug("The %s of the fit cannot be told.", name, exc_info=True)
        return None


def _seed() -> int | None:
    from keras.src.utils.rng_utils import get_random_seed  # Keras tells it nowhere else

    seed: int | None = get_random_seed()
    return seed


def _model_settings(model: Any) -> dict[str, object]:
    told = {"class": type(model).__name__, "name": model.name}
    if len(model._flatten_layers() if hasattr(model, "_flatten_layers") else model.layers) > MAX_LAYERS:
        return told | {"config": f"left out: more than {MAX_LAYERS} layers"}
    return told | {"config": model.get_config()}


def _model_summary(model: Any) -> dict[str, object]:
    layers = [
        {"name": layer.name, "class": type(layer).__name__, "parameters": _count_parameters(layer.weights)}
        for layer in model.layers[:MAX_LAYERS]
    ]
    return {
        "parameters": _count_parameters(model.weights),
        "trainable_parameters": _count_parameters(model.trainable_weights),
        "layers": layers,
    }


def _count_parameters(weights: Any) -> int:
    total = 0
    for weight in weights:
        size = 1
        for extent in weight.shape:
            size *= extent
        total += size
    return total


def _callback_settings(callback: Any) -> dict[str, object]:
    """What a callback was made with, as far as it keeps that under the same names and it is plain."""
    names = inspect.signature(type(callback).__init__).parameters
    kept = {name: value for name, value in vars(callback).items() if name in names}
    plain = (str, int, float, bool, Path, type(None))
    return {"class": type(callback).__name__, **{name: each for name, each in kept.items() if isinstance(each, plain)}}


def _is_own_callback(callback: Any) -> bool:
    return type(callback).__module__.partition(".")[0] == __package__
