"""Corrections of a status on a Deriva server."""

from __future__ import annotations

import shutil

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable, Status
from deriva_ml_core.execution import ExecutionConfiguration
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
