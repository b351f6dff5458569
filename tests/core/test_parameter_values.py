"""Parameters: how settings are flattened, selected and stored, and the parameters of executions."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
from faulty_catalog import make_faulty_client

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import AccessRefused
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import Progress
from deriva_ml_core.parameter_values import (
    decode_value,
    encode_value,
    flatten_parameters,
    limit_parameters,
    select_fit_parameters,
    select_run_parameters,
)
from deriva_ml_core.training import TrainingReporter

ADAM = {
    "module": "keras.optimizers",
    "class_name": "Adam",
    "config": {"name": "adam", "learning_rate": 0.01, "clipnorm": None},
}


def test_flattened_names() -> None:
    """Nested settings are joined with dots, and the settings in a list are numbered."""
    settings = {"lr": 0.1, "net": {"layers": [8, 4], "blocks": [{"width": 2}, {"width": 3}]}, "empty": {}, "none": None}
    assert flatten_parameters(settings) == {
        "lr": 0.1,
        "net.layers": [8, 4],
        "net.blocks.0.width": 2,
        "net.blocks.1.width": 3,
        "none": None,
    }


def test_flattened_numbers_that_json_lacks() -> None:
    """NaN and infinity become text."""
    assert flatten_parameters({"a": math.nan, "b": -math.inf}) == {"a": "nan", "b": "-inf"}


@pytest.mark.parametrize(
    ("value", "text", "number"),
    [
        ("Adam", "Adam", None),
        ("", "", None),
        ("1", '"1"', None),
        ("true", '"true"', None),
        ('"quoted"', '"\\"quoted\\""', None),
        (1, "1", 1.0),
        (1e-05, "1e-05", 1e-05),
        (True, "true", None),
        (None, "null", None),
        ([1, "é"], '[1, "é"]', None),
        (10**400, f"1{'0' * 400}", None),
    ],
)
def test_stored_value(value: Any, text: str, number: float | None) -> None:
    """A text is stored as it is unless it reads as JSON, so that each value is read back as it was."""
    assert encode_value(value) == (text, number)
    assert decode_value(text) == value
    assert type(decode_value(text)) is type(value)


def test_long_value_is_cut() -> None:
    """A value has at most 500 characters."""
    assert encode_value("a" * 500) == ("a" * 500, None)
    assert encode_value("a" * 501) == ("a" * 499 + "…", None)


def test_limit_of_parameters() -> None:
    """An execution has at most 1,000 parameters; known ones count, and the others are named."""
    new = {f"p{n}": n for n in range(1001)}
    selected, left_out = limit_parameters(new, {})
    assert (len(selected), left_out) == (1000, ["p1000"])
    selected, left_out = limit_parameters(
        {"known": 2, "a": 1, "b": 1, "n" * 201: 1}, {"known": 1} | dict(list(new.items())[:998])
    )
    assert (selected, left_out) == ({"known": 2, "a": 1}, ["b", "n" * 200])


def test_parameters_of_a_keras_fit() -> None:
    """Of a Keras fit, compile's arguments, batch size, epochs, seed and precision are parameters."""
    settings = {
        "framework": "keras 3.12",
        "batch_size": 32,
        "epochs": 5,
        "seed": None,
        "dtype_policy": "float32",
        "compiled": {"optimizer": ADAM, "loss": "mse", "loss_weights": None, "metrics": ["mae"]},
        "model": {"name": "m", "config": {"layers": [1, 2]}},
    }
    assert select_fit_parameters(settings) == {
        "batch_size": 32,
        "epochs": 5,
        "dtype_policy": "float32",
        "optimizer": "Adam",
        "optimizer.learning_rate": 0.01,
        "loss": "mse",
        "metrics": ["mae"],
    }


def test_parameters_of_a_lightning_fit() -> None:
    """Of a Lightning fit, hyperparameters, optimizers, schedulers, batch size, epochs and precision are parameters."""
    settings = {
        "framework": {"pytorch_lightning": "2.6"},
        "hyperparameters": {"lr": 0.1, "net": {"width": 8}},
        "data_hyperparameters": {"folds": 5, "lr": 7},
        "optimizers": [{"name": "SGD", "lr": 0.1, "groups": [{"lr": 0.1}]}],
        "schedulers": [{"name": "StepLR", "step_size": 2, "how": {"interval": "epoch"}}],
        "data": {"batch_size": 16, "num_workers": 2},
        "trainer": {"max_epochs": 3, "max_steps": -1, "precision": "32-true", "strategy": "S"},
        "callbacks": [{"name": "C"}],
    }
    assert select_fit_parameters(settings) == {
        "lr": 0.1,
        "net.width": 8,
        "folds": 5,
        "optimizer": "SGD",
        "optimizer.lr": 0.1,
        "scheduler": "StepLR",
        "scheduler.step_size": 2,
        "batch_size": 16,
        "epochs": 3,
        "precision": "32-true",
    }
    several = select_fit_parameters({"framework": "f", "optimizers": [{"name": "SGD", "lr": 1}, {"name": "Adam"}]})
    assert several == {"optimizer.0": "SGD", "optimizer.0.lr": 1, "optimizer.1": "Adam"}


def test_parameters_of_another_loop() -> None:
    """All settings of a training loop without an integration are parameters."""
    assert select_fit_parameters({"lr": 0.1, "model": {"depth": 3}}) == {"lr": 0.1, "model.depth": 3}


def test_damaged_settings_have_no_parameters() -> None:
    """Settings of another form than an integration records yield what can be read."""
    settings: Any = {"framework": 1, "hyperparameters": "x", "optimizers": [3], "data": [], "compiled": 5, "epochs": 2}
    assert select_fit_parameters(settings) == {"epochs": 2}


def test_parameters_of_hydra_and_notebooks() -> None:
    """Of what a runner records, the settings of the model function, choices and notebook parameters are parameters."""
    job = {
        "config_choices": {"model_config": "big"},
        "overrides": ["model_config.lr=0.5"],
        "model_config": {"_target_": "train", "lr": 0.5, "net": {"_partial_": True, "width": 3}},
    }
    assert select_run_parameters(job) == {"lr": 0.5, "net.width": 3, "model_config": "big"}
    direct = {"config_choices": {}, "overrides": ["+model_config.lr=0.5", "~x", "hydra.verbose=1", "name=Adam"]}
    assert select_run_parameters(direct) == {"lr": 0.5, "name": "Adam"}
    notebook = {"notebook": "n.ipynb", "kernel": "k", "parameters": {"rate": 2}, "overrides": []}
    assert select_run_parameters(notebook) == {"rate": 2}
    assert select_run_parameters({"rate": 2, "sub": {"a": "b"}}) == {"rate": 2, "sub.a": "b"}


def test_parameters_of_an_execution(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The configuration, a fit and log_params add parameters; secrets are redacted."""
    parameters = {"lr": 0.1, "api_key": "a1B2c3D4e5F6"}
    with ml.create_execution(config.model_copy(update={"parameters": parameters})) as exe:
        reporter = TrainingReporter(exe, curves=False)
        reporter.begin_fit(2, settings={"batch_size": 8, "lr": 0.1})
        reporter.end_fit()
        exe.log_params({"seed": 3, "path": Path("a/b"), "optimizer": {"name": "Adam"}})
    expected = {
        "lr": 0.1,
        "api_key": "[redacted: api_key]",
        "batch_size": 8,
        "seed": 3,
        "path": "a/b",
        "optimizer.name": "Adam",
    }
    assert exe.params == expected
    assert ml.lookup_execution(exe.execution_rid).params == expected
    rows = ml.connection.catalog.select("Execution_Parameter", {"Name": ["lr", "path"]}, order=("Name",))
    assert [(row["Execution"], row["Value"], row["Number"]) for row in rows] == [
        (exe.execution_rid, "0.1", 0.1),
        (exe.execution_rid, "a/b", None),
    ]


def test_another_value_is_a_warning(
    ml: DerivaML, config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """A later value of a parameter is a warning and is kept in the journal only; the same value is no event."""
    with ml.create_execution(config) as exe:
        exe.log_params({"lr": 0.1, "seed": 1})
        exe.log_params({"lr": 0.1})
        exe.log_params({"lr": 0.2, "new": 1})
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"Execution {exe.execution_rid} has other values of the parameters 'lr'. The first ones stay recorded."
    ]
    assert ml.lookup_execution(exe.execution_rid).params == {"lr": 0.1, "seed": 1, "new": 1}
    journal = (exe.working_dir / "journal.jsonl").read_text(encoding="utf-8")
    assert journal.count('"event":"parameters"') == 2
    assert '{"lr":0.2,"new":1}' in journal


def test_too_many_parameters(ml: DerivaML, config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """Parameters beyond the limit are named in a warning, and the others are recorded."""
    with ml.create_execution(config) as exe:
        exe.log_params({f"p{n}": n for n in range(1003)})
    assert "The parameters 'p1000', 'p1001', 'p1002' of execution" in caplog.text
    assert len(ml.lookup_execution(exe.execution_rid).params) == 1000


def test_parameters_of_an_empty_value(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """None is a value, and survives the journal."""
    with ml.create_execution(config) as exe:
        exe.log_params({"scheduler": None})
    assert exe.params == ml.restore_execution(exe.execution_rid).params == {"scheduler": None}


def test_killed_run_keeps_its_parameters(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Parameters that only the journal has are written to the catalog when the execution is restored."""
    exe = ml.create_execution(config)
    with exe:
        exe.log_params({"lr": 0.1})
    catalog = ml.connection.catalog
    catalog.delete("Execution_Parameter", {"Execution": exe.execution_rid})
    assert ml.lookup_execution(exe.execution_rid).params == {"lr": 0.1}
    ml.restore_execution(exe.execution_rid)
    assert [row["Name"] for row in catalog.select("Execution_Parameter")] == ["lr"]


def refuse_parameters(table: str) -> None:
    if table == "Execution_Parameter":
        raise AccessRefused("no")


def test_rejected_parameters(config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """If the catalog rejects parameters, status and metrics are written all the same, and one warning says so."""
    ml, catalog = make_faulty_client()
    caplog.set_level(logging.WARNING)
    with ml.create_execution(config) as exe:
        catalog.before_insert = refuse_parameters
        for n in range(3):
            exe.log_params({f"p{n}": n})
            exe.update_status(Status.running, "", progress=Progress(epoch=1, metrics={f"m{n}": n}))
            exe._runtime.background.drain()
    assert [record.message for record in caplog.records] == [
        f"Failed to write the parameters of execution {exe.execution_rid} to the catalog: no"
    ]
    execution = ml.lookup_execution(exe.execution_rid)
    assert (execution.status, [metric.name for metric in execution.list_metrics()]) == (
        Status.completed,
        ["m0", "m1", "m2"],
    )
