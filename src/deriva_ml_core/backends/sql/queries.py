"""What is read from the embedded catalog, as it is now or as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op

from deriva_ml_core.backend import NOT_NULL, AnyOf, Filter, InSubquery, Row, Where
from deriva_ml_core.backends.embedded.database import Database, corruption_message
from deriva_ml_core.backends.sql.ddl import VALID_UNTIL, MappedTable, model_from_json
from deriva_ml_core.errors import CatalogCorrupt, UnknownColumn
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel

__all__ = [
    "ALL_ROWS",
    "CatalogFile",
    "UnionBranch",
    "build_in_clause",
    "build_where_clause",
    "check_columns",
    "current_branches",
    "iter_pages",
    "locate",
    "resolve_subqueries",
    "select",
    "snapshot_branches",
]


ALL_ROWS: Where = MappingProxyType({})
"""The condition that every row meets."""

MAX_TABLES_PER_QUERY = 200
"""Of which one statement asks, with their histories; SQLite joins 500 (https://www.sqlite.org/limits.html)."""

UnionBranch = tuple[sa.Table, sa.ColumnElement[bool]]
"""Rows of one table of SQLite's, and which of them."""


class CatalogFile:
    """A catalog's file and the tables that it is known to have.

    Args:
        database: The file.
        folder: The folder that it lies in, by which people name it.
    """

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self._model_json = ""
        self._mapped_tables: dict[str, MappedTable] = {}
        self.refresh()

    def set_model(self, model: CatalogModel) -> None:
        """Take note of the tables that there are."""
        self.model, self._mapped_tables = model, {name: MappedTable(table) for name, table in model.tables.items()}

    def refresh(self) -> CatalogModel:
        """Read the tables again; where nothing is new, what is compiled for them stays."""
        with self.database.read_transaction() as connection:
            description = _read_model_json(connection)
        if description != self._model_json or not self._mapped_tables:
            try:
                self.set_model(model_from_json(description))
            except ValueError as error:
                raise CatalogCorrupt(corruption_message(self.database.file, str(error))) from error
            self._model_json = description
        return self.model

    def mapped_table(self, name: str) -> MappedTable:
        """The table of that name; another process may just have made it."""
        if name not in self._mapped_tables:
            self.refresh().table(name)
        return self._mapped_tables[name]

    def mapped_tables(self) -> Mapping[str, MappedTable]:
        """All tables that are known now."""
        return MappingProxyType(self._mapped_tables)


def read_model(connection: sa.Connection) -> CatalogModel:
    """The tables that the catalog says it has."""
    return model_from_json(_read_model_json(connection))


def _read_model_json(connection: sa.Connection) -> str:
    description: str = connection.exec_driver_sql("SELECT tables FROM _model").scalar_one()
    return description


def current_branches(mapped: MappedTable) -> tuple[UnionBranch, ...]:
    """The rows as they are now."""
    return ((mapped.rows, sa.true()),)


def snapshot_branches(mapped: MappedTable, time: str) -> tuple[UnionBranch, ...]:
    """The rows as they were at a time: those unchanged since, and those that were changed or deleted later."""
    rows, history = mapped.rows.c, mapped.history.c
    return (
        (mapped.rows, rows["RMT"] <= time),
        (mapped.history, sa.and_(history["RMT"] <= time, history[VALID_UNTIL] > time)),
    )


def resolve_subqueries(
    where: Where, find_table: Callable[[str], MappedTable], branches: Callable[[MappedTable], Sequence[UnionBranch]]
) -> Where:
    """A condition in which each linked row is asked for by a question within the question.

    Args:
        where: The condition.
        find_table: The table of a name.
        branches: The rows of a table, now or then.
    """
    if isinstance(where, AnyOf):
        return where
    return {
        name: _build_subquery(value, find_table, branches) if isinstance(value, InSubquery) else value
        for name, value in where.items()
    }


def _build_subquery(
    linked: InSubquery,
    find_table: Callable[[str], MappedTable],
    branches: Callable[[MappedTable], Sequence[UnionBranch]],
) -> sa.SelectBase:
    mapped = find_table(linked.table)
    parts = [
        sa.select(rows.c["RID"]).where(meant, build_where_clause(mapped, rows, linked.where))
        for rows, meant in branches(mapped)
    ]
    return parts[0] if len(parts) == 1 else sa.union_all(*parts)


def select(
    connection: sa.Connection,
    mapped: MappedTable,
    branches: Sequence[UnionBranch],
    where: Where,
    *,
    order: Sequence[str],
    descending: bool = False,
    limit: int | None = None,
    after_rid: str | None = None,
) -> list[Row]:
    """The rows that match, in order; `after` leaves out the record ids up to that one."""
    check_columns(mapped, order)
    names = [column.name for column in mapped.rows.c]
    parts = [
        sa.select(*(rows.c[name] for name in names))
        .where(meant, build_where_clause(mapped, rows, where))
        .where(sa.true() if after_rid is None else rows.c["RID"] > after_rid)
        for rows, meant in branches
    ]
    query: sa.Select[Any] | sa.CompoundSelect[Any] = parts[0] if len(parts) == 1 else sa.union_all(*parts)
    keys = [query.selected_columns[name] for name in order]
    query = query.order_by(*(key.desc() if descending else key for key in keys)).limit(limit)
    return [dict(zip(names, row, strict=True)) for row in connection.execute(query)]


def iter_pages(
    file: CatalogFile, mapped: MappedTable, branches: Sequence[UnionBranch], where: Where, size: int
) -> Iterator[list[Row]]:
    """The rows that match, by record id, never more than `size` at once; each page is asked for by itself."""
    after: str | None = None
    while True:
        with file.database.read_transaction() as connection:
            page = select(connection, mapped, branches, where, order=("RID",), limit=size, after_rid=after)
        if page:
            yield page
        if len(page) < size:
            return
        after = page[-1]["RID"]


def locate(
    connection: sa.Connection, tables: Iterable[MappedTable], rids: Collection[str], time: str | None = None
) -> dict[str, str]:
    """The table of each record id that names a row.

    Args:
        connection: Where to ask.
        tables: Where to look.
        rids: The record ids.
        time: When; None for now.
    """
    found: dict[str, str] = {}
    looked = [mapped.lookup_sql if time is None else mapped.snapshot_lookup_sql for mapped in tables]
    for start in range(0, len(looked) if rids else 0, MAX_TABLES_PER_QUERY):
        asked = " UNION ALL ".join(looked[start : start + MAX_TABLES_PER_QUERY])
        parameters = (json.dumps(list(rids)),) if time is None else (json.dumps(list(rids)), time)
        found.update((row[0], row[1]) for row in connection.exec_driver_sql(asked, parameters))
    return found


def check_columns(mapped: MappedTable, names: Collection[str]) -> None:
    """Raise `UnknownColumn`, naming the known ones, unless the table has all these columns."""
    known = mapped.table.column_names
    if unknown := [name for name in names if name not in known and name not in SYSTEM_COLUMNS]:
        listed = ", ".join(sorted(known))
        raise UnknownColumn(
            f"The table {mapped.table.name} has no column {', '.join(map(repr, unknown))}; it has {listed}, "
            f"and {', '.join(SYSTEM_COLUMNS)}."
        )


def build_where_clause(mapped: MappedTable, rows: sa.FromClause, where: Where) -> sa.ColumnElement[bool]:
    """The SQL for which rows are meant.

    Args:
        mapped: The table.
        rows: Where its rows are taken from: the present ones, or its history.
        where: The condition.
    """
    if isinstance(where, AnyOf):
        return sa.or_(sa.false(), *(_build_filter_clause(mapped, rows, condition) for condition in where.filters))
    return _build_filter_clause(mapped, rows, where)


def _build_filter_clause(mapped: MappedTable, rows: sa.FromClause, condition: Filter) -> sa.ColumnElement[bool]:
    check_columns(mapped, condition.keys())
    terms = {key.column for key in mapped.table.foreign_keys if key.to != "RID"} if len(condition) > 1 else set()
    columns = {name: _disable_index(rows.c[name]) if name in terms else rows.c[name] for name in condition}
    return sa.and_(
        sa.true(), *(_build_column_clause(mapped, columns[name], name, value) for name, value in condition.items())
    )


def _disable_index(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A column of terms, for whose index SQLite would leave a better one: many rows have the same term."""
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)


def _build_column_clause(
    mapped: MappedTable, column: sa.ColumnElement[Any], name: str, value: object
) -> sa.ColumnElement[bool]:
    if value is None:
        return column.is_(None)
    if value is NOT_NULL:
        return column.is_not(None)
    if isinstance(value, sa.SelectBase):
        return column.in_(value)
    if not isinstance(value, (tuple, list, set, frozenset)):
        return column == value
    values = build_in_clause(column, list(_bind_values(mapped, name, value)))
    return sa.or_(values, column.is_(None)) if None in value else values


def _bind_values(mapped: MappedTable, name: str, values: Collection[Any]) -> Iterator[Any]:
    processor = mapped.bind_processors.get(name)
    for value in values:
        if value is not None:
            yield processor(value) if processor else value


def build_in_clause(column: sa.ColumnElement[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
    """Whether the column has one of many values, all in one parameter, so that SQLite's limit on those is not met."""
    listed = sa.func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(sa.select(listed.c.value))
