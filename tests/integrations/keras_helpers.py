"""Helpers for tests with Keras: a small model, its data, fits, and readers of the record."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ["KERAS_BACKEND"] = "torch"
pytest.importorskip("torch", reason="torch, the backend that these tests run Keras on, is not installed")
keras = pytest.importorskip("keras", reason="keras is not installed")

from deriva_ml_core.execution import Execution  # noqa: E402

POINTS = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
SUMS = POINTS.sum(1, keepdims=True)

NUMPY_2 = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""Ignores a warning of Keras 3.15 with NumPy 2."""


def compile_model(optimizer: Any = "adam", **options: Any) -> Any:
    """Return a small network with dropout, so that any use of the random state shows."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(8, activation="relu"), layers.Dropout(0.5), layers.Dense(1)]
    )
    model.compile(optimizer, "mse", **{"metrics": ["mae"]} | options)
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    """Fit three epochs of four steps without output, unless the options change it."""
    return model.fit(POINTS, SUMS, batch_size=8, verbose=0, callbacks=list(callbacks), **{"epochs": 3} | options)


def metrics_lines(execution: Execution, **fields: Any) -> list[dict[str, Any]]:
    """Return the lines of the metrics file with these fields."""
    lines = map(json.loads, (execution.working_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if fields.items() <= line.items()]


def fit_summaries(execution: Execution) -> list[dict[str, Any]]:
    """Return the fits in training.json."""
    fits: list[dict[str, Any]] = json.loads((execution.working_dir / "training.json").read_text())["fits"]
    return fits


def staged_types(execution: Execution, table: str = "Model") -> dict[str, set[str]]:
    """Return the staged files of a table by name, with their types."""
    return {each.filename: set(each.asset_types) for each in execution.staged_assets() if each.table == table}


class CallAtEpoch(keras.callbacks.Callback):
    """Calls a function when an epoch, from 0, begins or ends."""

    def __init__(self, epoch: int, act: Callable[[], object], *, end: bool = False) -> None:
        super().__init__()
        self.epoch, self.act, self.end = epoch, act, end

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch and not self.end:
            self.act()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch and self.end:
            self.act()


class SetLosses(keras.callbacks.Callback):
    """Sets the loss of each epoch, for the callbacks after it."""

    def __init__(self, *values: float, name: str = "loss") -> None:
        super().__init__()
        self.values, self.name = values, name

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name] = self.values[epoch]
