"""Corrections of a recorded status: who, when, why and what stood before are on record everywhere."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable, Status
from deriva_ml_core.errors import ConfigurationError, ExecutionRunning, InvalidTransition
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

CONFIG = ExecutionConfiguration(
    workflow=Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")
)


def failed_run(ml: DerivaML) -> Execution:
    """Record a run that failed."""
    with pytest.raises(ValueError), ml.create_execution(CONFIG) as execution:
        raise ValueError("no data")
    execution.upload_execution_outputs()
    return execution


@pytest.mark.parametrize("is_folder_lost", [False, True])
def test_correction_is_on_record(home: Path, monkeypatch: pytest.MonkeyPatch, is_folder_lost: bool) -> None:
    """Row, statuses and description have it, also on a machine that has only the catalog."""
    monkeypatch.setenv("LOGNAME", "ada")
    with DerivaML() as ml:
        rid = failed_run(ml).execution_rid
    if is_folder_lost:
        shutil.rmtree(DerivaML().lookup_execution(rid).working_dir)
    before = datetime.now(UTC)
    with DerivaML() as ml:
        corrected = ml.correct_status(rid, "completed", "The error was in the clean-up only, password: hunter2zQ")
        assert corrected.status is Status.completed
        working_folder = corrected.working_dir
    shutil.rmtree(working_folder)
    with DerivaML() as ml:
        (row,) = ml.connection.catalog.select(MLTable.execution, {"RID": rid})
        detail = "The error was in the clean-up only, password: [redacted: password] (corrected from Failed by ada)"
        assert (row["Status"], row["Status_Detail"]) == ("Completed", detail)
        failure, correction = ml.lookup_execution(rid).list_statuses()[-2:]
        assert (failure.status, failure.error) == (Status.failed, "ValueError: no data")
        assert (correction.status, correction.previous) == (Status.completed, Status.failed)
        assert (correction.message, correction.corrected_by) == (detail, "ada")
        assert before <= correction.time <= datetime.now(UTC)
        *_, last = ml.describe(rid).to_dict()["timeline"]
        assert (last["status"], last["message"], last["corrected_by"]) == ("Completed", detail, "ada")
        again = ml.correct_status(rid, Status.aborted, "Stopped by hand")
        assert again.status_detail == "Stopped by hand (corrected from Completed by ada)"
        assert [each.status for each in again.list_statuses()][-3:] == [Status.failed, Status.completed, Status.aborted]


def test_duration_stays(home: Path) -> None:
    """A correction does not change when the run ended."""
    with DerivaML() as ml:
        run = failed_run(ml)
        before = ml.lookup_execution(run.execution_rid)
        corrected = ml.correct_status(run.execution_rid, "Aborted", "Ended by the scheduler")
        assert before.duration is not None
        assert (corrected.duration, corrected.stop_time) == (before.duration, run.stop_time)


@pytest.mark.parametrize("status", ["running", "Created", "done", ""])
def test_only_an_end_can_be_set(home: Path, status: str) -> None:
    """A status with which no run ends is refused, and nothing changes."""
    with DerivaML() as ml:
        rid = failed_run(ml).execution_rid
        with pytest.raises(ConfigurationError, match="completed, failed, aborted"):
            ml.correct_status(rid, status, "why")
        assert ml.lookup_execution(rid).status is Status.failed


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_reason_is_required(home: Path, reason: str) -> None:
    """A correction without a reason is refused."""
    with DerivaML() as ml, pytest.raises(ConfigurationError, match="reason"):
        ml.correct_status(failed_run(ml).execution_rid, "completed", reason)


def test_same_status_is_refused(home: Path) -> None:
    """A correction to the present status is refused."""
    with DerivaML() as ml, pytest.raises(InvalidTransition, match="already Failed"):
        ml.correct_status(failed_run(ml).execution_rid, "failed", "why")


def test_living_run_is_refused(home: Path) -> None:
    """The status of a run whose process lives is that process's."""
    with DerivaML() as ml, ml.create_execution(CONFIG) as execution:
        with pytest.raises(ExecutionRunning):
            ml.correct_status(execution.execution_rid, "failed", "why")
        assert execution.status is Status.running


def test_resume_after_a_correction(home: Path) -> None:
    """A corrected run can be resumed, and the correction stays on record."""
    with DerivaML() as ml:
        rid = failed_run(ml).execution_rid
        ml.correct_status(rid, "aborted", "Out of memory")
        with ml.resume_execution(rid) as execution:
            pass
        statuses = [each.status for each in execution.list_statuses()]
        assert statuses[-4:] == [Status.failed, Status.aborted, Status.running, Status.completed]
