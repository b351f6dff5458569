"""An execution copied from one embedded catalog to another: whole, once, and with words for what stands against it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable, Status
from deriva_ml_core.errors import (
    CatalogReadOnly,
    ChecksumMismatch,
    ConfigurationError,
    DuplicateRow,
    ExecutionRunning,
    MetadataConflict,
    UnknownColumn,
    UnknownRID,
    UnknownTable,
)
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.models import DatasetSpec, UploadProgress
from deriva_ml_core.push import PushReport
from deriva_ml_core.schema import Column, ForeignKey, Table
from deriva_ml_core.workflow import Workflow
from pushed_world import WORKFLOW, counts, make_tables, make_world, told


@dataclass(frozen=True)
class Places:
    """Two catalogs as they are before and after a push, and where a test has copies of them for itself.

    Args:
        folder: Where all lie.
        run: The record id of the run.
        report: What the push told.
    """

    folder: Path
    run: str
    report: PushReport

    def lay(self, state: str) -> Path:
        """Have both as they were then, always in one place, as catalogs are known by theirs."""
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        return Path(shutil.copytree(self.folder / state, self.folder / "work"))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """A catalog with a run in it, and an empty one, whose record ids are other ones."""
    folder = tmp_path_factory.mktemp("places")
    with DerivaML(f"file:{folder / 'work' / 'here'}") as ml, DerivaML(f"file:{folder / 'work' / 'there'}") as there:
        run = make_world(ml).execution_rid
        there.connection.catalog.reserve(1000)
        ml.close()
        there.close()
        shutil.copytree(folder / "work", folder / "made")
        report = ml.push(run, there, make_tables=True)
    shutil.copytree(folder / "work", folder / "pushed")
    return Places(folder, run, report)


@pytest.fixture
def laid(places: Places, request: pytest.FixtureRequest) -> Path:
    """Both catalogs: after the push where a test begins with that, else before."""
    return places.lay("pushed" if "copied" in request.fixturenames else "made")


@pytest.fixture
def ml(laid: Path) -> DerivaML:
    return DerivaML(f"file:{laid / 'here'}")


@pytest.fixture
def there(laid: Path) -> DerivaML:
    return DerivaML(f"file:{laid / 'there'}")


@pytest.fixture
def world(ml: DerivaML, places: Places) -> RecordedExecution:
    """The run."""
    return ml.lookup_execution(places.run)


@pytest.fixture
def copied(laid: Path, places: Places) -> PushReport:
    """What the push told that has copied it."""
    return places.report


def test_whole(ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport) -> None:
    """Workflow, datasets with versions and members, files, types, values, nesting, statuses and times are as here."""
    assert told(there, copied.execution) == told(ml, world.execution_rid)
    assert there.lookup_execution(copied.execution).description.startswith("A sweep\n\nCopied from ")
    assert f"#{world.execution_rid}, made 20" in there.lookup_execution(copied.execution).description
    assert set(copied.tables) == {
        "Patient",
        "Scan",
        "Scan_Asset_Type",
        "Scan_Execution",
        "Dataset_Scan",
        "Dataset_Patient",
    }
    assert "Workflow_Type: Segmenting" in copied.terms
    assert there.list_terms("Workflow_Type")["Segmenting"] == "Finding regions"


def test_no_record_id_goes_over(ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport) -> None:
    """Each row has a new record id, told beside the old one, and the journal speaks of rows of its own catalog."""
    tables = there.connection.catalog.locate(list(copied.rids.values()))
    assert all(tables[row.target] == row.table for row in copied.rows)
    assert copied.rids.keys().isdisjoint(copied.rids.values())
    restored = there.restore_execution(copied.execution)
    assert [asset.rid for asset in restored.list_assets("Input")] == list(restored.info.assets)
    assert [spec.rid for spec in restored.info.datasets] == [spec.rid for spec in restored.list_input_datasets()]
    assert restored.datasets[0].list_dataset_members()["Patient"]
    assert restored.staged_assets() == []


def test_again_is_nothing_twice(ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport) -> None:
    """A second push makes nothing, sends nothing, changes no row, and says so."""
    before, state = counts(there), there.connection.catalog.select(MLTable.execution)
    again = ml.push(world.execution_rid, there)
    assert (again.new, again.files, again.terms, again.tables) == ((), 0, (), ())
    assert again.rids == copied.rids
    assert counts(there) == before
    assert there.connection.catalog.select(MLTable.execution) == state


def forget(there: DerivaML) -> None:
    """Take away what this machine wrote down, so that it knows no more than another one."""
    shutil.rmtree(there.connection.folder / "pushed")


def test_another_machine_finds_the_copy(
    ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport
) -> None:
    """Without the ledger, and after both descriptions were changed, the copy is found, with rows that have no key."""
    before = counts(there)
    for catalog, rid in ((ml, world.execution_rid), (there, copied.execution)):
        catalog.connection.catalog.update(MLTable.execution, [{"RID": rid, "Description": "Another"}])
    forget(there)
    again = ml.push(world.execution_rid, there)
    assert (again.new, again.files, again.rids) == ((), 0, copied.rids)
    assert counts(there) == before


def test_another_machine_pushes_another_run_of_the_same_dataset(
    ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport
) -> None:
    """The dataset that an earlier run brought is found by its source, its members by what they say."""
    (spec,) = world.list_input_datasets()
    with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Later", datasets=[spec])) as later:
        pass
    forget(there)
    before = counts(there)
    report = ml.push(later.execution_rid, there)
    after = counts(there)
    assert [row.table for row in report.new if row.table != "Execution_Metadata"] == ["Execution"]
    assert {name: after[name] for name in ("Dataset", "Dataset_Version", "Patient", "Scan")} == {
        name: before[name] for name in ("Dataset", "Dataset_Version", "Patient", "Scan")
    }
    assert told(there, report.execution) == told(ml, later.execution_rid)


def test_the_workflow_is_shared(ml: DerivaML, there: DerivaML, world: RecordedExecution) -> None:
    """Code that the target knows by its URL or checksum is not registered again."""
    there.add_term("Workflow_Type", "Segmenting")
    known = there.add_workflow(WORKFLOW)
    report = ml.push(world.execution_rid, there, make_tables=True)
    assert {row.target for row in report.rows if row.table == "Workflow"} == {known}
    assert len(there.find_workflows()) == 1


def test_code_of_an_interactive_session(ml: DerivaML, there: DerivaML) -> None:
    """A workflow without URL and checksum, which registering makes anew each time, is copied once."""
    rid = ml.connection.catalog.reserve(1)[0]
    ml.connection.catalog.insert(MLTable.workflow, [{"RID": rid, "Name": "typed", "Workflow_Type": "Training"}])
    for name in ("one", "two"):
        with ml.create_execution(ExecutionConfiguration(workflow=rid, description=name)) as exe:
            pass
        ml.push(exe.execution_rid, there)
        forget(there)
    assert [workflow.name for workflow in there.find_workflows()] == ["typed"]


def test_later_versions(ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport) -> None:
    """A newer version of a dataset that is there is added under its number; an older one later too, and both stay."""
    (spec,) = world.list_input_datasets()
    dataset = ml.lookup_dataset(spec.rid)
    middle = dataset.increment_version("patch")
    patient, kept = (row["RID"] for row in dataset.list_dataset_members()["Patient"])
    dataset.delete_dataset_members([patient])
    ml.connection.catalog.update("Patient", [{"RID": kept, "Age": 41}])
    newest = dataset.increment_version("major")
    runs = {}
    for version in (newest, middle):
        config = ExecutionConfiguration(
            workflow=WORKFLOW, description=version, datasets=[DatasetSpec(rid=dataset.rid, version=version)]
        )
        with ml.create_execution(config) as exe:
            pass
        runs[version] = exe.execution_rid
    copies = {version: ml.push(rid, there).execution for version, rid in runs.items()}
    for version, rid in runs.items():
        assert told(there, copies[version])["inputs"] == told(ml, rid)["inputs"]
    assert told(there, copied.execution) == told(ml, world.execution_rid)
    copy = there.lookup_dataset(copied.rids[dataset.rid])
    assert copy.current_version == newest
    assert [row["Age"] for row in copy.list_dataset_members()["Patient"]] == [41]
    copy.add_dataset_members([copied.rids[patient]])
    assert len(copy.list_dataset_members()["Patient"]) == 2  # what lives there now is the newest version's


def test_what_came_later_follows(ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport) -> None:
    """Files that were uploaded after the first push come with the second, and nothing else."""
    exe = ml.restore_execution(world.execution_rid)
    exe.asset_file_path("Model", "late.pt").write_bytes(b"late")
    exe.upload_execution_outputs()
    second = ml.push(world.execution_rid, there)
    assert second.execution == copied.execution
    assert [row.table for row in second.new] == ["Model"]
    assert told(there, second.execution) == told(ml, world.execution_rid)


def test_lineage(ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport) -> None:
    """Without it inputs come alone; with it come the runs that made them, once, and are linked to what is there."""
    descriptions = [run.description.partition("\n")[0] for run in there.find_executions()]
    assert sorted(descriptions) == ["A sweep", "Trial 0", "Trial 1"]
    second = ml.push(world.execution_rid, there, lineage=True)
    assert second.execution == copied.execution
    (importing,) = (run for run in there.find_executions() if run.description.startswith("Import"))
    assert len(importing.list_assets("Output")) >= 3
    made = [row.target for row in second.new if row.table == "Scan"]
    assert made == []


def test_a_dataset_learns_who_made_it(ml: DerivaML, there: DerivaML, world: RecordedExecution) -> None:
    """An input dataset that was copied before the run that made it names that run once it is there."""
    (made, *_) = world.list_output_datasets()
    config = ExecutionConfiguration(workflow=WORKFLOW, description="Reader", datasets=[made])
    with ml.create_execution(config) as reader:
        pass
    report = ml.push(reader.execution_rid, there, make_tables=True)
    versions = there.lookup_dataset(report.rids[made.rid]).dataset_history()
    assert [version.execution for version in versions] == [None]
    copy = ml.push(world.execution_rid, there, make_tables=True).execution
    assert {version.execution for version in there.lookup_dataset(report.rids[made.rid]).dataset_history()} == {copy}


def test_without_children(ml: DerivaML, there: DerivaML, world: RecordedExecution) -> None:
    """A run may come without those in it; one of them that is pushed later finds its parent, and its place."""
    copy = ml.push(world.execution_rid, there, make_tables=True, children=False).execution
    assert there.lookup_execution(copy).list_nested_executions() == []
    for child in reversed(world.list_nested_executions()):
        ml.push(child.execution_rid, there)
    assert told(there, copy)["nested"] == told(ml, world.execution_rid)["nested"]


def test_values_of_features(ml: DerivaML, there: DerivaML, world: RecordedExecution) -> None:
    """Rows of the project's that name the run are its own too, with the files that they speak of."""
    columns = Column("Execution", nullok=False), Column("Scan", nullok=False), Column("Grade", "int4")
    keys = ForeignKey("Execution", "Execution"), ForeignKey("Scan", "Scan")
    ml.create_table(Table("Grading", columns, foreign_keys=keys, schema="domain"))
    scan = ml.select_rows("Scan")[0]["RID"]
    ml.insert_rows("Grading", [{"Execution": world.execution_rid, "Scan": scan, "Grade": 3}])
    report = ml.push(world.execution_rid, there, make_tables=True)
    (row,) = there.select_rows("Grading")
    assert (row["Execution"], row["Scan"], row["Grade"]) == (report.execution, report.rids[scan], 3)


def test_a_row_that_must_name_what_is_not_copied(ml: DerivaML, there: DerivaML, world: RecordedExecution) -> None:
    """A member that has to name another run cannot be copied without that, and lineage is named as the way out."""
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
        ml.push(exe.execution_rid, there, make_tables=True)
    ml.push(importing.execution_rid, there, make_tables=True)
    report = ml.push(exe.execution_rid, there)
    assert told(there, report.execution)["inputs"][0]["members"]["Remark"] == [
        {"Execution": there.select_rows("Remark")[0]["Execution"], "Text": "blurred"}
    ]


def test_missing_tables_are_named_first(ml: DerivaML, there: DerivaML, world: RecordedExecution) -> None:
    """All that lacks is told at once, with the way out, and the target is as it was."""
    before = counts(there)
    with pytest.raises(UnknownTable, match=r"Scan.*Patient.*--make-tables|Patient.*Scan.*--make-tables"):
        ml.push(world.execution_rid, there)
    assert counts(there) == before


def test_missing_columns_are_named(ml: DerivaML, there: DerivaML, world: RecordedExecution) -> None:
    """A column that the target's table lacks, and of which there are values, is told; nothing is dropped in silence."""
    there.create_table(Table("Patient", (), schema="domain"))
    before = len(there.find_executions())
    with pytest.raises(UnknownColumn, match=r"Patient\.Age"):
        ml.push(world.execution_rid, there, make_tables=True)
    assert len(there.find_executions()) == before


def test_a_run_that_goes_on(ml: DerivaML, there: DerivaML, config: ExecutionConfiguration) -> None:
    """Neither a run that has not ended is copied, nor one with such a run in it."""
    with ml.create_execution(config) as outer:
        inner = ml.create_execution(config)
        outer.add_nested_execution(inner)
        with pytest.raises(ExecutionRunning, match=f"{outer.execution_rid} is Running"):
            ml.push(outer.execution_rid, there)
    with pytest.raises(ExecutionRunning, match=f"{inner.execution_rid} is Created"):
        ml.push(outer.execution_rid, there)
    assert there.find_executions() == []


def test_files_that_wait(
    ml: DerivaML, there: DerivaML, config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """What was registered and not uploaded is named, with the command that sends it; the rest is copied."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
    with caplog.at_level(logging.WARNING):
        report = ml.push(exe.execution_rid, there)
    assert report.unsent == ("m.pt",)
    assert f"deriva-ml upload {exe.execution_rid}" in caplog.text
    restored = there.restore_execution(report.execution)
    restored.upload_execution_outputs()  # of the copy: it has none of the original's files
    assert there.select_rows("Model") == []
    assert exe.upload_execution_outputs()["Model"]
    assert [row.table for row in ml.push(exe.execution_rid, there).new] == ["Model"]


def test_a_run_that_failed(ml: DerivaML, there: DerivaML, config: ExecutionConfiguration) -> None:
    """The copy failed too, by the same error."""
    with pytest.raises(ValueError, match="bad"), ml.create_execution(config) as exe:
        raise ValueError("bad")
    copy = there.lookup_execution(ml.push(exe.execution_rid, there).execution)
    assert (copy.status, copy.status_detail) == (Status.failed, "ValueError: bad")
    assert copy.list_statuses()[-1].error == "ValueError: bad"


def test_a_run_whose_process_died(ml: DerivaML, there: DerivaML, config: ExecutionConfiguration) -> None:
    """A run that still says Running, since its process was killed, is copied as what it is: Aborted."""
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
    copy = ml.push(rid, there).execution
    shutil.rmtree(ml.connection.working_folder(rid))
    restored = there.restore_execution(copy)
    assert (restored.status, "ended without reporting a status" in restored.status_detail) == (Status.aborted, True)
    assert restored.list_statuses()[-1].status is Status.aborted


def test_an_object_that_is_damaged(ml: DerivaML, there: DerivaML, config: ExecutionConfiguration) -> None:
    """Bytes that are not those recorded do not become a copy's: the object is named, and mended the push goes on."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"right")
    (asset,) = exe.upload_execution_outputs()["Model"]
    path = ml.connection.folder / "objects" / asset.md5[:2] / asset.md5
    path.chmod(0o644)
    path.write_bytes(b"wrong")
    with pytest.raises(ChecksumMismatch, match=r"m\.pt"):
        ml.push(exe.execution_rid, there)
    assert there.select_rows("Model") == []
    assert [run.status for run in there.find_executions()] == [Status.pending]
    path.write_bytes(b"right")
    assert told(there, ml.push(exe.execution_rid, there).execution) == told(ml, exe.execution_rid)


def test_bytes_are_not_copied_on_one_disk(ml: DerivaML, there: DerivaML, config: ExecutionConfiguration) -> None:
    """Two embedded catalogs on one file system share an object's bytes, which nobody ever writes again."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"large")
    (asset,) = exe.upload_execution_outputs()["Model"]
    ml.push(exe.execution_rid, there)
    one, other = (catalog.connection.folder / "objects" / asset.md5[:2] / asset.md5 for catalog in (ml, there))
    assert one.samefile(other)
    assert list((there.connection.folder / "pushed").glob("*/files/*")) == []


def test_the_same_catalog_and_back_home(ml: DerivaML, there: DerivaML, exe: Execution) -> None:
    """A run is not copied onto itself, nor its copy to where it came from; a copy's copy knows the first source."""
    with exe:
        pass
    with pytest.raises(ConfigurationError, match="nothing to copy"):
        ml.push(exe.execution_rid, ml)
    copy = ml.push(exe.execution_rid, there).execution
    with pytest.raises(ConfigurationError, match=f"is execution {exe.execution_rid} of"):
        there.push(copy, ml)


def test_by_way_of_a_third_catalog(ml: DerivaML, there: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """What came by a detour is known when it comes straight from its origin."""
    with exe:
        pass
    third = DerivaML(f"file:{tmp_path / 'third'}")
    copy = ml.push(exe.execution_rid, there).execution
    first = there.push(copy, third)
    assert ml.push(exe.execution_rid, third).execution == first.execution
    assert len(third.find_executions()) == 1


def test_equal_names_on_two_machines(tmp_path: Path, there: DerivaML) -> None:
    """Runs of two catalogs with the same record ids, paths and words, as two laptops have, are two."""
    copies = []
    for _ in range(2):
        place = tmp_path / "laptop"
        laptop = DerivaML(f"file:{place}")
        with laptop.create_execution(ExecutionConfiguration(workflow=WORKFLOW_IN_ALL, description="The same")) as exe:
            exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
        exe.upload_execution_outputs()
        copies.append((exe.execution_rid, laptop.push(exe.execution_rid, there).execution))
        laptop.close()
        place.rename(tmp_path / f"gone-{len(copies)}")
    assert copies[0][0] == copies[1][0]
    assert copies[0][1] != copies[1][1]


def test_a_deleted_copy_is_made_anew(ml: DerivaML, there: DerivaML, exe: Execution) -> None:
    """A copy that somebody deleted at the target is not taken for one that is there."""
    with exe:
        pass
    first = ml.push(exe.execution_rid, there).execution
    there.connection.catalog.delete(MLTable.execution, {"RID": first})
    second = ml.push(exe.execution_rid, there).execution
    assert second != first
    assert told(there, second) == told(ml, exe.execution_rid)


def test_a_dataset_that_was_changed_there(
    ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport
) -> None:
    """A number that the target's dataset gave to other members is no copy: it is said, and nothing is overwritten."""
    (spec,) = world.list_input_datasets()
    mine, theirs = ml.lookup_dataset(spec.rid), there.lookup_dataset(copied.rids[spec.rid])
    mine.delete_dataset_members([mine.list_dataset_members()["Patient"][0]["RID"]])
    theirs.delete_dataset_members([row["RID"] for row in theirs.list_dataset_members()["Patient"]])
    assert mine.current_version == theirs.current_version
    config = ExecutionConfiguration(workflow=WORKFLOW, description="Later", datasets=[DatasetSpec(rid=mine.rid)])
    with ml.create_execution(config) as later:
        pass
    with pytest.raises(DuplicateRow, match="was changed there"):
        ml.push(later.execution_rid, there)
    assert theirs.list_dataset_members()["Patient"] == []


def test_a_file_with_other_metadata_there(ml: DerivaML, there: DerivaML, world: RecordedExecution) -> None:
    """Equal bytes under an equal name that others recorded with another angle are an error that says which."""
    make_tables(there)
    with there.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Theirs")) as theirs:
        theirs.asset_file_path("Scan", "1.png", Angle=9.0).write_bytes(b"scan 1")
    theirs.upload_execution_outputs()
    with pytest.raises(MetadataConflict, match=r"Angle is 9\.0 at the target and 0\.5 here"):
        ml.push(world.execution_rid, there)


def test_a_snapshot_takes_nothing(
    ml: DerivaML, exe: Execution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that may not be written says so, and how to."""
    with exe:
        pass
    there = DerivaML(f"file:{tmp_path / 'there'}")
    connection = there.connection
    past = replace(
        connection, backend=replace(connection.backend, catalog=connection.catalog.at(connection.catalog.snapshot()))
    )
    monkeypatch.setattr(there, "_connection", past)
    with pytest.raises(CatalogReadOnly, match="snapshot"):
        ml.push(exe.execution_rid, there)


def test_progress_and_long_words(ml: DerivaML, there: DerivaML) -> None:
    """The files on their way are told of, and a description of many pages is found again like any other."""
    config = ExecutionConfiguration(workflow=WORKFLOW_IN_ALL, description="Wörter " * 2000)
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m" * 100)
    exe.upload_execution_outputs()
    heard: list[UploadProgress] = []
    report = ml.push(exe.execution_rid, there, progress_callback=heard.append)
    assert (heard[0].files_done, heard[-1].files_done) == (0, heard[-1].files)
    assert heard[-1].bytes_done == heard[-1].bytes == report.bytes - 0
    forget(there)
    assert ml.push(exe.execution_rid, there).execution == report.execution
    assert told(there, report.execution) == told(ml, exe.execution_rid)


def test_the_record_says_where_from(
    ml: DerivaML, there: DerivaML, world: RecordedExecution, copied: PushReport
) -> None:
    """A record with the copy names the catalog, the machine and the record id that it was copied from."""
    (record,) = (
        asset
        for asset in there.lookup_execution(copied.execution).list_assets("Output")
        if asset.filename.startswith("copied_from_")
    )
    path = there.restore_execution(copied.execution).download_asset(record.rid, there.connection.folder / "read")
    source = json.loads(path.read_text())["source"]
    assert (source["rid"], source["catalog"]) == (world.execution_rid, ml.connection.catalog.name)
    assert source["host"]


WORKFLOW_IN_ALL = Workflow(
    name="Test", workflow_type="Training", url="https://github.com/org/repo/blob/abc/t.py", checksum="2" * 40
)
