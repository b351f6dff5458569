"""Contract tests of the `Catalog` protocol: subclass, override one fixture, and run pytest."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from deriva_ml_core.backend import NOT_NULL, AllOf, AnyOf, Catalog, Comparison, InSubquery, Row, catalog_transaction
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
    """Return a name that no other test uses, so that all tests can share one catalog."""
    return f"{name}_{uuid4().hex[:12]}"


def insert_row(catalog: Catalog, table: str, row: Mapping[str, Any]) -> str:
    """Insert one row and return its RID."""
    (rid,) = catalog.reserve(1)
    assert catalog.insert(table, [{"RID": rid, **row}]) == 1
    return rid


def insert_dataset(catalog: Catalog) -> str:
    """Insert a dataset and return its RID."""
    return insert_row(catalog, MLTable.dataset, {"Description": unique_name("dataset")})


def select_row(catalog: Catalog, table: str, rid: str) -> Row:
    """Return the row with a RID."""
    (row,) = catalog.select(table, {"RID": rid})
    return row


def insert_named_dataset(catalog: Catalog, name: str) -> None:
    """Insert a dataset with this description. Runs in another process."""
    catalog.insert(MLTable.dataset, [{"Description": name}])


class CatalogFixtures:
    """Fixtures of the contract tests. Override `open_catalog`."""

    @pytest.fixture
    def open_catalog(self) -> CatalogFactory:
        """Return a function that opens the catalog of one test, with the standard tables and terms, on every call."""
        raise NotImplementedError("override the fixture open_catalog")

    @pytest.fixture
    def catalog(self, open_catalog: CatalogFactory) -> Catalog:
        """Return the open catalog."""
        return open_catalog()

    @pytest.fixture
    def typed_table(self, catalog: Catalog) -> str:
        """Return the name of a new table with one column of each type."""
        types = {"Text": "text", "Whole": "int8", "Real": "float8", "Truth": "boolean", "Texts": "text[]"}
        more = {"Json": "jsonb", "Time": "timestamptz", "Words": "markdown", "Place": "ermrest_uri"}
        name = unique_name("Thing")
        columns = tuple(Column(column, type_) for column, type_ in (types | more).items())
        catalog.create_tables([Table(name, columns, schema="domain")])
        return name


class QueryContract(CatalogFixtures):
    """Conditions on columns with any value, and on rows of other tables."""

    @pytest.fixture
    def notes(self, catalog: Catalog, typed_table: str) -> str:
        """Return the name of a new table whose rows refer to the table `typed_table`."""
        name = unique_name("Note")
        columns = (Column("Thing", nullok=False), Column("Real", "float8"))
        key = ForeignKey("Thing", typed_table, cascade=True)
        catalog.create_tables([Table(name, columns, foreign_keys=(key,), schema="domain")])
        return name

    def test_not_null(self, catalog: Catalog, typed_table: str) -> None:
        """`NOT_NULL` matches every value of a column, including an empty text and zero."""
        rows: list[dict[str, Any]] = [{"Text": "", "Real": 0.0}, {"Text": "a"}, {"Real": 1.0}, {}]
        catalog.insert(typed_table, rows)

        def found(where: Mapping[str, Any]) -> list[tuple[Any, Any]]:
            return sorted((row["Text"] or "", row["Real"] or 0) for row in catalog.select(typed_table, where))

        assert found({"Text": NOT_NULL}) == [("", 0), ("a", 0)]
        assert found({"Real": NOT_NULL}) == [("", 0), ("", 1)]
        assert found({"Text": NOT_NULL, "Real": NOT_NULL}) == [("", 0)]
        assert found({"Text": None, "Real": NOT_NULL}) == [("", 1)]

    def test_in_subquery(self, catalog: Catalog, typed_table: str, notes: str) -> None:
        """`InSubquery` matches rows by a condition on the rows that they refer to, in order and with a limit."""
        one, other, third = (
            insert_row(catalog, typed_table, {"Text": text, "Whole": n}) for n, text in enumerate("aab")
        )
        catalog.insert(notes, [{"Thing": rid, "Real": n} for rid in (one, other, third) for n in (1.0, 2.0, None)])

        def found(where: Mapping[str, Any], limit: int | None = None) -> list[tuple[str, float]]:
            condition = {"Thing": InSubquery(typed_table, where), "Real": NOT_NULL}
            rows = catalog.select(notes, condition, order=("Real", "RID"), descending=True, limit=limit)
            return [(row["Thing"], row["Real"]) for row in rows]

        assert found({"Text": "b"}) == [(third, 2.0), (third, 1.0)]
        assert found({"Text": "a"}, 3) == [(other, 2.0), (one, 2.0), (other, 1.0)]
        assert found({"Text": "a", "Whole": [1, 7]}) == [(other, 2.0), (other, 1.0)]
        assert len(found({})) == 6
        assert found({"RID": [one, third], "Text": "a"}) == [(one, 2.0), (one, 1.0)]
        assert found({"Text": "none"}) == found({"Text": []}) == []

    def test_comparisons(self, catalog: Catalog, typed_table: str) -> None:
        """A `Comparison` matches numbers and texts by their order, and never an empty column."""
        for text, number in (("a", 0.5), ("b", -1.0), ("c", None), (None, 2.0)):
            insert_row(catalog, typed_table, {"Text": text, "Real": number})

        def found(where: Mapping[str, Any]) -> list[tuple[str | None, float | None]]:
            return [(row["Text"], row["Real"]) for row in catalog.select(typed_table, where, order=("RID",))]

        assert found({"Real": Comparison(">", 0.5)}) == [(None, 2.0)]
        assert found({"Real": Comparison(">=", 0.5)}) == [("a", 0.5), (None, 2.0)]
        assert found({"Real": Comparison("<", 0.5)}) == [("b", -1.0)]
        assert found({"Real": Comparison("<=", 0.5)}) == [("a", 0.5), ("b", -1.0)]
        assert found({"Real": Comparison("!=", 0.5)}) == [("b", -1.0), (None, 2.0)]
        assert found({"Text": Comparison("!=", "a")}) == [("b", -1.0), ("c", None)]
        assert found({"Text": Comparison(">", "a"), "Real": Comparison("<", 0)}) == [("b", -1.0)]

    def test_subqueries_of_other_columns(self, catalog: Catalog, typed_table: str, notes: str) -> None:
        """`InSubquery` matches values of any column, and `AllOf` what all of its subqueries match, each row once."""
        one, other, third = (insert_row(catalog, typed_table, {"Whole": n}) for n in range(3))
        catalog.insert(notes, [{"Thing": rid, "Real": n} for rid in (one, other) for n in (1.0, 2.0, None)])
        catalog.insert(notes, [{"Thing": third, "Real": 3.0}])

        def noted(where: Mapping[str, Any]) -> InSubquery:
            return InSubquery(notes, where, column="Thing")

        def found(condition: Any, limit: int | None = None, whole: Sequence[int] = (0, 1, 2)) -> list[str]:
            where = {"RID": condition, "Whole": list(whole)}
            rows = catalog.select(typed_table, where, order=("Whole",), descending=True, limit=limit)
            return [row["RID"] for row in rows]

        assert found(noted({"Real": Comparison(">", 1.0)})) == [third, other, one]
        assert found(noted({"Real": Comparison(">", 1.0)}), 2) == [third, other]
        assert found(noted({"Real": Comparison(">", 1.0)}), whole=(0, 2)) == [third, one]
        assert found(AllOf((noted({"Real": 1.0}), noted({"Real": 2.0})))) == [other, one]
        assert found(AllOf((noted({"Real": 1.0}), noted({"Real": 3.0})))) == []
        in_table = InSubquery(typed_table, {"Whole": Comparison("<", 1)})
        rows = catalog.select(notes, {"Thing": AllOf((in_table, noted({"Real": 2.0}))), "Real": NOT_NULL})
        assert [(row["Thing"], row["Real"]) for row in rows] == [(one, 1.0), (one, 2.0)]

    def test_nested_subqueries(self, catalog: Catalog, typed_table: str, notes: str) -> None:
        """The condition of an `InSubquery` can have alternatives and an `InSubquery` of its own."""
        one, other, third = (
            insert_row(catalog, typed_table, {"Text": text, "Whole": n}) for n, text in enumerate("aab")
        )
        catalog.insert(notes, [{"Thing": rid, "Real": float(n)} for n, rid in enumerate((one, other, third))])
        with_a = InSubquery(notes, {"Thing": InSubquery(typed_table, {"Text": "a"})}, column="Thing")
        real_1 = InSubquery(notes, {"Real": 1.0, "Thing": InSubquery(typed_table, {"Whole": [0, 1]})}, column="Thing")
        either = InSubquery(typed_table, AnyOf(({"Text": "b"}, {"Whole": 0})))

        def found(condition: Any, limit: int | None = None) -> list[str]:
            rows = catalog.select(typed_table, {"RID": condition}, order=("Whole",), descending=True, limit=limit)
            return [row["RID"] for row in rows]

        assert found(with_a) == [other, one]
        assert found(with_a, 1) == [other]
        assert found(AllOf((with_a, real_1))) == [other]
        assert found(either) == [third, one]
        assert found(AllOf((with_a, either)), 2) == [one]

    def test_all_of_comparisons(self, catalog: Catalog, typed_table: str) -> None:
        """`AllOf` bounds a column from both sides."""
        catalog.insert(typed_table, [{"Whole": n, "Text": str(n)} for n in range(6)])

        def found(column: str, *comparisons: Comparison, limit: int | None = None) -> list[int]:
            rows = catalog.select(typed_table, {column: AllOf(comparisons)}, order=("Whole",), limit=limit)
            return [row["Whole"] for row in rows]

        assert found("Whole", Comparison(">", 1), Comparison("<=", 4)) == [2, 3, 4]
        assert found("Whole", Comparison(">", 1), Comparison("!=", 3), limit=2) == [2, 4]
        assert found("Text", Comparison(">=", "4"), Comparison("<", "4")) == []

    def test_after(self, catalog: Catalog, typed_table: str) -> None:
        """A page begins after a row, also if rows before it were added meanwhile."""
        rids = [insert_row(catalog, typed_table, {"Whole": n // 2, "Text": "a"}) for n in range(6)]
        for descending, expected in ((False, rids), (True, rids[::-1])):
            order: Any = {"order": ("Whole", "RID"), "descending": descending, "limit": 4}
            where = {"Text": "a", "RID": rids} if descending else {"Text": "a"}
            first = catalog.select(typed_table, where, **order)
            last = first[-1]
            insert_row(catalog, typed_table, {"Whole": -9, "Text": "a"})
            second = catalog.select(typed_table, where, **order, after=(last["Whole"], last["RID"]))
            assert [row["RID"] for row in (*first, *second)] == expected

    def test_no_order(self, catalog: Catalog, typed_table: str) -> None:
        """Without columns to sort by, the rows have any order."""
        catalog.insert(typed_table, [{"Whole": n} for n in range(3)])
        assert {row["Whole"] for row in catalog.select(typed_table, order=())} == {0, 1, 2}
        assert [row["Whole"] for row in catalog.select(typed_table, {"Whole": 1}, order=(), limit=1)] == [1]

    def test_in_subquery_with_many_values(self, catalog: Catalog, typed_table: str, notes: str) -> None:
        """The condition of an `InSubquery` can list many thousand values."""
        rids = [insert_row(catalog, typed_table, {"Whole": n}) for n in range(3)]
        catalog.insert(notes, [{"Thing": rid, "Real": float(n)} for n, rid in enumerate(rids)])
        condition = {"Thing": InSubquery(typed_table, {"Whole": list(range(1, 3000))})}
        found = catalog.select(notes, condition, order=("Real",), descending=True, limit=1)
        assert [row["Thing"] for row in found] == [rids[2]]

    def test_in_subquery_at_snapshot(self, catalog: Catalog) -> None:
        """At a snapshot, `InSubquery` applies to the other table's rows at that snapshot."""
        execution = insert_row(catalog, MLTable.execution, {"Status": "Running"})
        metric = {"Execution": execution, "Stage": "fit", "Name": "loss", "Best": 0.5, "Larger_Is_Better": False}
        insert_row(catalog, MLTable.execution_metric, metric)
        snapshot = catalog.snapshot()
        catalog.update(MLTable.execution, [{"RID": execution, "Status": "Completed"}])

        def found(at: Catalog, status: str) -> list[str]:
            condition = {"Execution": InSubquery(MLTable.execution, {"RID": execution, "Status": status})}
            return [row["Execution"] for row in at.select(MLTable.execution_metric, condition)]

        assert (found(catalog, "Completed"), found(catalog, "Running")) == ([execution], [])
        assert (found(catalog.at(snapshot), "Completed"), found(catalog.at(snapshot), "Running")) == ([], [execution])


class RowContract(CatalogFixtures):
    """Insert, update, delete and select rows."""

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
        """The model distinguishes vocabularies, asset tables and other tables."""
        assert catalog.model.vocabulary(MLVocab.asset_type).is_vocabulary
        assert catalog.model.asset_table(MLAsset.file).is_asset
        with pytest.raises(UnknownTable, match=MLAsset.file):
            catalog.model.asset_table(MLTable.execution)

    def test_values_round_trip(self, catalog: Catalog, typed_table: str) -> None:
        """A value of each type is returned unchanged."""
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
        row = select_row(catalog, typed_table, insert_row(catalog, typed_table, values))
        assert {name: row[name] for name in values} == values
        assert type(row["Truth"]) is bool
        assert type(row["Real"]) is float

    def test_empty_arrays(self, catalog: Catalog, typed_table: str) -> None:
        """An array that is empty, null or omitted is None, now and at a snapshot, and selected by None."""
        values: list[dict[str, Any]] = [{"Texts": []}, {"Texts": None}, {"Text": "x"}]
        rids = [insert_row(catalog, typed_table, row) for row in values]
        changed = insert_row(catalog, typed_table, {"Texts": ["a"]})
        catalog.update(typed_table, [{"RID": changed, "Texts": []}])
        for at in (catalog, catalog.at(catalog.snapshot())):
            assert [row["Texts"] for row in at.select(typed_table)] == [None] * 4
        assert {row["RID"] for row in catalog.select(typed_table, {"Texts": None})} == {*rids, changed}

    def test_rows_are_complete(self, catalog: Catalog, typed_table: str) -> None:
        """A selected row has all columns, including the system columns, with None for missing values."""
        row = select_row(catalog, typed_table, insert_row(catalog, typed_table, {"Text": "x"}))
        assert set(row) == {*SYSTEM_COLUMNS, *catalog.model.table(typed_table).column_names}
        assert row["Whole"] is None
        assert all(row[name] for name in SYSTEM_COLUMNS if name not in ("RCB", "RMB"))

    def test_rows_with_different_columns(self, catalog: Catalog, typed_table: str) -> None:
        """One insert accepts rows with different columns in any order."""
        rows: list[dict[str, Any]] = [
            {"Text": "a"},
            {"Whole": 1},
            {"Whole": 2, "Text": "c"},
            {"Text": "d", "Whole": 3},
            {},
        ]
        assert catalog.insert(typed_table, rows) == len(rows)
        found = {(row["Text"], row["Whole"]) for row in catalog.select(typed_table)}
        assert found == {("a", None), (None, 1), ("c", 2), ("d", 3), (None, None)}

    def test_defaults(self, catalog: Catalog) -> None:
        """A missing column gets its default, with the row's RID filled in."""
        name = unique_name("term")
        catalog.insert(MLVocab.dataset_type, [{"Name": name, "Description": ""}])
        (row,) = catalog.select(MLVocab.dataset_type, {"Name": name})
        assert row["RID"] in row["ID"]
        assert row["RID"] in row["URI"]

    def test_no_rows(self, catalog: Catalog) -> None:
        """Inserting or updating no rows does nothing."""
        assert catalog.insert(MLTable.dataset, []) == 0
        assert catalog.update(MLTable.dataset, []) == 0

    def test_many_rows(self, catalog: Catalog, typed_table: str) -> None:
        """One call can insert more rows than a batch, each with its own RID."""
        assert catalog.insert(typed_table, [{"Whole": number} for number in range(10_500)]) == 10_500
        found = [row for page in catalog.pages(typed_table) for row in page]
        assert {row["Whole"] for row in found} == set(range(10_500))
        assert len({row["RID"] for row in found}) == 10_500

    def test_reserved_ids(self, catalog: Catalog, open_catalog: CatalogFactory, typed_table: str) -> None:
        """Reserved RIDs are valid, unique, and accepted by `insert`."""
        first, second = catalog.reserve(20), open_catalog().reserve(20)
        catalog.insert(typed_table, [{} for _ in range(20)])
        unnamed = {row["RID"] for row in catalog.select(typed_table)}
        assert len({*first, *second, *unnamed}) == 60
        assert all(re.fullmatch(RID_PATTERN, rid) for rid in first)
        assert catalog.insert(typed_table, [{"RID": rid} for rid in first]) == 20
        assert len(catalog.select(typed_table, {"RID": first})) == 20

    def test_key_taken(self, catalog: Catalog) -> None:
        """A row with an existing key raises, and no row of its batch is inserted."""
        name = unique_name("term")
        catalog.insert(MLVocab.dataset_type, [{"Name": name, "Description": ""}])
        rows = [{"Name": unique_name("other"), "Description": ""}, {"Name": name, "Description": ""}]
        with pytest.raises(DuplicateRow, match=name):
            catalog.insert(MLVocab.dataset_type, rows)
        assert catalog.select(MLVocab.dataset_type, {"Name": rows[0]["Name"]}) == []

    def test_skip_existing(self, catalog: Catalog) -> None:
        """`skip_existing` skips rows whose key or RID exists, and returns the number of new rows."""
        dataset, term = insert_dataset(catalog), unique_name("term")
        assert catalog.insert(MLTable.dataset, [{"RID": dataset, "Description": "other"}], skip_existing=True) == 0
        rows = [{"Name": term, "Description": "first"}]
        assert catalog.insert(MLVocab.dataset_type, rows, skip_existing=True) == 1
        rows.append({"Name": unique_name("term"), "Description": "second"})
        assert catalog.insert(MLVocab.dataset_type, rows, skip_existing=True) == 1

    def test_insert_missing(self, catalog: Catalog) -> None:
        """`insert_missing` returns the complete rows of all keys in order, existing and new."""
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

    def test_insert_missing_by_id(self, catalog: Catalog, typed_table: str) -> None:
        """A row with a reserved RID is inserted once, and returned on every call."""
        (rid,) = catalog.reserve(1)
        (row,) = catalog.insert_missing(typed_table, [{"RID": rid, "Text": "a"}], "RID")
        assert (row["RID"], row["Text"]) == (rid, "a")
        assert catalog.insert_missing(typed_table, [{"RID": rid, "Text": "b"}], "RID") == [row]

    def test_insert_missing_with_another_key_taken(self, catalog: Catalog) -> None:
        """`insert_missing` raises for a row that was skipped because another of its keys exists."""
        name = unique_name("term")
        catalog.insert(MLVocab.dataset_type, [{"Name": name, "Description": ""}])
        (rid,) = catalog.reserve(1)
        with pytest.raises(DuplicateRow, match=rid):
            catalog.insert_missing(MLVocab.dataset_type, [{"RID": rid, "Name": name, "Description": ""}], "RID")

    def test_unknown_table(self, catalog: Catalog) -> None:
        """An unknown table raises with the names of the existing tables, in every operation."""
        with pytest.raises(UnknownTable, match=MLTable.workflow):
            catalog.select("Nonesuch")
        with pytest.raises(UnknownTable, match="Nonesuch"):
            catalog.insert("Nonesuch", [{}])

    def test_unknown_column(self, catalog: Catalog) -> None:
        """An unknown column raises with the names of the existing columns, in every operation."""
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
        """A foreign key to no row raises with its column and value, and inserts nothing."""
        before = len(catalog.select(MLTable.workflow))
        with pytest.raises(UnknownRID, match=r"Workflow_Type.*Nonesuch"):
            catalog.insert(MLTable.workflow, [{"Name": "x", "Workflow_Type": "Nonesuch"}])
        assert len(catalog.select(MLTable.workflow)) == before

    def test_insert_unless(self, catalog: Catalog, typed_table: str) -> None:
        """`insert_unless` inserts a row unless one matches, and otherwise returns the oldest match."""
        row, new = catalog.insert_unless(typed_table, {"Text": "a"}, {"Text": "a", "Whole": 1})
        assert (row["Whole"], new) == (1, True)
        catalog.insert(typed_table, [{"Text": "a", "Whole": 2}])
        same, new = catalog.insert_unless(typed_table, AnyOf(({"Whole": 9}, {"Text": "a"})), {"Whole": 9})
        assert (same["RID"], new) == (row["RID"], False)

    def test_insert_unless_concurrently(self, catalog: Catalog, typed_table: str) -> None:
        """If several threads insert the same row, one succeeds and all get its row."""

        def race(number: int) -> tuple[str, bool]:
            row, new = catalog.insert_unless(typed_table, {"Text": "same"}, {"Text": "same", "Whole": number})
            return row["RID"], new

        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(race, range(24)))
        assert len({rid for rid, _ in found}) == 1
        assert sum(new for _, new in found) == 1

    def test_update(self, catalog: Catalog, typed_table: str) -> None:
        """An update changes only the given columns and the modification time."""
        rid = insert_row(catalog, typed_table, {"Text": "before", "Whole": 1})
        before = select_row(catalog, typed_table, rid)
        assert catalog.update(typed_table, [{"RID": rid, "Text": "after", "Truth": False}]) == 1
        after = select_row(catalog, typed_table, rid)
        assert after["RMT"] > before["RMT"]
        assert {**after, "RMT": None, "RMB": None} == {
            **before, "RMT": None, "RMB": None, "Text": "after", "Truth": False,
        }  # fmt: skip

    def test_update_unknown_rid(self, catalog: Catalog, typed_table: str) -> None:
        """RIDs that do not exist in the table are not counted as updated."""
        rid, other = insert_row(catalog, typed_table, {}), insert_dataset(catalog)
        assert catalog.update(typed_table, [{"RID": one, "Text": "x"} for one in (rid, other)]) == 1
        assert select_row(catalog, MLTable.dataset, other)["Description"] != "x"

    def test_transaction(self, catalog: Catalog, open_catalog: CatalogFactory, typed_table: str) -> None:
        """A catalog with transactions writes everything in the block, or nothing if an error leaves it."""
        with catalog_transaction(catalog), catalog_transaction(catalog):
            (row,) = catalog.insert_missing(typed_table, [{"RID": catalog.reserve(1)[0], "Text": "a"}], "RID")
            assert select_row(catalog, typed_table, row["RID"])["Text"] == "a"
            catalog.update(typed_table, [{"RID": row["RID"], "Whole": 1}])
        other = open_catalog()
        assert select_row(other, typed_table, row["RID"])["Whole"] == 1
        if not hasattr(catalog, "transaction"):
            pytest.skip("each write is a transaction of its own")
        with pytest.raises(UnknownColumn), catalog_transaction(catalog):
            catalog.insert(typed_table, [{"Text": "b"}])
            catalog.delete(typed_table, {"RID": row["RID"]})
            catalog.insert(typed_table, [{"Nonesuch": 1}])
        with pytest.raises(UnknownRID, match="Nonesuch"), catalog_transaction(catalog):
            catalog.insert(typed_table, [{"Text": "b"}])
            catalog.insert(MLTable.workflow, [{"Name": "x", "Workflow_Type": "Nonesuch"}])
        assert [each["Text"] for each in other.select(typed_table)] == ["a"]
        catalog.insert(typed_table, [{"Text": "c"}])
        assert [each["Text"] for each in other.select(typed_table)] == ["a", "c"]

    def test_update_without_columns(self, catalog: Catalog, typed_table: str) -> None:
        """An update with nothing but RIDs changes no value, and returns how many of the rows exist."""
        rids = [insert_row(catalog, typed_table, {"Text": text}) for text in "ab"]
        (unused,) = catalog.reserve(1)
        rows = [{"RID": rid} for rid in (rids[1], unused, rids[0], rids[1])]
        assert catalog.update(typed_table, rows) == 2
        assert [select_row(catalog, typed_table, rid)["Text"] for rid in rids] == ["a", "b"]

    def test_delete(self, catalog: Catalog, typed_table: str) -> None:
        """A deletion removes the matching rows and returns their number."""
        catalog.insert(typed_table, [{"Whole": number} for number in (1, 2, 3)])
        assert catalog.delete(typed_table, {"Whole": [1, 3, 5]}) == 2
        assert [row["Whole"] for row in catalog.select(typed_table)] == [2]
        assert catalog.delete(typed_table, {"Whole": 1}) == 0

    def test_delete_cascades_to_links(self, catalog: Catalog) -> None:
        """Deleting a row deletes its associations, but not the associated rows."""
        parent, child = insert_dataset(catalog), insert_dataset(catalog)
        catalog.insert(MLTable.nested_dataset, [{"Dataset": parent, "Nested_Dataset": child}])
        assert catalog.delete(MLTable.dataset, {"RID": parent}) == 1
        assert catalog.select(MLTable.nested_dataset, {"Nested_Dataset": child}) == []
        assert select_row(catalog, MLTable.dataset, child)

    def test_conditions(self, catalog: Catalog, typed_table: str) -> None:
        """Conditions on columns are combined by AND. A collection matches each of its values, None empty columns."""
        catalog.insert(
            typed_table, [{"Text": text, "Whole": number} for text in ("a", "b") for number in (1, 2)] + [{}]
        )

        def count(where: Mapping[str, Any] | AnyOf) -> int:
            return len(catalog.select(typed_table, where))

        assert count({}) == 5
        assert count({"Text": "a"}) == 2
        assert count({"Text": "a", "Whole": 2}) == 1
        assert [count({"Text": kind(("a", "c"))}) for kind in (tuple, list, set, frozenset)] == [2] * 4
        assert count({"Text": None}) == 1
        assert count({"Text": ["a", None]}) == 3
        assert count({"Text": []}) == 0
        assert count(AnyOf(({"Text": "a"}, {"Whole": 2}))) == 3
        assert count(AnyOf(())) == 0

    def test_conditions_on_each_type(self, catalog: Catalog, typed_table: str) -> None:
        """Numbers, booleans and times can be selected by value and by a list of values."""
        values = {"Whole": 7, "Real": 0.5, "Truth": False, "Time": "2026-01-02T03:04:05.000006+00:00"}
        rid = insert_row(catalog, typed_table, values)
        insert_row(
            catalog, typed_table, {"Whole": 8, "Real": 1.5, "Truth": True, "Time": "2026-01-02T03:04:05.000007+00:00"}
        )
        for name, value in values.items():
            assert [row["RID"] for row in catalog.select(typed_table, {name: value})] == [rid]
            assert [row["RID"] for row in catalog.select(typed_table, {name: [value]})] == [rid]

    def test_condition_on_many_values(self, catalog: Catalog, typed_table: str) -> None:
        """A condition can list many thousand values. Order and limit apply to all of them."""
        catalog.insert(typed_table, [{"Whole": number} for number in range(3000)])
        found = catalog.select(typed_table, {"Whole": list(range(40_000))}, order=["Whole"], descending=True, limit=3)
        assert [row["Whole"] for row in found] == [2999, 2998, 2997]

    def test_order(self, catalog: Catalog, typed_table: str) -> None:
        """Rows are sorted by RID, or by the requested columns in either direction, up to a limit."""
        catalog.insert(typed_table, [{"Text": text, "Whole": number} for text in ("b", "a") for number in (1, 2)])
        rids = [row["RID"] for row in catalog.select(typed_table)]
        assert rids == sorted(rids)
        ascending = [(row["Text"], row["Whole"]) for row in catalog.select(typed_table, order=("Text", "Whole"))]
        assert ascending == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
        newest = catalog.select(typed_table, order=("Text", "Whole"), descending=True, limit=2)
        assert [(row["Text"], row["Whole"]) for row in newest] == [("b", 2), ("b", 1)]
        assert catalog.select(typed_table, limit=0) == []

    @pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
    def test_pages(self, catalog: Catalog, typed_table: str, count: int) -> None:
        """Pages contain each matching row once, sorted by RID, and at most `size` rows."""
        catalog.insert(typed_table, [{"Text": "x"} for _ in range(count)] + [{"Text": "y"}])
        pages = list(catalog.pages(typed_table, {"Text": "x"}, size=4))
        assert all(0 < len(page) <= 4 for page in pages)
        assert [row for page in pages for row in page] == catalog.select(typed_table, {"Text": "x"})
        assert sum(map(len, pages)) == count

    def test_locate(self, catalog: Catalog, typed_table: str) -> None:
        """`locate` returns the table of each RID, and leaves out RIDs without a row."""
        thing, dataset = insert_row(catalog, typed_table, {}), insert_dataset(catalog)
        (unused,) = catalog.reserve(1)
        rids = [thing, dataset, unused]
        assert catalog.locate(rids) == {thing: typed_table, dataset: MLTable.dataset}
        assert catalog.locate(rids, [typed_table]) == {thing: typed_table}
        assert catalog.locate([]) == {}


class StateContract(CatalogFixtures):
    """Snapshots, new tables, threads and processes."""

    def test_snapshot(self, catalog: Catalog, typed_table: str) -> None:
        """A snapshot has the rows that were changed or deleted later, and not the rows inserted later."""
        catalog.insert(typed_table, [{"Whole": number} for number in range(6)])
        snapshot, then = catalog.snapshot(), catalog.select(typed_table)
        catalog.update(typed_table, [{"RID": then[0]["RID"], "Whole": 10}])
        catalog.update(typed_table, [{"RID": then[0]["RID"], "Whole": 11}])
        catalog.delete(typed_table, {"RID": [then[0]["RID"], then[1]["RID"]]})
        catalog.insert(typed_table, [{"Whole": 12}])
        past = catalog.at(snapshot)
        assert past.select(typed_table) == then
        assert past.select(typed_table, {"Whole": [0, 1, 10, 11, 12]}, order=("Whole",), descending=True) == then[1::-1]
        assert past.select(typed_table, limit=2) == then[:2]
        assert [row for page in past.pages(typed_table, size=4) for row in page] == then
        assert past.locate([row["RID"] for row in then]) == {row["RID"]: typed_table for row in then}

    def test_snapshot_of_links(self, catalog: Catalog) -> None:
        """A snapshot has the associations that were deleted by cascade later."""
        parent, child = insert_dataset(catalog), insert_dataset(catalog)
        catalog.insert(MLTable.nested_dataset, [{"Dataset": parent, "Nested_Dataset": child}])
        snapshot = catalog.snapshot()
        catalog.delete(MLTable.dataset, {"RID": child})
        (link,) = catalog.at(snapshot).select(MLTable.nested_dataset, {"Dataset": parent})
        assert link["Nested_Dataset"] == child

    def test_snapshots_are_independent(self, catalog: Catalog, open_catalog: CatalogFactory, typed_table: str) -> None:
        """Each snapshot keeps its own state, also for another process."""
        rid = insert_row(catalog, typed_table, {"Whole": 0})
        seen = [(catalog.snapshot(), catalog.update(typed_table, [{"RID": rid, "Whole": n}])) for n in range(1, 6)]
        other = open_catalog()
        assert [select_row(other.at(snapshot), typed_table, rid)["Whole"] for snapshot, _ in seen] == [0, 1, 2, 3, 4]

    def test_snapshot_before_a_table(self, catalog: Catalog) -> None:
        """A table that was created later is empty at a snapshot."""
        snapshot, name = catalog.snapshot(), unique_name("Later")
        catalog.create_tables([Table(name, (Column("Text"),))])
        insert_row(catalog, name, {})
        assert catalog.at(snapshot).select(name) == []

    def test_snapshot_is_read_only(self, catalog: Catalog, typed_table: str) -> None:
        """Every write to a snapshot is refused."""
        past = catalog.at(catalog.snapshot())
        for write in (
            lambda: past.insert(typed_table, [{}]),
            lambda: past.insert_missing(typed_table, [{}], "RID"),
            lambda: past.insert_unless(typed_table, {"Whole": 1}, {}),
            lambda: past.update(typed_table, [{"RID": "1-0000", "Text": ""}]),
            lambda: past.delete(typed_table, {}),
            lambda: past.create_tables([Table(unique_name("T"))]),
            lambda: past.reserve(1),
        ):
            with pytest.raises(CatalogReadOnly):
                write()

    def test_create_tables_twice(self, catalog: Catalog) -> None:
        """Creating an existing table changes nothing. Other columns under the same name are refused."""
        name = unique_name("T")
        catalog.create_tables([Table(name, (Column("A"),))])
        rid = insert_row(catalog, name, {"A": "kept"})
        catalog.create_tables([Table(name, (Column("A"),))])
        assert select_row(catalog, name, rid)["A"] == "kept"
        with pytest.raises(DuplicateRow, match=name):
            catalog.create_tables([Table(name, (Column("A"), Column("B")))])

    def test_create_tables_all_or_none(self, catalog: Catalog) -> None:
        """If one table cannot be created, none is."""
        good, bad = unique_name("Good"), unique_name("Bad")
        key = ForeignKey("X", unique_name("Nonesuch"))
        with pytest.raises(UnknownTable, match="Nonesuch"):
            catalog.create_tables([Table(good, (Column("A"),)), Table(bad, (Column("X"),), foreign_keys=(key,))])
        assert good not in catalog.refresh().tables

    def test_create_tables_with_references(self, catalog: Catalog) -> None:
        """New tables can refer to each other, to a vocabulary by name, and to existing tables."""
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
        """After a refresh, a table that another process created is readable."""
        other, name = open_catalog(), unique_name("T")
        other.create_tables([Table(name, (Column("A"),))])
        rid = insert_row(other, name, {"A": "x"})
        assert name in catalog.refresh().tables
        assert select_row(catalog, name, rid)["A"] == "x"

    def test_cite(self, catalog: Catalog) -> None:
        """A citation is a URL with the RID, and with the snapshot if one is passed."""
        rid, snapshot = insert_dataset(catalog), catalog.snapshot()
        assert ":" in catalog.cite(rid)
        assert rid in catalog.cite(rid)
        assert f"@{snapshot}" in catalog.cite(rid, snapshot)
        assert catalog.cite(rid) == catalog.cite(rid) != catalog.cite(rid, snapshot)

    def test_use_after_close(self, catalog: Catalog) -> None:
        """A closed catalog opens again on the next call."""
        catalog.close()
        assert catalog.locate([insert_dataset(catalog)])
        catalog.close()

    def test_threads(self, catalog: Catalog, typed_table: str) -> None:
        """Several threads can read and write at once."""
        with ThreadPoolExecutor(8) as threads:
            rids = list(threads.map(lambda number: insert_row(catalog, typed_table, {"Whole": number}), range(40)))
        assert len(catalog.select(typed_table, {"RID": rids})) == 40

    def test_fork(self, catalog: Catalog) -> None:
        """A forked process can use its parent's open catalog, and so can the parent afterwards."""
        name = unique_name("forked")
        child = multiprocessing.get_context("fork").Process(target=insert_named_dataset, args=(catalog, name))
        child.start()
        child.join()
        assert child.exitcode == 0
        insert_named_dataset(catalog, name)
        assert len(catalog.select(MLTable.dataset, {"Description": name})) == 2


class CatalogContract(RowContract, QueryContract, StateContract):
    """Contract tests of `deriva_ml_core.backend.Catalog`. Override the fixture `open_catalog`."""
