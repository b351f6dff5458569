"""Deletion of executions on a Deriva server: rows only, and an interrupted one is completed."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import NotInTrash, RowInUse
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.workflow import Workflow


@pytest.fixture
def exe(ml: DerivaML) -> Execution:
    """A finished, uploaded run with a model and a tag."""
    workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="7" * 40)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow, tags=["bad"], parameters={"lr": 1})) as exe:
        exe.asset_file_path("Model", "model.pt").write_text("weights")
    exe.upload_execution_outputs()
    return exe


def count(ml: DerivaML) -> dict[str, int]:
    tables = ("Execution", "Execution_Tag", "Execution_Parameter", "Execution_Metadata", "Model", "Model_Execution")
    return {name: len(ml.select_rows(name)) for name in tables}


def test_rows_only(ml: DerivaML, exe: Execution, tmp_path) -> None:
    """The rows are deleted; the bytes and the working folder stay, and there is no trash."""
    before = count(ml)
    (model,) = ml.select_rows("Model")
    done = ml.delete_execution(exe.execution_rid)
    assert (done.is_done, done.until, done.working_dir) == (True, None, str(exe.working_dir))
    assert exe.working_dir.is_dir()
    after = count(ml)
    assert [before[name] - after[name] for name in ("Execution", "Execution_Tag", "Execution_Parameter", "Model")] == [
        *(1, 1, 1, 1)
    ]
    assert ml.list_deleted_executions() == []
    with pytest.raises(NotInTrash, match="no trash"):
        ml.restore_deleted_execution(exe.execution_rid)
    target = tmp_path / "model.pt"
    store = ml.connection.store
    store.get(model["URL"], target, length=model["Length"], md5=model["MD5"], options=UploadOptions())
    assert target.read_text() == "weights"


def test_member_of_a_past_version(ml: DerivaML, exe: Execution) -> None:
    """A file that a past version of a dataset has is not deleted."""
    (model,) = ml.select_rows("Model")
    dataset = ml.create_dataset("Models")
    dataset.add_dataset_members([model["RID"]])
    dataset.delete_dataset_members([model["RID"]])
    before = count(ml)
    with pytest.raises(RowInUse, match=r"version 0\.2\.0 of dataset"):
        ml.delete_execution(exe.execution_rid)
    assert count(ml) == before


def test_interrupted_deletion(ml: DerivaML, exe: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deletion that stopped between two requests is completed by the same call."""
    catalog = ml.connection.catalog
    real, calls = catalog.delete, []

    def stopping(table: str, where: object) -> int:
        calls.append(table)
        if table == "Model":
            raise KeyboardInterrupt
        return real(table, where)  # type: ignore[arg-type]

    monkeypatch.setattr(catalog, "delete", stopping)
    with pytest.raises(KeyboardInterrupt):
        ml.delete_execution(exe.execution_rid)
    monkeypatch.undo()
    assert "Model_Execution" in calls
    assert len(ml.select_rows("Execution", {"RID": exe.execution_rid})) == 1
    assert ml.select_rows("Model_Execution", {"Execution": exe.execution_rid}) == []
    done = ml.delete_execution(exe.execution_rid)
    assert (done.is_done, "Model" in {row.table for row in done.rows}) == (True, True)
    assert ml.select_rows("Execution", {"RID": exe.execution_rid}) == []
    assert ml.select_rows("Model", {"Filename": "model.pt"}) == []
    assert list((ml.connection.folder / "trash").glob("[0-9]*")) == []
