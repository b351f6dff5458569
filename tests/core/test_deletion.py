"""Deletion of executions: what goes, what refuses it, and the trash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deriva_ml_core._files.locks import locked_folder
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import (
    ExecutionRunning,
    MalformedData,
    NotInTrash,
    RowInUse,
    UnknownRID,
    WrongTable,
)
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import Progress
from deriva_ml_core.schema import Column, ForeignKey, Table

Record = Callable[..., Execution]


@pytest.fixture
def record(ml: DerivaML, config: ExecutionConfiguration) -> Record:
    """Record a finished, uploaded run with a model of its own, a metric, a parameter and a tag."""

    def run(description: str = "A run", inputs: tuple[str, ...] = (), content: str = "", tags: tuple[str, ...] = ()):
        configuration = config.model_copy(
            update={"description": description, "parameters": {"lr": 0.1}, "tags": tags, "assets": inputs}
        )
        with ml.create_execution(configuration) as exe:
            exe.update_status(Status.running, "", progress=Progress(epoch=1, metrics={"loss": 0.5}))
            model = exe.asset_file_path("Model", "model.pt", asset_types=["Model_File"])
            model.write_text(content or f"weights of {exe.execution_rid}")
        exe.upload_execution_outputs()
        return exe

    return run


def model_of(exe: Execution) -> str:
    (model,) = [asset.rid for asset in exe.list_assets("Output") if asset.table == "Model"]
    return model


def count_all(ml: DerivaML) -> dict[str, int]:
    catalog = ml.connection.catalog
    return {name: count for name in catalog.refresh().tables if (count := len(catalog.select(name)))}


def dump(ml: DerivaML) -> dict[str, list[dict[str, object]]]:
    """Return all rows without the times and users of their last change."""
    catalog = ml.connection.catalog
    return {
        name: [{column: value for column, value in row.items() if column not in ("RMT", "RMB")} for row in rows]
        for name in catalog.refresh().tables
        if (rows := catalog.select(name))
    }


def objects(ml: DerivaML) -> set[str]:
    return {path.name for path in (ml.connection.folder / "objects").glob("??/*")}


def test_rows_of_a_deletion(ml: DerivaML, record: Record) -> None:
    """The execution, its details, links, files and their types go; all else stays. A dry run changes nothing."""
    other = record("Other")
    before = count_all(ml)
    exe = record("Bad", tags=("bad",))
    planned = ml.delete_execution(exe.execution_rid, dry_run=True)
    assert (planned.is_done, planned.execution, planned.description) == (False, exe.execution_rid, "Bad")
    counts = {table: sum(row.table == table for row in planned.rows) for table in {row.table for row in planned.rows}}
    files = counts["Execution_Metadata"]
    assert counts == {
        "Execution": 1,
        "Execution_Metadata": files,
        "Execution_Metadata_Asset_Type": files,
        "Execution_Metadata_Execution": counts["Execution_Metadata_Execution"],
        "Execution_Metric": 1,
        "Execution_Parameter": 1,
        "Execution_Tag": 1,
        "Model": 1,
        "Model_Asset_Type": 1,
        "Model_Execution": 1,
    }
    assert counts["Execution_Metadata_Execution"] >= files >= 3
    assert planned.files == files + 1
    assert {row.label for row in planned.rows} >= {"model.pt", "configuration.json", "bad", "lr", "loss", "Bad"}
    assert count_all(ml) != before
    stored = objects(ml)
    done = ml.delete_execution(exe.execution_rid, expected=planned)
    assert (done.is_done, {row.rid for row in done.rows}) == (True, {row.rid for row in planned.rows})
    assert count_all(ml) == before
    assert objects(ml) == stored
    assert not exe.working_dir.exists()
    assert [run.execution_rid for run in ml.find_executions()] == [other.execution_rid]
    with pytest.raises(UnknownRID):
        ml.lookup_execution(exe.execution_rid)
    with pytest.raises(UnknownRID):
        ml.delete_execution(exe.execution_rid)


def test_restored_execution_is_the_same(ml: DerivaML, record: Record) -> None:
    """A restored execution has the same rows with the same RIDs and times, files and working folder."""
    exe = record("Bad", tags=("bad",))
    rows, files = dump(ml), {path for path in exe.working_dir.rglob("*") if path.is_file()}
    assert len(files) >= 3
    ml.delete_execution(exe.execution_rid)
    (deleted,) = ml.list_deleted_executions()
    assert (deleted.execution, deleted.description) == (exe.execution_rid, "Bad")
    assert deleted.until - deleted.deleted == timedelta(days=30)
    restored = ml.restore_deleted_execution(exe.execution_rid)
    assert restored.execution_rid == exe.execution_rid
    assert dump(ml) == rows
    assert all(path.is_file() for path in files)
    assert ml.list_deleted_executions() == []
    assert ml.verify(exe.execution_rid).problems == ()
    ml.delete_execution(exe.execution_rid)
    ml.restore_deleted_execution(exe.execution_rid)
    assert dump(ml) == rows
    with pytest.raises(NotInTrash, match="is not deleted"):
        ml.restore_deleted_execution(exe.execution_rid)


def test_snapshots_keep_deleted_rows(ml: DerivaML, record: Record) -> None:
    """A snapshot before the deletion has the execution, and one between deletion and restoration does not."""
    exe = record()
    catalog = ml.connection.catalog
    before = catalog.snapshot()
    ml.delete_execution(exe.execution_rid)
    between = catalog.snapshot()
    ml.restore_deleted_execution(exe.execution_rid)
    counts = [len(catalog.at(snapshot).select("Model")) for snapshot in (before, between, catalog.snapshot())]
    assert counts == [1, 0, 1]


def test_output_used_by_another_run(ml: DerivaML, record: Record) -> None:
    """An output that another run used refuses the deletion; kept, it loses its link and stays."""
    exe = record()
    model = model_of(exe)
    user = record("User", inputs=(model,))
    rows = dump(ml)
    with pytest.raises(RowInUse, match=f"execution {user.execution_rid} used its output {model}"):
        ml.delete_execution(exe.execution_rid)
    with pytest.raises(RowInUse):
        ml.delete_execution(exe.execution_rid, dry_run=True)
    assert dump(ml) == rows
    assert ml.list_deleted_executions() == []
    done = ml.delete_execution(exe.execution_rid, outputs=False)
    assert not any(row.table == "Model" for row in done.rows)
    assert ml.lookup_asset(model).filename == "model.pt"
    assert [asset.rid for asset in user.list_assets("Input")] == [model]
    ml.restore_deleted_execution(exe.execution_rid)
    assert dump(ml) == rows


def test_input_stays(ml: DerivaML, record: Record) -> None:
    """Deleting a run leaves what it used; the producer can be deleted afterwards, and is restored first."""
    producer = record("Producer")
    user = record("User", inputs=(model_of(producer),))
    rows = dump(ml)
    ml.delete_execution(user.execution_rid)
    assert ml.lookup_asset(model_of(producer)).filename == "model.pt"
    ml.delete_execution(producer.execution_rid)
    with pytest.raises(NotInTrash, match="was deleted too"):
        ml.restore_deleted_execution(user.execution_rid)
    assert len(ml.list_deleted_executions()) == 2
    ml.restore_deleted_execution(producer.execution_rid)
    ml.restore_deleted_execution(user.execution_rid)
    assert dump(ml) == rows


def test_shared_output_stays(ml: DerivaML, record: Record) -> None:
    """A file that two runs produced stays for the other one."""
    first, second = record(content="same"), record(content="same")
    model = model_of(first)
    assert model_of(second) == model
    rows = dump(ml)
    done = ml.delete_execution(first.execution_rid)
    assert model in done.shared
    assert not any(row.rid == model for row in done.rows)
    assert model_of(second) == model
    ml.restore_deleted_execution(first.execution_rid)
    assert dump(ml) == rows


def test_member_of_a_dataset(ml: DerivaML, record: Record) -> None:
    """A member of a dataset refuses the deletion, also if only a past version has it."""
    exe = record()
    model = model_of(exe)
    dataset = ml.create_dataset("Models")
    dataset.add_dataset_members([model])
    with pytest.raises(RowInUse, match=f"{model} is a member of dataset {dataset.rid}"):
        ml.delete_execution(exe.execution_rid)
    dataset.delete_dataset_members([model])
    assert ml.connection.catalog.select("Dataset_Model") == []
    with pytest.raises(RowInUse, match=rf"version 0\.2\.0 of dataset {dataset.rid} was made when Dataset_Model"):
        ml.delete_execution(exe.execution_rid)
    assert ml.delete_execution(exe.execution_rid, outputs=False).is_done


def test_producer_of_a_dataset(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A run that made a version of a dataset cannot be deleted."""
    with ml.create_execution(config) as exe:
        dataset = exe.create_dataset("Made")
    with pytest.raises(RowInUse, match=rf"it made version 0\.1\.0 of dataset {dataset.rid}"):
        ml.delete_execution(exe.execution_rid)


def test_input_dataset(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A run that only used a dataset can be deleted and restored; the dataset stays."""
    dataset = ml.create_dataset("Used")
    with ml.create_execution(config.model_copy(update={"datasets": ()})) as exe:
        exe.download_dataset_bag(dataset.rid)
    exe.upload_execution_outputs()
    rows = dump(ml)
    done = ml.delete_execution(exe.execution_rid)
    assert [row.table for row in done.rows].count("Dataset_Execution") == 1
    assert ml.lookup_dataset(dataset.rid).description == "Used"
    ml.restore_deleted_execution(exe.execution_rid)
    assert dump(ml) == rows


@pytest.mark.parametrize("cascade", [True, False])
def test_tables_of_a_project(ml: DerivaML, record: Record, cascade: bool) -> None:
    """A row of any other table that refers to the run, to an output or to a detail refuses it, cascading or not."""
    exe = record()
    (metric,) = ml.select_rows("Execution_Metric")
    for name, target, rid in (
        ("Quality", "Execution", exe.execution_rid),
        ("Review", "Model", model_of(exe)),
        ("Remark", "Execution_Metric", metric["RID"]),
    ):
        key = ForeignKey("Target", target, cascade=cascade)
        ml.create_table(Table(name, (Column("Target"), Column("Note")), foreign_keys=(key,), schema="domain"))
        ml.insert_rows(name, [{"Target": rid, "Note": "mine"}])
        (row,) = ml.select_rows(name)
        with pytest.raises(RowInUse, match=f"{name} {row['RID']} refers to"):
            ml.delete_execution(exe.execution_rid)
        ml.connection.catalog.delete(name, {"RID": row["RID"]})
    assert ml.delete_execution(exe.execution_rid).is_done


def test_table_created_by_another_client(ml: DerivaML, record: Record, home: Path) -> None:
    """A table that another process created after this client read the tables is seen."""
    exe = record()
    assert "Quality" not in ml.connection.catalog.model.tables
    other = DerivaML()
    key = ForeignKey("Execution", "Execution", cascade=True)
    other.create_table(Table("Quality", (Column("Execution"),), foreign_keys=(key,), schema="domain"))
    other.insert_rows("Quality", [{"Execution": exe.execution_rid}])
    with pytest.raises(RowInUse, match="Quality"):
        ml.delete_execution(exe.execution_rid)


def test_nested_executions(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A nested run is deleted after the one that contains it; that one leaves its nested runs."""
    with ml.create_execution(config) as parent, ml.create_execution(config) as child:
        parent.add_nested_execution(child)
    with pytest.raises(RowInUse, match=f"execution {parent.execution_rid} contains it"):
        ml.delete_execution(child.execution_rid)
    done = ml.delete_execution(parent.execution_rid)
    assert [row.table for row in done.rows].count("Execution_Execution") == 1
    assert [run.execution_rid for run in ml.find_executions()] == [child.execution_rid]
    ml.restore_deleted_execution(parent.execution_rid)
    (nested,) = ml.lookup_execution(parent.execution_rid).list_nested_executions()
    assert nested.execution_rid == child.execution_rid


def test_running_execution(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A run that has not ended cannot be deleted; one whose process died can."""
    exe = ml.create_execution(config)
    with pytest.raises(ExecutionRunning, match="is Created, and may be running"):
        ml.delete_execution(exe.execution_rid)
    with exe, pytest.raises(ExecutionRunning, match="is Running, and may be running"):
        ml.delete_execution(exe.execution_rid)
    code = (
        "import os; from deriva_ml_core.client import DerivaML; from deriva_ml_core.execution import "
        "ExecutionConfiguration; from deriva_ml_core.workflow import Workflow; ml = DerivaML(); "
        "w = Workflow(name='W', workflow_type='Training', url='https://example.org/w.py', checksum='c'); "
        "exe = ml.create_execution(ExecutionConfiguration(workflow=w)); exe.__enter__(); "
        "print(exe.execution_rid, flush=True); os._exit(1)"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    assert ml.delete_execution(killed).is_done
    (row,) = ml.select_rows("Execution")
    assert row["RID"] == exe.execution_rid


def test_upload_in_another_process(ml: DerivaML, record: Record) -> None:
    """While another process uploads files of the run, it cannot be deleted."""
    exe = record()
    with locked_folder(exe.working_dir / "journal.jsonl.lock", "upload"):
        code = f"from deriva_ml_core.client import DerivaML; DerivaML().delete_execution({exe.execution_rid!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ExecutionRunning: Another process uploads or resumes" in done.stderr
    assert ml.delete_execution(exe.execution_rid).is_done


def test_rows_that_changed_after_they_were_listed(ml: DerivaML, record: Record) -> None:
    """If the rows are not those that the user has seen, nothing is deleted."""
    exe = record()
    planned = ml.delete_execution(exe.execution_rid, dry_run=True)
    exe.add_tags("late")
    with pytest.raises(RowInUse, match="changed after they were listed"):
        ml.delete_execution(exe.execution_rid, expected=planned)
    assert exe.tags == ("late",)


def test_staged_files_are_restored(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Files that were never uploaded go to the trash with the working folder, and come back."""
    with ml.create_execution(config) as exe:
        path = exe.asset_file_path("Model", "m.pt")
        path.write_text("not uploaded")
    ml.delete_execution(exe.execution_rid)
    assert not path.exists()
    ml.restore_deleted_execution(exe.execution_rid)
    assert path.read_text() == "not uploaded"
    restored = ml.restore_execution(exe.execution_rid)
    assert [asset.filename for asset in restored.staged_assets()] == ["m.pt"]


def test_file_recorded_again_meanwhile(ml: DerivaML, record: Record) -> None:
    """If another run records the same file while the first is in the trash, both have one row afterwards."""
    exe = record(content="same")
    ml.delete_execution(exe.execution_rid)
    second = record(content="same")
    ml.restore_deleted_execution(exe.execution_rid)
    assert len(ml.select_rows("Model")) == 1
    assert model_of(exe) == model_of(second)


def test_baseline_set_meanwhile(ml: DerivaML, record: Record) -> None:
    """A baseline that moved to another run while the first was in the trash stays there."""
    first, second = record(), record()
    ml.set_baseline(first.execution_rid)
    ml.set_baseline(first.execution_rid, "paper")
    ml.delete_execution(first.execution_rid)
    ml.set_baseline(second.execution_rid)
    ml.restore_deleted_execution(first.execution_rid)
    assert ml.list_baselines() == {"baseline": second.execution_rid, "paper": first.execution_rid}


def test_wrong_rids(ml: DerivaML, record: Record) -> None:
    """Only executions can be deleted, and only deleted ones restored."""
    exe = record()
    with pytest.raises(WrongTable):
        ml.delete_execution(model_of(exe))
    with pytest.raises(NotInTrash, match="--trash"):
        ml.restore_deleted_execution("1-ZZZZ")


def test_damaged_record(ml: DerivaML, record: Record) -> None:
    """A damaged record of the trash is an error that names the file."""
    exe = record()
    ml.delete_execution(exe.execution_rid)
    path = ml.connection.folder / "trash" / exe.execution_rid / "deletion.json"
    for content in ("{", "[]", '{"format": 2}', json.dumps({"format": 1, "execution": "../../x"})):
        path.write_text(content)
        with pytest.raises(MalformedData, match=r"deletion\.json"):
            ml.restore_deleted_execution(exe.execution_rid)


def test_record_of_the_trash(ml: DerivaML, record: Record) -> None:
    """The record has the rows as JSON, the time, and the state."""
    exe = record("To go")
    ml.delete_execution(exe.execution_rid)
    folder = ml.connection.folder / "trash" / exe.execution_rid
    content = json.loads((folder / "deletion.json").read_text())
    assert {name: content[name] for name in ("format", "execution", "description", "state")} == {
        "format": 1,
        "execution": exe.execution_rid,
        "description": "To go",
        "state": "deleted",
    }
    assert datetime.now(UTC) - datetime.fromisoformat(content["deleted"]) < timedelta(hours=1)
    (row,) = content["rows"]["Model"]
    assert (row["Filename"], row["RID"] in content["rids"]) == ("model.pt", True)
    assert (folder / "working" / "journal.jsonl").is_file()
    assert oct(os.stat(folder / "deletion.json").st_mode & 0o7777) <= "0o666"
