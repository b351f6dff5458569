"""What the embedded catalog promises beyond the Protocol."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from embedded_samples import steps

from deriva_ml_core.backend import Where
from deriva_ml_core.backends.embedded import EmbeddedCatalog, open_catalog
from deriva_ml_core.backends.sql import identifiers
from deriva_ml_core.backends.sql.identifiers import encode, rid_number, snapshot_to_tick, tick_to_iso, tick_to_snapshot
from deriva_ml_core.errors import (
    ConfigurationError,
    DuplicateRow,
    InvalidRID,
    RowInUse,
    UnknownColumn,
    UnknownRID,
    UnknownVersion,
)
from deriva_ml_core.schema import Column, ForeignKey, Table


@pytest.fixture
def catalog(tmp_path: Path) -> EmbeddedCatalog:
    return open_catalog(tmp_path / "local")


def workflow(catalog: EmbeddedCatalog) -> str:
    row, _ = catalog.insert_unless("Workflow", {"URL": "a"}, {"URL": "a", "Workflow_Type": "Training"})
    return str(row["RID"])


def history(catalog: EmbeddedCatalog, table: str) -> int:
    with catalog._file.database.read_transaction() as connection:
        return int(connection.exec_driver_sql(f'SELECT count(*) FROM "{table}__history"').scalar_one())


# Record ids ----------------------------------------------------------------------------------------------------------


def test_any_free_id_may_be_given(catalog: EmbeddedCatalog) -> None:
    """A caller may give any free id, written however it likes."""
    assert catalog.insert("Dataset", [{"RID": rid} for rid in ("1-ABC", "2-GHI", "x", "Z" * 60)]) == 4
    assert catalog.locate(["1-ABC", "x"]) == {"1-ABC": "Dataset", "x": "Dataset"}


def test_given_ids_are_never_handed_out(catalog: EmbeddedCatalog) -> None:
    """The counter leaves out the ids that callers gave."""
    following = rid_number(catalog.reserve(1)[0])
    assert following is not None
    given = [encode(following + step) for step in (1, 2, 4, 40)]
    catalog.insert("Dataset", [{"RID": rid} for rid in given])
    assert catalog.reserve(3) == [encode(following + step) for step in (3, 5, 6)]
    assert encode(following + 40) not in catalog.reserve(50)


def test_an_id_names_one_row_of_the_catalog(catalog: EmbeddedCatalog) -> None:
    """An id that a row of another table has is refused, and the error names that table."""
    catalog.insert("Dataset", [{"RID": "1-ABC"}])
    with pytest.raises(DuplicateRow, match="Dataset"):
        catalog.insert("Execution", [{"RID": "1-ABC"}])
    with pytest.raises(DuplicateRow, match="RID = '1-ABC'"):
        catalog.insert("Dataset", [{"RID": "1-ABC"}])


@pytest.mark.parametrize("rid", ["", "1-", "1-ABC@2TA", None, 7])
def test_illegal_ids_are_refused(catalog: EmbeddedCatalog, rid: object) -> None:
    """What is no record id cannot be given as one."""
    with pytest.raises(InvalidRID):
        catalog.insert("Dataset", [{"RID": rid}])


# What cannot be written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value"),
    [("int8", "many"), ("int4", 1.5), ("float8", "x"), ("boolean", 2), ("boolean", "true"), ("int8", 2**70)],
)
def test_values_of_another_type(catalog: EmbeddedCatalog, type_: str, value: object) -> None:
    """A number or truth that is none is refused, naming column and value, and nothing is added."""
    catalog.create_tables([Table("T", (Column("A", type_),))])
    with pytest.raises(ConfigurationError, match=r"A|int|large"):
        catalog.insert("T", [{"A": value}])
    assert catalog.select("T") == []


@pytest.mark.parametrize("value", [{1, 2}, [float("nan")], object()])
def test_values_that_are_not_json(catalog: EmbeddedCatalog, value: object) -> None:
    """What JSON cannot say is refused."""
    catalog.create_tables([Table("T", (Column("A", "jsonb"),))])
    with pytest.raises(ConfigurationError, match="JSON"):
        catalog.insert("T", [{"A": value}])


def test_values_that_sqlite_does_not_know(catalog: EmbeddedCatalog) -> None:
    """A Python value of no known kind is refused in our words."""
    with pytest.raises(ConfigurationError):
        catalog.insert("Dataset", [{"Description": Path("x")}])
    with pytest.raises(ConfigurationError):
        catalog.insert("Dataset", [{"Description": "\udcff"}])


def test_a_column_that_may_not_be_empty(catalog: EmbeddedCatalog) -> None:
    """A row without a column that may not be empty is refused, naming it."""
    with pytest.raises(ConfigurationError, match="Workflow_Type"):
        catalog.insert("Workflow", [{"Name": "x"}])


@pytest.mark.parametrize("column", ["RCT", "RMT", "RCB", "RMB"])
def test_system_columns_cannot_be_given(catalog: EmbeddedCatalog, column: str) -> None:
    """When and by whom a row was written is the catalog's own to say."""
    rid = catalog.reserve(1)[0]
    with pytest.raises(UnknownColumn, match=column):
        catalog.insert("Dataset", [{"RID": rid, column: "x"}])
    with pytest.raises(UnknownColumn, match=column):
        catalog.update("Dataset", [{"RID": rid, column: "x"}])


def test_insert_says_how_far_it_came(catalog: EmbeddedCatalog) -> None:
    """Each batch is added or not; an error says how many rows were added before."""
    rows = [{"Name": f"n{number}", "Description": ""} for number in range(10_001)] + [{"Name": "n1", "Description": ""}]
    with pytest.raises(DuplicateRow, match=r"Name = 'n1'.*The 10000 rows before"):
        catalog.insert("Feature_Name", rows)
    assert len(catalog.select("Feature_Name")) == 10_000


def test_two_rows_with_one_key(catalog: EmbeddedCatalog) -> None:
    """Two rows given at once with the same key are refused as such."""
    with pytest.raises(DuplicateRow, match="Two new rows of Feature_Name have the same Name"):
        catalog.insert("Feature_Name", [{"Name": "n", "Description": ""}] * 2)


def test_reference_to_another_table(catalog: EmbeddedCatalog) -> None:
    """A reference to a row of the wrong table says which table it is in."""
    catalog.insert("Dataset", [{"RID": "1-ABC"}])
    with pytest.raises(UnknownRID, match=r"Execution\.Workflow = '1-ABC' .* but of a row of Dataset"):
        catalog.insert("Execution", [{"Workflow": "1-ABC"}])


def test_update_to_a_reference_to_nothing(catalog: EmbeddedCatalog) -> None:
    """An update that would refer to nothing changes nothing."""
    rid = workflow(catalog)
    with pytest.raises(UnknownRID, match="Nonesuch"):
        catalog.update("Workflow", [{"RID": rid, "Name": "new", "Workflow_Type": "Nonesuch"}])
    assert catalog.select("Workflow")[0]["Name"] is None


def test_rows_in_use_stay(catalog: EmbeddedCatalog) -> None:
    """A row to which others refer, and not by a link, cannot go nor lose its key; the error names who refers to it."""
    rid = workflow(catalog)
    with pytest.raises(RowInUse, match=rf"Workflow {rid}"):
        catalog.delete("Workflow_Type", {"Name": "Training"})
    (term,) = catalog.select("Workflow_Type", {"Name": "Training"})
    with pytest.raises(RowInUse):
        catalog.update("Workflow_Type", [{"RID": term["RID"], "Name": "Other"}])
    assert catalog.select("Workflow_Type", {"Name": "Training"}) == [term]


def test_update_of_unlike_rows(catalog: EmbeddedCatalog) -> None:
    """Rows to change at once give the same columns, and their ids."""
    one, other = catalog.reserve(2)
    with pytest.raises(ConfigurationError, match="same columns"):
        catalog.update("Dataset", [{"RID": one, "Description": "x"}, {"RID": other, "Deleted": True}])
    with pytest.raises(ConfigurationError, match="RID"):
        catalog.update("Dataset", [{"Description": "x"}])


@pytest.mark.parametrize("name", ["", " ", "_x", "sqlite_x", "T__history", "dataset"])
def test_names_of_tables_that_are_taken(catalog: EmbeddedCatalog, name: str) -> None:
    """The catalog's own names, and names that differ from another table's by case alone, cannot be a table's."""
    with pytest.raises((ConfigurationError, DuplicateRow)):
        catalog.create_tables([Table(name, (Column("A"),))])


@pytest.mark.parametrize("columns", [("A", "a"), ("RID",), ("rct",), ("",), ("__until",)])
def test_names_of_columns_that_are_taken(catalog: EmbeddedCatalog, columns: tuple[str, ...]) -> None:
    """A table cannot have a column twice, nor one of the system's."""
    with pytest.raises(ConfigurationError):
        catalog.create_tables([Table("T", tuple(Column(name) for name in columns))])


def test_names_need_quoting(catalog: EmbeddedCatalog) -> None:
    """Tables and columns may be named with quotes, spaces, dots, percent signs, colons and words of SQL."""
    names = ('a "b"', "a.b", "100%", "select", ":x", "it's", "naïve 図", "(x)", "[y]", "?1")
    tables = [Table(name, tuple(Column(column) for column in names), (("select",),)) for name in names]
    catalog.create_tables([*tables, Table("Refers", (Column("a.b"),), foreign_keys=(ForeignKey("a.b", "a.b"),))])
    for name in names:
        rid = catalog.reserve(1)[0]
        catalog.insert(name, [{"RID": rid, **{column: f"{name}{column}" for column in names}}])
        catalog.update(name, [{"RID": rid, column: "new"} for column in names[:1]])
        assert [row["?1"] for row in catalog.select(name, {":x": f"{name}:x", "100%": [f"{name}100%"]})] == [
            f"{name}?1"
        ]
        assert catalog.locate([rid]) == {rid: name}
        snapshot = catalog.snapshot()
        catalog.delete(name, {"RID": rid})
        assert len(catalog.at(snapshot).select(name, order=names)) == 1


def test_references_that_cannot_be_checked(catalog: EmbeddedCatalog) -> None:
    """A reference to a column that is no key, or of a column that is not there, is refused."""
    for key in (ForeignKey("A", "Dataset", "Description"), ForeignKey("B", "Dataset")):
        with pytest.raises(ConfigurationError):
            catalog.create_tables([Table("T", (Column("A"),), foreign_keys=(key,))])


# Times and history ---------------------------------------------------------------------------------------------------


def test_one_tick_a_transaction(catalog: EmbeddedCatalog) -> None:
    """All rows of one call have one time, later than any before, in UTC with microseconds."""
    catalog.insert("Dataset", [{}, {}])
    catalog.insert("Dataset", [{}])
    first, second, third = (row["RCT"] for row in catalog.select("Dataset"))
    assert first == second < third
    assert datetime.fromisoformat(third).tzinfo == UTC
    assert third == tick_to_iso(snapshot_to_tick(catalog.snapshot()))


def test_the_clock_never_goes_back(catalog: EmbeddedCatalog) -> None:
    """When this machine's clock goes back, the catalog's still goes on."""
    ahead = snapshot_to_tick(catalog.snapshot()) + 3600 * 10**6
    with catalog._file.database.write_transaction() as connection:
        connection.exec_driver_sql("UPDATE _clock SET tick = ?, time = ?", (ahead, tick_to_iso(ahead)))
    catalog.insert("Dataset", [{}])
    assert snapshot_to_tick(catalog.snapshot()) == ahead + 1


def test_times_are_written_in_utc(catalog: EmbeddedCatalog) -> None:
    """A time given as such, in any zone, is kept as text in UTC, and found by it."""
    catalog.create_tables([Table("T", (Column("A", "timestamptz"),))])
    given = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    catalog.insert("T", [{"A": given}])
    (row,) = catalog.select("T", {"A": [given]})
    assert row["A"] == "2026-01-02T01:04:05.000000+00:00"


def test_history_is_written_by_changes_only(catalog: EmbeddedCatalog) -> None:
    """Adding rows keeps no history; changing and deleting them keeps one row each, by cascade too."""
    catalog.insert("Dataset", [{"RID": "a"}, {"RID": "b"}])
    catalog.insert("Dataset_Dataset", [{"Dataset": "a", "Nested_Dataset": "b"}])
    assert history(catalog, "Dataset") == history(catalog, "Dataset_Dataset") == 0
    catalog.update("Dataset", [{"RID": "a", "Description": "x"}] * 2)
    assert history(catalog, "Dataset") == 1
    catalog.delete("Dataset", {"RID": "a"})
    assert (history(catalog, "Dataset"), history(catalog, "Dataset_Dataset")) == (2, 1)


def test_a_failed_deletion_keeps_no_history(catalog: EmbeddedCatalog) -> None:
    """What was undone left nothing, neither in the history nor on the clock."""
    workflow(catalog)
    before = catalog.snapshot()
    with pytest.raises(RowInUse):
        catalog.delete("Workflow_Type", {})
    assert history(catalog, "Workflow_Type") == 0
    assert catalog.snapshot() == before


def test_a_snapshot_that_is_to_come(catalog: EmbeddedCatalog) -> None:
    """A snapshot later than the last change is refused, since it may still change; an earlier one is empty."""
    last = snapshot_to_tick(catalog.snapshot())
    with pytest.raises(UnknownVersion, match="latest"):
        catalog.at(tick_to_snapshot(last + 1))
    assert catalog.at(tick_to_snapshot(last - 10**6)).select("Workflow_Type") == []


def test_reading_changes_nothing(catalog: EmbeddedCatalog) -> None:
    """Reading, and finding a row that is there already, moves no clock."""
    workflow(catalog)
    before = catalog.snapshot()
    workflow(catalog)
    catalog.select("Workflow")
    catalog.reserve(2)
    assert catalog.snapshot() == before


def test_snapshots_are_named(catalog: EmbeddedCatalog) -> None:
    """A snapshot says that it is one, cites itself, and another one may be had from it."""
    snapshot = catalog.snapshot()
    past = catalog.at(snapshot)
    assert past.name == f"{catalog.name}@{snapshot}"
    assert past.cite("1-ABC") == catalog.cite("1-ABC", snapshot)
    assert past.snapshot() == snapshot
    assert past.at(snapshot).name == past.name


def test_citation(catalog: EmbeddedCatalog, tmp_path: Path) -> None:
    """A citation is the URI of the catalog's file with the id, and the snapshot, as its fragment."""
    file = (tmp_path / "local" / "catalog.sqlite").as_uri()
    assert catalog.cite("1-ABC") == f"{file}#1-ABC"
    assert catalog.cite("1-ABC", "2TA") == f"{file}#1-ABC@2TA"
    with pytest.raises(InvalidRID):
        catalog.cite("no id")


# Finding -------------------------------------------------------------------------------------------------------------


def test_tables_of_others_are_found(catalog: EmbeddedCatalog, tmp_path: Path) -> None:
    """A table that another process made is found without asking for a refresh."""
    open_catalog(tmp_path / "local").create_tables([Table("Theirs", (Column("A"),))])
    assert catalog.insert("Theirs", [{"RID": "1-ABC", "A": "x"}]) == 1
    assert catalog.select("Theirs")[0]["A"] == "x"


def test_a_page_has_a_size(catalog: EmbeddedCatalog) -> None:
    """A page of no rows cannot be asked for."""
    with pytest.raises(ConfigurationError):
        catalog.pages("Dataset", size=0)


@pytest.mark.parametrize(
    ("where", "order", "limit"),
    [
        ({"RID": "found"}, ("RID",), None),
        ({}, ("RCT",), 20),
        ({}, ("RCT", "RID"), 20),
        ({"Workflow": "found"}, ("RCT",), 20),
        ({"Status": "Running"}, ("RCT",), 20),
    ],
)
def test_finding_does_not_grow(catalog: EmbeddedCatalog, where: Where, order: tuple[str, ...], limit: int) -> None:
    """One execution, and the newest few, also of a workflow or a status, take as many steps among 50 times as many."""
    rid = workflow(catalog)

    def add(count: int) -> None:
        catalog.insert("Execution", [{"Workflow": rid, "Status": "Running"}] * count)

    def find() -> None:
        assert catalog.select("Execution", meant, order=order, descending=True, limit=limit)

    add(100)
    place = {"RID": catalog.select("Execution", limit=1)[0]["RID"], "Workflow": rid}
    meant = {name: place.get(name, value) for name, value in dict(where).items()}  # type: ignore[call-overload]
    find()
    before = steps(catalog, find)
    add(5000)
    assert steps(catalog, find) < before * 1.2


def test_pages_do_not_grow(catalog: EmbeddedCatalog) -> None:
    """A page of a dataset's members takes as many steps at the end of many as at the beginning."""
    images = catalog.reserve(6000)
    rows = [{"RID": rid, "URL": rid, "Length": 0, "MD5": ""} for rid in images]
    catalog.insert("Image", rows)
    catalog.insert("Dataset", [{"RID": "d"}, {"RID": "e"}])
    catalog.insert("Dataset_Image", [{"Dataset": dataset, "Image": rid} for rid in images for dataset in ("d", "e")])
    pages = catalog.pages("Dataset_Image", {"Dataset": "d"}, size=500)
    taken = [steps(catalog, lambda: next(pages)) for _ in range(12)]
    assert max(taken) < 1.2 * min(taken)


def test_the_counter_needs_a_lock(catalog: EmbeddedCatalog) -> None:
    """Ids are taken within a transaction: what is undone gives them back."""
    with catalog._file.database.read_transaction() as connection:
        following = identifiers.allocate_rids(connection, 1)
    assert catalog.reserve(1) == following
