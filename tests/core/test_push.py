"""Push of an execution between embedded catalogs: complete, without duplicates, and with helpful errors."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.backend import Backend
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable, Status
from deriva_ml_core.errors import (
    CatalogReadOnly,
    ChecksumMismatch,
    ConfigurationError,
    DuplicateRow,
    ExecutionRunning,
    MetadataConflict,
    StoreUnavailable,
    UnknownColumn,
    UnknownRID,
    UnknownTable,
)
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.models import Address, DatasetSpec, UploadProgress
from deriva_ml_core.plugins import hookimpl, load_plugins
from deriva_ml_core.push import PushReport
from deriva_ml_core.push.context import Ledger
from deriva_ml_core.schema import Column, ForeignKey, Table
from deriva_ml_core.workflow import Workflow
from sample_run import WORKFLOW, count_rows, describe_run, make_tables, record_sample_run


@dataclass(frozen=True)
class CatalogPair:
    """Two catalogs, saved before and after a push, and working copies of them for a test.

    Args:
        folder: The folder of all copies.
        run: RID of the run.
        report: Report of the push.
    """

    folder: Path
    run: str
    report: PushReport

    def restore(self, saved: str) -> Path:
        """Restore both catalogs in one folder, since a catalog is identified by its path."""
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        return Path(shutil.copytree(self.folder / saved, self.folder / "work"))


@pytest.fixture(scope="module")
def catalog_pair(tmp_path_factory: pytest.TempPathFactory) -> CatalogPair:
    """Create a catalog with a run, and an empty one that assigns other RIDs."""
    folder = tmp_path_factory.mktemp("places")
    with DerivaML(f"file:{folder / 'work' / 'here'}") as ml, DerivaML(f"file:{folder / 'work' / 'there'}") as target:
        run = record_sample_run(ml).execution_rid
        target.connection.catalog.reserve(1000)
        ml.close()
        target.close()
        shutil.copytree(folder / "work", folder / "made")
        report = ml.push(run, target, make_tables=True)
    shutil.copytree(folder / "work", folder / "pushed")
    return CatalogPair(folder, run, report)


@pytest.fixture
def folder(catalog_pair: CatalogPair, request: pytest.FixtureRequest) -> Path:
    """Restore both catalogs: after the push if the test uses `copied`, else before."""
    return catalog_pair.restore("pushed" if "copied" in request.fixturenames else "made")


@pytest.fixture
def ml(folder: Path) -> DerivaML:
    return DerivaML(f"file:{folder / 'here'}")


@pytest.fixture
def target(folder: Path) -> DerivaML:
    return DerivaML(f"file:{folder / 'there'}")


@pytest.fixture
def run(ml: DerivaML, catalog_pair: CatalogPair) -> RecordedExecution:
    """Return the run."""
    return ml.lookup_execution(catalog_pair.run)


@pytest.fixture
def copied(folder: Path, catalog_pair: CatalogPair) -> PushReport:
    """Return the report of the push that copied the run."""
    return catalog_pair.report


def test_complete_copy(ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport) -> None:
    """The copy has the same workflow, datasets, files, types, values, nested runs, statuses and times."""
    assert describe_run(target, copied.execution) == describe_run(ml, run.execution_rid)
    assert target.lookup_execution(copied.execution).description.startswith("A sweep\n\nCopied from ")
    assert f"#{run.execution_rid}, made 20" in target.lookup_execution(copied.execution).description
    assert set(copied.tables) == {
        "Patient",
        "Scan",
        "Scan_Asset_Type",
        "Scan_Execution",
        "Dataset_Scan",
        "Dataset_Patient",
    }
    assert "Workflow_Type: Segmenting" in copied.terms
    assert target.list_terms("Workflow_Type")["Segmenting"] == "Finding regions"


def test_no_rid_is_copied(ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport) -> None:
    """Each row has a new RID, which the report maps, and the journal refers to rows of its own catalog."""
    tables = target.connection.catalog.locate(list(copied.rids.values()))
    assert all(tables[row.target] == row.table for row in copied.rows)
    assert copied.rids.keys().isdisjoint(copied.rids.values())
    restored = target.restore_execution(copied.execution)
    assert [asset.rid for asset in restored.list_assets("Input")] == list(restored.info.assets)
    assert [spec.rid for spec in restored.info.datasets] == [spec.rid for spec in restored.list_input_datasets()]
    assert restored.datasets[0].list_dataset_members()["Patient"]
    assert restored.staged_assets() == []


def test_second_push_changes_nothing(
    ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport
) -> None:
    """A second push creates, sends and changes nothing, and reports so."""
    rows_before, saved = count_rows(target), target.connection.catalog.select(MLTable.execution)
    again = ml.push(run.execution_rid, target)
    assert (again.new, again.files, again.terms, again.tables) == ((), 0, (), ())
    assert again.rids == copied.rids
    assert count_rows(target) == rows_before
    assert target.connection.catalog.select(MLTable.execution) == saved


def delete_ledger(target: DerivaML) -> None:
    """Delete the ledger, so that this machine knows no more than another one."""
    shutil.rmtree(target.connection.folder / "pushed")


class FailingSyncPlugin:
    """Replaces the store's `sync` by one that fails."""

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Any:
        backend: Backend = yield

        def fail() -> None:
            raise StoreUnavailable("the disk failed")

        backend.store.sync = fail  # type: ignore[method-assign]
        return backend


def test_stored_is_recorded_after_the_sync(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """If the target cannot flush the objects, the ledger does not record them; the next push copies them."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"weights")
    exe.upload_execution_outputs()
    manager = load_plugins({})
    manager.register(FailingSyncPlugin(), "failing")
    folder = tmp_path / "target of a failing disk"
    with pytest.raises(StoreUnavailable, match="the disk failed"):
        ml.push(exe.execution_rid, DerivaML(f"file:{folder}", plugins=manager))
    (ledger,) = folder.rglob("ledger.jsonl")
    kinds = {kind for line in ledger.read_text().splitlines() for kind in json.loads(line)}
    assert ("noted" in kinds, "stored" in kinds) == (True, False)
    sound = DerivaML(f"file:{folder}")
    assert sound.select_rows("Model") == []
    ml.push(exe.execution_rid, sound)
    assert [row["Filename"] for row in sound.select_rows("Model")] == ["m.pt"]
    (stored,) = [line for line in ledger.read_text().splitlines() if '"stored"' in line]
    assert hashlib.md5(b"weights").hexdigest() in stored


def test_another_machine_finds_the_copy(
    ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport
) -> None:
    """Without the ledger, and with changed descriptions, the copy and rows without keys are matched."""
    rows_before = count_rows(target)
    for catalog, rid in ((ml, run.execution_rid), (target, copied.execution)):
        catalog.connection.catalog.update(MLTable.execution, [{"RID": rid, "Description": "Another"}])
    delete_ledger(target)
    again = ml.push(run.execution_rid, target)
    assert (again.new, again.files, again.rids) == ((), 0, copied.rids)
    assert count_rows(target) == rows_before


def test_another_machine_pushes_another_run_of_the_same_dataset(
    ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport
) -> None:
    """The dataset of an earlier run is matched by its source, and its members by their values."""
    (spec,) = run.list_input_datasets()
    with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Later", datasets=[spec])) as later:
        pass
    delete_ledger(target)
    rows_before = count_rows(target)
    report = ml.push(later.execution_rid, target)
    after = count_rows(target)
    assert [row.table for row in report.new if row.table != "Execution_Metadata"] == ["Execution"]
    assert {name: after[name] for name in ("Dataset", "Dataset_Version", "Patient", "Scan")} == {
        name: rows_before[name] for name in ("Dataset", "Dataset_Version", "Patient", "Scan")
    }
    assert describe_run(target, report.execution) == describe_run(ml, later.execution_rid)


def test_the_workflow_is_shared(ml: DerivaML, target: DerivaML, run: RecordedExecution) -> None:
    """A workflow that the target has by URL or checksum is not registered again."""
    target.add_term("Workflow_Type", "Segmenting")
    known = target.add_workflow(WORKFLOW)
    report = ml.push(run.execution_rid, target, make_tables=True)
    assert {row.target for row in report.rows if row.table == "Workflow"} == {known}
    assert len(target.find_workflows()) == 1


def test_workflow_without_url_and_checksum(ml: DerivaML, target: DerivaML) -> None:
    """A workflow without URL and checksum is copied once."""
    rid = ml.connection.catalog.reserve(1)[0]
    ml.connection.catalog.insert(MLTable.workflow, [{"RID": rid, "Name": "typed", "Workflow_Type": "Training"}])
    for name in ("one", "two"):
        with ml.create_execution(ExecutionConfiguration(workflow=rid, description=name)) as exe:
            pass
        ml.push(exe.execution_rid, target)
        delete_ledger(target)
    assert [workflow.name for workflow in target.find_workflows()] == ["typed"]


def test_later_versions(ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport) -> None:
    """Newer and older versions of a copied dataset are added under their numbers, and all stay."""
    (spec,) = run.list_input_datasets()
    dataset = ml.lookup_dataset(spec.rid)
    middle = dataset.increment_version("patch")
    patient, other_patient = (row["RID"] for row in dataset.list_dataset_members()["Patient"])
    dataset.delete_dataset_members([patient])
    ml.connection.catalog.update("Patient", [{"RID": other_patient, "Age": 41}])
    newest = dataset.increment_version("major")
    runs = {}
    for version in (newest, middle):
        config = ExecutionConfiguration(
            workflow=WORKFLOW, description=version, datasets=[DatasetSpec(rid=dataset.rid, version=version)]
        )
        with ml.create_execution(config) as exe:
            pass
        runs[version] = exe.execution_rid
    copies = {version: ml.push(rid, target).execution for version, rid in runs.items()}
    for version, rid in runs.items():
        assert describe_run(target, copies[version])["inputs"] == describe_run(ml, rid)["inputs"]
    assert describe_run(target, copied.execution) == describe_run(ml, run.execution_rid)
    copy = target.lookup_dataset(copied.rids[dataset.rid])
    assert copy.current_version == newest
    assert [row["Age"] for row in copy.list_dataset_members()["Patient"]] == [41]
    copy.add_dataset_members([copied.rids[patient]])
    assert len(copy.list_dataset_members()["Patient"]) == 2  # the present members are those of the newest version


def test_later_files_are_copied(ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport) -> None:
    """A second push copies only the files uploaded after the first."""
    exe = ml.restore_execution(run.execution_rid)
    exe.asset_file_path("Model", "late.pt").write_bytes(b"late")
    exe.upload_execution_outputs()
    second = ml.push(run.execution_rid, target)
    assert second.execution == copied.execution
    assert [row.table for row in second.new] == ["Model"]
    assert describe_run(target, second.execution) == describe_run(ml, run.execution_rid)


def test_later_version_of_a_training_file_is_copied(ml: DerivaML, target: DerivaML, exe: Execution) -> None:
    """The copy of a training file gets the new bytes of its source, keeps its RID, and is sent once."""
    path = exe.working_dir / "metrics.jsonl"
    seen = []
    for text in ("one line\n", "one line\nanother line\n"):
        path.write_text(text)
        exe.asset_file_path("Execution_Metadata", path)
        exe.update_status(Status.completed) if exe.status is not Status.completed else None
        exe.upload_execution_outputs()
        report = ml.push(exe.execution_rid, target)
        again = ml.push(exe.execution_rid, target)
        (copy,) = [
            each for each in target.lookup_execution(report.execution).list_assets() if each.filename == path.name
        ]
        target.verify_asset(copy)
        assert again.files == 0
        seen.append((copy.rid, copy.length, copy.md5))
    assert seen[0][0] == seen[1][0]
    assert [length for _, length, _ in seen] == [9, 22]
    assert seen[1][2] == hashlib.md5(b"one line\nanother line\n").hexdigest()


def test_lineage(ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport) -> None:
    """Without lineage inputs are copied alone; with it the runs that created them are copied and linked."""
    descriptions = [run.description.partition("\n")[0] for run in target.find_executions()]
    assert sorted(descriptions) == ["A sweep", "Trial 0", "Trial 1"]
    second = ml.push(run.execution_rid, target, lineage=True)
    assert second.execution == copied.execution
    (importing,) = (run for run in target.find_executions() if run.description.startswith("Import"))
    assert len(importing.list_assets("Output")) >= 3
    created = [row.target for row in second.new if row.table == "Scan"]
    assert created == []


def test_dataset_is_linked_to_its_execution_later(ml: DerivaML, target: DerivaML, run: RecordedExecution) -> None:
    """A dataset copied before the run that created it is linked to that run once it is copied."""
    (created, *_) = run.list_output_datasets()
    config = ExecutionConfiguration(workflow=WORKFLOW, description="Reader", datasets=[created])
    with ml.create_execution(config) as reader:
        pass
    report = ml.push(reader.execution_rid, target, make_tables=True)
    versions = target.lookup_dataset(report.rids[created.rid]).dataset_history()
    assert [version.execution for version in versions] == [None]
    copy = ml.push(run.execution_rid, target, make_tables=True).execution
    assert {version.execution for version in target.lookup_dataset(report.rids[created.rid]).dataset_history()} == {
        copy
    }


def test_without_children(ml: DerivaML, target: DerivaML, run: RecordedExecution) -> None:
    """A run can be copied without its children; a child that is pushed later is nested at its position."""
    copy = ml.push(run.execution_rid, target, make_tables=True, children=False).execution
    assert target.lookup_execution(copy).list_nested_executions() == []
    for child in reversed(run.list_nested_executions()):
        ml.push(child.execution_rid, target)
    assert describe_run(target, copy)["nested"] == describe_run(ml, run.execution_rid)["nested"]


def test_values_of_features(ml: DerivaML, target: DerivaML, run: RecordedExecution) -> None:
    """Rows of project tables that refer to the run are copied, with the files that they refer to."""
    columns = Column("Execution", nullok=False), Column("Scan", nullok=False), Column("Grade", "int4")
    keys = ForeignKey("Execution", "Execution"), ForeignKey("Scan", "Scan")
    ml.create_table(Table("Grading", columns, foreign_keys=keys, schema="domain"))
    scan = ml.select_rows("Scan")[0]["RID"]
    ml.insert_rows("Grading", [{"Execution": run.execution_rid, "Scan": scan, "Grade": 3}])
    report = ml.push(run.execution_rid, target, make_tables=True)
    (row,) = target.select_rows("Grading")
    assert (row["Execution"], row["Scan"], row["Grade"]) == (report.execution, report.rids[scan], 3)


def test_required_reference_that_is_not_copied(ml: DerivaML, target: DerivaML, run: RecordedExecution) -> None:
    """A row that must refer to another run cannot be copied without it; the error suggests lineage."""
    columns = Column("Execution", nullok=False), Column("Text")
    ml.create_table(Table("Remark", columns, foreign_keys=(ForeignKey("Execution", "Execution"),), schema="domain"))
    ml.add_dataset_element_type("Remark")
    importing = next(run for run in ml.find_executions() if run.description == "Import")
    ml.insert_rows("Remark", [{"Execution": importing.execution_rid, "Text": "blurred"}])
    remarks = ml.create_dataset("Remarks")
    remarks.add_dataset_members([row["RID"] for row in ml.select_rows("Remark")])
    config = ExecutionConfiguration(
        workflow=WORKFLOW, description="Reads remarks", datasets=[DatasetSpec(rid=remarks.rid)]
    )
    with ml.create_execution(config) as exe:
        pass
    with pytest.raises(UnknownRID, match=r"refers to Execution .* lineage"):
        ml.push(exe.execution_rid, target, make_tables=True)
    ml.push(importing.execution_rid, target, make_tables=True)
    report = ml.push(exe.execution_rid, target)
    assert describe_run(target, report.execution)["inputs"][0]["members"]["Remark"] == [
        {"Execution": target.select_rows("Remark")[0]["Execution"], "Text": "blurred"}
    ]


def test_missing_tables_are_named_first(ml: DerivaML, target: DerivaML, run: RecordedExecution) -> None:
    """All missing tables are reported before anything is written."""
    rows_before = count_rows(target)
    with pytest.raises(UnknownTable, match=r"Scan.*Patient.*--make-tables|Patient.*Scan.*--make-tables"):
        ml.push(run.execution_rid, target)
    assert count_rows(target) == rows_before


def test_missing_columns_are_named(ml: DerivaML, target: DerivaML, run: RecordedExecution) -> None:
    """A missing column for which there are values is reported; no value is dropped silently."""
    target.create_table(Table("Patient", (), schema="domain"))
    rows_before = len(target.find_executions())
    with pytest.raises(UnknownColumn, match=r"Patient\.Age"):
        ml.push(run.execution_rid, target, make_tables=True)
    assert len(target.find_executions()) == rows_before


def test_unfinished_run(ml: DerivaML, target: DerivaML, config: ExecutionConfiguration) -> None:
    """An unfinished run is not copied, nor a run with an unfinished child."""
    with ml.create_execution(config) as outer:
        inner = ml.create_execution(config)
        outer.add_nested_execution(inner)
        with pytest.raises(ExecutionRunning, match=f"{outer.execution_rid} is Running"):
            ml.push(outer.execution_rid, target)
    with pytest.raises(ExecutionRunning, match=f"{inner.execution_rid} is Created"):
        ml.push(outer.execution_rid, target)
    assert target.find_executions() == []


def test_unsent_files(
    ml: DerivaML, target: DerivaML, config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """Files that are staged but not uploaded are reported with the command to send them; the rest is copied."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
    with caplog.at_level(logging.WARNING):
        report = ml.push(exe.execution_rid, target)
    assert report.unsent == ("m.pt",)
    assert f"deriva-ml upload {exe.execution_rid}" in caplog.text
    restored = target.restore_execution(report.execution)
    restored.upload_execution_outputs()  # the copy has none of the original's staged files
    assert target.select_rows("Model") == []
    assert exe.upload_execution_outputs()["Model"]
    assert [row.table for row in ml.push(exe.execution_rid, target).new] == ["Model"]


def test_failed_run(ml: DerivaML, target: DerivaML, config: ExecutionConfiguration) -> None:
    """The copy of a failed run has the same status and error."""
    with pytest.raises(ValueError, match="bad"), ml.create_execution(config) as exe:
        raise ValueError("bad")
    copy = target.lookup_execution(ml.push(exe.execution_rid, target).execution)
    assert (copy.status, copy.status_detail) == (Status.failed, "ValueError: bad")
    assert copy.list_statuses()[-1].error == "ValueError: bad"


def test_killed_run(ml: DerivaML, target: DerivaML, config: ExecutionConfiguration) -> None:
    """A run whose process was killed is copied as Aborted."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with ml.create_execution(config) as exe:
                os.write(writer, exe.execution_rid.encode())
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.close(writer)
    rid = os.fdopen(reader).read()
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    copy = ml.push(rid, target).execution
    shutil.rmtree(ml.connection.working_folder(rid))
    restored = target.restore_execution(copy)
    assert (restored.status, "ended without reporting a status" in restored.status_detail) == (Status.aborted, True)
    assert restored.list_statuses()[-1].status is Status.aborted


def test_damaged_object(ml: DerivaML, target: DerivaML, config: ExecutionConfiguration) -> None:
    """A damaged object raises an error that names it; after a repair the push succeeds."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"right")
    (asset,) = exe.upload_execution_outputs()["Model"]
    path = ml.connection.folder / "objects" / asset.md5[:2] / asset.md5
    path.chmod(0o644)
    path.write_bytes(b"wrong")
    with pytest.raises(ChecksumMismatch, match=r"m\.pt"):
        ml.push(exe.execution_rid, target)
    assert target.select_rows("Model") == []
    assert [run.status for run in target.find_executions()] == [Status.pending]
    path.write_bytes(b"right")
    assert describe_run(target, ml.push(exe.execution_rid, target).execution) == describe_run(ml, exe.execution_rid)


def test_objects_are_hard_linked_on_one_disk(ml: DerivaML, target: DerivaML, config: ExecutionConfiguration) -> None:
    """Two embedded catalogs on one file system share the bytes of objects."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"large")
    (asset,) = exe.upload_execution_outputs()["Model"]
    ml.push(exe.execution_rid, target)
    one, other = (catalog.connection.folder / "objects" / asset.md5[:2] / asset.md5 for catalog in (ml, target))
    assert one.samefile(other)
    assert list((target.connection.folder / "pushed").glob("*/files/*")) == []


def test_push_to_the_original_catalog(ml: DerivaML, target: DerivaML, exe: Execution) -> None:
    """A run is not pushed to its own catalog, nor a copy to the catalog of its original."""
    with exe:
        pass
    with pytest.raises(ConfigurationError, match="nothing to copy"):
        ml.push(exe.execution_rid, ml)
    copy = ml.push(exe.execution_rid, target).execution
    with pytest.raises(ConfigurationError, match=f"is execution {exe.execution_rid} of"):
        target.push(copy, ml)


def test_push_via_a_third_catalog(ml: DerivaML, target: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A run that arrived via another catalog is matched when it is pushed directly."""
    with exe:
        pass
    third = DerivaML(f"file:{tmp_path / 'third'}")
    copy = ml.push(exe.execution_rid, target).execution
    first = target.push(copy, third)
    assert ml.push(exe.execution_rid, third).execution == first.execution
    assert len(third.find_executions()) == 1


def test_same_rids_on_two_machines(tmp_path: Path, target: DerivaML) -> None:
    """Runs of two catalogs with equal RIDs, paths and descriptions are two runs."""
    copies = []
    for _ in range(2):
        path = tmp_path / "laptop"
        laptop = DerivaML(f"file:{path}")
        with laptop.create_execution(ExecutionConfiguration(workflow=TRAINING_WORKFLOW, description="The same")) as exe:
            exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
        exe.upload_execution_outputs()
        copies.append((exe.execution_rid, laptop.push(exe.execution_rid, target).execution))
        laptop.close()
        path.rename(tmp_path / f"gone-{len(copies)}")
    assert copies[0][0] == copies[1][0]
    assert copies[0][1] != copies[1][1]


def test_deleted_copy_is_created_again(ml: DerivaML, target: DerivaML, exe: Execution) -> None:
    """A copy that was deleted at the target is created again."""
    with exe:
        pass
    first = ml.push(exe.execution_rid, target).execution
    target.connection.catalog.delete(MLTable.execution, {"RID": first})
    second = ml.push(exe.execution_rid, target).execution
    assert second != first
    assert describe_run(target, second) == describe_run(ml, exe.execution_rid)


def test_dataset_changed_at_the_target(
    ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport
) -> None:
    """A version with other members under the same number raises DuplicateRow, and nothing is overwritten."""
    (spec,) = run.list_input_datasets()
    source, changed = ml.lookup_dataset(spec.rid), target.lookup_dataset(copied.rids[spec.rid])
    source.delete_dataset_members([source.list_dataset_members()["Patient"][0]["RID"]])
    changed.delete_dataset_members([row["RID"] for row in changed.list_dataset_members()["Patient"]])
    assert source.current_version == changed.current_version
    config = ExecutionConfiguration(workflow=WORKFLOW, description="Later", datasets=[DatasetSpec(rid=source.rid)])
    with ml.create_execution(config) as later:
        pass
    with pytest.raises(DuplicateRow, match="was changed there"):
        ml.push(later.execution_rid, target)
    assert changed.list_dataset_members()["Patient"] == []


def test_file_with_other_metadata_at_the_target(ml: DerivaML, target: DerivaML, run: RecordedExecution) -> None:
    """The same file with other metadata at the target raises MetadataConflict with the difference."""
    make_tables(target)
    with target.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Theirs")) as changed:
        changed.asset_file_path("Scan", "1.png", Angle=9.0).write_bytes(b"scan 1")
    changed.upload_execution_outputs()
    with pytest.raises(MetadataConflict, match=r"Angle is 9\.0 at the target and 0\.5 here"):
        ml.push(run.execution_rid, target)


def test_push_to_snapshot(ml: DerivaML, exe: Execution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push to a snapshot raises CatalogReadOnly."""
    with exe:
        pass
    target = DerivaML(f"file:{tmp_path / 'there'}")
    connection = target.connection
    past = replace(
        connection, backend=replace(connection.backend, catalog=connection.catalog.at(connection.catalog.snapshot()))
    )
    monkeypatch.setattr(target, "_connection", past)
    with pytest.raises(CatalogReadOnly, match="snapshot"):
        ml.push(exe.execution_rid, target)


def test_progress_and_long_description(ml: DerivaML, target: DerivaML) -> None:
    """Progress is reported, and a run with a very long description is matched."""
    config = ExecutionConfiguration(workflow=TRAINING_WORKFLOW, description="Wörter " * 2000)
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m" * 100)
    exe.upload_execution_outputs()
    updates: list[UploadProgress] = []
    report = ml.push(exe.execution_rid, target, progress_callback=updates.append)
    assert (updates[0].files_done, updates[-1].files_done) == (0, updates[-1].files)
    assert updates[-1].bytes_done == updates[-1].bytes == report.bytes - 0
    delete_ledger(target)
    assert ml.push(exe.execution_rid, target).execution == report.execution
    assert describe_run(target, report.execution) == describe_run(ml, exe.execution_rid)


def test_source_record(ml: DerivaML, target: DerivaML, run: RecordedExecution, copied: PushReport) -> None:
    """The source record of a copy names the catalog, the machine and the RID of its original."""
    (record,) = (
        asset
        for asset in target.lookup_execution(copied.execution).list_assets("Output")
        if asset.filename.startswith("copied_from_")
    )
    path = target.restore_execution(copied.execution).download_asset(record.rid, target.connection.folder / "read")
    source = json.loads(path.read_text())["source"]
    assert (source["rid"], source["catalog"]) == (run.execution_rid, ml.connection.catalog.name)
    assert source["host"]


TRAINING_WORKFLOW = Workflow(
    name="Test", workflow_type="Training", url="https://github.com/org/repo/blob/abc/t.py", checksum="2" * 40
)


def test_damaged_lines_of_a_ledger_are_skipped(tmp_path: Path) -> None:
    """Torn lines and lines of another shape lose only what they held, and the next line starts on its own."""
    path = tmp_path / "ledger.jsonl"
    Ledger(path).record_confirmed({"1-0010@t": "2-0010"})
    with path.open("ab") as file:
        file.write(b'{"there": 3}\n{"stored": {"a": {}}}\n[]\n{"there": {"1-0011@t": "2-0')
    ledger = Ledger(path)
    assert ledger.confirmed_rids == {"1-0010@t": "2-0010"}
    ledger.record_confirmed({"1-0012@t": "2-0012"})
    assert Ledger(path).confirmed_rids == {"1-0010@t": "2-0010", "1-0012@t": "2-0012"}


def test_tags_are_copied(ml: DerivaML, target: DerivaML, exe: Execution) -> None:
    """A push copies the tags, also later ones, and leaves out those of baselines: the target has its own."""
    with exe:
        pass
    exe.upload_execution_outputs()
    exe.add_tags("paper")
    ml.set_baseline(exe.execution_rid)
    copy = ml.push(exe.execution_rid, target).execution
    assert target.lookup_execution(copy).tags == ("paper",)
    target.set_baseline(copy, "theirs")
    exe.add_tags("later")
    assert ml.push(exe.execution_rid, target).execution == copy
    assert target.lookup_execution(copy).tags == ("baseline:theirs", "later", "paper")
