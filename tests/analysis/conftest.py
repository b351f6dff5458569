"""Recorded runs with known content."""

from __future__ import annotations

import pytest
from recorded_runs import Runs

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec, Progress
from deriva_ml_core.workflow import Workflow


@pytest.fixture
def runs(ml: DerivaML, workflow: Workflow) -> Runs:
    with ml.create_execution(ExecutionConfiguration(workflow=workflow, description="First")) as first:
        first.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"val_loss": 0.5}))
        first.asset_file_path("Model", "model.pt").write_text("weights")
    (model,) = first.upload_execution_outputs()["Model"]
    dataset = ml.create_dataset("Scans", "Training")
    dataset.add_dataset_members([model.rid])
    configuration = ExecutionConfiguration(
        workflow=workflow,
        description="Second",
        datasets=[DatasetSpec(rid=dataset.rid)],
        assets=[model.rid],
        parameters={"optimizer": {"lr": 0.1}},
    )
    with pytest.raises(ValueError), ml.create_execution(configuration) as second:
        second.update_status(Status.running, "1", progress=Progress(epoch=1, metrics={"val_loss": 0.25}))
        raise ValueError("no more data")
    second.upload_execution_outputs()
    assert second.workflow_rid is not None
    return Runs(first.execution_rid, model, dataset.rid, second.execution_rid, second.workflow_rid)
