"""Searches for the first executions: they find what a plain search finds, and take no longer among many executions."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from embedded_samples import count_sqlite_steps

from deriva_ml_core.backends.sql import planner
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import RID, MLTable, Status
from deriva_ml_core.parameter_values import encode_value

RowStatus = {"Completed": Status.completed, "Failed": Status.failed, "Aborted": Status.aborted}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: bool(one == other),
    "!=": lambda one, other: bool(one != other),
    "<": lambda one, other: bool(one < other),
    ">=": lambda one, other: bool(one >= other),
}


@dataclass
class Run:
    """An execution as the test has recorded it.

    Args:
        rid: Its RID, in the order of creation.
        workflow: RID of its workflow.
        kind: Type of its workflow.
        status: Its status in the catalog.
        params: Its parameters.
        losses: Last and best value of the metric ``loss``, if it has one.
        reads: Whether it has read the dataset.
    """

    rid: RID
    workflow: RID
    kind: str
    status: str
    params: dict[str, Any] = field(default_factory=dict)
    losses: tuple[float | None, float | None] | None = None
    reads: bool = False


@dataclass
class Runs:
    """A catalog with executions, and what the test knows of them."""

    ml: DerivaML
    runs: list[Run]
    dataset: RID

    def find(self, **filters: Any) -> list[RID]:
        return [each.execution_rid for each in self.ml.find_executions(**filters)]


def record(folder: Path, count: int, seed: int = 1) -> Runs:
    """Insert rows of executions whose values are random."""
    ml = DerivaML(f"file:{folder}")
    catalog, chance = ml.connection.catalog, random.Random(seed)
    workflows = catalog.reserve(4)
    kinds = ("Training", "Training", "Inference", "Evaluation")
    rows = [{"RID": rid, "Workflow_Type": kind, "Name": rid} for rid, kind in zip(workflows, kinds, strict=True)]
    catalog.insert(MLTable.workflow, rows)
    dataset = ml.create_dataset("Scans").dataset_rid
    (version,) = (row["RID"] for row in ml.select_rows("Dataset_Version", {"Dataset": dataset}))
    runs = []
    for rid in catalog.reserve(count):
        number = chance.randrange(4)
        run = Run(rid, workflows[number], kinds[number], chance.choice(["Completed"] * 8 + ["Failed", "Aborted"]))
        if chance.random() < 0.9:
            run.params = {"lr": chance.choice([0.5, 0.25, 1, 2, "auto"]), "seed": chance.randrange(10)}
        if chance.random() < 0.8:
            best = chance.choice([None, *range(10)])
            run.losses = (chance.choice([None, 20.0, 30.0]), None if best is None else float(best))
        run.reads = chance.random() < 0.5
        runs.append(run)
    insert(ml, runs, dataset, version)
    return Runs(ml, runs, dataset)


def insert(ml: DerivaML, runs: Sequence[Run], dataset: RID, version: RID) -> None:
    catalog = ml.connection.catalog
    for run in runs[:3]:  # with times of their own
        catalog.insert(MLTable.execution, [execution_row(run)])
    catalog.insert(MLTable.execution, [execution_row(run) for run in runs[3:]])
    parameters = [(run.rid, name, *encode_value(value)) for run in runs for name, value in run.params.items()]
    columns = ("Execution", "Name", "Value", "Number")
    catalog.insert(MLTable.execution_parameter, [dict(zip(columns, row, strict=True)) for row in parameters])
    fixed = {"Stage": "fit", "Name": "loss", "Larger_Is_Better": False}
    losses = [(run.rid, *run.losses) for run in runs if run.losses]
    metrics = [{**fixed, "Execution": rid, "Last": last, "Best": best} for rid, last, best in losses]
    catalog.insert(MLTable.execution_metric, metrics)
    links = [{"Dataset": dataset, "Execution": run.rid, "Dataset_Version": version} for run in runs if run.reads]
    catalog.insert(MLTable.dataset_execution, links)


def execution_row(run: Run) -> dict[str, Any]:
    return {"RID": run.rid, "Workflow": run.workflow, "Status": run.status}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Three hundred executions."""
    return record(tmp_path_factory.mktemp("catalog"), 300)


def matches(run: Run, name: str, operator: str, value: float | str) -> bool:
    """Whether a run fulfils a condition, by its definition."""
    if name == "loss":
        found: Any = run.losses[1] if run.losses else None
    elif name == "last(loss)":
        found = run.losses[0] if run.losses else None
    else:
        found = run.params.get(name)
    if operator == "!=":
        return found is not None and found != value
    return type(found) in ((str,) if isinstance(value, str) else (int, float)) and OPERATORS[operator](found, value)


def expected(runs: Runs, conditions: Sequence[tuple[str, str, Any]], sort: str | None, **filters: Any) -> list[RID]:
    """Return what a search must find: every run is compared, then all are sorted."""
    found = [
        run
        for run in runs.runs
        if all(matches(run, *condition) for condition in conditions)
        and filters.get("status") in (None, RowStatus[run.status])
        and filters.get("workflow") in (None, run.workflow)
        and filters.get("workflow_type") in (None, run.kind)
        and (run.reads or "dataset" not in filters)
    ]
    if sort is None:
        return [run.rid for run in reversed(found)]
    column = 0 if sort == "loss:last" else 1
    ranked = [(run.losses[column], run.rid) for run in found if run.losses and run.losses[column] is not None]
    return [rid for _, rid in sorted(ranked)]


def cases(runs: Runs) -> Iterator[tuple[list[tuple[str, str, Any]], str | None, dict[str, Any]]]:
    """Yield random searches."""
    chance = random.Random(7)
    choices: dict[str, list[Any]] = {
        "status": list(RowStatus.values()),
        "workflow": sorted({run.workflow for run in runs.runs}),
        "workflow_type": ["Training", "Inference"],
        "dataset": [runs.dataset],
    }
    for _ in range(40):
        conditions = []
        for name in chance.sample(["lr", "seed", "loss", "last(loss)"], chance.randrange(4)):
            value = chance.choice({"lr": [0.25, 1, "auto"], "seed": [0, 5, 9], "loss": [3, 0]}.get(name, [20, 25]))
            operator = chance.choice(["=", "!="] if isinstance(value, str) else list(OPERATORS))
            conditions.append((name, operator, value))
        names = chance.sample(sorted(choices), chance.choice([0, 0, 1, 2]))
        filters = {name: chance.choice(choices[name]) for name in names}
        yield conditions, chance.choice([None, "loss", "loss:last"]), filters


@pytest.mark.parametrize("limits", [(1_500, 4_000), (20, 60), (0, 0)])
def test_equal_to_a_plain_search(recorded: Runs, limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Random searches find the same as comparing every run, in the same order, whatever the way to find them."""
    monkeypatch.setattr(planner, "MAX_LOOKED_UP", limits[0])
    monkeypatch.setattr(planner, "MAX_SET", limits[1])
    sizes = set()
    for conditions, sort, filters in cases(recorded):
        where = [f"{name} {operator} {value}" for name, operator, value in conditions]
        wanted = expected(recorded, conditions, sort, **filters)
        sizes.add(min(len(wanted), 20))
        for limit in (7, 300, None):
            found = recorded.find(where=where, sort=sort, limit=limit, **filters)
            assert found == wanted[:limit], (where, sort, limit, filters)
    assert sizes >= {0, 20}


def count_steps(runs: Runs, **filters: Any) -> int:
    """Return the number of SQLite's steps of a search for ten executions."""
    catalog: Any = runs.ml.connection.catalog
    assert len(runs.find(limit=10, **filters)) == 10
    return count_sqlite_steps(catalog, lambda: runs.find(limit=10, **filters))


def test_steps_do_not_grow(recorded: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among ten times as many executions, a search takes as many steps, up to the counted matches."""
    monkeypatch.setattr(planner, "MAX_LOOKED_UP", 20)
    monkeypatch.setattr(planner, "MAX_SET", 60)
    few, many = recorded, record(tmp_path, 3000)
    searches: dict[str, Callable[[Runs], dict[str, Any]]] = {
        "a parameter": lambda _: {"where": "lr > 0.3"},
        "a parameter, best first": lambda _: {"where": "lr > 0.3", "sort": "loss"},
        "two, best first": lambda _: {"where": ["lr > 0.3", "seed < 8"], "sort": "loss"},
        "params, by the last value": lambda _: {"params": {"lr": 0.5}, "sort": "loss:last"},
        "a metric": lambda _: {"where": "last(loss) > 20"},
        "the value of the order": lambda _: {"where": "loss > 5", "sort": "loss"},
        "status": lambda _: {"status": Status.failed},
        "status, best first": lambda _: {"status": Status.completed, "sort": "loss"},
        "workflow": lambda runs: {"workflow": runs.runs[0].workflow},
        "workflow, best first": lambda runs: {"workflow": runs.runs[0].workflow, "sort": "loss"},
        "type": lambda _: {"workflow_type": "Training"},
        "type, best first": lambda _: {"workflow_type": "Training", "sort": "loss"},
        "dataset": lambda runs: {"dataset": runs.dataset},
        "dataset, best first": lambda runs: {"dataset": runs.dataset, "sort": "loss"},
        "status and a parameter": lambda _: {"status": Status.completed, "where": "lr > 0.3"},
    }
    grown = {}
    for what, search in searches.items():
        ratio = count_steps(many, **search(many)) / count_steps(few, **search(few))
        if ratio > 1.5:
            grown[what] = ratio
    assert grown == {}


def test_indexes_of_earlier_catalogs(tmp_path: Path) -> None:
    """A catalog that lacks the indexes gets them when it is opened, without another version; old ones are dropped."""
    runs = record(tmp_path, 30)
    wanted = runs.find(where="lr > 0.3", sort="loss", limit=5)
    database = runs.ml.connection.catalog._source.database  # type: ignore[attr-defined]
    with database.write_transaction() as connection:
        rows = connection.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'index'").scalars()
        names = {name for name in rows if name.startswith(("Execution_Metric__Name", "Execution_Parameter__Name"))}
        assert len(names) == 7
        for name in names:
            connection.exec_driver_sql(f'DROP INDEX "{name}"')
        connection.exec_driver_sql('CREATE INDEX "Execution_Metric__Best" ON "Execution_Metric" (Name, Stage, Best)')
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    assert runs.find(where="lr > 0.3", sort="loss", limit=5) == wanted  # with the indexes that were read before
    runs.ml.close()
    again = Runs(DerivaML(f"file:{tmp_path}"), runs.runs, runs.dataset)
    assert again.find(where="lr > 0.3", sort="loss", limit=5) == wanted
    database = again.ml.connection.catalog._source.database  # type: ignore[attr-defined]
    with database.read_transaction() as connection:
        rows = connection.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'index'").scalars()
        found = set(rows)
        assert connection.exec_driver_sql("PRAGMA user_version").scalar_one() == version
    assert names <= found
    assert "Execution_Metric__Best" not in found
