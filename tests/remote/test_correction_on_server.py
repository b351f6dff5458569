"""Corrections of a status on a Deriva server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable, Status
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.training import fetch_checkpoint
from deriva_ml_core.workflow import Workflow

PLAIN = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="3" * 40)


def test_correction_from_another_machine(ml: DerivaML, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has the row and both statuses, also if the working folder is on no machine any more."""
    monkeypatch.setenv("LOGNAME", "ada")
    with pytest.raises(ValueError), ml.create_execution(ExecutionConfiguration(workflow=PLAIN)) as execution:
        raise ValueError("no data")
    execution.upload_execution_outputs()
    rid, folder = execution.execution_rid, execution.working_dir
    shutil.rmtree(folder)
    ml.correct_status(rid, "completed", "Only the clean-up failed")
    shutil.rmtree(folder)
    (row,) = ml.connection.catalog.select(MLTable.execution, {"RID": rid})
    assert (row["Status"], row["Status_Detail"]) == (
        "Completed",
        "Only the clean-up failed (corrected from Failed by ada)",
    )
    failure, correction = ml.lookup_execution(rid).list_statuses()[-2:]
    assert (failure.status, failure.error) == (Status.failed, "ValueError: no data")
    assert (correction.status, correction.corrected_by) == (Status.completed, "ada")


def test_best_checkpoint_from_another_machine(ml: DerivaML, tmp_path: Path) -> None:
    """The type moves on the server, also if the working folder is on no machine any more."""
    with ml.create_execution(ExecutionConfiguration(workflow=PLAIN)) as execution:
        for name, types in (("a.ckpt", ["Best_Checkpoint"]), ("b.ckpt", [])):
            path = execution.asset_file_path("Execution_Asset", name, asset_types=["Model_File", *types])
            path.write_text(name)
    execution.upload_execution_outputs()
    rid, folder = execution.execution_rid, execution.working_dir
    shutil.rmtree(folder)
    ml.correct_best_checkpoint(rid, "b.ckpt", "It has the best test score")
    shutil.rmtree(folder)
    recorded = ml.lookup_execution(rid)
    (best,) = ml.connection.catalog.select("Execution_Asset_Asset_Type", {"Asset_Type": "Best_Checkpoint"})
    (correction,) = recorded.list_best_corrections()
    assert (best["Execution_Asset"],) == correction.assets
    assert (correction.checkpoint, correction.previous) == ("b.ckpt", "a.ckpt")
    assert fetch_checkpoint(recorded, tmp_path).read_text() == "b.ckpt"
