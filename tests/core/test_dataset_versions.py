"""Versions of datasets: what each preserves, also under concurrent changes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dataset_samples import insert_image_rows, insert_subjects, open_embedded

from deriva_ml_core.analysis.runs import list_datasets
from deriva_ml_core.backend import Catalog
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import (
    Dataset,
    VersionPart,
    add_dataset_element_type,
    create_dataset,
    list_input_datasets,
    lookup_dataset,
    record_input,
    resolve_version,
)
from deriva_ml_core.datasets.versions import create_versions
from deriva_ml_core.errors import ConfigurationError, DerivaMLWarning, UnknownRID, UnknownVersion, WrongTable
from deriva_ml_core.models import DatasetSpec


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return open_embedded(tmp_path / "catalog")


@pytest.fixture
def dataset(connection: Connection) -> Dataset:
    return create_dataset(connection, description="Photographs", dataset_types=["Training"])


def insert_execution(connection: Connection) -> str:
    """Insert an execution's row and return its RID."""
    catalog = connection.catalog
    workflow, rid = catalog.reserve(2)
    catalog.insert("Workflow", [{"RID": workflow, "Name": "Test", "Workflow_Type": "Training"}])
    catalog.insert("Execution", [{"RID": rid, "Workflow": workflow, "Status": "Running"}])
    return rid


def test_first_version_is_0_1_0(dataset: Dataset) -> None:
    """A new dataset has version 0.1.0, without members."""
    assert dataset.current_version == "0.1.0"
    assert [version.version for version in dataset.dataset_history()] == ["0.1.0"]
    assert not any(dataset.list_dataset_members("0.1.0").values())


def test_changed_members_make_a_minor_version(connection: Connection, dataset: Dataset) -> None:
    """Adding and removing members each create a new minor version with the given description."""
    rids = insert_image_rows(connection, 3)
    dataset.add_dataset_members(rids, description="Three more")
    dataset.delete_dataset_members(rids[:1])
    assert [(version.version, version.description) for version in dataset.dataset_history()] == [
        ("0.1.0", "First version"),
        ("0.2.0", "Three more"),
        ("0.3.0", "Removed 1 Image"),
    ]


@pytest.mark.parametrize(("part", "expected"), [("major", "1.0.0"), (VersionPart.minor, "0.3.0"), ("patch", "0.2.1")])
def test_increment_version(connection: Connection, dataset: Dataset, part: str, expected: str) -> None:
    """increment_version increments the given part and returns the new version."""
    dataset.add_dataset_members(insert_image_rows(connection, 1))
    assert dataset.increment_version(part, "Checked by hand") == expected == dataset.current_version
    assert dataset.dataset_history()[-1].description == "Checked by hand"


def test_unknown_part_is_refused(dataset: Dataset) -> None:
    """The error names the three parts."""
    with pytest.raises(ConfigurationError, match="'major', 'minor', 'patch'"):
        dataset.increment_version("huge")
    assert dataset.current_version == "0.1.0"


def test_version_never_changes(connection: Connection, dataset: Dataset) -> None:
    """A version lists the same rows and values after rows are changed, added, removed and deleted."""
    first, second, third = insert_image_rows(connection, 3)
    dataset.add_dataset_members([first, second])
    before = dataset.list_dataset_members("0.2.0")
    connection.catalog.update("Image", [{"RID": first, "Description": "Changed"}])
    dataset.add_dataset_members([third])
    dataset.delete_dataset_members([second])
    connection.catalog.delete("Image", {"RID": [first]})

    assert dataset.list_dataset_members("0.2.0") == before
    assert [row["RID"] for row in before["Image"]] == [first, second]
    assert before["Image"][0]["Description"] is None
    changed = dataset.list_dataset_members("0.3.0")["Image"]
    assert [(row["RID"], row["Description"]) for row in changed] == [(first, "Changed"), (second, None), (third, None)]


def test_default_is_the_current_version(connection: Connection, dataset: Dataset) -> None:
    """Without a version, the values are those of the current version, until a new one is created."""
    (rid,) = insert_image_rows(connection, 1)
    dataset.add_dataset_members([rid])
    connection.catalog.update("Image", [{"RID": rid, "Description": "Later"}])
    assert dataset.list_dataset_members()["Image"][0]["Description"] is None
    dataset.increment_version("patch", "Descriptions")
    assert dataset.list_dataset_members()["Image"][0]["Description"] == "Later"


def test_adding_members_again_changes_nothing(connection: Connection, dataset: Dataset) -> None:
    """Adding existing members, or removing others, creates no version."""
    rids = insert_image_rows(connection, 2)
    dataset.add_dataset_members(rids)
    dataset.add_dataset_members([*rids, rids[0]])
    dataset.add_dataset_members([])
    dataset.delete_dataset_members(insert_image_rows(connection, 1))
    assert dataset.current_version == "0.2.0"


def test_missing_version_is_created_later(connection: Connection, dataset: Dataset) -> None:
    """If a process died before it created the version, adding the members again creates it."""
    (rid,) = insert_image_rows(connection, 1)
    connection.catalog.insert("Dataset_Image", [{"Dataset": dataset.rid, "Image": rid}])
    assert not dataset.list_dataset_members()["Image"]
    dataset.add_dataset_members([rid])
    assert [row["RID"] for row in dataset.list_dataset_members()["Image"]] == [rid]


def test_unfinished_version_is_ignored(connection: Connection, dataset: Dataset) -> None:
    """A version without a snapshot is ignored, and its number is not used again."""
    connection.catalog.insert("Dataset_Version", [{"Dataset": dataset.rid, "Version": "0.2.0"}])
    assert dataset.current_version == "0.1.0"
    with pytest.raises(UnknownVersion):
        dataset.list_dataset_members("0.2.0")
    dataset.add_dataset_members(insert_image_rows(connection, 1))
    assert [version.version for version in dataset.dataset_history()] == ["0.1.0", "0.3.0"]


def test_invalid_version_number(connection: Connection, dataset: Dataset) -> None:
    """If another client wrote an invalid number, the error names the row; once corrected, all works."""
    (row,) = connection.catalog.select("Dataset_Version", {"Dataset": dataset.rid})
    connection.catalog.update("Dataset_Version", [{"RID": row["RID"], "Version": "1.0"}])
    for ask in (lambda: dataset.current_version, dataset.dataset_history, lambda: dataset.increment_version("patch")):
        with pytest.raises(ConfigurationError, match=rf"'1\.0'.*Correct row {row['RID']} of Dataset_Version"):
            ask()
    connection.catalog.update("Dataset_Version", [{"RID": row["RID"], "Version": "1.0.0"}])
    assert dataset.current_version == "1.0.0"


def test_parents_get_new_versions(connection: Connection, dataset: Dataset) -> None:
    """A change of members creates new versions of all parents, and of no other dataset."""
    parent, grandparent, stranger = (create_dataset(connection) for _ in range(3))
    parent.add_dataset_members([dataset.rid])
    grandparent.add_dataset_members([parent.rid])
    (rid,) = insert_image_rows(connection, 1)
    dataset.add_dataset_members([rid])
    assert [each.current_version for each in (dataset, parent, grandparent, stranger)] == [
        "0.2.0",
        "0.3.0",
        "0.3.0",
        "0.1.0",
    ]
    assert not grandparent.list_dataset_members("0.2.0", recurse=True)["Image"]
    assert [row["RID"] for row in grandparent.list_dataset_members(recurse=True)["Image"]] == [rid]


def test_description_of_a_parents_version(connection: Connection, dataset: Dataset) -> None:
    """The description of a parent's new version names the nested dataset and its change."""
    parent = create_dataset(connection)
    parent.add_dataset_members([dataset.rid])
    dataset.increment_version("major", "Relabelled")
    assert parent.current_version == "1.0.0"
    assert parent.dataset_history()[-1].description == f"Nested dataset {dataset.rid} has a new version: Relabelled"


def test_version_records_its_execution(connection: Connection) -> None:
    """Versions made through an execution's dataset name the execution; others do not."""
    maker = insert_execution(connection)
    made = create_dataset(connection, description="Output", execution=maker)
    made.add_dataset_members(insert_image_rows(connection, 1))
    made.increment_version("major")
    lookup_dataset(connection, made.rid).increment_version("patch")
    assert [version.execution for version in made.dataset_history()] == [maker, maker, maker, None]


def test_inputs_are_recorded_once(connection: Connection, dataset: Dataset) -> None:
    """An input is recorded with the version that was current then; recording it again changes nothing."""
    reader = insert_execution(connection)
    for _ in range(2):
        spec = record_input(connection, reader, DatasetSpec(rid=dataset.rid))
    assert spec.version == "0.1.0"
    dataset.increment_version("minor")
    assert list_input_datasets(connection, reader) == [DatasetSpec(rid=dataset.rid, version="0.1.0")]
    assert len(connection.catalog.select("Dataset_Execution")) == 1


def test_resolve_version(connection: Connection, dataset: Dataset) -> None:
    """The default is the current version; an unknown one is an error that names the known ones."""
    dataset.increment_version("minor")
    assert resolve_version(connection, DatasetSpec(rid=dataset.rid, materialize=False)) == DatasetSpec(
        rid=dataset.rid, version="0.2.0", materialize=False
    )
    with pytest.raises(UnknownVersion, match=r"no version '3.0.0'; it has 0.1.0, 0.2.0"):
        resolve_version(connection, DatasetSpec(rid=dataset.rid, version="3.0.0"))


def test_resolve_version_of_no_dataset(connection: Connection) -> None:
    """The RID of another table's row is an error that names the table."""
    (image,) = insert_image_rows(connection, 1)
    with pytest.raises(WrongTable, match="row of Image, not of Dataset"):
        resolve_version(connection, DatasetSpec(rid=image))
    with pytest.raises(UnknownRID, match="1-XYZ"):
        resolve_version(connection, DatasetSpec(rid="1-XYZ"))


def test_rid_with_snapshot_selects_the_version(connection: Connection, dataset: Dataset) -> None:
    """A RID with a snapshot selects the version that was current then."""
    dataset.increment_version("minor")
    cited = f"{dataset.rid}@{dataset.dataset_history()[-1].snapshot}"
    between = f"{dataset.rid}@{connection.catalog.snapshot()}"
    dataset.increment_version("minor")
    for rid in (cited, between):
        assert resolve_version(connection, DatasetSpec(rid=rid)).version == "0.2.0"


def test_row_names_the_current_version(connection: Connection, dataset: Dataset) -> None:
    """Other clients find the current version in Dataset.Version."""
    dataset.increment_version("major")
    row = connection.catalog.select("Dataset", {"RID": dataset.rid})[0]
    assert row["Version"] == dataset.dataset_history()[-1].rid


def test_values_of_plain_tables(connection: Connection, dataset: Dataset) -> None:
    """A version preserves numbers and booleans of a plain table's rows."""
    (rid,) = insert_subjects(connection, ["Ada"])
    connection.catalog.update("Subject", [{"RID": rid, "Age": 36, "Weight": 0.1, "Ill": False}])
    add_dataset_element_type(connection, "Subject")
    dataset.add_dataset_members([rid])
    connection.catalog.update("Subject", [{"RID": rid, "Age": 37, "Weight": None, "Ill": True}])
    (row,) = dataset.list_dataset_members()["Subject"]
    assert (row["Age"], row["Weight"], row["Ill"]) == (36, 0.1, False)


def test_concurrent_threads(connection: Connection, dataset: Dataset) -> None:
    """Threads that change a dataset at once all succeed, and the last version has all members."""
    rids = insert_image_rows(connection, 16)

    def add(number: int) -> None:
        dataset.add_dataset_members([rids[number]])
        if number % 4 == 0:
            dataset.increment_version("major")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(16)))
    assert {row["RID"] for row in dataset.list_dataset_members()["Image"]} == set(rids)
    # one more where a higher number came between
    assert len({version.version for version in dataset.dataset_history()}) >= 1 + 16 + 4


class InterruptedCatalog:
    """A catalog in which another process makes a major version just before the first call of a method.

    Args:
        catalog: The wrapped catalog.
        method: The method.
        dataset: The dataset of the version.
    """

    def __init__(self, catalog: Catalog, method: str, dataset: str) -> None:
        self._catalog, self._method, self._dataset = catalog, method, dataset

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            self._method = ""
            create_versions(self._catalog, {self._dataset: "Of another process"}, "major")
        return getattr(self._catalog, name)


def create_interrupted(connection: Connection, dataset: Dataset, method: str) -> tuple[str, list[str]]:
    """Return the version that `create_versions` returns, and all versions, with another process in between."""
    catalog: Any = InterruptedCatalog(connection.catalog, method, dataset.dataset_rid)
    numbers = create_versions(catalog, {dataset.dataset_rid: "New members"}, "minor")
    return numbers[dataset.dataset_rid], [version.version for version in dataset.dataset_history()]


def test_overtaken_version_is_followed_by_another(connection: Connection, dataset: Dataset) -> None:
    """A higher number that was reserved first may lack the change, so that a version above it follows."""
    versions = ["0.1.0", "0.2.0", "1.0.0", "1.1.0"]
    assert create_interrupted(connection, dataset, "reserve") == ("1.1.0", versions)


def test_later_version_of_another_process_has_the_change(connection: Connection, dataset: Dataset) -> None:
    """A higher number that was reserved afterwards has the change, so that no further version follows."""
    assert create_interrupted(connection, dataset, "snapshot") == ("0.2.0", ["0.1.0", "0.2.0", "1.0.0"])


RACER = """
import sys
from pathlib import Path
from deriva_ml_core.connection import open_connection
from deriva_ml_core.datasets import lookup_dataset
from deriva_ml_core.models import Address
folder, dataset, *rids = sys.argv[1:]
dataset = lookup_dataset(open_connection(Address(hostname=f"file:{folder}")), dataset)
for rid in rids:
    dataset.add_dataset_members([rid])
    members = {row["RID"] for row in dataset.list_dataset_members()["Image"]}
    assert rid in members, f"{rid} is not in {dataset.current_version}"
"""


def test_concurrent_processes(connection: Connection, dataset: Dataset) -> None:
    """Two processes that add members each see their own at once, and in the end all are there."""
    parent = create_dataset(connection)
    parent.add_dataset_members([dataset.rid])
    rids = insert_image_rows(connection, 20)
    folder = str(connection.folder)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, folder, dataset.rid, *rids[half::2]], stderr=subprocess.PIPE)
        for half in range(2)
    ]
    for racer in racers:
        assert racer.communicate()[1].decode() == ""
        assert racer.returncode == 0
    assert {row["RID"] for row in parent.list_dataset_members(recurse=True)["Image"]} == set(rids)
    assert dataset.current_version == "0.21.0"


def test_long_history(connection: Connection, dataset: Dataset) -> None:
    """The current version of a dataset with many versions is correct, though only the newest are read."""
    catalog = connection.catalog
    snapshot = dataset.dataset_history()[0].snapshot
    rows = [{"Dataset": dataset.rid, "Version": f"0.{n}.0", "Snapshot": snapshot} for n in range(2, 2000)]
    for row in rows[-30:]:
        catalog.insert("Dataset_Version", rows[:-30], skip_existing=True)
        catalog.insert("Dataset_Version", [row])
    assert dataset.current_version == "0.1999.0"
    assert dataset.increment_version("minor") == "0.2000.0"


def insert_development_version(connection: Connection, dataset: Dataset, version: str) -> str:
    """Insert the row of a development version, as another client does at each change of members."""
    (rid,) = connection.catalog.reserve(1)
    row = {"RID": rid, "Dataset": dataset.rid, "Version": version, "Description": "", "Snapshot": None}
    connection.catalog.insert("Dataset_Version", [row])
    return rid


IN_DEVELOPMENT = "is in a development period of another client"


def test_changes_beside_a_development_version(connection: Connection, dataset: Dataset) -> None:
    """The first change makes a release above the development version, with a warning; its row stays as it is."""
    first, second, third = insert_image_rows(connection, 3)
    dataset.add_dataset_members([first])
    development = insert_development_version(connection, dataset, "0.2.0.post1.dev7")
    before = connection.catalog.select("Dataset_Version", {"RID": development})
    with pytest.warns(DerivaMLWarning, match=f"Dataset {dataset.rid} {IN_DEVELOPMENT}"):
        dataset.add_dataset_members([second, third])
    dataset.delete_dataset_members([first])
    assert dataset.increment_version("patch") == "0.4.1"
    assert [version.version for version in dataset.dataset_history()] == ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.4.1"]
    assert connection.catalog.select("Dataset_Version", {"RID": development}) == before


@pytest.mark.parametrize("count", [1, 40])
def test_development_versions_count_only_when_named(connection: Connection, dataset: Dataset, count: int) -> None:
    """The current version is the newest release, also after many development versions."""
    (image,) = insert_image_rows(connection, 1)
    for number in range(count):
        insert_development_version(connection, dataset, f"0.1.0.post1.dev{number + 1}")
    connection.catalog.update(
        "Dataset",
        [{"RID": dataset.rid, "Version": insert_development_version(connection, dataset, "0.1.0.post1.dev99")}],
    )
    assert dataset.current_version == "0.1.0"
    assert [version.version for version in dataset.dataset_history()] == ["0.1.0"]
    assert resolve_version(connection, DatasetSpec(rid=dataset.rid)).version == "0.1.0"
    (summary,) = list_datasets(connection, text=None, include_deleted=False, limit=10, page=1).datasets
    assert summary.version == "0.1.0"
    connection.catalog.insert("Dataset_Image", [{"Dataset": dataset.rid, "Image": image}])
    assert dataset.list_dataset_members()["Image"] == []


def test_named_development_version(connection: Connection, dataset: Dataset) -> None:
    """It has the present members, and the user is warned that a run that reads it cannot be reproduced."""
    first, second = insert_image_rows(connection, 2)
    dataset.add_dataset_members([first])
    insert_development_version(connection, dataset, "0.2.0.post1.dev1")
    connection.catalog.insert("Dataset_Image", [{"Dataset": dataset.rid, "Image": second}])
    spec = DatasetSpec(rid=dataset.rid, version="0.2.0.post1.dev1")
    with pytest.warns(DerivaMLWarning, match=r"0\.2\.0\.post1\.dev1 .* can change, .* not reproducible"):
        members = dataset.list_dataset_members(spec.version)
    assert [row["RID"] for row in members["Image"]] == [first, second]
    assert [row["RID"] for row in dataset.list_dataset_members()["Image"]] == [first]
    execution = insert_execution(connection)
    with pytest.warns(DerivaMLWarning, match="not reproducible"):
        assert record_input(connection, execution, spec) == spec
    assert list_input_datasets(connection, execution) == [spec]
    with pytest.warns(DerivaMLWarning, match="not reproducible"):
        bag = dataset.download_dataset_bag(spec.version, materialize=False)
    assert bag.version == "0.2.0.post1.dev1"
    assert sorted(row["RID"] for row in bag.iterate_table("Image")) == sorted([first, second])
    connection.catalog.delete("Dataset_Image", {"Image": first})
    with pytest.warns(DerivaMLWarning, match="not reproducible"):
        again = dataset.download_dataset_bag(spec.version, materialize=False)
    assert [row["RID"] for row in again.iterate_table("Image")] == [second]


def test_development_version_without_release(connection: Connection, dataset: Dataset) -> None:
    """The first release of ours is above the development version."""
    connection.catalog.update("Dataset", [{"RID": dataset.rid, "Version": None}])
    connection.catalog.delete("Dataset_Version", {"Dataset": dataset.rid})
    insert_development_version(connection, dataset, "1.0.0.post1.dev2")
    with pytest.raises(UnknownVersion, match="no version"):
        _ = dataset.current_version
    with pytest.warns(DerivaMLWarning, match=IN_DEVELOPMENT):
        assert dataset.increment_version("minor") == "1.1.0"


@pytest.mark.parametrize(
    "version", ["1.2", "1.2.0.dev", "1.2.0.post1.dev1/../x", "1.2.0a1", "v1.2.0", "1.2.0.post.dev1"]
)
def test_version_of_a_spec_is_checked(version: str) -> None:
    """A spec names a release or a development version."""
    with pytest.raises(ValueError, match="version"):
        DatasetSpec(rid="1-000A", version=version)
