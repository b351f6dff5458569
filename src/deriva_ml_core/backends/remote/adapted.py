"""Another client's catalog, read and written as if it were ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deriva_ml_core.backend import AnyOf, Catalog, InSubquery, Row, Where
from deriva_ml_core.backends.keyed import order_rows_by_key
from deriva_ml_core.backends.remote.adapting import (
    WORKFLOW_TYPE_LINK_TABLE,
    CatalogMapping,
    TableMapping,
    status_vocabulary,
)
from deriva_ml_core.backends.remote.reading import ALL_ROWS
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.schema import CatalogModel, Table

__all__ = ["CatalogAdapter", "adapt_catalog"]

WORKFLOW_TYPE_COLUMN = "Workflow_Type"


def adapt_catalog(catalog: Catalog) -> Catalog:
    """The catalog itself where it is as ours are, else one that reads and writes it as if it were."""
    changed = CatalogAdapter(catalog)
    return changed if changed.mapping.is_needed else catalog


class CatalogAdapter:
    """A catalog with other columns, states or links than ours.

    What it has no place for is dropped when it is written, and empty when it is read; the journal has it.

    Args:
        catalog: The catalog.
        status_terms: The terms that an execution's status may be; None to read them where there is a vocabulary.
    """

    def __init__(self, catalog: Catalog, status_terms: frozenset[str] | None = None) -> None:
        self._catalog = catalog
        self._status_terms = status_terms if status_terms is not None else self._read_status_terms()
        self._mapped_model: CatalogModel | None = None
        self._mapping: CatalogMapping | None = None

    def _read_status_terms(self) -> frozenset[str] | None:
        found = status_vocabulary(self._catalog.model)
        if found is None:
            return None
        table, column = found
        return frozenset(row[column] for row in self._catalog.select(table))

    @property
    def mapping(self) -> CatalogMapping:
        """How it is read and written; looked at again when its tables were."""
        model = self._catalog.model
        if self._mapping is None or self._mapped_model is not model:
            self._mapped_model, self._mapping = model, CatalogMapping.from_model(model, self._status_terms)
        return self._mapping

    @property
    def name(self) -> str:
        return self._catalog.name

    @property
    def model(self) -> CatalogModel:
        return self.mapping.model

    def refresh(self) -> CatalogModel:
        self._catalog.refresh()
        return self.model

    def snapshot(self) -> str:
        return self._catalog.snapshot()

    def at(self, snapshot: str) -> CatalogAdapter:
        return CatalogAdapter(self._catalog.at(snapshot), self._status_terms)

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        return self._catalog.cite(rid, snapshot)

    def reserve(self, count: int) -> list[str]:
        return self._catalog.reserve(count)

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        dialect = self._table_mapping(table)
        if not self._has_type_links(table) or not any(WORKFLOW_TYPE_COLUMN in row for row in rows):
            return self._catalog.insert(table, [dialect.to_catalog(row) for row in rows], skip_existing=skip_existing)
        missing = iter(self.reserve(sum("RID" not in row for row in rows)))
        named = [row if "RID" in row else {**row, "RID": next(missing)} for row in rows]
        added = self._catalog.insert(table, [dialect.to_catalog(row) for row in named], skip_existing=skip_existing)
        self._insert_type_links(
            {row["RID"]: row[WORKFLOW_TYPE_COLUMN] for row in named if row.get(WORKFLOW_TYPE_COLUMN) is not None}
        )
        return added

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        dialect = self._table_mapping(table)
        if self._has_type_links(table):
            self.insert(table, rows, skip_existing=True)
            wanted = [row[key] for row in rows]
            return order_rows_by_key(table, key, wanted, self.select(table, {key: wanted}))
        given = [dialect.to_catalog(row) for row in rows]
        return self._convert_rows(
            table, self._catalog.insert_missing(table, given, dialect.catalog_names.get(key, key))
        )

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        dialect = self._table_mapping(table)
        asked = dialect.translate_where(self._resolve_type_filters(table, where))
        found, new = self._catalog.insert_unless(table, asked, dialect.to_catalog(row))
        if new and self._has_type_links(table) and row.get(WORKFLOW_TYPE_COLUMN) is not None:
            self._insert_type_links({found["RID"]: row[WORKFLOW_TYPE_COLUMN]})
        return self._convert_rows(table, [found])[0], new

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        dialect = self._table_mapping(table)
        changed = self._catalog.update(table, [dialect.to_catalog(row) for row in rows])
        types = (
            {row["RID"]: row[WORKFLOW_TYPE_COLUMN] for row in rows if WORKFLOW_TYPE_COLUMN in row}
            if self._has_type_links(table)
            else {}
        )
        if types:
            self._catalog.delete(WORKFLOW_TYPE_LINK_TABLE, {self._type_link_columns()[0]: list(types)})
            self._insert_type_links(types)
        return changed

    def delete(self, table: str, where: Where) -> int:
        return self._catalog.delete(
            table, self._table_mapping(table).translate_where(self._resolve_type_filters(table, where))
        )

    def select(
        self,
        table: str,
        where: Where = ALL_ROWS,
        *,
        order: Sequence[str] = ("RID",),
        descending: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        dialect = self._table_mapping(table)
        asked = dialect.translate_where(self._resolve_type_filters(table, self._translate_subqueries(where)))
        columns = dialect.translate_order(
            column for column in order if not (column == WORKFLOW_TYPE_COLUMN and self._has_type_links(table))
        ) or ("RID",)
        rows = self._catalog.select(table, asked, order=columns, descending=descending, limit=limit)
        return self._convert_rows(table, rows)

    def pages(self, table: str, where: Where = ALL_ROWS, *, size: int = 2000) -> Iterator[list[Row]]:
        asked = self._table_mapping(table).translate_where(self._resolve_type_filters(table, where))
        return (self._convert_rows(table, page) for page in self._catalog.pages(table, asked, size=size))

    def locate(self, rids: Sequence[str], tables: Sequence[str] = ()) -> dict[str, str]:
        return self._catalog.locate(rids, tables)

    def create_tables(self, tables: Sequence[Table]) -> None:
        self._catalog.create_tables([self._foreign_keys_to_catalog(table) for table in tables])

    def close(self) -> None:
        self._catalog.close()

    def _table_mapping(self, table: str) -> TableMapping:
        found = self.mapping.table_mappings.get(table)
        if found is not None:
            return found
        if table not in self.model.tables:
            self.refresh()
        return self.mapping.table_mappings.get(table) or TableMapping(self.model.table(table))

    def _foreign_keys_to_catalog(self, table: Table) -> Table:
        """A table whose foreign keys name columns as the catalog does."""
        dialects = self.mapping.table_mappings
        keys = tuple(
            replace(key, to=dialects[key.table].catalog_names.get(key.to, key.to)) if key.table in dialects else key
            for key in table.foreign_keys
        )
        return replace(table, foreign_keys=keys)

    def _translate_subqueries(self, where: Where) -> Where:
        """A condition of which also what it asks of linked rows is as the catalog takes it."""
        if isinstance(where, AnyOf):
            return where
        return {column: self._translate_subquery(value) for column, value in where.items()}

    def _translate_subquery(self, value: Any) -> Any:
        if not isinstance(value, InSubquery):
            return value
        asked = self._table_mapping(value.table).translate_where(value.where)
        assert not isinstance(asked, AnyOf)
        return InSubquery(value.table, asked)

    # a workflow's type, where that stands in a table of its own

    def _has_type_links(self, table: str) -> bool:
        return table == MLTable.workflow and self.mapping.type_link_columns is not None

    def _type_link_columns(self) -> tuple[str, str]:
        ends = self.mapping.type_link_columns
        assert ends is not None
        return ends

    def _insert_type_links(self, types: Mapping[str, Any]) -> None:
        workflow, kind = self._type_link_columns()
        rows = [{workflow: rid, kind: term} for rid, term in types.items()]
        self._catalog.insert(WORKFLOW_TYPE_LINK_TABLE, rows, skip_existing=True)

    def _convert_rows(self, table: str, rows: list[Row]) -> list[Row]:
        dialect = self._table_mapping(table)
        known = [dialect.from_catalog(row) for row in rows]
        if known and self._has_type_links(table):
            workflow, kind = self._type_link_columns()
            links = self._catalog.select(
                WORKFLOW_TYPE_LINK_TABLE, {workflow: [row["RID"] for row in known]}, order=("RCT",)
            )
            types: dict[str, Any] = {}
            for link in links:
                types.setdefault(link[workflow], link[kind])
            for row in known:
                row[WORKFLOW_TYPE_COLUMN] = types.get(row["RID"])
        return known

    def _resolve_type_filters(self, table: str, where: Where) -> Where:
        """A condition on workflows' types as one on their record ids."""
        if not self._has_type_links(table):
            return where
        if isinstance(where, AnyOf):
            return AnyOf(tuple(self._resolve_type_filter(condition) for condition in where.filters))
        return self._resolve_type_filter(where)

    def _resolve_type_filter(self, condition: Mapping[str, Any]) -> Mapping[str, Any]:
        if WORKFLOW_TYPE_COLUMN not in condition:
            return condition
        workflow, kind = self._type_link_columns()
        rids = {
            row[workflow]
            for row in self._catalog.select(WORKFLOW_TYPE_LINK_TABLE, {kind: condition[WORKFLOW_TYPE_COLUMN]})
        }
        rest = {column: value for column, value in condition.items() if column != WORKFLOW_TYPE_COLUMN}
        given = rest.get("RID", rids)
        named = set(given) if isinstance(given, (tuple, list, set, frozenset)) else {given}
        return {**rest, "RID": tuple(rids & named)}


if TYPE_CHECKING:
    _: type[Catalog] = CatalogAdapter
