"""Where each metric of an execution stands in the catalog: written beside the run, and by which runs are ordered."""

from __future__ import annotations

import logging
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hard_catalogs import HardCatalog, hard

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import AccessRefused, ConfigurationError, UnknownMetric
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.metric_modes import update_summaries
from deriva_ml_core.models import MetricSummary, Progress
from deriva_ml_core.training import TrainingReporter


def told(*values: float, name: str = "loss", **more: Any) -> MetricSummary:
    """Where a metric stands after those values, one an epoch."""
    known: dict[tuple[str, str], MetricSummary] = {}
    for epoch, value in enumerate(values, start=1):
        known |= update_summaries(known, Progress(epoch=epoch, metrics={name: value}, **more))
    return known["fit", name]


def summary(name: str, last: float, best: float, best_at: int, larger: bool) -> MetricSummary:
    return MetricSummary(stage="fit", name=name, last=last, best=best, best_at=best_at, larger_is_better=larger)


def stands(ml: DerivaML, exe: Execution) -> dict[str, tuple[float | None, float | None, int | None]]:
    """Last, best and the epoch of the best, by stage and name, as the catalog has them."""
    found = ml.lookup_execution(exe.execution_rid).list_metrics()
    return {f"{each.stage} {each.name}": (each.last, each.best, each.best_at) for each in found}


def test_less_is_better_of_a_loss_and_more_of_a_score() -> None:
    """The best is the smallest loss and the largest accuracy, with the first epoch that had it."""
    assert told(3, 1, 2, 1) == summary("loss", 1, 1, 2, False)
    assert told(3, 1, 2, name="val_acc") == summary("val_acc", 2, 3, 1, True)


def test_the_training_says_which_is_better() -> None:
    """What the training says stands above what the name suggests, and is remembered."""
    known = update_summaries({}, Progress(epoch=1, metrics={"gain": 1}, modes={"gain": "max"}))
    known |= update_summaries(known, Progress(epoch=2, metrics={"gain": 2}))
    assert known["fit", "gain"] == summary("gain", 2, 2, 2, True)


@pytest.mark.parametrize("name", ["loss", "accuracy"])
def test_what_is_no_finite_number(name: str) -> None:
    """NaN and the infinities are never the best, and the last value is empty where it is one of them."""
    for odd in (math.nan, math.inf, -math.inf):
        found = told(odd, 2, odd, name=name)
        assert (found.last, found.best, found.best_at) == (None, 2, 2)
        assert told(odd, name=name).best is None


def test_a_loop_by_hand(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """What a loop tells by update_status is in the catalog when the run has ended, stage by stage."""
    with ml.create_execution(config) as exe:
        for epoch, loss in enumerate((3.0, 1.0, 2.0), start=1):
            exe.update_status(
                Status.running, f"{epoch}", progress=Progress(epoch=epoch, metrics={"loss": loss, "f1": loss})
            )
        exe.update_status(Status.running, "tested", progress=Progress(stage="test", metrics={"loss": 5}))
    assert stands(ml, exe) == {"fit loss": (2, 1, 2), "fit f1": (2, 3, 1), "test loss": (5, 5, None)}


def test_a_reporter(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A training tells its epochs, those without a status too, its test, and which values the user calls better."""
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, monitor="odd", mode="max", every_n_epochs=3, checkpoints="none", curves=False)
        reporter.begin_fit(4)
        for epoch, value in enumerate((1.0, 4.0, 2.0, 3.0), start=1):
            reporter.end_epoch(epoch, {"odd": value, "loss": value})
        reporter.end_fit()
        reporter.end_stage("test", {"loss": math.nan}, seconds=0.1)
    assert stands(ml, exe) == {"fit odd": (3, 4, 2), "fit loss": (3, 1, 1), "test loss": (None, None, None)}


def asked(catalog: HardCatalog) -> list[str]:
    """What the catalog was asked for; its model is known."""
    return [name for _, name in catalog.callers if name != "model"]


def test_each_change_is_one_call(config: ExecutionConfiguration) -> None:
    """A status without metrics, or with those that are there, asks the catalog for nothing of metrics; others once."""
    ml, catalog = hard()
    with ml.create_execution(config) as exe:
        exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": 1, "acc": 1}))
        exe._runtime.background.drain()
        exe.update_status(Status.running, "2", progress=Progress(epoch=2, metrics={"loss": 1.5, "acc": 2}))
        exe._runtime.background.drain()
        catalog.callers.clear()
        exe.update_status(Status.running, "again", progress=Progress(epoch=3, metrics={"loss": 1.5, "acc": 2}))
        exe.update_status(Status.running, "without")
        exe._runtime.background.drain()
        assert asked(catalog) == ["update", "update"]
        catalog.callers.clear()
        exe.update_status(Status.running, "other", progress=Progress(epoch=4, metrics={"loss": 0.5, "acc": 2}))
        exe._runtime.background.drain()
        assert asked(catalog) == ["update", "update"]


KILLED = """
import os, signal, sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import Progress
from deriva_ml_core.workflow import Workflow

ml = DerivaML()
workflow = Workflow(name="T", workflow_type="Training", url="https://github.com/o/r/blob/a/t.py", checksum="0" * 40)
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    exe._runtime.background.row_sync._worker.submit = lambda task: None  # the catalog hears nothing any more
    print(exe.execution_rid, flush=True)
    exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": 0.5}))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_sigkill_the_next_look_brings_them(ml: DerivaML) -> None:
    """What a killed process had told and not written is written by the next who restores it, once."""
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    rid = done.stdout.strip()
    assert ml.lookup_execution(rid).list_metrics() == []
    for _ in range(2):
        exe = ml.restore_execution(rid)
        assert stands(ml, exe) == {"fit loss": (0.5, 0.5, 1)}


def test_a_second_process_goes_on(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> None:
    """A run that goes on adds to what its first process told, row by row."""
    with pytest.raises(RuntimeError), ml.create_execution(config) as exe:
        exe.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"loss": 0.5}))
        raise RuntimeError("no")
    with DerivaML().resume_execution(exe.execution_rid) as again:
        again.update_status(Status.running, "2", progress=Progress(epoch=2, metrics={"loss": 0.7, "new": 1}))
    assert stands(ml, exe) == {"fit loss": (0.7, 0.5, 1), "fit new": (1, 1, 2)}


def refuse_metrics(table: str) -> None:
    if table == "Execution_Metric":
        raise AccessRefused("no")


def test_a_catalog_that_refuses_metrics(config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """It is told once, and all else of the run is recorded."""
    ml, catalog = hard()
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


def ran(ml: DerivaML, config: ExecutionConfiguration, values: dict[str, float], stage: str = "fit") -> str:
    with ml.create_execution(config) as exe:
        for name, value in values.items():
            exe.update_status(Status.running, "", progress=Progress(epoch=1, stage=stage, metrics={name: value}))
    return exe.execution_rid


def rids(ml: DerivaML, **words: Any) -> list[str]:
    return [each.execution_rid for each in ml.find_executions(**words)]


def test_the_best_first(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Executions come best first by what is better, as many as asked for; those without the metric do not come."""
    three, one, two = (ran(ml, config, {"loss": value, "acc": value}) for value in (3, 1, 2))
    ran(ml, config, {"loss": math.nan, "other": 1})
    assert rids(ml, sort="loss") == [one, two, three]
    assert rids(ml, sort="acc", limit=2) == [three, two]
    assert rids(ml, sort="loss", status=Status.failed) == []
    assert rids(ml, sort="loss", status=Status.completed, limit=1) == [one]
    assert rids(ml, sort="loss", workflow=ml.find_workflows()[0].rid, limit=1) == [one]
    assert rids(ml, sort="loss", workflow_type="Training", limit=2) == [one, two]


def test_by_the_last_value_and_by_stage(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """``:last`` orders by the last value; a metric is of the first stage that has it, unless one is named."""
    with ml.create_execution(config) as rose:
        for value in (1.0, 9.0):
            rose.update_status(Status.running, "", progress=Progress(epoch=1, metrics={"loss": value}))
    steady = ran(ml, config, {"loss": 2})
    tested = ran(ml, config, {"loss": 5, "only_tested": 1}, stage="test")
    assert rids(ml, sort="loss") == rids(ml, sort="loss:best") == [rose.execution_rid, steady]
    assert rids(ml, sort="loss:last") == [steady, rose.execution_rid]
    assert rids(ml, sort="loss", stage="test") == rids(ml, sort="only_tested") == [tested]


def test_a_metric_that_nobody_has(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An unknown metric, or stage, is told with those that there are."""
    with pytest.raises(UnknownMetric, match="No run has reported a metric yet"):
        ml.find_executions(sort="loss")
    ran(ml, config, {"loss": 1})
    ran(ml, config, {"f1": 1}, stage="test")
    with pytest.raises(UnknownMetric, match=r"'lost'. The known metrics are f1 \(test\), loss\."):
        ml.find_executions(sort="lost")
    with pytest.raises(UnknownMetric, match="of stage test"):
        ml.find_executions(sort="loss", stage="test")
    with pytest.raises(ConfigurationError, match="fit, validate, test, predict"):
        ml.find_executions(sort="loss", stage="training")
