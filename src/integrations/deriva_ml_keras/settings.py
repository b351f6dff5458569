"""Settings of a Keras fit: model, optimizer, data and callbacks, as plain values."""

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
"""Maximum number of layers of a model whose configuration is recorded; of a larger one only the summary is."""

log = logging.getLogger(__name__)


def collect_settings(model: Any, params: Mapping[str, Any], context: CallContext) -> dict[str, object]:
    """Return the settings to record; a setting whose reading raises is left out.

    Args:
        model: The model, built and compiled.
        params: Parameters that Keras passes to callbacks: epochs and steps.
        context: Context of the Keras call, with the other callbacks and the data.
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
        "callbacks": lambda: [_read_callback(each) for each in context.callbacks if not _is_own_callback(each)],
    }
    settings = {name: _read_or_none(name, part) for name, part in parts.items()}
    return {name: value for name, value in settings.items() if value is not None}


def _read_or_none(name: str, part: Callable[[], object]) -> object:
    try:
        return part()
    except Exception:  # runs user code, which may raise anything
        log.debug("Failed to read the setting %s of the fit.", name, exc_info=True)
        return None


def _read_callback(callback: Any) -> object:
    """Return the settings of a callback; if it cannot be read, the name of its class."""
    name = type(callback).__name__
    return _read_or_none(name, lambda: _callback_settings(callback)) or {"class": name}


def _seed() -> int | None:
    from keras.src.utils.rng_utils import get_random_seed  # Keras has no public function for it

    seed: int | None = get_random_seed()
    return seed


def _model_settings(model: Any) -> dict[str, object]:
    settings = {"class": type(model).__name__, "name": model.name}
    if len(model._flatten_layers() if hasattr(model, "_flatten_layers") else model.layers) > MAX_LAYERS:
        return settings | {"config": f"left out: more than {MAX_LAYERS} layers"}
    return settings | {"config": model.get_config()}


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
    """Return the constructor arguments of a callback, as far as it has attributes of these names with plain values."""
    names = inspect.signature(type(callback).__init__).parameters
    plain = (str, int, float, bool, Path, type(None))
    arguments = {name: value for name, value in vars(callback).items() if name in names and isinstance(value, plain)}
    return {"class": type(callback).__name__, **arguments}


def _is_own_callback(callback: Any) -> bool:
    return type(callback).__module__.partition(".")[0] == __package__
