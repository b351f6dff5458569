"""What another client's catalog calls otherwise: found by looking at its tables, never by its version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deriva_ml_core.backend import AnyOf, Filter, Row, Where
from deriva_ml_core.definitions import MLTable, MLVocab, Status
from deriva_ml_core.schema import ML_SCHEMA, VOCABULARY_COLUMNS, CatalogModel, Column, ForeignKey, Table
from deriva_ml_core.standard import default_tables

__all__ = ["STATUS_CANDIDATES", "WORKFLOW_TYPE_LINK_TABLE", "CatalogMapping", "TableMapping", "status_vocabulary"]

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
        missing_columns: Columns of ours that the catalog has not: they are empty, and what is written to them is dropped.
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
