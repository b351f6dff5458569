"""Embedded catalog: behaviour beyond the contract of `Catalog`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from embedded_samples import count_sqlite_steps

from deriva_ml_core.backend import Where
from deriva_ml_core.backends.embedded import SqlCatalog, open_catalog
from deriva_ml_core.backends.sql import ddl, identifiers
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
def catalog(tmp_path: Path) -> SqlCatalog:
    return open_catalog(tmp_path / "local")


def insert_workflow(catalog: SqlCatalog) -> str:
    row, _ = catalog.insert_unless("Workflow", {"URL": "a"}, {"URL": "a", "Workflow_Type": "Training"})
    return str(row["RID"])


def count_history(catalog: SqlCatalog, table: str) -> int:
    with catalog._source.database.read_transaction() as connection:
        return int(connection.exec_driver_sql(f'SELECT count(*) FROM "{table}__history"').scalar_one())


# RIDs ----------------------------------------------------------------------------------------------------------------


def test_insert_accepts_any_unused_rid(catalog: SqlCatalog) -> None:
    """A caller can choose any unused RID, in any format."""
    assert catalog.insert("Dataset", [{"RID": rid} for rid in ("1-ABC", "2-GHI", "x", "Z" * 60)]) == 4
    assert catalog.locate(["1-ABC", "x"]) == {"1-ABC": "Dataset", "x": "Dataset"}


def test_allocation_skips_chosen_rids(catalog: SqlCatalog) -> None:
    """The counter skips RIDs that callers chose."""
    last = rid_number(catalog.reserve(1)[0])
    assert last is not None
    catalog.insert("Dataset", [{"RID": encode(last + offset)} for offset in (1, 2, 4, 40)])
    assert catalog.reserve(3) == [encode(last + offset) for offset in (3, 5, 6)]
    assert encode(last + 40) not in catalog.reserve(50)


def test_rid_is_unique_in_catalog(catalog: SqlCatalog) -> None:
    """A RID of another table's row is refused, and the error names that table."""
    catalog.insert("Dataset", [{"RID": "1-ABC"}])
    with pytest.raises(DuplicateRow, match="Dataset"):
        catalog.insert("Execution", [{"RID": "1-ABC"}])
    with pytest.raises(DuplicateRow, match="RID = '1-ABC'"):
        catalog.insert("Dataset", [{"RID": "1-ABC"}])


@pytest.mark.parametrize("rid", ["", "1-", "1-ABC@2TA", None, 7])
def test_invalid_rid(catalog: SqlCatalog, rid: object) -> None:
    """A value that is not a RID is refused."""
    with pytest.raises(InvalidRID):
        catalog.insert("Dataset", [{"RID": rid}])


# Refused values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value"),
    [("int8", "many"), ("int4", 1.5), ("float8", "x"), ("boolean", 2), ("boolean", "true"), ("int8", 2**70)],
)
def test_value_of_wrong_type(catalog: SqlCatalog, type_: str, value: object) -> None:
    """A value that does not fit its column's type is refused, and nothing is inserted."""
    catalog.create_tables([Table("T", (Column("A", type_),))])
    with pytest.raises(ConfigurationError, match=r"A|int|large"):
        catalog.insert("T", [{"A": value}])
    assert catalog.select("T") == []


@pytest.mark.parametrize("value", [{1, 2}, [float("nan")], object()])
def test_value_is_not_json(catalog: SqlCatalog, value: object) -> None:
    """A value that JSON cannot represent is refused."""
    catalog.create_tables([Table("T", (Column("A", "jsonb"),))])
    with pytest.raises(ConfigurationError, match="JSON"):
        catalog.insert("T", [{"A": value}])


def test_value_of_unsupported_type(catalog: SqlCatalog) -> None:
    """A Python value that SQLite does not support raises `ConfigurationError`."""
    with pytest.raises(ConfigurationError):
        catalog.insert("Dataset", [{"Description": Path("x")}])
    with pytest.raises(ConfigurationError):
        catalog.insert("Dataset", [{"Description": "\udcff"}])


def test_required_column_is_missing(catalog: SqlCatalog) -> None:
    """A row without a required column is refused, and the error names the column."""
    with pytest.raises(ConfigurationError, match="Workflow_Type"):
        catalog.insert("Workflow", [{"Name": "x"}])


@pytest.mark.parametrize("column", ["RCT", "RMT", "RCB", "RMB"])
def test_system_columns_cannot_be_set(catalog: SqlCatalog, column: str) -> None:
    """A caller cannot set the columns of creation and modification."""
    rid = catalog.reserve(1)[0]
    with pytest.raises(UnknownColumn, match=column):
        catalog.insert("Dataset", [{"RID": rid, column: "x"}])
    with pytest.raises(UnknownColumn, match=column):
        catalog.update("Dataset", [{"RID": rid, column: "x"}])


def test_failed_insert_reports_inserted_batches(catalog: SqlCatalog) -> None:
    """The error of a batch states how many rows were inserted before."""
    rows = [{"Name": f"n{number}", "Description": ""} for number in range(10_001)] + [{"Name": "n1", "Description": ""}]
    with pytest.raises(DuplicateRow, match=r"Name = 'n1'.*The 10000 rows before"):
        catalog.insert("Feature_Name", rows)
    assert len(catalog.select("Feature_Name")) == 10_000


def test_duplicate_key_within_insert(catalog: SqlCatalog) -> None:
    """Two new rows with the same key are refused."""
    with pytest.raises(DuplicateRow, match="Two new rows of Feature_Name have the same Name"):
        catalog.insert("Feature_Name", [{"Name": "n", "Description": ""}] * 2)


def test_reference_to_row_of_other_table(catalog: SqlCatalog) -> None:
    """A reference to a row of the wrong table raises with the actual table."""
    catalog.insert("Dataset", [{"RID": "1-ABC"}])
    with pytest.raises(UnknownRID, match=r"Execution\.Workflow = '1-ABC' .* but of a row of Dataset"):
        catalog.insert("Execution", [{"Workflow": "1-ABC"}])


def test_update_with_unknown_reference(catalog: SqlCatalog) -> None:
    """An update with a reference to no row changes nothing."""
    rid = insert_workflow(catalog)
    with pytest.raises(UnknownRID, match="Nonesuch"):
        catalog.update("Workflow", [{"RID": rid, "Name": "new", "Workflow_Type": "Nonesuch"}])
    assert catalog.select("Workflow")[0]["Name"] is None


def test_row_in_use(catalog: SqlCatalog) -> None:
    """A referenced row cannot be deleted or change its key, and the error names the referring row."""
    rid = insert_workflow(catalog)
    with pytest.raises(RowInUse, match=rf"Workflow {rid}"):
        catalog.delete("Workflow_Type", {"Name": "Training"})
    (term,) = catalog.select("Workflow_Type", {"Name": "Training"})
    with pytest.raises(RowInUse):
        catalog.update("Workflow_Type", [{"RID": term["RID"], "Name": "Other"}])
    assert catalog.select("Workflow_Type", {"Name": "Training"}) == [term]


def test_update_with_different_columns(catalog: SqlCatalog) -> None:
    """Rows of one update must have the same columns, and a RID."""
    one, other = catalog.reserve(2)
    with pytest.raises(ConfigurationError, match="same columns"):
        catalog.update("Dataset", [{"RID": one, "Description": "x"}, {"RID": other, "Deleted": True}])
    with pytest.raises(ConfigurationError, match="RID"):
        catalog.update("Dataset", [{"Description": "x"}])


@pytest.mark.parametrize("name", ["", " ", "_x", "sqlite_x", "T__history", "dataset"])
def test_reserved_table_names(catalog: SqlCatalog, name: str) -> None:
    """Reserved names, and names that differ only by case, are refused for tables."""
    with pytest.raises((ConfigurationError, DuplicateRow)):
        catalog.create_tables([Table(name, (Column("A"),))])


@pytest.mark.parametrize("columns", [("A", "a"), ("RID",), ("rct",), ("",), ("__until",)])
def test_reserved_column_names(catalog: SqlCatalog, columns: tuple[str, ...]) -> None:
    """Duplicate columns and system columns are refused."""
    with pytest.raises(ConfigurationError):
        catalog.create_tables([Table("T", tuple(Column(name) for name in columns))])


def test_names_are_quoted(catalog: SqlCatalog) -> None:
    """Names can contain quotes, spaces, dots, percent signs, colons and SQL keywords."""
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


def test_invalid_foreign_keys(catalog: SqlCatalog) -> None:
    """A foreign key to a column that is not a key, or of a missing column, is refused."""
    for key in (ForeignKey("A", "Dataset", "Description"), ForeignKey("B", "Dataset")):
        with pytest.raises(ConfigurationError):
            catalog.create_tables([Table("T", (Column("A"),), foreign_keys=(key,))])


# Times and history ---------------------------------------------------------------------------------------------------


def test_rows_of_one_insert_have_one_time(catalog: SqlCatalog) -> None:
    """All rows of one call have the same time, which is later than any before, in UTC with microseconds."""
    catalog.insert("Dataset", [{}, {}])
    catalog.insert("Dataset", [{}])
    first, second, third = (row["RCT"] for row in catalog.select("Dataset"))
    assert first == second < third
    assert datetime.fromisoformat(third).tzinfo == UTC
    assert third == tick_to_iso(snapshot_to_tick(catalog.snapshot()))


def test_clock_never_goes_back(catalog: SqlCatalog) -> None:
    """The catalog's clock advances even if the machine's clock goes back."""
    ahead = snapshot_to_tick(catalog.snapshot()) + 3600 * 10**6
    with catalog._source.database.write_transaction() as connection:
        connection.exec_driver_sql("UPDATE _clock SET tick = ?, time = ?", (ahead, tick_to_iso(ahead)))
    catalog.insert("Dataset", [{}])
    assert snapshot_to_tick(catalog.snapshot()) == ahead + 1


def test_times_are_stored_in_utc(catalog: SqlCatalog) -> None:
    """A time of any zone is stored as text in UTC, and can be selected by its value."""
    catalog.create_tables([Table("T", (Column("A", "timestamptz"),))])
    given = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    catalog.insert("T", [{"A": given}])
    (row,) = catalog.select("T", {"A": [given]})
    assert row["A"] == "2026-01-02T01:04:05.000000+00:00"


def test_history_of_updates_and_deletions(catalog: SqlCatalog) -> None:
    """Updates and deletions, also by cascade, add one history row each. Insertions add none."""
    catalog.insert("Dataset", [{"RID": "a"}, {"RID": "b"}])
    catalog.insert("Dataset_Dataset", [{"Dataset": "a", "Nested_Dataset": "b"}])
    assert count_history(catalog, "Dataset") == count_history(catalog, "Dataset_Dataset") == 0
    catalog.update("Dataset", [{"RID": "a", "Description": "x"}] * 2)
    assert count_history(catalog, "Dataset") == 1
    catalog.delete("Dataset", {"RID": "a"})
    assert (count_history(catalog, "Dataset"), count_history(catalog, "Dataset_Dataset")) == (2, 1)


def test_failed_deletion_writes_no_history(catalog: SqlCatalog) -> None:
    """A failed deletion changes neither the history nor the clock."""
    insert_workflow(catalog)
    before = catalog.snapshot()
    with pytest.raises(RowInUse):
        catalog.delete("Workflow_Type", {})
    assert count_history(catalog, "Workflow_Type") == 0
    assert catalog.snapshot() == before


def test_future_snapshot(catalog: SqlCatalog) -> None:
    """A snapshot after the last change is refused, because it may still change. An early one is empty."""
    last = snapshot_to_tick(catalog.snapshot())
    with pytest.raises(UnknownVersion, match="latest"):
        catalog.at(tick_to_snapshot(last + 1))
    assert catalog.at(tick_to_snapshot(last - 10**6)).select("Workflow_Type") == []


def test_reading_does_not_advance_clock(catalog: SqlCatalog) -> None:
    """Reading, and finding an existing row, does not advance the clock."""
    insert_workflow(catalog)
    before = catalog.snapshot()
    insert_workflow(catalog)
    catalog.select("Workflow")
    catalog.reserve(2)
    assert catalog.snapshot() == before


def test_name_of_snapshot(catalog: SqlCatalog) -> None:
    """A snapshot's name and citations contain the snapshot, and it can open other snapshots."""
    snapshot = catalog.snapshot()
    past = catalog.at(snapshot)
    assert past.name == f"{catalog.name}@{snapshot}"
    assert past.cite("1-ABC") == catalog.cite("1-ABC", snapshot)
    assert past.snapshot() == snapshot
    assert past.at(snapshot).name == past.name


def test_citation(catalog: SqlCatalog, tmp_path: Path) -> None:
    """A citation is the URI of the catalog's file with the RID, and the snapshot, as its fragment."""
    file = (tmp_path / "local" / "catalog.sqlite").as_uri()
    assert catalog.cite("1-ABC") == f"{file}#1-ABC"
    assert catalog.cite("1-ABC", "2TA") == f"{file}#1-ABC@2TA"
    with pytest.raises(InvalidRID):
        catalog.cite("no id")


# Selecting -----------------------------------------------------------------------------------------------------------


def test_table_of_another_process(catalog: SqlCatalog, tmp_path: Path) -> None:
    """A table that another process created is usable without a refresh."""
    open_catalog(tmp_path / "local").create_tables([Table("Theirs", (Column("A"),))])
    assert catalog.insert("Theirs", [{"RID": "1-ABC", "A": "x"}]) == 1
    assert catalog.select("Theirs")[0]["A"] == "x"


def test_page_size_must_be_positive(catalog: SqlCatalog) -> None:
    """A page size below 1 is refused."""
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
def test_select_cost_is_independent_of_row_count(
    catalog: SqlCatalog, where: Where, order: tuple[str, ...], limit: int
) -> None:
    """Selecting one execution or the newest takes equally many SQLite steps with 50 times as many rows."""
    rid = insert_workflow(catalog)

    def add(count: int) -> None:
        catalog.insert("Execution", [{"Workflow": rid, "Status": "Running"}] * count)

    def find() -> None:
        assert catalog.select("Execution", condition, order=order, descending=True, limit=limit)

    add(100)
    place = {"RID": catalog.select("Execution", limit=1)[0]["RID"], "Workflow": rid}
    condition = {name: place.get(name, value) for name, value in dict(where).items()}  # type: ignore[call-overload]
    find()
    before = count_sqlite_steps(catalog, find)
    add(5000)
    assert count_sqlite_steps(catalog, find) < before * 1.2


def test_page_cost_is_independent_of_position(catalog: SqlCatalog) -> None:
    """The last page of many takes as many SQLite steps as the first."""
    images = catalog.reserve(6000)
    rows = [{"RID": rid, "URL": rid, "Length": 0, "MD5": ""} for rid in images]
    catalog.insert("Image", rows)
    catalog.insert("Dataset", [{"RID": "d"}, {"RID": "e"}])
    catalog.insert("Dataset_Image", [{"Dataset": dataset, "Image": rid} for rid in images for dataset in ("d", "e")])
    pages = catalog.pages("Dataset_Image", {"Dataset": "d"}, size=500)
    taken = [count_sqlite_steps(catalog, lambda: next(pages)) for _ in range(12)]
    assert max(taken) < 1.2 * min(taken)


def test_rolled_back_allocation(catalog: SqlCatalog) -> None:
    """RIDs of a rolled-back transaction are allocated again."""
    with catalog._source.database.read_transaction() as connection:
        following = identifiers.allocate_rids(connection, 1)
    assert catalog.reserve(1) == following


def test_statements_of_new_catalogs_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that creates several catalogs compiles the statements for the first one only, and they are equal."""
    texts = [dump_schema(open_catalog(tmp_path / "first"))]
    monkeypatch.setattr(ddl, "CreateTable", None)  # which compiles a statement
    texts.append(dump_schema(open_catalog(tmp_path / "second")))
    assert texts[0] == texts[1]
    assert 'CREATE TABLE "Execution"' in texts[0]


def dump_schema(catalog: SqlCatalog) -> str:
    with catalog._source.database.read_transaction() as connection:
        rows = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY sql")
        return "\n".join(row[0] for row in rows)
