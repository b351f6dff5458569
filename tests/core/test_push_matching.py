"""How a push matches rows at the target: by keys that may be empty, and by long descriptions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import DuplicateRow
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec
from deriva_ml_core.push.context import description_with_source
from deriva_ml_core.push.source_record import SourceRecord, read_source_record
from deriva_ml_core.schema import Column, Table
from sample_run import WORKFLOW, describe_run

SUBJECTS = Table("Subject", (Column("Name"), Column("Code")), keys=(("Name",), ("Code",)), schema="domain")


@pytest.fixture
def ml(tmp_path: Path) -> DerivaML:
    return add_subject_table(DerivaML(f"file:{tmp_path / 'here'}"))


@pytest.fixture
def target(tmp_path: Path) -> DerivaML:
    return add_subject_table(DerivaML(f"file:{tmp_path / 'there'}"))


def add_subject_table(ml: DerivaML) -> DerivaML:
    ml.add_term("Workflow_Type", "Segmenting")
    ml.create_table(SUBJECTS)
    ml.add_dataset_element_type("Subject")
    return ml


def run_with_subjects(ml: DerivaML, subjects: list[dict[str, str | None]]) -> Execution:
    """Record a run with a dataset of these subjects as input."""
    ml.insert_rows("Subject", subjects)
    dataset = ml.create_dataset("Subjects")
    dataset.add_dataset_members([row["RID"] for row in ml.select_rows("Subject")])
    return run_with_dataset(ml, dataset.rid)


def run_with_dataset(ml: DerivaML, dataset: str) -> Execution:
    inputs = [DatasetSpec(rid=dataset)]
    with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Reads", datasets=inputs)) as exe:
        pass
    return exe


def test_rows_with_and_without_keys(ml: DerivaML, target: DerivaML) -> None:
    """Each row is matched by the keys that it has, also next to rows without one."""
    target.insert_rows("Subject", [{"Name": "A", "Code": "1"}, {"Name": "B", "Code": "2"}])
    exe = run_with_subjects(ml, [{"Name": "A", "Code": "1"}, {"Name": None, "Code": "2"}, {"Name": None, "Code": None}])
    report = ml.push(exe.execution_rid, target)
    assert len([row for row in report.new if row.table == "Subject"]) == 1
    rows = [(row["Name"], row["Code"]) for row in target.select_rows("Subject")]
    assert rows == [("A", "1"), ("B", "2"), (None, None)]
    assert len(describe_run(target, report.execution)["inputs"][0]["members"]["Subject"]) == 3
    assert ml.push(exe.execution_rid, target).new == ()


def test_conflicting_second_key(ml: DerivaML, target: DerivaML) -> None:
    """A row whose second key belongs to another row raises DuplicateRow; after a fix the push succeeds."""
    target.insert_rows("Subject", [{"Name": "B", "Code": "1"}])
    exe = run_with_subjects(ml, [{"Name": "A", "Code": "1"}, {"Name": "C", "Code": "3"}])
    (first, _) = (row["RID"] for row in ml.select_rows("Subject"))
    with pytest.raises(DuplicateRow, match=f"Subject {first} cannot be copied: .* the same Name or Code"):
        ml.push(exe.execution_rid, target)
    (existing, *_) = target.select_rows("Subject")
    target.connection.catalog.update("Subject", [{"RID": existing["RID"], "Code": "9"}])
    report = ml.push(exe.execution_rid, target)
    assert describe_run(target, report.execution) == describe_run(ml, exe.execution_rid)
    assert sorted(row["Name"] for row in target.select_rows("Subject")) == ["A", "B", "C"]


LONG_TEXT = "Wörter " * 2000


def test_long_description_without_ledger(ml: DerivaML, target: DerivaML) -> None:
    """A dataset with a description that is too long for a query is matched without the ledger."""
    dataset = ml.create_dataset(LONG_TEXT, "Training")
    for _ in range(2):
        report = ml.push(run_with_dataset(ml, dataset.rid).execution_rid, target)
        shutil.rmtree(target.connection.folder / "pushed")
    (copy,) = target.find_datasets()
    assert copy.description == f"{LONG_TEXT}\n\n{source_description(ml, dataset.rid)}"
    assert report.rids[dataset.rid] == copy.rid


def test_long_description_is_completed(ml: DerivaML, target: DerivaML) -> None:
    """A push that was killed before a long description was complete writes it when repeated."""
    dataset = ml.create_dataset(LONG_TEXT)
    config = ExecutionConfiguration(workflow=WORKFLOW, description=LONG_TEXT, datasets=[DatasetSpec(rid=dataset.rid)])
    with ml.create_execution(config) as exe:
        pass
    report = ml.push(exe.execution_rid, target)
    for table, rid in (("Dataset", dataset.rid), ("Execution", exe.execution_rid)):
        incomplete = {"RID": report.rids[rid], "Description": source_description(ml, rid, table)}
        target.connection.catalog.update(table, [incomplete])
    again = ml.push(exe.execution_rid, target)
    assert again.new == ()
    assert describe_run(target, again.execution) == describe_run(ml, exe.execution_rid)


def source_description(ml: DerivaML, rid: str, table: str = "Dataset") -> str:
    """Return the text by which a copy names its source."""
    (row,) = ml.connection.catalog.select(table, {"RID": rid})
    return description_with_source(None, ml.connection.catalog, row)


def test_unfinished_version_at_the_target(ml: DerivaML, target: DerivaML) -> None:
    """An unfinished version with the same number at the target raises DuplicateRow."""
    dataset = ml.create_dataset("Grows")
    report = ml.push(run_with_dataset(ml, dataset.rid).execution_rid, target)
    number = dataset.increment_version("major")
    incomplete = {"Dataset": report.rids[dataset.rid], "Version": number}
    target.connection.catalog.insert("Dataset_Version", [incomplete])
    later = run_with_dataset(ml, dataset.rid)
    with pytest.raises(DuplicateRow, match=f"version {number} .*not finished"):
        ml.push(later.execution_rid, target)
    dataset.increment_version("major")
    copy = ml.push(run_with_dataset(ml, dataset.rid).execution_rid, target)
    assert target.lookup_dataset(copy.rids[dataset.rid]).current_version == dataset.current_version


def test_input_without_finished_version(ml: DerivaML, target: DerivaML) -> None:
    """An input dataset without a finished version is copied as it is, with a note."""
    dataset = ml.create_dataset("Grows")
    exe = run_with_dataset(ml, dataset.rid)
    catalog = ml.connection.catalog
    (rid,) = catalog.reserve(1)
    catalog.insert("Dataset_Version", [{"RID": rid, "Dataset": dataset.rid, "Version": "9.0.0"}])
    (link,) = catalog.select("Dataset_Execution")
    catalog.update("Dataset_Execution", [{"RID": link["RID"], "Dataset_Version": rid}])
    report = ml.push(exe.execution_rid, target)
    (copy,) = target.connection.catalog.select("Dataset_Execution")
    assert (copy["Dataset"], copy["Dataset_Version"]) == (report.rids[dataset.rid], None)
    assert target.lookup_dataset(copy["Dataset"]).current_version == dataset.current_version
    assert f"no finished version of its input dataset {dataset.rid}" in report.notes[0]
    assert ml.push(exe.execution_rid, target).new == ()


def test_oversized_record_is_not_read(ml: DerivaML) -> None:
    """A file named as a source record that is too large for one is not downloaded."""
    row = {"URL": "/hatrac/Execution_Metadata/0.record:1", "Length": 2**40, "MD5": "0" * 32}
    assert read_source_record(ml.connection, row) == SourceRecord()
