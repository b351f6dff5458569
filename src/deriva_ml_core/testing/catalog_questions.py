"""What every catalog promises of questions that go beyond the values of one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from deriva_ml_core.backend import NOT_NULL, Catalog, InSubquery
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.schema import Column, ForeignKey, Table
from deriva_ml_core.testing.catalog_fixtures import CatalogFixtures, insert_row, unique_name

__all__ = ["QueryContract"]


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
