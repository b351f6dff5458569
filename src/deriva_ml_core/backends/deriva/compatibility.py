"""What another client's catalog calls otherwise: found by looking at its tables, never by its version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from deriva_ml_core.backend import AnyOf, Catalog, Filter, InSubquery, Row, Where, order_rows_by_key
from deriva_ml_core.backends.deriva.queries import ALL_ROWS
from deriva_ml_core.default_schema import default_tables
from deriva_ml_core.definitions import MLTable, MLVocab, Status
from deriva_ml_core.schema import ML_SCHEMA, VOCABULARY_COLUMNS, CatalogModel, Column, ForeignKey, Table

__all__ = [
    "STATUS_CANDIDATES",
    "WORKFLOW_TYPE_LINK_TABLE",
    "CatalogAdapter",
    "CatalogMapping",
    "TableMapping",
    "adapt_catalog",
    "status_vocabulary",
]


ALTERNATIVE_COLUMN_NAMES: Mapping[tuple[str, str], tuple[str, ...]] = {
    (MLTable.execution, "Duration"): ("Execution_Duration",),
}
"""Columns that newer catalogs call otherwise."""

OPTIONAL_COLUMNS = frozenset(
    {
        (MLTable.dataset_execution, "Dataset_Version"),
        (MLTable.dataset_version, "Execution"),
        (MLTable.dataset_version, "Minid"),
        (MLTable.execution, "Duration"),
        (MLTable.execution, "Status_Detail"),
        (MLTable.nested_execution, "Sequence"),
        (MLTable.workflow, "Version"),
        (MLTable.workflow, "Workflow_Type"),
    }
)
"""Columns without which runs can be recorded all the same; an older catalog lacks some of them."""

STATUS_CANDIDATES: Mapping[Status, tuple[str, ...]] = {
    Status.created: ("Created", "Pending", "Initializing"),
    Status.initializing: ("Initializing", "Created", "Pending", "Running"),
    Status.pending: ("Pending", "Created", "Running"),
    Status.running: ("Running",),
    Status.completed: ("Completed", "Stopped", "Uploaded"),
    Status.failed: ("Failed", "Aborted", "Stopped"),
    Status.aborted: ("Aborted", "Failed", "Stopped"),
}
"""The term that is written for each of our states: the first that the catalog's vocabulary has."""

STATUS_BY_TERM: Mapping[str, Status] = {
    "stopped": Status.completed,
    "pending_upload": Status.completed,
    "uploaded": Status.completed,
    **{status.casefold(): status for status in Status},
}
"""The state of ours that another client's word means."""

WORKFLOW_TYPE_LINK_TABLE = f"{MLTable.workflow}_{MLVocab.workflow_type}"
"""The table that links workflows to their types, where a workflow has no column for its type."""


@dataclass(frozen=True)
class TableMapping:
    """One table as it is there, and as we know it.

    Args:
        table: The table as we know it.
        catalog_names: The catalog's names of our columns, where they differ.
        missing_columns: Columns of ours that the catalog has not: they are empty, and what is written to them is
            dropped.
        values_to_catalog: The values that are written for ours, by our column.
        values_from_catalog: What the catalog's values mean, by our column; other values mean themselves.
    """

    table: Table
    catalog_names: Mapping[str, str] = field(default_factory=dict)
    missing_columns: frozenset[str] = frozenset()
    values_to_catalog: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)
    values_from_catalog: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)

    def to_catalog(self, row: Mapping[str, Any]) -> Row:
        """A row of ours as the catalog takes it."""
        return {
            self.catalog_names.get(column, column): self.values_to_catalog.get(column, {}).get(value, value)
            if column in self.values_to_catalog
            else value
            for column, value in row.items()
            if column not in self.missing_columns
        }

    def from_catalog(self, row: Row) -> Row:
        """A row of the catalog's as we know it."""
        ours = {theirs: own for own, theirs in self.catalog_names.items()}
        found = {ours.get(column, column): value for column, value in row.items()}
        for column, meanings in self.values_from_catalog.items():
            found[column] = meanings.get(found.get(column), found.get(column))
        return {**found, **dict.fromkeys(self.missing_columns)}

    def translate_where(self, where: Where) -> Where:
        """A condition of ours as the catalog takes it."""
        if isinstance(where, AnyOf):
            return AnyOf(tuple(self._translate_filter(condition) for condition in where.filters))
        return self._translate_filter(where)

    def _translate_filter(self, condition: Filter) -> Filter:
        asked: dict[str, Any] = {}
        for column, value in condition.items():
            if column not in self.missing_columns:
                asked[self.catalog_names.get(column, column)] = self._catalog_values(column, value)
            elif not _can_match_null(value):
                return {"RID": ()}  # no row has a value there
        return asked

    def _catalog_values(self, column: str, value: Any) -> Any:
        """All the catalog's values that mean one of those asked for."""
        if column not in self.values_from_catalog and column not in self.values_to_catalog:
            return value
        wanted = set(value) if isinstance(value, (tuple, list, set, frozenset)) else {value}
        meanings = self.values_from_catalog.get(column, {})
        others = {theirs for theirs, own in meanings.items() if own in wanted}
        kept = {one for one in wanted if meanings.get(one, one) == one}
        return tuple(kept | others | {self.values_to_catalog.get(column, {}).get(one, one) for one in wanted})

    def translate_order(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The catalog's names of the columns to sort by."""
        return tuple(self.catalog_names.get(column, column) for column in columns if column not in self.missing_columns)


def _can_match_null(value: Any) -> bool:
    return value is None or (isinstance(value, (tuple, list, set, frozenset)) and None in value)


@dataclass(frozen=True)
class CatalogMapping:
    """How a whole catalog is read and written.

    Args:
        model: Its tables as we know them.
        table_mappings: The tables that differ from what we know, by name.
        type_link_columns: The columns that name workflow and type in `WORKFLOW_TYPES`, where those stand there.
    """

    model: CatalogModel
    table_mappings: Mapping[str, TableMapping]
    type_link_columns: tuple[str, str] | None = None

    @classmethod
    def from_model(cls, model: CatalogModel, status_terms: frozenset[str] | None) -> CatalogMapping:
        """Look at a catalog's tables.

        Args:
            model: Its tables.
            status_terms: The terms that an execution's status may be, where there is a vocabulary of them.
        """
        known = {(table.schema, table.name): table for table in default_tables() if table.schema == ML_SCHEMA}
        found = (
            _map_table(table, known.get((table.schema, table.name)), status_terms) for table in model.tables.values()
        )
        dialects = {dialect.table.name: dialect for dialect in found if dialect is not None}
        tables = {**model.tables, **{name: dialect.table for name, dialect in dialects.items()}}
        names = {
            name: {theirs: own for own, theirs in dialect.catalog_names.items()} for name, dialect in dialects.items()
        }
        renamed = {name: _rename_foreign_key_targets(table, names) for name, table in tables.items()}
        return cls(CatalogModel(renamed), dialects, _find_type_link_columns(model))

    @property
    def is_needed(self) -> bool:
        """Whether anything differs."""
        return bool(self.table_mappings) or self.type_link_columns is not None


def status_vocabulary(model: CatalogModel) -> tuple[str, str] | None:
    """The table and column that an execution's status must name, where there is a vocabulary of states."""
    execution = model.tables.get(MLTable.execution)
    keys = execution.foreign_keys if execution else ()
    return next(((key.table, key.to) for key in keys if key.column == "Status"), None)


def _map_table(table: Table, standard_table: Table | None, status_terms: frozenset[str] | None) -> TableMapping | None:
    wanted = [column.name for column in standard_table.columns] if standard_table else _vocabulary_columns(table)
    renamed: dict[str, str] = {}
    absent: list[str] = []
    for column in wanted:
        if column not in table.column_names:
            theirs = _find_catalog_column(table, column)
            if theirs is not None:
                renamed[column] = theirs
            elif (table.name, column) in OPTIONAL_COLUMNS:
                absent.append(column)
    written: dict[str, Mapping[Any, Any]] = {}
    read: dict[str, Mapping[Any, Any]] = {}
    if table.name == MLTable.execution and status_terms is not None:
        written["Status"] = {
            own: term for own in Status if (term := _choose_status_term(own, status_terms)) is not None
        }
        read["Status"] = {term: STATUS_BY_TERM.get(term.casefold(), Status.created) for term in status_terms}
    if not (renamed or absent or written):
        return None
    columns = {column.name: column for column in standard_table.columns} if standard_table else {}
    return TableMapping(
        table=_rename_columns(table, renamed, [columns.get(name, Column(name)) for name in absent]),
        catalog_names=renamed,
        missing_columns=frozenset(absent),
        values_to_catalog=written,
        values_from_catalog=read,
    )


def _vocabulary_columns(table: Table) -> tuple[str, ...]:
    """The columns of a vocabulary, whatever their case, which only such a table has all of."""
    folded = {name.casefold() for name in table.column_names}
    is_one = {name.casefold() for name in VOCABULARY_COLUMNS} <= folded
    return VOCABULARY_COLUMNS if is_one else ()


def _find_catalog_column(table: Table, column: str) -> str | None:
    same = {name.casefold(): name for name in table.column_names}
    candidates = (column, *ALTERNATIVE_COLUMN_NAMES.get((table.name, column), ()))
    return next((same[name.casefold()] for name in candidates if name.casefold() in same), None)


def _choose_status_term(status: Status, status_terms: frozenset[str]) -> str | None:
    return next((term for term in STATUS_CANDIDATES[status] if term in status_terms), None)


def _rename_columns(table: Table, catalog_names: Mapping[str, str], missing_columns: list[Column]) -> Table:
    ours = {theirs: own for own, theirs in catalog_names.items()}
    columns = [replace(column, name=ours.get(column.name, column.name)) for column in table.columns]
    keys = tuple(tuple(ours.get(column, column) for column in key) for key in table.keys)
    foreign = tuple(replace(key, column=ours.get(key.column, key.column)) for key in table.foreign_keys)
    empty = [replace(column, nullok=True, default=None) for column in missing_columns]
    return replace(table, columns=(*columns, *empty), keys=keys, foreign_keys=foreign)


def _rename_foreign_key_targets(table: Table, names: Mapping[str, Mapping[str, str]]) -> Table:
    """A table whose foreign keys name columns as we know them."""
    keys = tuple(
        ForeignKey(key.column, key.table, names.get(key.table, {}).get(key.to, key.to), key.cascade)
        for key in table.foreign_keys
    )
    return replace(table, foreign_keys=keys) if keys != table.foreign_keys else table


def _find_type_link_columns(model: CatalogModel) -> tuple[str, str] | None:
    workflow, links = model.tables.get(MLTable.workflow), model.tables.get(WORKFLOW_TYPE_LINK_TABLE)
    if workflow is None or links is None or "Workflow_Type" in workflow.column_names:
        return None
    by_table = {key.table: key.column for key in links.foreign_keys}
    if not {MLTable.workflow, MLVocab.workflow_type} <= by_table.keys():
        return None
    return by_table[MLTable.workflow], by_table[MLVocab.workflow_type]


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
