"""``DerivaML.describe``."""

from __future__ import annotations

import pytest
from recorded_runs import Runs

from deriva_ml_core.analysis.describe import (
    AssetDescription,
    DatasetDescription,
    ExecutionDescription,
    RowDescription,
    WorkflowDescription,
)
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import InvalidRID, UnknownRID
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.training import TrainingReporter


def test_describe_execution(ml: DerivaML, runs: Runs) -> None:
    """An execution is described with inputs, outputs, metrics and statuses."""
    description = ml.describe(runs.second)
    assert isinstance(description, ExecutionDescription)
    assert (description.rid, description.summary.status) == (runs.second, Status.failed)
    assert [(each.rid, each.version, each.description) for each in description.input_datasets] == [
        (runs.dataset, "0.2.0", "Scans")
    ]
    assert [asset.rid for asset in description.input_assets] == [runs.model.rid]
    assert "configuration.json" in [asset.filename for asset in description.outputs]
    assert [(each.name, each.last, each.best_at) for each in description.metrics] == [("val_loss", 0.25, 1)]
    assert description.statuses[-1].error == "ValueError: no more data"
    assert description.start_time is not None
    assert description.stop_time is not None
    assert description.start_time <= description.stop_time
    assert description.unsent == ()


def test_describe_workflow(ml: DerivaML, runs: Runs) -> None:
    """A workflow is described with its newest executions."""
    description = ml.describe(runs.workflow)
    assert isinstance(description, WorkflowDescription)
    assert description.workflow.checksum == "0123456789012345678901234567890123456789"
    assert [each.rid for each in description.newest_executions] == [runs.second, runs.first]


def test_describe_dataset(ml: DerivaML, runs: Runs) -> None:
    """A dataset is described with its members, versions and executions."""
    description = ml.describe(runs.dataset)
    assert isinstance(description, DatasetDescription)
    assert (description.version, description.members, description.parents) == ("0.2.0", {"Model": 1}, ())
    assert [version.version for version in description.versions] == ["0.1.0", "0.2.0"]
    assert [each.rid for each in description.newest_executions] == [runs.second]


def test_describe_asset(ml: DerivaML, runs: Runs) -> None:
    """An asset is described with the executions that produced and used it."""
    description = ml.describe(runs.model.rid)
    assert isinstance(description, AssetDescription)
    assert (description.asset.filename, description.asset.length) == ("model.pt", 7)
    assert {(use.role, use.execution.rid) for use in description.uses} == {
        ("Output", runs.first),
        ("Input", runs.second),
    }


def test_describe_row(ml: DerivaML, runs: Runs) -> None:
    """A row of another table is described by its columns; an unknown RID is an error."""
    term = ml.connection.catalog.select("Workflow_Type", {"Name": "Training"})[0]["RID"]
    description = ml.describe(term)
    assert isinstance(description, RowDescription)
    assert (description.table, description.columns["Name"]) == ("Workflow_Type", "Training")
    with pytest.raises(UnknownRID):
        ml.describe("9-ZZZZ")
    with pytest.raises(InvalidRID):
        ml.describe("no rid")


def test_describe_without_curves(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The values of metrics, which may take long to read, can be left out."""
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, checkpoints="none", curves=False)
        reporter.begin_fit(epochs=1)
        reporter.end_epoch(1, {"loss": 0.5})
        reporter.end_fit()
    with_curves, without = ml.describe(exe.execution_rid), ml.describe(exe.execution_rid, include_curves=False)
    assert isinstance(with_curves, ExecutionDescription)
    assert isinstance(without, ExecutionDescription)
    assert ([curve.name for curve in with_curves.curves], without.curves) == (["loss"], ())
    assert without.metrics == with_curves.metrics
