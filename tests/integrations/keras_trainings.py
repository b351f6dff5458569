"""What the tests of Keras share: a small model, its data, fits of it, and what they leave."""

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
"""Keras 3.15 with numpy 2."""


def compiled(optimizer: Any = "adam", **words: Any) -> Any:
    """A small network with dropout, so that any touch of the random state shows."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(8, activation="relu"), layers.Dropout(0.5), layers.Dense(1)]
    )
    model.compile(optimizer, "mse", **{"metrics": ["mae"]} | words)
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    """Three epochs of four steps, without a word, unless the options say otherwise."""
    return model.fit(POINTS, SUMS, batch_size=8, verbose=0, callbacks=list(callbacks), **{"epochs": 3} | options)


def lines(execution: Execution, **wanted: Any) -> list[dict[str, Any]]:
    """The lines of the metrics file in which these fields have these values."""
    found = map(json.loads, (execution.working_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if wanted.items() <= line.items()]


def facts(execution: Execution) -> list[dict[str, Any]]:
    """What training.json says of each fit, when all that was to be written beside is."""
    fits: list[dict[str, Any]] = json.loads((execution.working_dir / "training.json").read_text())["fits"]
    return fits


def staged(execution: Execution, table: str = "Model") -> dict[str, set[str]]:
    """The staged files of a table by name, and their types."""
    return {each.filename: set(each.asset_types) for each in execution.staged_assets() if each.table == table}


class At(keras.callbacks.Callback):
    """Does something when an epoch, from 0, begins; or ends."""

    def __init__(self, epoch: int, act: Callable[[], object], *, end: bool = False) -> None:
        super().__init__()
        self.epoch, self.act, self.end = epoch, act, end

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch and not self.end:
            self.act()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch and self.end:
            self.act()


class Losses(keras.callbacks.Callback):
    """Makes the loss of each epoch what it is told, before the callbacks that stand after it."""

    def __init__(self, *values: float, name: str = "loss") -> None:
        super().__init__()
        self.values, self.name = values, name

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name] = self.values[epoch]
