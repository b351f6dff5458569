"""What another client's catalog calls otherwise: found by looking at its tables, never by its version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from deriva_ml_core.backend import Condition, Either, Row, Where
from deriva_ml_core.definitions import MLTable, MLVocab, Status
from deriva_ml_core.schema import ML_SCHEMA, VOCABULARY_COLUMNS, CatalogModel, Column, ForeignKey, Table
from deriva_ml_core.standard import standard_tables

__all__ = ["NEAREST", "WORKFLOW_TYPES", "Adaptation", "Dialect", "state_vocabulary"]

OTHERWISE: Mapping[tuple[str, str], tuple[str, ...]] = {
    (MLTable.execution, "Duration"): ("Execution_Duration",),
}
"""Columns that newer catalogs call otherwise."""

DISPENSABLE = frozenset(
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

NEAREST: Mapping[Status, tuple[str, ...]] = {
    Status.created: ("Created", "Pending", "Initializing"),
    Status.initializing: ("Initializing", "Created", "Pending", "Running"),
    Status.pending: ("Pending", "Created", "Running"),
    Status.running: ("Running",),
    Status.completed: ("Completed", "Stopped", "Uploaded"),
    Status.failed: ("Failed", "Aborted", "Stopped"),
    Status.aborted: ("Aborted", "Failed", "Stopped"),
}
"""The term that is written for each of our states: the first that the catalog's vocabulary has."""

MEANING: Mapping[str, Status] = {
    "stopped": Status.completed,
    "pending_upload": Status.completed,
    "uploaded": Status.completed,
    **{status.casefold(): status for status in Status},
}
"""The state of ours that another client's word means."""

WORKFLOW_TYPES = f"{MLTable.workflow}_{MLVocab.workflow_type}"
"""The table that links workflows to their types, where a workflow has no column for its type."""


@dataclass(frozen=True)
class Dialect:
    """One table as it is there, and as we know it.

    Args:
        table: The table as we know it.
        renamed: The catalog's names of our columns, where they differ.
        absent: Columns of ours that the catalog has not: they are empty, and what is written to them is dropped.
        written: The values that are written for ours, by our column.
        read: What the catalog's values mean, by our column; other values mean themselves.
    """

    table: Table
    renamed: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    written: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)
    read: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)

    def to_catalog(self, row: Mapping[str, Any]) -> Row:
        """A row of ours as the catalog takes it."""
        return {
            self.renamed.get(column, column): self.written.get(column, {}).get(value, value)
            if column in self.written
            else value
            for column, value in row.items()
            if column not in self.absent
        }

    def from_catalog(self, row: Row) -> Row:
        """A row of the catalog's as we know it."""
        ours = {theirs: own for own, theirs in self.renamed.items()}
        found = {ours.get(column, column): value for column, value in row.items()}
        for column, meanings in self.read.items():
            found[column] = meanings.get(found.get(column), found.get(column))
        return {**found, **dict.fromkeys(self.absent)}

    def where(self, where: Where) -> Where:
        """A condition of ours as the catalog takes it."""
        if isinstance(where, Either):
            return Either(tuple(self._condition(condition) for condition in where.conditions))
        return self._condition(where)

    def _condition(self, condition: Condition) -> Condition:
        asked: dict[str, Any] = {}
        for column, value in condition.items():
            if column not in self.absent:
                asked[self.renamed.get(column, column)] = self._meant(column, value)
            elif not _allows_empty(value):
                return {"RID": ()}  # no row has a value there
        return asked

    def _meant(self, column: str, value: Any) -> Any:
        """All the catalog's values that mean one of those asked for."""
        if column not in self.read and column not in self.written:
            return value
        wanted = set(value) if isinstance(value, (tuple, list, set, frozenset)) else {value}
        meanings = self.read.get(column, {})
        others = {theirs for theirs, own in meanings.items() if own in wanted}
        kept = {one for one in wanted if meanings.get(one, one) == one}
        return tuple(kept | others | {self.written.get(column, {}).get(one, one) for one in wanted})

    def order(self, columns: Iterable[str]) -> tuple[str, ...]:
        """The catalog's names of the columns to sort by."""
        return tuple(self.renamed.get(column, column) for column in columns if column not in self.absent)


def _allows_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (tuple, list, set, frozenset)) and None in value)


@dataclass(frozen=True)
class Adaptation:
    """How a whole catalog is read and written.

    Args:
        model: Its tables as we know them.
        dialects: The tables that differ from what we know, by name.
        workflow_types: The columns that name workflow and type in `WORKFLOW_TYPES`, where those stand there.
    """

    model: CatalogModel
    dialects: Mapping[str, Dialect]
    workflow_types: tuple[str, str] | None = None

    @classmethod
    def of(cls, model: CatalogModel, states: frozenset[str] | None) -> Adaptation:
        """Look at a catalog's tables.

        Args:
            model: Its tables.
            states: The terms that an execution's status may be, where there is a vocabulary of them.
        """
        known = {(table.schema, table.name): table for table in standard_tables() if table.schema == ML_SCHEMA}
        found = (_dialect(table, known.get((table.schema, table.name)), states) for table in model.tables.values())
        dialects = {dialect.table.name: dialect for dialect in found if dialect is not None}
        tables = {**model.tables, **{name: dialect.table for name, dialect in dialects.items()}}
        names = {name: {theirs: own for own, theirs in dialect.renamed.items()} for name, dialect in dialects.items()}
        renamed = {name: _pointing(table, names) for name, table in tables.items()}
        return cls(CatalogModel(renamed), dialects, _workflow_links(model))

    @property
    def is_needed(self) -> bool:
        """Whether anything differs."""
        return bool(self.dialects) or self.workflow_types is not None


def state_vocabulary(model: CatalogModel) -> tuple[str, str] | None:
    """The table and column that an execution's status must name, where there is a vocabulary of states."""
    execution = model.tables.get(MLTable.execution)
    keys = execution.foreign_keys if execution else ()
    return next(((key.table, key.to) for key in keys if key.column == "Status"), None)


def _dialect(table: Table, known: Table | None, states: frozenset[str] | None) -> Dialect | None:
    wanted = [column.name for column in known.columns] if known else _vocabulary_columns(table)
    renamed: dict[str, str] = {}
    absent: list[str] = []
    for column in wanted:
        if column not in table.column_names:
            theirs = _otherwise(table, column)
            if theirs is not None:
                renamed[column] = theirs
            elif (table.name, column) in DISPENSABLE:
                absent.append(column)
    written: dict[str, Mapping[Any, Any]] = {}
    read: dict[str, Mapping[Any, Any]] = {}
    if table.name == MLTable.execution and states is not None:
        written["Status"] = {own: term for own in Status if (term := _nearest(own, states)) is not None}
        read["Status"] = {term: MEANING.get(term.casefold(), Status.created) for term in states}
    if not (renamed or absent or written):
        return None
    columns = {column.name: column for column in known.columns} if known else {}
    return Dialect(
        table=_as_known(table, renamed, [columns.get(name, Column(name)) for name in absent]),
        renamed=renamed,
        absent=frozenset(absent),
        written=written,
        read=read,
    )


def _vocabulary_columns(table: Table) -> tuple[str, ...]:
    """The columns of a vocabulary, whatever their case, which only such a table has all of."""
    folded = {name.casefold() for name in table.column_names}
    is_one = {name.casefold() for name in VOCABULARY_COLUMNS} <= folded
    return VOCABULARY_COLUMNS if is_one else ()


def _otherwise(table: Table, column: str) -> str | None:
    same = {name.casefold(): name for name in table.column_names}
    candidates = (column, *OTHERWISE.get((table.name, column), ()))
    return next((same[name.casefold()] for name in candidates if name.casefold() in same), None)


def _nearest(own: Status, states: frozenset[str]) -> str | None:
    return next((term for term in NEAREST[own] if term in states), None)


def _as_known(table: Table, renamed: Mapping[str, str], absent: list[Column]) -> Table:
    ours = {theirs: own for own, theirs in renamed.items()}
    columns = [replace(column, name=ours.get(column.name, column.name)) for column in table.columns]
    keys = tuple(tuple(ours.get(column, column) for column in key) for key in table.keys)
    foreign = tuple(replace(key, column=ours.get(key.column, key.column)) for key in table.foreign_keys)
    empty = [replace(column, nullok=True, default=None) for column in absent]
    return replace(table, columns=(*columns, *empty), keys=keys, foreign_keys=foreign)


def _pointing(table: Table, names: Mapping[str, Mapping[str, str]]) -> Table:
    """A table whose foreign keys name columns as we know them."""
    keys = tuple(
        ForeignKey(key.column, key.table, names.get(key.table, {}).get(key.to, key.to), key.cascade)
        for key in table.foreign_keys
    )
    return replace(table, foreign_keys=keys) if keys != table.foreign_keys else table


def _workflow_links(model: CatalogModel) -> tuple[str, str] | None:
    workflow, links = model.tables.get(MLTable.workflow), model.tables.get(WORKFLOW_TYPES)
    if workflow is None or links is None or "Workflow_Type" in workflow.column_names:
        return None
    by_table = {key.table: key.column for key in links.foreign_keys}
    if not {MLTable.workflow, MLVocab.workflow_type} <= by_table.keys():
        return None
    return by_table[MLTable.workflow], by_table[MLVocab.workflow_type]
