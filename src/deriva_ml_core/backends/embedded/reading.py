"""What is read from the embedded catalog, as it is now or as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from deriva_ml_core.backend import AnyOf, InSubquery, Row, Where
from deriva_ml_core.backends.embedded.conditions import build_where_clause, check_columns
from deriva_ml_core.backends.embedded.database import Database, corruption_message
from deriva_ml_core.backends.embedded.tables import VALID_UNTIL, MappedTable, model_from_json
from deriva_ml_core.errors import CatalogCorrupt
from deriva_ml_core.schema import CatalogModel

__all__ = [
    "ALL_ROWS",
    "UnionBranch",
    "CatalogFile",
    "locate",
    "iter_pages",
    "current_branches",
    "select",
    "snapshot_branches",
    "resolve_subqueries",
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
