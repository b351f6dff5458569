"""Statuses: one table of traits, and rows that another program wrote."""

from __future__ import annotations

import shutil

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import STATUS_TRAITS, Status, row_statuses, status_from_row, status_traits
from deriva_ml_core.execution import Execution


def test_each_status_has_traits() -> None:
    """Every status has a row in the table, and no text means two statuses."""
    assert set(STATUS_TRAITS) == set(Status)
    texts = [text for status in Status for text in row_statuses(status)]
    assert len(texts) == len(set(texts))


def test_unknown_status_has_neutral_traits() -> None:
    """A status that is in no table has a colour and is not terminal."""
    traits = status_traits("Hibernating")
    assert (traits.is_terminal, traits.schema_org) == (False, "PotentialActionStatus")
    assert traits.html_colour.startswith("#")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Running", Status.running),
        ("Uploaded", Status.completed),
        ("Pending_Upload", Status.completed),
        ("Stopped", Status.completed),
        ("", Status.created),
        (None, Status.created),
        ("Hibernating", None),
    ],
)
def test_status_from_row(text: str | None, status: Status | None) -> None:
    """A row's text gives a status; statuses of newer DerivaML clients have an equivalent."""
    assert status_from_row(text) == status


def set_row_status(ml: DerivaML, rid: str, text: str) -> None:
    ml.connection.catalog.update("Execution", [{"RID": rid, "Status": text, "Status_Detail": "half asleep"}])


def test_execution_with_unknown_status(ml: DerivaML, exe: Execution) -> None:
    """An execution whose row has an unknown status can be read, listed, shown and restored elsewhere."""
    shutil.rmtree(exe.working_dir)
    set_row_status(ml, exe.execution_rid, "Hibernating")
    recorded = ml.lookup_execution(exe.execution_rid)
    assert (recorded.status, recorded.status_detail) == (Status.pending, "Unknown status 'Hibernating': half asleep")
    assert "Hibernating" in recorded._repr_html_()
    assert [each.execution_rid for each in ml.find_executions()] == [exe.execution_rid]
    assert ml.restore_execution(exe.execution_rid).status is Status.pending


def test_find_executions_with_foreign_status(ml: DerivaML, exe: Execution) -> None:
    """An execution that another client marked as uploaded is found among the completed ones."""
    shutil.rmtree(exe.working_dir)
    set_row_status(ml, exe.execution_rid, "Uploaded")
    assert [each.execution_rid for each in ml.find_executions(status=Status.completed)] == [exe.execution_rid]
    assert ml.find_executions(status=Status.running) == []
