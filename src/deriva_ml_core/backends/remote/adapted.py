"""Another client's catalog, read and written as if it were ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deriva_ml_core.backend import Catalog, Either, Linked, Row, Where
from deriva_ml_core.backends.keyed import in_order
from deriva_ml_core.backends.remote.adapting import WORKFLOW_TYPES, Adaptation, Dialect, state_vocabulary
from deriva_ml_core.backends.remote.reading import ALL
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.schema import CatalogModel, Table

__all__ = ["AdaptedCatalog", "adapted"]

TYPE = "Workflow_Type"


def adapted(catalog: Catalog) -> Catalog:
    """The catalog itself where it is as ours are, else one that reads and writes it as if it were."""
    changed = AdaptedCatalog(catalog)
    return changed if changed.adaptation.is_needed else catalog


class AdaptedCatalog:
    """A catalog with other columns, states or links than ours.

    What it has no place for is dropped when it is written, and empty when it is read; the journal has it.

    Args:
        catalog: The catalog.
        states: The terms that an execution's status may be; None to read them where there is a vocabulary.
    """

    def __init__(self, catalog: Catalog, states: frozenset[str] | None = None) -> None:
        self._catalog = catalog
        self._states = states if states is not None else self._read_states()
        self._seen: CatalogModel | None = None
        self._adaptation: Adaptation | None = None

    def _read_states(self) -> frozenset[str] | None:
        found = state_vocabulary(self._catalog.model)
        if found is None:
            return None
        table, column = found
        return frozenset(row[column] for row in self._catalog.select(table))

    @property
    def adaptation(self) -> Adaptation:
        """How it is read and written; looked at again when its tables were."""
        model = self._catalog.model
        if self._adaptation is None or self._seen is not model:
            self._seen, self._adaptation = model, Adaptation.of(model, self._states)
        return self._adaptation

    @property
    def name(self) -> str:
        return self._catalog.name

    @property
    def model(self) -> CatalogModel:
        return self.adaptation.model

    def refresh(self) -> CatalogModel:
        self._catalog.refresh()
        return self.model

    def snapshot(self) -> str:
        return self._catalog.snapshot()

    def at(self, snapshot: str) -> AdaptedCatalog:
        return AdaptedCatalog(self._catalog.at(snapshot), self._states)

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        return self._catalog.cite(rid, snapshot)

    def reserve(self, count: int) -> list[str]:
        return self._catalog.reserve(count)

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        dialect = self._dialect(table)
        if not self._linked(table) or not any(TYPE in row for row in rows):
            return self._catalog.insert(table, [dialect.to_catalog(row) for row in rows], skip_existing=skip_existing)
        missing = iter(self.reserve(sum("RID" not in row for row in rows)))
        named = [row if "RID" in row else {**row, "RID": next(missing)} for row in rows]
        added = self._catalog.insert(table, [dialect.to_catalog(row) for row in named], skip_existing=skip_existing)
        self._link({row["RID"]: row[TYPE] for row in named if row.get(TYPE) is not None})
        return added

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        dialect = self._dialect(table)
        if self._linked(table):
            self.insert(table, rows, skip_existing=True)
            wanted = [row[key] for row in rows]
            return in_order(table, key, wanted, self.select(table, {key: wanted}))
        given = [dialect.to_catalog(row) for row in rows]
        return self._known(table, self._catalog.insert_missing(table, given, dialect.renamed.get(key, key)))

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        dialect = self._dialect(table)
        asked = dialect.where(self._by_links(table, where))
        found, new = self._catalog.insert_unless(table, asked, dialect.to_catalog(row))
        if new and self._linked(table) and row.get(TYPE) is not None:
            self._link({found["RID"]: row[TYPE]})
        return self._known(table, [found])[0], new

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        dialect = self._dialect(table)
        changed = self._catalog.update(table, [dialect.to_catalog(row) for row in rows])
        types = {row["RID"]: row[TYPE] for row in rows if TYPE in row} if self._linked(table) else {}
        if types:
            self._catalog.delete(WORKFLOW_TYPES, {self._ends()[0]: list(types)})
            self._link(types)
        return changed

    def delete(self, table: str, where: Where) -> int:
        return self._catalog.delete(table, self._dialect(table).where(self._by_links(table, where)))

    def select(
        self,
        table: str,
        where: Where = ALL,
        *,
        order: Sequence[str] = ("RID",),
        descending: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        dialect = self._dialect(table)
        asked = dialect.where(self._by_links(table, self._meant(where)))
        columns = dialect.order(column for column in order if not (column == TYPE and self._linked(table))) or ("RID",)
        rows = self._catalog.select(table, asked, order=columns, descending=descending, limit=limit)
        return self._known(table, rows)

    def pages(self, table: str, where: Where = ALL, *, size: int = 2000) -> Iterator[list[Row]]:
        asked = self._dialect(table).where(self._by_links(table, where))
        return (self._known(table, page) for page in self._catalog.pages(table, asked, size=size))

    def locate(self, rids: Sequence[str], tables: Sequence[str] = ()) -> dict[str, str]:
        return self._catalog.locate(rids, tables)

    def create_tables(self, tables: Sequence[Table]) -> None:
        self._catalog.create_tables([self._pointing(table) for table in tables])

    def close(self) -> None:
        self._catalog.close()

    def _dialect(self, table: str) -> Dialect:
        found = self.adaptation.dialects.get(table)
        if found is not None:
            return found
        if table not in self.model.tables:
            self.refresh()
        return self.adaptation.dialects.get(table) or Dialect(self.model.table(table))

    def _pointing(self, table: Table) -> Table:
        """A table whose foreign keys name columns as the catalog does."""
        dialects = self.adaptation.dialects
        keys = tuple(
            replace(key, to=dialects[key.table].renamed.get(key.to, key.to)) if key.table in dialects else key
            for key in table.foreign_keys
        )
        return replace(table, foreign_keys=keys)

    def _meant(self, where: Where) -> Where:
        """A condition of which also what it asks of linked rows is as the catalog takes it."""
        if isinstance(where, Either):
            return where
        return {column: self._linked_rows(value) for column, value in where.items()}

    def _linked_rows(self, value: Any) -> Any:
        if not isinstance(value, Linked):
            return value
        asked = self._dialect(value.table).where(value.where)
        assert not isinstance(asked, Either)
        return Linked(value.table, asked)

    # a workflow's type, where that stands in a table of its own

    def _linked(self, table: str) -> bool:
        return table == MLTable.workflow and self.adaptation.workflow_types is not None

    def _ends(self) -> tuple[str, str]:
        ends = self.adaptation.workflow_types
        assert ends is not None
        return ends

    def _link(self, types: Mapping[str, Any]) -> None:
        workflow, kind = self._ends()
        rows = [{workflow: rid, kind: term} for rid, term in types.items()]
        self._catalog.insert(WORKFLOW_TYPES, rows, skip_existing=True)

    def _known(self, table: str, rows: list[Row]) -> list[Row]:
        dialect = self._dialect(table)
        known = [dialect.from_catalog(row) for row in rows]
        if known and self._linked(table):
            workflow, kind = self._ends()
            links = self._catalog.select(WORKFLOW_TYPES, {workflow: [row["RID"] for row in known]}, order=("RCT",))
            types: dict[str, Any] = {}
            for link in links:
                types.setdefault(link[workflow], link[kind])
            for row in known:
                row[TYPE] = types.get(row["RID"])
        return known

    def _by_links(self, table: str, where: Where) -> Where:
        """A condition on workflows' types as one on their record ids."""
        if not self._linked(table):
            return where
        if isinstance(where, Either):
            return Either(tuple(self._rids_of(condition) for condition in where.conditions))
        return self._rids_of(where)

    def _rids_of(self, condition: Mapping[str, Any]) -> Mapping[str, Any]:
        if TYPE not in condition:
            return condition
        workflow, kind = self._ends()
        rids = {row[workflow] for row in self._catalog.select(WORKFLOW_TYPES, {kind: condition[TYPE]})}
        rest = {column: value for column, value in condition.items() if column != TYPE}
        given = rest.get("RID", rids)
        named = set(given) if isinstance(given, (tuple, list, set, frozenset)) else {given}
        return {**rest, "RID": tuple(rids & named)}


if TYPE_CHECKING:
    _: type[Catalog] = AdaptedCatalog
