"""What every catalog promises, as tests: subclass, say how to open one, and run pytest."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from deriva_ml_core.backend import NOT_NULL, AnyOf, Catalog, InSubquery, Row
from deriva_ml_core.default_schema import DEFAULT_TERMS, default_tables
from deriva_ml_core.definitions import RID_PATTERN, MLAsset, MLTable, MLVocab
from deriva_ml_core.errors import CatalogReadOnly, DuplicateRow, UnknownColumn, UnknownRID, UnknownTable
from deriva_ml_core.schema import SYSTEM_COLUMNS, Column, ForeignKey, Table, association_table, vocabulary_table

__all__ = [
    "CatalogContract",
    "CatalogFactory",
    "CatalogFixtures",
    "QueryContract",
    "RowContract",
    "StateContract",
    "insert_dataset",
    "insert_named_dataset",
    "insert_row",
    "select_row",
    "unique_name",
]


CatalogFactory = Callable[[], Catalog]


def unique_name(name: str) -> str:
    """A name that no other test has used, so that one catalog may serve them all."""
    return f"{name}_{uuid4().hex[:12]}"


def insert_row(catalog: Catalog, table: str, row: Mapping[str, Any]) -> str:
    """Add one row and return its record id."""
    (rid,) = catalog.reserve(1)
    assert catalog.insert(table, [{"RID": rid, **row}]) == 1
    return rid


def insert_dataset(catalog: Catalog) -> str:
    """Add a dataset and return its record id."""
    return insert_row(catalog, MLTable.dataset, {"Description": unique_name("dataset")})


def select_row(catalog: Catalog, table: str, rid: str) -> Row:
    """The row of that id."""
    (row,) = catalog.select(table, {"RID": rid})
    return row


def insert_named_dataset(catalog: Catalog, name: str) -> None:
    """Add a row from another process."""
    catalog.insert(MLTable.dataset, [{"Description": name}])


class CatalogFixtures:
    """A catalog to test; override `open_catalog`."""

    @pytest.fixture
    def open_catalog(self) -> CatalogFactory:
        """How to open the catalog of one test, again each time: it has the standard tables and terms."""
        raise NotImplementedError("override the fixture open_catalog")

    @pytest.fixture
    def catalog(self, open_catalog: CatalogFactory) -> Catalog:
        """The catalog, open."""
        return open_catalog()

    @pytest.fixture
    def things(self, catalog: Catalog) -> str:
        """The name of a new table with one column of each type."""
        types = {"Text": "text", "Whole": "int8", "Real": "float8", "Truth": "boolean", "Texts": "text[]"}
        more = {"Json": "jsonb", "Time": "timestamptz", "Words": "markdown", "Place": "ermrest_uri"}
        name = unique_name("Thing")
        columns = tuple(Column(column, type_) for column, type_ in (types | more).items())
        catalog.create_tables([Table(name, columns, schema="domain")])
        return name


class QueryContract(CatalogFixtures):
    """Columns that have any value, and rows of other tables that a row names."""

    @pytest.fixture
    def notes(self, catalog: Catalog, things: str) -> str:
        """The name of a new table whose rows name things."""
        name = unique_name("Note")
        columns = (Column("Thing", nullok=False), Column("Real", "float8"))
        key = ForeignKey("Thing", things, cascade=True)
        catalog.create_tables([Table(name, columns, foreign_keys=(key,), schema="domain")])
        return name

    def test_not_null(self, catalog: Catalog, things: str) -> None:
        """Rows can be asked for that have a value in a column, whichever; an empty text and a zero are values."""
        rows: list[dict[str, Any]] = [{"Text": "", "Real": 0.0}, {"Text": "a"}, {"Real": 1.0}, {}]
        catalog.insert(things, rows)

        def found(where: Mapping[str, Any]) -> list[tuple[Any, Any]]:
            return sorted((row["Text"] or "", row["Real"] or 0) for row in catalog.select(things, where))

        assert found({"Text": NOT_NULL}) == [("", 0), ("a", 0)]
        assert found({"Real": NOT_NULL}) == [("", 0), ("", 1)]
        assert found({"Text": NOT_NULL, "Real": NOT_NULL}) == [("", 0)]
        assert found({"Text": None, "Real": NOT_NULL}) == [("", 1)]

    def test_in_subquery(self, catalog: Catalog, things: str, notes: str) -> None:
        """Rows can be asked for by what holds for the rows that they name, in order and up to a limit."""
        one, other, third = (insert_row(catalog, things, {"Text": text, "Whole": n}) for n, text in enumerate("aab"))
        catalog.insert(notes, [{"Thing": rid, "Real": n} for rid in (one, other, third) for n in (1.0, 2.0, None)])

        def found(where: Mapping[str, Any], limit: int | None = None) -> list[tuple[str, float]]:
            asked = {"Thing": InSubquery(things, where), "Real": NOT_NULL}
            rows = catalog.select(notes, asked, order=("Real", "RID"), descending=True, limit=limit)
            return [(row["Thing"], row["Real"]) for row in rows]

        assert found({"Text": "b"}) == [(third, 2.0), (third, 1.0)]
        assert found({"Text": "a"}, 3) == [(other, 2.0), (one, 2.0), (other, 1.0)]
        assert found({"Text": "a", "Whole": [1, 7]}) == [(other, 2.0), (other, 1.0)]
        assert len(found({})) == 6
        assert found({"RID": [one, third], "Text": "a"}) == [(one, 2.0), (one, 1.0)]
        assert found({"Text": "none"}) == found({"Text": []}) == []

    def test_in_subquery_with_many_values(self, catalog: Catalog, things: str, notes: str) -> None:
        """What holds for the rows that are named may list many thousand values."""
        rids = [insert_row(catalog, things, {"Whole": n}) for n in range(3)]
        catalog.insert(notes, [{"Thing": rid, "Real": float(n)} for n, rid in enumerate(rids)])
        asked = {"Thing": InSubquery(things, {"Whole": list(range(1, 3000))})}
        found = catalog.select(notes, asked, order=("Real",), descending=True, limit=1)
        assert [row["Thing"] for row in found] == [rids[2]]

    def test_in_subquery_at_snapshot(self, catalog: Catalog) -> None:
        """In a snapshot the rows that are named are as they were, too."""
        execution = insert_row(catalog, MLTable.execution, {"Status": "Running"})
        metric = {"Execution": execution, "Stage": "fit", "Name": "loss", "Best": 0.5, "Larger_Is_Better": False}
        insert_row(catalog, MLTable.execution_metric, metric)
        snapshot = catalog.snapshot()
        catalog.update(MLTable.execution, [{"RID": execution, "Status": "Completed"}])

        def found(at: Catalog, status: str) -> list[str]:
            asked = {"Execution": InSubquery(MLTable.execution, {"RID": execution, "Status": status})}
            return [row["Execution"] for row in at.select(MLTable.execution_metric, asked)]

        assert (found(catalog, "Completed"), found(catalog, "Running")) == ([execution], [])
        assert (found(catalog.at(snapshot), "Completed"), found(catalog.at(snapshot), "Running")) == ([], [execution])


class RowContract(CatalogFixtures):
    """Adding, changing, deleting, finding."""

    def test_default_tables(self, catalog: Catalog) -> None:
        """A catalog has all standard tables with their columns."""
        for table in default_tables():
            assert table.column_names <= catalog.model.table(table.name).column_names

    def test_default_terms(self, catalog: Catalog) -> None:
        """A catalog has the standard terms with their descriptions."""
        for vocabulary, terms in DEFAULT_TERMS.items():
            found = {row["Name"]: row["Description"] for row in catalog.select(vocabulary)}
            assert {name: found.get(name) for name in terms} == terms

    def test_kinds_of_tables(self, catalog: Catalog) -> None:
        """The model tells vocabularies and asset tables from others."""
        assert catalog.model.vocabulary(MLVocab.asset_type).is_vocabulary
        assert catalog.model.asset_table(MLAsset.file).is_asset
        with pytest.raises(UnknownTable, match=MLAsset.file):
            catalog.model.asset_table(MLTable.execution)

    def test_values_round_trip(self, catalog: Catalog, things: str) -> None:
        """Each type of value comes back as it was given."""
        values = {
            "Text": "naïve 図 🜁 '\"; --",
            "Whole": 2**53,
            "Real": 0.1,
            "Truth": True,
            "Texts": ["a", "b, c"],
            "Json": {"deep": [1, None, {"x": False}]},
            "Time": "2026-11-22T21:40:00.123456+00:00",
            "Words": "",
            "Place": "https://example.org/a?b=c%20d#e",
        }
        row = select_row(catalog, things, insert_row(catalog, things, values))
        assert {name: row[name] for name in values} == values
        assert type(row["Truth"]) is bool
        assert type(row["Real"]) is float

    def test_rows_are_complete(self, catalog: Catalog, things: str) -> None:
        """A row has all columns, the system's too, and None where nothing was given."""
        row = select_row(catalog, things, insert_row(catalog, things, {"Text": "x"}))
        assert set(row) == {*SYSTEM_COLUMNS, *catalog.model.table(things).column_names}
        assert row["Whole"] is None
        assert all(row[name] for name in SYSTEM_COLUMNS if name not in ("RCB", "RMB"))

    def test_rows_with_different_columns(self, catalog: Catalog, things: str) -> None:
        """Rows that give different columns may be added at once, in any order of columns."""
        rows: list[dict[str, Any]] = [
            {"Text": "a"},
            {"Whole": 1},
            {"Whole": 2, "Text": "c"},
            {"Text": "d", "Whole": 3},
            {},
        ]
        assert catalog.insert(things, rows) == len(rows)
        found = {(row["Text"], row["Whole"]) for row in catalog.select(things)}
        assert found == {("a", None), (None, 1), ("c", 2), ("d", 3), (None, None)}

    def test_defaults(self, catalog: Catalog) -> None:
        """A column that is not given takes its default, with the row's own id in it."""
        name = unique_name("term")
        catalog.insert(MLVocab.dataset_type, [{"Name": name, "Description": ""}])
        (row,) = catalog.select(MLVocab.dataset_type, {"Name": name})
        assert row["RID"] in row["ID"]
        assert row["RID"] in row["URI"]

    def test_no_rows(self, catalog: Catalog) -> None:
        """Adding or changing no rows does nothing."""
        assert catalog.insert(MLTable.dataset, []) == 0
        assert catalog.update(MLTable.dataset, []) == 0

    def test_many_rows(self, catalog: Catalog, things: str) -> None:
        """More rows than one batch may be added in one call, each with an id of its own."""
        assert catalog.insert(things, [{"Whole": number} for number in range(10_500)]) == 10_500
        found = [row for page in catalog.pages(things) for row in page]
        assert {row["Whole"] for row in found} == set(range(10_500))
        assert len({row["RID"] for row in found}) == 10_500

    def test_reserved_ids(self, catalog: Catalog, open_catalog: CatalogFactory, things: str) -> None:
        """Reserved ids are legal, given to nobody else, and taken by insert."""
        first, second = catalog.reserve(20), open_catalog().reserve(20)
        catalog.insert(things, [{} for _ in range(20)])
        unnamed = {row["RID"] for row in catalog.select(things)}
        assert len({*first, *second, *unnamed}) == 60
        assert all(re.fullmatch(RID_PATTERN, rid) for rid in first)
        assert catalog.insert(things, [{"RID": rid} for rid in first]) == 20
        assert len(catalog.select(things, {"RID": first})) == 20

    def test_key_taken(self, catalog: Catalog) -> None:
        """A row whose key is taken raises, and nothing of its batch is added."""
        name = unique_name("term")
        catalog.insert(MLVocab.dataset_type, [{"Name": name, "Description": ""}])
        rows = [{"Name": unique_name("other"), "Description": ""}, {"Name": name, "Description": ""}]
        with pytest.raises(DuplicateRow, match=name):
            catalog.insert(MLVocab.dataset_type, rows)
        assert catalog.select(MLVocab.dataset_type, {"Name": rows[0]["Name"]}) == []

    def test_skip_existing(self, catalog: Catalog) -> None:
        """A repeated insert may pass over what is there, by key or by id, and says how many are new."""
        dataset, term = insert_dataset(catalog), unique_name("term")
        assert catalog.insert(MLTable.dataset, [{"RID": dataset, "Description": "other"}], skip_existing=True) == 0
        rows = [{"Name": term, "Description": "first"}]
        assert catalog.insert(MLVocab.dataset_type, rows, skip_existing=True) == 1
        rows.append({"Name": unique_name("term"), "Description": "second"})
        assert catalog.insert(MLVocab.dataset_type, rows, skip_existing=True) == 1

    def test_insert_missing(self, catalog: Catalog) -> None:
        """Rows are added unless their key is taken, and told in the order given, complete, old and new."""
        old, new, newer = unique_name("old"), unique_name("new"), unique_name("newer")
        catalog.insert(MLVocab.dataset_type, [{"Name": old, "Description": "first"}])
        rows = [{"Name": name, "Description": "second"} for name in (newer, old, new)]
        found = catalog.insert_missing(MLVocab.dataset_type, rows, "Name")
        assert [(row["Name"], row["Description"]) for row in found] == [
            (newer, "second"),
            (old, "first"),
            (new, "second"),
        ]
        assert found == [select_row(catalog, MLVocab.dataset_type, row["RID"]) for row in found]
        assert catalog.insert_missing(MLVocab.dataset_type, rows, "Name") == found
        assert catalog.insert_missing(MLVocab.dataset_type, [], "Name") == []

    def test_insert_missing_by_id(self, catalog: Catalog, things: str) -> None:
        """A row with a reserved id is added once, and told however often it is added."""
        (rid,) = catalog.reserve(1)
        (row,) = catalog.insert_missing(things, [{"RID": rid, "Text": "a"}], "RID")
        assert (row["RID"], row["Text"]) == (rid, "a")
        assert catalog.insert_missing(things, [{"RID": rid, "Text": "b"}], "RID") == [row]

    def test_insert_missing_with_another_key_taken(self, catalog: Catalog) -> None:
        """A row that cannot be added, since another of its keys is taken, is an error that names it."""
        name = unique_name("term")
        catalog.insert(MLVocab.dataset_type, [{"Name": name, "Description": ""}])
        (rid,) = catalog.reserve(1)
        with pytest.raises(DuplicateRow, match=rid):
            catalog.insert_missing(MLVocab.dataset_type, [{"RID": rid, "Name": name, "Description": ""}], "RID")

    def test_unknown_table(self, catalog: Catalog) -> None:
        """A table that is not there is an error that names those that are."""
        with pytest.raises(UnknownTable, match=MLTable.workflow):
            catalog.select("Nonesuch")
        with pytest.raises(UnknownTable, match="Nonesuch"):
            catalog.insert("Nonesuch", [{}])

    def test_unknown_column(self, catalog: Catalog) -> None:
        """A column that is not there is an error that names those that are, wherever it is given."""
        rid = insert_dataset(catalog)
        with pytest.raises(UnknownColumn, match="Description"):
            catalog.insert(MLTable.dataset, [{"Nonesuch": 1}])
        with pytest.raises(UnknownColumn, match="Description"):
            catalog.update(MLTable.dataset, [{"RID": rid, "Nonesuch": 1}])
        with pytest.raises(UnknownColumn, match="Description"):
            catalog.select(MLTable.dataset, {"Nonesuch": 1})
        with pytest.raises(UnknownColumn, match="Description"):
            catalog.select(MLTable.dataset, order=["Nonesuch"])

    def test_unknown_reference(self, catalog: Catalog) -> None:
        """A foreign key that names no row raises, naming column and value, and adds nothing."""
        before = len(catalog.select(MLTable.workflow))
        with pytest.raises(UnknownRID, match=r"Workflow_Type.*Nonesuch"):
            catalog.insert(MLTable.workflow, [{"Name": "x", "Workflow_Type": "Nonesuch"}])
        assert len(catalog.select(MLTable.workflow)) == before

    def test_insert_unless(self, catalog: Catalog, things: str) -> None:
        """A row is added unless one matches; then the oldest that does is returned."""
        row, new = catalog.insert_unless(things, {"Text": "a"}, {"Text": "a", "Whole": 1})
        assert (row["Whole"], new) == (1, True)
        catalog.insert(things, [{"Text": "a", "Whole": 2}])
        same, new = catalog.insert_unless(things, AnyOf(({"Whole": 9}, {"Text": "a"})), {"Whole": 9})
        assert (same["RID"], new) == (row["RID"], False)

    def test_insert_unless_concurrently(self, catalog: Catalog, things: str) -> None:
        """Of several who add the same at once one does, and all get its row."""

        def race(number: int) -> tuple[str, bool]:
            row, new = catalog.insert_unless(things, {"Text": "same"}, {"Text": "same", "Whole": number})
            return row["RID"], new

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(race, range(24)))
        assert len({rid for rid, _ in found}) == 1
        assert sum(new for _, new in found) == 1

    def test_update(self, catalog: Catalog, things: str) -> None:
        """An update changes the given columns and the modification time, and nothing else."""
        rid = insert_row(catalog, things, {"Text": "before", "Whole": 1})
        before = select_row(catalog, things, rid)
        assert catalog.update(things, [{"RID": rid, "Text": "after", "Truth": False}]) == 1
        after = select_row(catalog, things, rid)
        assert after["RMT"] > before["RMT"]
        assert {**after, "RMT": None, "RMB": None} == {
            **before, "RMT": None, "RMB": None, "Text": "after", "Truth": False,
        }  # fmt: skip

    def test_update_unknown_rid(self, catalog: Catalog, things: str) -> None:
        """Ids that name no row of the table are not counted as changed."""
        rid, other = insert_row(catalog, things, {}), insert_dataset(catalog)
        assert catalog.update(things, [{"RID": one, "Text": "x"} for one in (rid, other)]) == 1
        assert select_row(catalog, MLTable.dataset, other)["Description"] != "x"

    def test_delete(self, catalog: Catalog, things: str) -> None:
        """A deletion takes the rows that match, and says how many they were."""
        catalog.insert(things, [{"Whole": number} for number in (1, 2, 3)])
        assert catalog.delete(things, {"Whole": [1, 3, 5]}) == 2
        assert [row["Whole"] for row in catalog.select(things)] == [2]
        assert catalog.delete(things, {"Whole": 1}) == 0

    def test_delete_cascades_to_links(self, catalog: Catalog) -> None:
        """The links to a row go with it, and what they link it to stays."""
        parent, child = insert_dataset(catalog), insert_dataset(catalog)
        catalog.insert(MLTable.nested_dataset, [{"Dataset": parent, "Nested_Dataset": child}])
        assert catalog.delete(MLTable.dataset, {"RID": parent}) == 1
        assert catalog.select(MLTable.nested_dataset, {"Nested_Dataset": child}) == []
        assert select_row(catalog, MLTable.dataset, child)

    def test_conditions(self, catalog: Catalog, things: str) -> None:
        """Conditions on columns hold together; a collection means one of them, and None means empty."""
        catalog.insert(things, [{"Text": text, "Whole": number} for text in ("a", "b") for number in (1, 2)] + [{}])

        def count(where: Mapping[str, Any] | AnyOf) -> int:
            return len(catalog.select(things, where))

        assert count({}) == 5
        assert count({"Text": "a"}) == 2
        assert count({"Text": "a", "Whole": 2}) == 1
        assert [count({"Text": kind(("a", "c"))}) for kind in (tuple, list, set, frozenset)] == [2] * 4
        assert count({"Text": None}) == 1
        assert count({"Text": ["a", None]}) == 3
        assert count({"Text": []}) == 0
        assert count(AnyOf(({"Text": "a"}, {"Whole": 2}))) == 3
        assert count(AnyOf(())) == 0

    def test_conditions_on_each_type(self, catalog: Catalog, things: str) -> None:
        """Numbers, truths and times can be asked for, alone and among others."""
        values = {"Whole": 7, "Real": 0.5, "Truth": False, "Time": "2026-01-02T03:04:05.000006+00:00"}
        rid = insert_row(catalog, things, values)
        insert_row(
            catalog, things, {"Whole": 8, "Real": 1.5, "Truth": True, "Time": "2026-01-02T03:04:05.000007+00:00"}
        )
        for name, value in values.items():
            assert [row["RID"] for row in catalog.select(things, {name: value})] == [rid]
            assert [row["RID"] for row in catalog.select(things, {name: [value]})] == [rid]

    def test_condition_on_many_values(self, catalog: Catalog, things: str) -> None:
        """A condition may list many thousand values, and order and limit still hold for all of them."""
        catalog.insert(things, [{"Whole": number} for number in range(3000)])
        found = catalog.select(things, {"Whole": list(range(40_000))}, order=["Whole"], descending=True, limit=3)
        assert [row["Whole"] for row in found] == [2999, 2998, 2997]

    def test_order(self, catalog: Catalog, things: str) -> None:
        """Rows come by RID, or in the order asked for, either way, up to a limit."""
        catalog.insert(things, [{"Text": text, "Whole": number} for text in ("b", "a") for number in (1, 2)])
        rids = [row["RID"] for row in catalog.select(things)]
        assert rids == sorted(rids)
        ascending = [(row["Text"], row["Whole"]) for row in catalog.select(things, order=("Text", "Whole"))]
        assert ascending == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
        newest = catalog.select(things, order=("Text", "Whole"), descending=True, limit=2)
        assert [(row["Text"], row["Whole"]) for row in newest] == [("b", 2), ("b", 1)]
        assert catalog.select(things, limit=0) == []

    @pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
    def test_pages(self, catalog: Catalog, things: str, count: int) -> None:
        """Pages hold each row that matches once, by RID, and never more than was asked for."""
        catalog.insert(things, [{"Text": "x"} for _ in range(count)] + [{"Text": "y"}])
        pages = list(catalog.pages(things, {"Text": "x"}, size=4))
        assert all(0 < len(page) <= 4 for page in pages)
        assert [row for page in pages for row in page] == catalog.select(things, {"Text": "x"})
        assert sum(map(len, pages)) == count

    def test_locate(self, catalog: Catalog, things: str) -> None:
        """An id is found in whichever table has it, and left out where none has."""
        thing, dataset = insert_row(catalog, things, {}), insert_dataset(catalog)
        (unused,) = catalog.reserve(1)
        rids = [thing, dataset, unused]
        assert catalog.locate(rids) == {thing: things, dataset: MLTable.dataset}
        assert catalog.locate(rids, [things]) == {thing: things}
        assert catalog.locate([]) == {}


class StateContract(CatalogFixtures):
    """Snapshots, new tables, threads and processes."""

    def test_snapshot(self, catalog: Catalog, things: str) -> None:
        """A snapshot shows what was there: not what was added, but what was changed or deleted later."""
        catalog.insert(things, [{"Whole": number} for number in range(6)])
        snapshot, then = catalog.snapshot(), catalog.select(things)
        catalog.update(things, [{"RID": then[0]["RID"], "Whole": 10}])
        catalog.update(things, [{"RID": then[0]["RID"], "Whole": 11}])
        catalog.delete(things, {"RID": [then[0]["RID"], then[1]["RID"]]})
        catalog.insert(things, [{"Whole": 12}])
        past = catalog.at(snapshot)
        assert past.select(things) == then
        assert past.select(things, {"Whole": [0, 1, 10, 11, 12]}, order=("Whole",), descending=True) == then[1::-1]
        assert past.select(things, limit=2) == then[:2]
        assert [row for page in past.pages(things, size=4) for row in page] == then
        assert past.locate([row["RID"] for row in then]) == {row["RID"]: things for row in then}

    def test_snapshot_of_links(self, catalog: Catalog) -> None:
        """A snapshot shows the links that went when what they link went."""
        parent, child = insert_dataset(catalog), insert_dataset(catalog)
        catalog.insert(MLTable.nested_dataset, [{"Dataset": parent, "Nested_Dataset": child}])
        snapshot = catalog.snapshot()
        catalog.delete(MLTable.dataset, {"RID": child})
        (link,) = catalog.at(snapshot).select(MLTable.nested_dataset, {"Dataset": parent})
        assert link["Nested_Dataset"] == child

    def test_snapshots_are_independent(self, catalog: Catalog, open_catalog: CatalogFactory, things: str) -> None:
        """Each snapshot shows its own state, for ever, also to another process."""
        rid = insert_row(catalog, things, {"Whole": 0})
        seen = [(catalog.snapshot(), catalog.update(things, [{"RID": rid, "Whole": n}])) for n in range(1, 6)]
        other = open_catalog()
        assert [select_row(other.at(snapshot), things, rid)["Whole"] for snapshot, _ in seen] == [0, 1, 2, 3, 4]

    def test_snapshot_before_a_table(self, catalog: Catalog) -> None:
        """A table that was made later is empty in a snapshot."""
        snapshot, name = catalog.snapshot(), unique_name("Later")
        catalog.create_tables([Table(name, (Column("Text"),))])
        insert_row(catalog, name, {})
        assert catalog.at(snapshot).select(name) == []

    def test_snapshot_is_read_only(self, catalog: Catalog, things: str) -> None:
        """Every write to a snapshot is refused."""
        past = catalog.at(catalog.snapshot())
        for write in (
            lambda: past.insert(things, [{}]),
            lambda: past.insert_missing(things, [{}], "RID"),
            lambda: past.insert_unless(things, {"Whole": 1}, {}),
            lambda: past.update(things, [{"RID": "1-0000", "Text": ""}]),
            lambda: past.delete(things, {}),
            lambda: past.create_tables([Table(unique_name("T"))]),
            lambda: past.reserve(1),
        ):
            with pytest.raises(CatalogReadOnly):
                write()

    def test_create_tables_twice(self, catalog: Catalog) -> None:
        """Making a table again changes nothing; one of that name with other columns is refused."""
        name = unique_name("T")
        catalog.create_tables([Table(name, (Column("A"),))])
        rid = insert_row(catalog, name, {"A": "kept"})
        catalog.create_tables([Table(name, (Column("A"),))])
        assert select_row(catalog, name, rid)["A"] == "kept"
        with pytest.raises(DuplicateRow, match=name):
            catalog.create_tables([Table(name, (Column("A"), Column("B")))])

    def test_create_tables_all_or_none(self, catalog: Catalog) -> None:
        """If one table cannot be made, none is."""
        good, bad = unique_name("Good"), unique_name("Bad")
        key = ForeignKey("X", unique_name("Nonesuch"))
        with pytest.raises(UnknownTable, match="Nonesuch"):
            catalog.create_tables([Table(good, (Column("A"),)), Table(bad, (Column("X"),), foreign_keys=(key,))])
        assert good not in catalog.refresh().tables

    def test_create_tables_with_references(self, catalog: Catalog) -> None:
        """Tables made at once may refer to each other, to a vocabulary by name, and to those there."""
        term, link = unique_name("Term"), unique_name("Link")
        catalog.create_tables(
            [
                vocabulary_table(term),
                association_table(link, ForeignKey("Dataset", MLTable.dataset), ForeignKey("T", term, "Name")),
            ]
        )
        catalog.insert(term, [{"Name": "red", "Description": ""}])
        dataset = insert_dataset(catalog)
        insert_row(catalog, link, {"Dataset": dataset, "T": "red"})
        with pytest.raises(UnknownRID, match="blue"):
            catalog.insert(link, [{"Dataset": dataset, "T": "blue"}])

    def test_refresh(self, catalog: Catalog, open_catalog: CatalogFactory) -> None:
        """A table that another process made is known after a refresh, and its rows are read."""
        other, name = open_catalog(), unique_name("T")
        other.create_tables([Table(name, (Column("A"),))])
        rid = insert_row(other, name, {"A": "x"})
        assert name in catalog.refresh().tables
        assert select_row(catalog, name, rid)["A"] == "x"

    def test_cite(self, catalog: Catalog) -> None:
        """A citation is a URL with the id, and with the snapshot where one is asked for."""
        rid, snapshot = insert_dataset(catalog), catalog.snapshot()
        assert ":" in catalog.cite(rid)
        assert rid in catalog.cite(rid)
        assert f"@{snapshot}" in catalog.cite(rid, snapshot)
        assert catalog.cite(rid) == catalog.cite(rid) != catalog.cite(rid, snapshot)

    def test_use_after_close(self, catalog: Catalog) -> None:
        """A closed catalog opens again by itself."""
        catalog.close()
        assert catalog.locate([insert_dataset(catalog)])
        catalog.close()

    def test_threads(self, catalog: Catalog, things: str) -> None:
        """Several threads may read and write at once."""
        with ThreadPoolExecutor(8) as threads:
            rids = list(threads.map(lambda number: insert_row(catalog, things, {"Whole": number}), range(40)))
        assert len(catalog.select(things, {"RID": rids})) == 40

    def test_fork(self, catalog: Catalog) -> None:
        """A forked process may use the catalog that its parent opened, and the parent after it."""
        name = unique_name("forked")
        child = multiprocessing.get_context("fork").Process(target=insert_named_dataset, args=(catalog, name))
        child.start()
        child.join()
        assert child.exitcode == 0
        insert_named_dataset(catalog, name)
        assert len(catalog.select(MLTable.dataset, {"Description": name})) == 2


class CatalogContract(RowContract, QueryContract, StateContract):
    """The promises of `deriva_ml_core.backend.Catalog`; override the fixture `open_catalog`."""
