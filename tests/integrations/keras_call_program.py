"""Program of a test: Keras trainings that nothing but their callback records, and that an exception ends.

The arguments are a folder and who handles each exception. Each training runs in a forked process, with a catalog in
``<folder>/<handler>``, and prints the RIDs of its executions. Its output is in the files ``out`` and ``err`` there. The
parent prints the exit codes as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_keras import DerivaMLCallback

POINTS = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
WORKFLOW = Workflow(name="Calls", workflow_type="Training", url="https://example.org/calls.py", checksum="c")


class Loop(keras.Sequential):  # type: ignore[misc]
    """A model with a training loop of its own, which does not call Keras' loop."""

    def fit(self, epochs: int, callbacks: list[Any], *, fails: bool = True, fails_elsewhere: bool = False) -> None:
        called = keras.callbacks.CallbackList(callbacks, model=self, epochs=epochs)
        called.on_train_begin()
        for epoch in range(epochs):
            called.on_epoch_begin(epoch)
            loss = self.train_on_batch(POINTS, POINTS.sum(1, keepdims=True))
            if fails_elsewhere:
                thread = threading.Thread(target=lambda: print(1 / 0))
                thread.start()
                thread.join()
            if fails and epoch == 1:
                raise ValueError("no more data")
            called.on_epoch_end(epoch, {"loss": loss})
        called.on_train_end()


def train(recorded: DerivaMLCallback, **options: Any) -> None:
    """Train a new model, in a loop of its own."""
    model = Loop([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    try:
        model.fit(3, [recorded], **options)
    finally:
        print(recorded.execution.execution_rid, flush=True)


def run_cell(code: str) -> None:
    """Run a cell of a notebook that uses the names of this program."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.instance(user_ns=globals()).run_cell(code, store_history=False)


def start_child(folder: Path) -> int:
    """Fork; the child has a catalog and output files in the folder. Return its process id, 0 in the child."""
    if (child := os.fork()) == 0:
        folder.mkdir()
        os.environ["DERIVA_ML_HOME"] = str(folder)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(
                os.open(folder / stream.name.strip("<>").removeprefix("std"), os.O_CREAT | os.O_WRONLY), stream.fileno()
            )
    return child


loading = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
loading.compile("sgd", "mse")
loading.train_on_batch(POINTS, POINTS.sum(1, keepdims=True))  # loads modules before the forks
codes = {}
for handler in sys.argv[2:]:
    if child := start_child(Path(sys.argv[1]) / handler):
        codes[handler] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        continue
    callback = DerivaMLCallback(
        ml=DerivaML(), configuration=ExecutionConfiguration(workflow=WORKFLOW), checkpoints="none", curves=False
    )
    before = sys.excepthook, threading.excepthook
    match handler:
        case "nothing":
            train(callback)
        case "excepthook of the user":
            sys.excepthook = lambda kind, error, trace: print(f"seen {error}")
            train(callback)
        case "thread":
            thread = threading.Thread(target=train, args=(callback,))
            thread.start()
            thread.join()
        case "other thread":
            train(callback, fails=False, fails_elsewhere=True)
        case "cell":
            run_cell("train(callback)")
        case "program in a cell":
            run_cell("try:\n    train(callback)\nexcept ValueError:\n    pass")
        case "next use":
            with suppress(ValueError):
                train(callback)
            train(callback, fails=False)
        case "next use in except":
            try:
                train(callback)
            except ValueError:
                train(callback, fails=False)
    if handler not in ("nothing", "excepthook of the user"):
        assert (sys.excepthook, threading.excepthook) == before
    sys.exit()
print(json.dumps(codes))
