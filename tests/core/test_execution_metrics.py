"""Metrics of executions in the catalog: written in the background, and used to sort executions."""

from __future__ import annotations

import logging
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faulty_catalog import FaultyCatalog, make_faulty_client

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable, Status
from deriva_ml_core.errors import AccessRefused, ConfigurationError, UnknownMetric
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.metric_modes import update_summaries
from deriva_ml_core.models import MetricSummary, Progress
from deriva_ml_core.training import TrainingReporter


def summarize(*values: float, name: str = "loss", **more: Any) -> MetricSummary:
    """Return the summary after these values, one per epoch."""
    summaries: dict[tuple[str, str], MetricSummary] = {}
    for epoch, value in enumerate(values, start=1):
        summaries |= update_summaries(summaries, Progress(epoch=epoch, metrics={name: value}, **more))
    return summaries["fit", name]


def summary(name: str, last: float, best: float, best_at: int, larger: bool) -> MetricSummary:
    return MetricSummary(stage="fit", name=name, last=last, best=best, best_at=best_at, larger_is_better=larger)


def catalog_metrics(ml: DerivaML, exe: Execution) -> dict[str, tuple[float | None, float | None, int | None]]:
    """Return last value, best value and its epoch from the catalog, by stage and name."""
    found = ml.lookup_execution(exe.execution_rid).list_metrics()
    return {f"{each.stage} {each.name}": (each.last, each.best, each.best_at) for each in found}


def test_best_value_by_name() -> None:
    """The best is the smallest loss and the largest accuracy, with the first epoch that had it."""
    assert summarize(3, 1, 2, 1) == summary("loss", 1, 1, 2, False)
    assert summarize(3, 1, 2, name="val_acc") == summary("val_acc", 2, 3, 1, True)


def test_mode_of_the_training_has_priority() -> None:
    """The mode that the training reports overrides the one derived from the name, and is remembered."""
    known = update_summaries({}, Progress(epoch=1, metrics={"gain": 1}, modes={"gain": "max"}))
    known |= update_summaries(known, Progress(epoch=2, metrics={"gain": 2}))
    assert known["fit", "gain"] == summary("gain", 2, 2, 2, True)


@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_values_that_are_not_finite(name: str) -> None:
    """NaN and infinity are never the best; as the last value they are stored as empty."""
    for odd in (math.nan, math.inf, -math.inf):
        found = summarize(odd, 2, odd, name=name)
        assert (found.last, found.best, found.best_at) == (None, 2, 2)
        assert summarize(odd, name=name).best is None


def test_metrics_of_update_status(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Metrics of update_status are in the catalog after the run, by stage."""
    with ml.create_execution(config) as exe:
        for epoch, loss in enumerate((3.0, 1.0, 2.0), start=1):
            exe.update_status(
                Status.running, f"{epoch}", progress=Progress(epoch=epoch, metrics={"loss": loss, "f1": loss})
            )
        exe.update_status(Status.running, "tested", progress=Progress(stage="test", metrics={"loss": 5}))
    assert catalog_metrics(ml, exe) == {"fit loss": (2, 1, 2), "fit f1": (2, 3, 1), "test loss": (5, 5, None)}


def test_metrics_of_a_reporter(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A reporter writes the metrics of all epochs and of the test, with the mode that the user chose."""
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, monitor="odd", mode="max", every_n_epochs=3, checkpoints="none", curves=False)
        reporter.begin_fit(4)
        for epoch, value in enumerate((1.0, 4.0, 2.0, 3.0), start=1):
            reporter.end_epoch(epoch, {"odd": value, "loss": value})
        reporter.end_fit()
        reporter.end_stage("test", {"loss": math.nan}, seconds=0.1)
    assert catalog_metrics(ml, exe) == {"fit odd": (3, 4, 2), "fit loss": (3, 1, 1), "test loss": (None, None, None)}


def calls(catalog: FaultyCatalog) -> list[str]:
    """Return the calls of the catalog without those for its model."""
    return [name for _, name in catalog.callers if name != "model"]


def test_each_change_is_one_request(config: ExecutionConfiguration) -> None:
    """A status without new metrics needs no request for metrics; changed metrics need one."""
    ml, catalog = make_faulty_client()
    with ml.create_execution(config) as exe:
        exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": 1, "acc": 1}))
        exe._runtime.background.drain()
        exe.update_status(Status.running, "2", progress=Progress(epoch=2, metrics={"loss": 1.5, "acc": 2}))
        exe._runtime.background.drain()
        catalog.callers.clear()
        exe.update_status(Status.running, "again", progress=Progress(epoch=3, metrics={"loss": 1.5, "acc": 2}))
        exe.update_status(Status.running, "without")
        exe._runtime.background.drain()
        assert calls(catalog) == ["update", "update"]
        catalog.callers.clear()
        exe.update_status(Status.running, "other", progress=Progress(epoch=4, metrics={"loss": 0.5, "acc": 2}))
        exe._runtime.background.drain()
        assert calls(catalog) == ["update", "update"]


KILLED = """
import os, signal, sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable, Status
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import Progress
from deriva_ml_core.workflow import Workflow

ml = DerivaML()
workflow = Workflow(name="T", workflow_type="Training", url="https://github.com/o/r/blob/a/t.py", checksum="0" * 40)
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    exe._runtime.background.row_sync._worker.submit = lambda task: None  # nothing is written to the catalog
    print(exe.execution_rid, flush=True)
    exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": 0.5}))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_restore_writes_missing_metrics(ml: DerivaML) -> None:
    """Metrics that a killed process did not write are written once by the next restore."""
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    rid = done.stdout.strip()
    assert ml.lookup_execution(rid).list_metrics() == []
    for _ in range(2):
        exe = ml.restore_execution(rid)
        assert catalog_metrics(ml, exe) == {"fit loss": (0.5, 0.5, 1)}


def test_resumed_run_continues_the_metrics(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """A resumed run updates the metrics of its first process."""
    with pytest.raises(RuntimeError), ml.create_execution(config) as exe:
        exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": 0.5}))
        raise RuntimeError("no")
    with DerivaML().resume_execution(exe.execution_rid) as again:
        again.update_status(Status.running, "2", progress=Progress(epoch=2, metrics={"loss": 0.7, "new_mae": 1}))
    assert catalog_metrics(ml, exe) == {"fit loss": (0.7, 0.5, 1), "fit new_mae": (1, 1, 2)}


def refuse_metrics(table: str) -> None:
    if table == "Execution_Metric":
        raise AccessRefused("no")


def test_catalog_that_rejects_metrics(config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """One warning is logged, and the rest of the run is recorded."""
    ml, catalog = make_faulty_client()
    caplog.set_level(logging.WARNING)
    with ml.create_execution(config) as exe:
        catalog.before_insert = refuse_metrics
        for epoch in (1, 2, 3):
            exe.update_status(Status.running, "", progress=Progress(epoch=epoch, metrics={"loss": epoch}))
            exe._runtime.background.drain()
    assert [record.message for record in caplog.records if "metrics of execution" in record.message] == [
        f"Failed to write the metrics of execution {exe.execution_rid} to the catalog: no"
    ]
    assert ml.lookup_execution(exe.execution_rid).status is Status.completed


def run_with_metrics(ml: DerivaML, config: ExecutionConfiguration, values: dict[str, float], stage: str = "fit") -> str:
    with ml.create_execution(config) as exe:
        for name, value in values.items():
            exe.update_status(Status.running, "", progress=Progress(epoch=1, stage=stage, metrics={name: value}))
    return exe.execution_rid


def find_rids(ml: DerivaML, **filters: Any) -> list[str]:
    return [each.execution_rid for each in ml.find_executions(**filters)]


def test_sort_by_best_value(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Executions are sorted best first and limited; those without the metric are left out."""
    three, one, two = (run_with_metrics(ml, config, {"loss": value, "acc": value}) for value in (3, 1, 2))
    run_with_metrics(ml, config, {"loss": math.nan, "other": 1})
    assert find_rids(ml, sort="loss") == [one, two, three]
    assert find_rids(ml, sort="acc", limit=2) == [three, two]
    assert find_rids(ml, sort="loss", status=Status.failed) == []
    assert find_rids(ml, sort="loss", status=Status.completed, limit=1) == [one]
    assert find_rids(ml, sort="loss", workflow=ml.find_workflows()[0].rid, limit=1) == [one]
    assert find_rids(ml, sort="loss", workflow_type="Training", limit=2) == [one, two]


def test_sort_by_last_value_and_stage(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """``:last`` sorts by the last value; without a stage the first stage that has the metric is used."""
    with ml.create_execution(config) as rose:
        for value in (1.0, 9.0):
            rose.update_status(Status.running, "", progress=Progress(epoch=1, metrics={"loss": value}))
    steady = run_with_metrics(ml, config, {"loss": 2})
    tested = run_with_metrics(ml, config, {"loss": 5, "only_tested_mae": 1}, stage="test")
    assert find_rids(ml, sort="loss") == find_rids(ml, sort="loss:best") == [rose.execution_rid, steady]
    assert find_rids(ml, sort="loss:last") == [steady, rose.execution_rid]
    assert find_rids(ml, sort="loss", stage="test") == find_rids(ml, sort="only_tested_mae") == [tested]


def test_sort_by_a_metric_without_best(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A metric without a known direction is never sorted silently; ``:min`` and ``:max`` set the order."""
    small = run_with_metrics(ml, config, {"wobble": 1, "learning_rate": 1, "mIoU": 1})
    large = run_with_metrics(ml, config, {"wobble": 2, "learning_rate": 2, "mIoU": 2})
    assert find_rids(ml, sort="mIoU") == [large, small]
    for name in ("wobble", "learning_rate"):
        for sort in (name, f"{name}:last", f"{name}:best"):
            with pytest.raises(ConfigurationError, match=rf"'{name}' has no best value.*'{name}:max'.*'{name}:min'"):
                ml.find_executions(sort=sort)
        assert find_rids(ml, sort=f"{name}:max") == [large, small]
        assert find_rids(ml, sort=f"{name}:min") == [small, large]
    known = ml.lookup_execution(small).list_metrics()
    assert {each.name: (each.best, each.larger_is_better) for each in known} == {
        "wobble": (None, None), "learning_rate": (None, None), "mIoU": (1, True)
    }  # fmt: skip


def test_metric_best_of_an_earlier_version(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Earlier versions stored a smallest learning rate as the best; it does not sort."""
    rid = run_with_metrics(ml, config, {"learning_rate": 1})
    catalog = ml._connection.catalog
    (row,) = catalog.select(MLTable.execution_metric, {"Execution": rid})
    catalog.update(MLTable.execution_metric, [{"RID": row["RID"], "Best": 1.0, "Larger_Is_Better": False}])
    with pytest.raises(ConfigurationError, match="no best value"):
        ml.find_executions(sort="learning_rate")


def test_unknown_metric(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An unknown metric or stage raises an error that names the known ones."""
    with pytest.raises(UnknownMetric, match="No run has reported a metric yet"):
        ml.find_executions(sort="loss")
    run_with_metrics(ml, config, {"loss": 1})
    run_with_metrics(ml, config, {"f1": 1}, stage="test")
    with pytest.raises(UnknownMetric, match=r"'lost'. The known metrics are f1 \(test\), loss\."):
        ml.find_executions(sort="lost")
    with pytest.raises(UnknownMetric, match="of stage test"):
        ml.find_executions(sort="loss", stage="test")
    with pytest.raises(ConfigurationError, match="fit, validate, test, predict"):
        ml.find_executions(sort="loss", stage="training")
