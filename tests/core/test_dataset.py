"""Datasets: members, nesting, and refused changes."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from dataset_samples import insert_image_rows, insert_images, insert_subjects, open_embedded

from deriva_ml_core.client import DerivaML
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import (
    Dataset,
    add_dataset_element_type,
    create_dataset,
    delete_dataset,
    find_datasets,
    lookup_dataset,
)
from deriva_ml_core.datasets.members import ancestors
from deriva_ml_core.errors import (
    ConfigurationError,
    DatasetCycle,
    InvalidRID,
    UnknownRID,
    UnknownTable,
    UnknownTerm,
    WrongTable,
)


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return open_embedded(tmp_path / "catalog")


@pytest.fixture
def dataset(connection: Connection) -> Dataset:
    return create_dataset(connection, description="Photographs", dataset_types=["Training", "Augmented"])


def rids(rows: list[dict[str, object]]) -> list[object]:
    return [row["RID"] for row in rows]


def test_lookup_returns_what_was_created(connection: Connection, dataset: Dataset) -> None:
    """lookup_dataset returns the RID, description and types of the creation."""
    found = lookup_dataset(connection, dataset.dataset_rid)
    assert found.rid == dataset.rid
    assert found.description == "Photographs"
    assert found.dataset_types == ("Augmented", "Training")


def test_unknown_dataset_type_is_refused(connection: Connection) -> None:
    """The error lists the known types, and no dataset is created."""
    with pytest.raises(UnknownTerm, match=r"'Trianing'.*Training"):
        create_dataset(connection, dataset_types=["Trianing"])
    assert find_datasets(connection) == []


def test_add_and_remove_dataset_types(connection: Connection, dataset: Dataset) -> None:
    """A type can be added and removed repeatedly; an unknown one is refused."""
    for _ in range(2):
        dataset.add_dataset_type("Testing")
        dataset.remove_dataset_type("Augmented")
    assert dataset.dataset_types == ("Testing", "Training")
    assert lookup_dataset(connection, dataset.rid).dataset_types == ("Testing", "Training")
    with pytest.raises(UnknownTerm, match="Tseting"):
        dataset.add_dataset_type("Tseting")


def test_find_datasets(connection: Connection, dataset: Dataset) -> None:
    """find_datasets lists datasets with their types, the oldest first; a deleted one can still be looked up."""
    second, third = create_dataset(connection), create_dataset(connection, dataset_types="Testing")
    assert [(each.rid, each.dataset_types) for each in find_datasets(connection)] == [
        (dataset.rid, ("Augmented", "Training")),
        (second.rid, ()),
        (third.rid, ("Testing",)),
    ]
    delete_dataset(connection, second.rid)
    assert [each.rid for each in find_datasets(connection)] == [dataset.rid, third.rid]
    assert lookup_dataset(connection, second.rid).current_version == "0.1.0"


def test_lookup_of_another_table(connection: Connection) -> None:
    """The RID of another table's row is an error that names the table."""
    (image,) = insert_image_rows(connection, 1)
    with pytest.raises(WrongTable, match=f"{image} is a row of Image"):
        lookup_dataset(connection, image)


def test_members_of_several_tables(connection: Connection, dataset: Dataset) -> None:
    """RIDs of several element tables are grouped by table, each in the order of adding."""
    add = insert_image_rows(connection, 3)
    nested = create_dataset(connection)
    dataset.add_dataset_members([add[2], nested.rid, add[0]])
    members = dataset.list_dataset_members()
    assert rids(members["Image"]) == [add[2], add[0]]
    assert rids(members["Dataset"]) == [nested.rid]
    assert members["File"] == members["Model"] == []


def test_members_by_table(connection: Connection, dataset: Dataset) -> None:
    """Members can be passed by table, and complete rows are listed."""
    (rid,) = insert_images(connection, {"a.png": b"bytes"})
    dataset.add_dataset_members({"Image": [rid]})
    assert dataset.list_dataset_members()["Image"] == connection.catalog.select("Image")


def test_members_with_a_snapshot(connection: Connection, dataset: Dataset) -> None:
    """A RID with a snapshot names the same row."""
    (rid,) = insert_image_rows(connection, 1)
    dataset.add_dataset_members([f"{rid}@{connection.catalog.snapshot()}"])
    assert rids(dataset.list_dataset_members()["Image"]) == [rid]


def test_limit(connection: Connection, dataset: Dataset) -> None:
    """At most `limit` rows of each table are listed."""
    dataset.add_dataset_members(insert_image_rows(connection, 5))
    assert len(dataset.list_dataset_members(limit=2)["Image"]) == 2


def test_unknown_members_are_refused(connection: Connection, dataset: Dataset) -> None:
    """Unknown RIDs are an error that names the first few, and nothing is added."""
    known = insert_image_rows(connection, 1)
    unknown = [f"9-{number}" for number in range(8)]
    with pytest.raises(UnknownRID, match="9-0, 9-1, 9-2, 9-3, 9-4 and 3 more"):
        dataset.add_dataset_members([*known, *unknown])
    assert not dataset.list_dataset_members()["Image"]
    assert dataset.current_version == "0.1.0"


def test_unknown_members_by_table_are_refused(connection: Connection, dataset: Dataset) -> None:
    """With a table, an unknown RID or another table's row is an error, and nothing is added."""
    (rid,) = insert_image_rows(connection, 1)
    with pytest.raises(UnknownRID, match="9-9"):
        dataset.add_dataset_members({"Image": [rid], "Model": ["9-9"]})
    assert connection.catalog.select("Dataset_Image") == []
    with pytest.raises(WrongTable, match=f"Rows {rid} are in Image, not in Model"):
        dataset.add_dataset_members({"Model": [rid]})
    assert dataset.current_version == "0.1.0"


@pytest.mark.parametrize("wrong", ["1 2", "", "1-", "é", "1_2"])
def test_invalid_rid_is_refused(dataset: Dataset, wrong: str) -> None:
    """A text that is not a RID is an error."""
    with pytest.raises(InvalidRID):
        dataset.add_dataset_members([wrong])


def test_single_rid_is_one_member(connection: Connection, dataset: Dataset) -> None:
    """A text instead of a list is one RID, not its letters."""
    (rid,) = insert_image_rows(connection, 1)
    dataset.add_dataset_members(rid)
    assert rids(dataset.list_dataset_members()["Image"]) == [rid]


def test_rows_of_other_tables_are_refused(connection: Connection, dataset: Dataset) -> None:
    """A row of another table is an error that names the table and the call that makes it an element table."""
    (rid,) = insert_subjects(connection, ["Ada"])
    for members in ([rid], {"Subject": [rid]}):
        with pytest.raises(WrongTable, match=r"Subject.*ml\.add_dataset_element_type\('Subject'\)"):
            dataset.add_dataset_members(members)
    add_dataset_element_type(connection, "Subject")
    add_dataset_element_type(connection, "Subject")
    dataset.add_dataset_members([rid])
    assert rids(dataset.list_dataset_members()["Subject"]) == [rid]


def test_element_type_added_by_another_connection(connection: Connection, dataset: Dataset) -> None:
    """A table that another connection made an element table accepts members at once."""
    (rid,) = insert_subjects(connection, ["Ada"])
    other = open_embedded(connection.folder)
    add_dataset_element_type(other, "Subject")
    dataset.add_dataset_members([rid])
    assert rids(dataset.list_dataset_members()["Subject"]) == [rid]


def test_invalid_element_types_are_refused(connection: Connection) -> None:
    """A missing table, or one whose link table's name is taken, cannot become an element table."""
    with pytest.raises(UnknownTable, match="Subjects"):
        add_dataset_element_type(connection, "Subjects")
    for taken in ("Execution", "Dataset_Type"):
        with pytest.raises(ConfigurationError, match=f"another table has the name Dataset_{taken}"):
            add_dataset_element_type(connection, taken)


def test_members_of_an_unknown_table(dataset: Dataset) -> None:
    """A table that the catalog does not have is an error."""
    with pytest.raises(UnknownTable, match="Imagery"):
        dataset.add_dataset_members({"Imagery": ["1-1"]})


def test_nested_datasets(connection: Connection, dataset: Dataset) -> None:
    """Members of nested datasets are listed on request, each once; children and parents at any depth."""
    train, test, inner = (create_dataset(connection) for _ in range(3))
    a, b, c = insert_image_rows(connection, 3)
    inner.add_dataset_members([a])
    train.add_dataset_members([a, b, inner.rid])
    test.add_dataset_members([c])
    dataset.add_dataset_members([train.rid, test.rid])

    assert dataset.list_dataset_members()["Image"] == []
    assert sorted(map(str, rids(dataset.list_dataset_members(recurse=True)["Image"]))) == [a, b, c]
    assert [each.rid for each in dataset.list_dataset_children()] == [train.rid, test.rid]
    assert {each.rid for each in dataset.list_dataset_children(recurse=True)} == {train.rid, test.rid, inner.rid}
    assert dataset.list_dataset_children(version="0.1.0") == []
    assert [each.rid for each in inner.list_dataset_parents()] == [train.rid]
    assert {each.rid for each in inner.list_dataset_parents(recurse=True)} == {train.rid, dataset.rid}


def test_parent_version_preserves_nested_members(connection: Connection, dataset: Dataset) -> None:
    """A parent's version lists the members that its nested datasets had then."""
    nested = create_dataset(connection)
    first, second = insert_image_rows(connection, 2)
    nested.add_dataset_members([first])
    dataset.add_dataset_members([nested.rid])
    nested.delete_dataset_members([first])
    nested.add_dataset_members([second])
    assert rids(dataset.list_dataset_members("0.2.0", recurse=True)["Image"]) == [first]
    assert rids(dataset.list_dataset_members(recurse=True)["Image"]) == [second]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_cycle_is_refused(connection: Connection, dataset: Dataset, depth: int) -> None:
    """A dataset cannot contain itself at any depth, and the other members are not added either."""
    innermost = dataset
    for _ in range(depth):
        nested = create_dataset(connection)
        innermost.add_dataset_members([nested.rid])
        innermost = nested
    before = innermost.current_version
    with pytest.raises(DatasetCycle, match=dataset.rid):
        innermost.add_dataset_members([dataset.rid, *insert_image_rows(connection, 1)])
    assert innermost.current_version == before
    assert connection.catalog.select("Dataset_Image") == []


def test_existing_cycle_is_read_once(connection: Connection, dataset: Dataset) -> None:
    """Reading ends even if two datasets contain each other."""
    other = create_dataset(connection)
    pairs = [(dataset.rid, other.rid), (other.rid, dataset.rid)]
    connection.catalog.insert("Dataset_Dataset", [{"Dataset": a, "Nested_Dataset": b} for a, b in pairs])
    dataset.increment_version("minor")
    assert [each.rid for each in dataset.list_dataset_children(recurse=True)] == [other.rid, dataset.rid]
    assert ancestors(connection.catalog, dataset.rid) == [other.rid]


def test_concurrent_cycle(connection: Connection) -> None:
    """If two threads put two datasets into each other at once, at most one succeeds."""
    for _ in range(10):
        one, other = create_dataset(connection), create_dataset(connection)
        start = Barrier(2)

        def put(outer: Dataset, inner: Dataset, start: Barrier = start) -> bool:
            start.wait()
            try:
                outer.add_dataset_members([inner.rid])
            except DatasetCycle:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(put, (one, other), (other, one)))
        nested = [bool(each.list_dataset_children()) for each in (one, other)]
        assert nested == done
        assert sum(done) < 2


def test_members_are_paged(connection: Connection, dataset: Dataset) -> None:
    """Pages have at most the requested size, and list all members once, in the order of adding."""
    add = insert_image_rows(connection, 2500)
    dataset.add_dataset_members(add)
    pages = list(dataset.iterate_dataset_members("Image", page_size=1000))
    assert [len(page) for page in pages] == [1000, 1000, 500]
    assert [row["RID"] for page in pages for row in page] == add


def test_paging_uses_constant_memory(connection: Connection, dataset: Dataset) -> None:
    """Reading all pages takes no more memory than reading the first ones."""
    dataset.add_dataset_members(insert_image_rows(connection, 20_000))
    pages = dataset.iterate_dataset_members("Image", page_size=500)
    next(pages)
    tracemalloc.start()
    for _ in range(3):
        next(pages)
    few = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    assert sum(len(page) for page in pages) == 20_000 - 4 * 500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * few


def test_client_deletes_a_dataset(ml: DerivaML) -> None:
    """delete_dataset takes a dataset or its RID; a deleted dataset can still be looked up."""
    first, second, third = (ml.create_dataset(name) for name in "abc")
    ml.delete_dataset(first)
    ml.delete_dataset(second.rid)
    assert [dataset.rid for dataset in ml.find_datasets()] == [third.rid]
    assert ml.lookup_dataset(first.rid).description == "a"


def public_names(instance: object) -> set[str]:
    """The names that tab completion shows for an object."""
    return {name for name in dir(instance) if not name.startswith("_")}


def test_tab_completion_shows_the_documented_names(dataset: Dataset) -> None:
    """A dataset and its bag show their documented methods and properties, and nothing else."""
    assert public_names(dataset) == {
        "add_dataset_members",
        "add_dataset_type",
        "current_version",
        "dataset_history",
        "dataset_rid",
        "dataset_types",
        "delete_dataset_members",
        "description",
        "download_dataset_bag",
        "increment_version",
        "iterate_dataset_members",
        "list_dataset_children",
        "list_dataset_members",
        "list_dataset_parents",
        "remove_dataset_type",
        "rid",
    }
    assert public_names(dataset.download_dataset_bag()) == {
        "dataset_rid",
        "dataset_types",
        "description",
        "get_table",
        "get_table_as_dataframe",
        "iterate_table",
        "list_dataset_children",
        "list_dataset_members",
        "list_tables",
        "path",
        "validate",
        "version",
    }
