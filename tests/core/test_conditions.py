"""Conditions on parameters and metrics of executions: their grammar, and the executions they find."""

from __future__ import annotations

from typing import Any

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.errors import AmbiguousName, ConfigurationError, InvalidCondition, UnknownParameter
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.execution.conditions import Condition, parse_condition
from deriva_ml_core.models import DatasetSpec, Progress


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr > 0.001", ("lr", ">", 0.001, None, None)),
        ("lr>=1e-3", ("lr", ">=", 0.001, None, None)),
        ("  n == 3 ", ("n", "=", 3, None, None)),
        ("n != -3", ("n", "!=", -3, None, None)),
        ("x < .5", ("x", "<", 0.5, None, None)),
        ("optimizer = Adam", ("optimizer", "=", "Adam", None, None)),
        ("optimizer.lr <= 1", ("optimizer.lr", "<=", 1, None, None)),
        ("params.lr = 1", ("lr", "=", 1, "params", None)),
        ("metrics.val/loss < 2", ("val/loss", "<", 2, "metrics", None)),
        ("last(val_loss) < 0.3", ("val_loss", "<", 0.3, "metrics", "Last")),
        ("best( metrics.val_loss ) < 0.3", ("val_loss", "<", 0.3, "metrics", "Best")),
        ("version = '1'", ("version", "=", "1", None, None)),
        (r'name = "a \"b\" é"', ("name", "=", 'a "b" é', None, None)),
        ("name = ''", ("name", "=", "", None, None)),
        ('"name of it" = x', ("name of it", "=", "x", None, None)),
        ("flag = true", ("flag", "=", True, None, None)),
        ("none = null", ("none", "=", None, None, None)),
        ("list = [1,2]", ("list", "=", "[1,2]", None, None)),
        ("odd = NaN", ("odd", "=", "NaN", None, None)),
        ("params. = 1", ("params.", "=", 1, None, None)),
    ],
)
def test_parsed_conditions(text: str, expected: tuple[Any, ...]) -> None:
    """A condition is a name, an operator and a value."""
    found = parse_condition(text)
    assert (found.name, found.operator, found.value, found.kind, found.value_column) == expected
    assert type(found.value) is type(expected[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at character 1: expected a name of a parameter or a metric"),
        ("> 3", "at character 1: expected a name of a parameter or a metric"),
        ("lr", "at character 3: expected one of = != < <= > >="),
        ("lr 3", "at character 4: expected one of"),
        ("lr >", "at character 5: expected a value"),
        ("lr > Adam", "at character 6: expected a number after >"),
        ("lr > '1'", "at character 6: expected a number after >"),
        ("lr < true", "at character 6: expected a number after <"),
        ("name = a b", "at character 9: expected nothing more; quote a text with spaces"),
        ("name = 'a", "at character 8: expected a text that ends with '"),
        (r'name = "\q"', "at character 8: expected no backslash, or two for each"),
        ("last(params.lr) = 1", "at character 1: expected a metric in last(), not a parameter"),
        ("lr =! 3", "at character 6: expected nothing more"),
    ],
)
def test_invalid_conditions(text: str, message: str) -> None:
    """An invalid condition is shown with the position of the error and an example."""
    with pytest.raises(InvalidCondition) as raised:
        parse_condition(text)
    assert message in str(raised.value)
    assert repr(text) in str(raised.value)


def record(ml: DerivaML, config: ExecutionConfiguration, params: dict[str, Any], **losses: float) -> RID:
    """Record a run with parameters, and metrics whose values are reported and then doubled; return its RID."""
    with ml.create_execution(config) as exe:
        exe.log_params(params)
        for factor in (1, 2):
            progress = Progress(epoch=factor, metrics={name: factor * value for name, value in losses.items()})
            exe.update_status(Status.running, "", progress=progress)
    return exe.execution_rid


@pytest.fixture
def runs(ml: DerivaML, config: ExecutionConfiguration) -> list[RID]:
    """Four runs with different parameters and metrics, oldest first."""
    return [
        record(ml, config, {"lr": 0.1, "optimizer": "Adam", "seed": 1}, loss=4.0, gain=1.0),
        record(ml, config, {"lr": 0.01, "optimizer": "SGD", "seed": "1", "loss.scale": 2}, loss=2.0),
        record(ml, config, {"lr": "auto", "optimizer": "Adam", "nesterov": True, "seed": None}, loss=3.0),
        record(ml, config, {"depth": 3}),
    ]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (["lr > 0.05"], [0]),
        (["lr <= 0.1"], [0, 1]),
        (["lr = 0.1"], [0]),
        (["lr = 1e-2"], [1]),
        (["lr != 0.1"], [1, 2]),
        (["lr = auto"], [2]),
        (["lr != auto"], [0, 1]),
        (["optimizer = Adam"], [0, 2]),
        (["optimizer = Adam", "lr > 0"], [0]),
        (["optimizer = Adam", "lr > 0", "loss < 3"], []),
        (["seed = 1"], [0]),
        (["seed = '1'"], [1]),
        (["seed = null"], [2]),
        (["nesterov = true"], [2]),
        (["params.loss.scale = 2"], [1]),
        (["loss < 3.5"], [1, 2]),
        (["last(loss) < 5"], [1]),
        (["best(loss) >= 3", "loss <= 4"], [0, 2]),
        (["metrics.loss = 3"], [2]),
        (["last(gain) = 2"], [0]),
        (["depth = 3"], [3]),
        (["depth = 4"], []),
    ],
)
def test_found_executions(ml: DerivaML, runs: list[RID], where: list[str], found: list[int]) -> None:
    """Executions that fulfil all conditions are found, newest first."""
    executions = ml.find_executions(where=where)
    assert [runs.index(execution.execution_rid) for execution in executions] == found[::-1]


def test_found_with_other_filters(ml: DerivaML, runs: list[RID]) -> None:
    """Conditions combine with parameters, status, sorting and limit; a single condition may be a text."""

    def found(**filters: Any) -> list[int]:
        return [runs.index(execution.execution_rid) for execution in ml.find_executions(**filters)]

    assert found(params={"optimizer": "Adam"}) == [2, 0]
    assert found(params={"optimizer": "Adam"}, sort="loss") == [2, 0]
    assert found(where="lr > 0", sort="loss") == [1, 0]
    assert found(where="lr > 0", sort="loss", limit=1, status=Status.completed) == [1]
    assert found(where="lr > 0", status=Status.failed) == []
    assert found(where="lr > 0", workflow_type="Training", limit=1) == [1]
    assert found(params={"lr": 0.1, "seed": 1}, where="loss < 5") == [0]
    assert found(params={"seed": "1"}) == [1]


def test_found_with_dataset(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Conditions combine with an input dataset."""
    with ml.create_execution(config) as exe:
        dataset = exe.create_dataset("Leaves")
    with_input = config.model_copy(update={"datasets": (DatasetSpec(rid=dataset.dataset_rid),)})
    rids = [record(ml, each, {"lr": lr}) for each in (with_input, config) for lr in (1, 2)]
    found = ml.find_executions(where="lr >= 2", dataset=dataset.dataset_rid)
    assert [execution.execution_rid for execution in found] == [rids[1]]


def test_unknown_names(ml: DerivaML, runs: list[RID]) -> None:
    """An unknown name is an error with similar names."""
    with pytest.raises(UnknownParameter, match=r"parameter or metric 'optimiser'\. Did you mean 'optimizer'"):
        ml.find_executions(where="optimiser = Adam")
    with pytest.raises(UnknownParameter, match="No execution has a metric 'lr'"):
        ml.find_executions(where="metrics.lr > 1")
    with pytest.raises(UnknownParameter, match="No execution has a parameter 'loss'"):
        ml.find_executions(params={"loss": 1})
    with pytest.raises(UnknownParameter, match="metric 'loss' of stage test"):
        ml.find_executions(where="metrics.loss > 1", stage="test")


def test_name_of_both(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A name of a parameter and of a metric is an error that names both forms; params= means the parameter."""
    rid = record(ml, config, {"temperature": 1.0}, temperature=5.0)
    with pytest.raises(AmbiguousName, match=r"Write params\.temperature or metrics\.temperature"):
        ml.find_executions(where="temperature > 0")
    for where in ("params.temperature = 1", "metrics.temperature >= 5", "last(temperature) = 10"):
        if where.startswith("metrics"):
            with pytest.raises(ConfigurationError, match=r"no best value.*last\(temperature\)"):
                ml.find_executions(where=where)
        else:
            assert [each.execution_rid for each in ml.find_executions(where=where)] == [rid]
    assert [each.execution_rid for each in ml.find_executions(params={"temperature": 1})] == [rid]


def test_metric_compared_with_text(ml: DerivaML, runs: list[RID]) -> None:
    """A metric is compared with a number only."""
    with pytest.raises(InvalidCondition, match=r"compares a metric with 'small'\. Use a number"):
        ml.find_executions(where="loss = small")


def test_hostile_conditions(ml: DerivaML, runs: list[RID]) -> None:
    """A name or value is never part of a statement."""
    with pytest.raises(UnknownParameter):
        ml.find_executions(where="x'; = 1")
    assert ml.find_executions(params={"optimizer": "Adam' OR '1'='1"}) == []


def test_condition_is_frozen() -> None:
    """A condition is a value."""
    assert parse_condition("lr = 1") == Condition("lr", "=", 1, text="lr = 1")
