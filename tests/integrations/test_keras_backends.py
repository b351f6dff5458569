"""`DerivaMLCallback` on each available Keras backend, without TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("keras", reason="keras is not installed")

PROGRAM = """
import json, sys
import numpy as np
import keras
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_keras import DerivaMLCallback, autolog

workflow = Workflow(name="Backend", workflow_type="Training", url="https://example.org/backend.py", checksum="0")
configuration = ExecutionConfiguration(workflow=workflow)
points = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
sums = points.sum(1, keepdims=True)


def weights(*callbacks):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    data = {"batch_size": 8, "epochs": 2, "verbose": 0, "validation_data": (points, sums)}
    model.fit(points, sums, callbacks=list(callbacks), **data)
    return [each.tolist() for each in model.get_weights()]


bare = weights()
with DerivaMLCallback(configuration=configuration, log_every_n_steps=2, save_every_n_steps=3) as recorded:
    same = weights(recorded) == bare
with autolog(configuration=configuration):
    same_logged = weights() == bare
lines = [json.loads(line) for line in (recorded.execution.working_dir / "metrics.jsonl").read_text().splitlines()]
print(json.dumps({
    "backend": keras.backend.backend(),
    "same": [same, same_logged],
    "statuses": [each.status for each in DerivaML().find_executions()],
    "steps": [line["step"] for line in lines if line["by"] == "step"],
    "names": sorted(lines[-1]["values"]),
    "rate": lines[-1]["learning_rates"],
    "foreign": [name for name in sys.modules if name.startswith("tensorflow")],
}))
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_backend(backend: str) -> None:
    """Fits with the callback and with autolog give the same weights as one without, and do not load TensorFlow."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend}, the backend that this runs Keras on, is not installed")
    environ = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "backend": backend,
        "same": [True, True],
        "statuses": ["Completed", "Completed"],
        "steps": [2, 4, 6, 8],
        "names": ["loss", "mae", "val_loss", "val_mae"],
        "rate": {"Adam": pytest.approx(0.001)},
        "foreign": [],
    }
