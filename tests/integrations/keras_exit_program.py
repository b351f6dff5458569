"""Program of a test: Keras trainings that end in many ways, each in a forked process.

The arguments are a folder and the endings. Each child writes ``<ending>.points``, with a line for each metric value,
and ``<ending>.rid`` to the folder. The parent prints the exit codes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_keras import DerivaMLCallback

POINTS = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
SUMS = POINTS.sum(1, keepdims=True)


class Emitted(keras.callbacks.Callback):
    """Writes the metrics of each step and epoch to a file, and ends the training in the third epoch."""

    def __init__(self, path: Path, ending: str) -> None:
        super().__init__()
        self._file = path.open("w", buffering=1)
        self._ending = ending
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._file.write(f"step {self._epoch} {json.dumps(logs)}\n")
        if self._epoch == 3 and batch == 1:
            self._end("step")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._epoch == 3:
            self._end("validation")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._file.write(f"epoch {self._epoch} {json.dumps(logs)}\n")
        if self._epoch == 3:
            self._end("callback")

    def _end(self, where: str) -> None:
        if self._ending == where:
            raise RuntimeError(f"failed in a {where}")
        if where == "step" and self._ending.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self._ending))


def compiled() -> Any:
    """Return a model with one layer."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def train(folder: Path, ending: str) -> None:
    """Run a training until it ends; with a suffix, the callback owns the execution, with ``-bare`` without a with."""
    name, _, own = ending.partition("-")
    ml = DerivaML()
    workflow = Workflow(name="Endings", workflow_type="Training", url="https://example.org/end.py", checksum="e")
    configuration = ExecutionConfiguration(workflow=workflow)
    within: AbstractContextManager[Any]
    if own:
        recorded = DerivaMLCallback(ml=ml, configuration=configuration, log_every_n_steps=1, curves=False)
        within = nullcontext() if own == "bare" else recorded
    else:
        within = ml.create_execution(configuration)
        recorded = DerivaMLCallback(within, log_every_n_steps=1, curves=False)
    model = compiled()
    write_rid = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: (folder / f"{ending}.rid").write_text(recorded.execution.execution_rid)
    )
    emitted = Emitted(folder / f"{ending}.points", name)
    with within:
        for _ in range(2 if name == "twice" else 1):
            callbacks = [recorded, write_rid, emitted]
            model.fit(
                POINTS, SUMS, batch_size=8, epochs=4, verbose=0, validation_data=(POINTS, SUMS), callbacks=callbacks
            )
        if name == "twice":
            model.evaluate(POINTS, SUMS, verbose=0, callbacks=[recorded])


torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores SIGINT
DerivaML()  # together with the fit, this loads all modules before the forks
(loading := compiled()).fit(POINTS, SUMS, verbose=0)
loading.save(Path(sys.argv[1]) / "loading.keras")
for one in sys.argv[2:]:
    if (child := os.fork()) == 0:
        train(Path(sys.argv[1]), one)
        sys.exit()
    _, status = os.waitpid(child, 0)
    print(f"{one} {os.waitstatus_to_exitcode(status)}", flush=True)
