"""What a push takes for the same row at the target: by keys that are given or not, and by words however long."""

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
from pushed_world import WORKFLOW, told

SUBJECTS = Table("Subject", (Column("Name"), Column("Code")), keys=(("Name",), ("Code",)), schema="domain")


@pytest.fixture
def ml(tmp_path: Path) -> DerivaML:
    return with_subjects(DerivaML(f"file:{tmp_path / 'here'}"))


@pytest.fixture
def there(tmp_path: Path) -> DerivaML:
    return with_subjects(DerivaML(f"file:{tmp_path / 'there'}"))


def with_subjects(ml: DerivaML) -> DerivaML:
    ml.add_term("Workflow_Type", "Segmenting")
    ml.create_table(SUBJECTS)
    ml.add_dataset_element_type("Subject")
    return ml


def of_subjects(ml: DerivaML, subjects: list[dict[str, str | None]]) -> Execution:
    """A run whose input is a dataset of such subjects."""
    ml.insert_rows("Subject", subjects)
    dataset = ml.create_dataset("Subjects")
    dataset.add_dataset_members([row["RID"] for row in ml.select_rows("Subject")])
    return reader_of(ml, dataset.rid)


def reader_of(ml: DerivaML, dataset: str) -> Execution:
    inputs = [DatasetSpec(rid=dataset)]
    with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW, description="Reads", datasets=inputs)) as exe:
        pass
    return exe


def test_rows_of_which_some_give_no_key(ml: DerivaML, there: DerivaML) -> None:
    """Each row is found by the key that it gives, also where another row beside it gives none."""
    there.insert_rows("Subject", [{"Name": "A", "Code": "1"}, {"Name": "B", "Code": "2"}])
    exe = of_subjects(ml, [{"Name": "A", "Code": "1"}, {"Name": None, "Code": "2"}, {"Name": None, "Code": None}])
    report = ml.push(exe.execution_rid, there)
    assert len([row for row in report.new if row.table == "Subject"]) == 1
    rows = [(row["Name"], row["Code"]) for row in there.select_rows("Subject")]
    assert rows == [("A", "1"), ("B", "2"), (None, None)]
    assert len(told(there, report.execution)["inputs"][0]["members"]["Subject"]) == 3
    assert ml.push(exe.execution_rid, there).new == ()


def test_a_row_whose_second_key_is_another_rows(ml: DerivaML, there: DerivaML) -> None:
    """It is neither lost nor taken for the other row: both are named, and mended the push goes on."""
    there.insert_rows("Subject", [{"Name": "B", "Code": "1"}])
    exe = of_subjects(ml, [{"Name": "A", "Code": "1"}, {"Name": "C", "Code": "3"}])
    (first, _) = (row["RID"] for row in ml.select_rows("Subject"))
    with pytest.raises(DuplicateRow, match=f"Subject {first} cannot be copied: .* the same Name or Code"):
        ml.push(exe.execution_rid, there)
    (theirs, *_) = there.select_rows("Subject")
    there.connection.catalog.update("Subject", [{"RID": theirs["RID"], "Code": "9"}])
    report = ml.push(exe.execution_rid, there)
    assert told(there, report.execution) == told(ml, exe.execution_rid)
    assert sorted(row["Name"] for row in there.select_rows("Subject")) == ["A", "B", "C"]


PAGES = "Wörter " * 2000


def test_a_dataset_of_many_words_from_another_machine(ml: DerivaML, there: DerivaML) -> None:
    """A description that is too long to be asked for is found again without what this machine wrote down."""
    dataset = ml.create_dataset(PAGES, "Training")
    for _ in range(2):
        report = ml.push(reader_of(ml, dataset.rid).execution_rid, there)
        shutil.rmtree(there.connection.folder / "pushed")
    (copy,) = there.find_datasets()
    assert copy.description == f"{PAGES}\n\n{source_of(ml, dataset.rid)}"
    assert report.rids[dataset.rid] == copy.rid


def test_killed_between_a_row_and_its_many_words(ml: DerivaML, there: DerivaML) -> None:
    """A push that was killed before a copy had all of its description gives it that when it is done again."""
    dataset = ml.create_dataset(PAGES)
    config = ExecutionConfiguration(workflow=WORKFLOW, description=PAGES, datasets=[DatasetSpec(rid=dataset.rid)])
    with ml.create_execution(config) as exe:
        pass
    report = ml.push(exe.execution_rid, there)
    for table, rid in (("Dataset", dataset.rid), ("Execution", exe.execution_rid)):
        begun = {"RID": report.rids[rid], "Description": source_of(ml, rid, table)}
        there.connection.catalog.update(table, [begun])
    again = ml.push(exe.execution_rid, there)
    assert again.new == ()
    assert told(there, again.execution) == told(ml, exe.execution_rid)


def source_of(ml: DerivaML, rid: str, table: str = "Dataset") -> str:
    """The words by which a copy names where it came from."""
    (row,) = ml.connection.catalog.select(table, {"RID": rid})
    return description_with_source(None, ml.connection.catalog, row)


def test_a_number_that_was_begun_there(ml: DerivaML, there: DerivaML) -> None:
    """A version that somebody at the target began under the same number, and never finished, is named."""
    dataset = ml.create_dataset("Grows")
    report = ml.push(reader_of(ml, dataset.rid).execution_rid, there)
    number = dataset.increment_version("major")
    begun = {"Dataset": report.rids[dataset.rid], "Version": number}
    there.connection.catalog.insert("Dataset_Version", [begun])
    later = reader_of(ml, dataset.rid)
    with pytest.raises(DuplicateRow, match=f"version {number} .*not finished"):
        ml.push(later.execution_rid, there)
    dataset.increment_version("major")
    copy = ml.push(reader_of(ml, dataset.rid).execution_rid, there)
    assert there.lookup_dataset(copy.rids[dataset.rid]).current_version == dataset.current_version


def test_an_input_of_no_finished_version(ml: DerivaML, there: DerivaML) -> None:
    """Where other clients recorded none, or one that was never finished, the dataset comes as it is, with a note."""
    dataset = ml.create_dataset("Grows")
    exe = reader_of(ml, dataset.rid)
    catalog = ml.connection.catalog
    (rid,) = catalog.reserve(1)
    catalog.insert("Dataset_Version", [{"RID": rid, "Dataset": dataset.rid, "Version": "9.0.0"}])
    (link,) = catalog.select("Dataset_Execution")
    catalog.update("Dataset_Execution", [{"RID": link["RID"], "Dataset_Version": rid}])
    report = ml.push(exe.execution_rid, there)
    (copy,) = there.connection.catalog.select("Dataset_Execution")
    assert (copy["Dataset"], copy["Dataset_Version"]) == (report.rids[dataset.rid], None)
    assert there.lookup_dataset(copy["Dataset"]).current_version == dataset.current_version
    assert f"no finished version of its input dataset {dataset.rid}" in report.notes[0]
    assert ml.push(exe.execution_rid, there).new == ()


def test_a_record_that_would_fill_the_disk(ml: DerivaML) -> None:
    """A file that is named as a record and is too big for one is not brought here."""
    row = {"URL": "/hatrac/Execution_Metadata/0.record:1", "Length": 2**40, "MD5": "0" * 32}
    assert read_source_record(ml.connection, row) == SourceRecord()
