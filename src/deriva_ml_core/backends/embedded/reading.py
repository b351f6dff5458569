"""What is read from the embedded catalog, as it is now or as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from deriva_ml_core.backend import Either, Linked, Row, Where
from deriva_ml_core.backends.embedded.conditions import check_columns, criterion
from deriva_ml_core.backends.embedded.database import Database, corruption
from deriva_ml_core.backends.embedded.tables import UNTIL, MappedTable, model_from_json
from deriva_ml_core.errors import CatalogCorrupt
from deriva_ml_core.schema import CatalogModel

__all__ = ["ALL", "Branch", "CatalogFile", "locate", "pages", "present", "select", "then", "within"]

ALL: Where = MappingProxyType({})
"""The condition that every row meets."""

TABLES_AT_ONCE = 200
"""Of which one statement asks, with their histories; SQLite joins 500 (https://www.sqlite.org/limits.html)."""

Branch = tuple[sa.Table, sa.ColumnElement[bool]]
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
        self._description = ""
        self._mapped: dict[str, MappedTable] = {}
        self.refresh()

    def know(self, model: CatalogModel) -> None:
        """Take note of the tables that there are."""
        self.model, self._mapped = model, {name: MappedTable(table) for name, table in model.tables.items()}

    def refresh(self) -> CatalogModel:
        """Read the tables again; where nothing is new, what is compiled for them stays."""
        with self.database.reading() as connection:
            description = _describe(connection)
        if description != self._description or not self._mapped:
            try:
                self.know(model_from_json(description))
            except ValueError as error:
                raise CatalogCorrupt(corruption(self.database.file, str(error))) from error
            self._description = description
        return self.model

    def mapped(self, name: str) -> MappedTable:
        """The table of that name; another process may just have made it."""
        if name not in self._mapped:
            self.refresh().table(name)
        return self._mapped[name]

    def every_table(self) -> Mapping[str, MappedTable]:
        """All tables that are known now."""
        return MappingProxyType(self._mapped)


def read_model(connection: sa.Connection) -> CatalogModel:
    """The tables that the catalog says it has."""
    return model_from_json(_describe(connection))


def _describe(connection: sa.Connection) -> str:
    description: str = connection.exec_driver_sql("SELECT tables FROM _model").scalar_one()
    return description


def present(mapped: MappedTable) -> tuple[Branch, ...]:
    """The rows as they are now."""
    return ((mapped.rows, sa.true()),)


def then(mapped: MappedTable, time: str) -> tuple[Branch, ...]:
    """The rows as they were at a time: those unchanged since, and those that were changed or deleted later."""
    rows, history = mapped.rows.c, mapped.history.c
    return (
        (mapped.rows, rows["RMT"] <= time),
        (mapped.history, sa.and_(history["RMT"] <= time, history[UNTIL] > time)),
    )


def within(
    where: Where, find: Callable[[str], MappedTable], branches: Callable[[MappedTable], Sequence[Branch]]
) -> Where:
    """A condition in which each linked row is asked for by a question within the question.

    Args:
        where: The condition.
        find: The table of a name.
        branches: The rows of a table, now or then.
    """
    if isinstance(where, Either):
        return where
    return {
        name: _asked(value, find, branches) if isinstance(value, Linked) else value for name, value in where.items()
    }


def _asked(
    linked: Linked, find: Callable[[str], MappedTable], branches: Callable[[MappedTable], Sequence[Branch]]
) -> sa.SelectBase:
    mapped = find(linked.table)
    parts = [
        sa.select(rows.c["RID"]).where(meant, criterion(mapped, rows, linked.where)) for rows, meant in branches(mapped)
    ]
    return parts[0] if len(parts) == 1 else sa.union_all(*parts)


def select(
    connection: sa.Connection,
    mapped: MappedTable,
    branches: Sequence[Branch],
    where: Where,
    *,
    order: Sequence[str],
    descending: bool = False,
    limit: int | None = None,
    after: str | None = None,
) -> list[Row]:
    """The rows that match, in order; `after` leaves out the record ids up to that one."""
    check_columns(mapped, order)
    names = [column.name for column in mapped.rows.c]
    parts = [
        sa.select(*(rows.c[name] for name in names))
        .where(meant, criterion(mapped, rows, where))
        .where(sa.true() if after is None else rows.c["RID"] > after)
        for rows, meant in branches
    ]
    query: sa.Select[Any] | sa.CompoundSelect[Any] = parts[0] if len(parts) == 1 else sa.union_all(*parts)
    keys = [query.selected_columns[name] for name in order]
    query = query.order_by(*(key.desc() if descending else key for key in keys)).limit(limit)
    return [dict(zip(names, row, strict=True)) for row in connection.execute(query)]


def pages(
    file: CatalogFile, mapped: MappedTable, branches: Sequence[Branch], where: Where, size: int
) -> Iterator[list[Row]]:
    """The rows that match, by record id, never more than `size` at once; each page is asked for by itself."""
    after: str | None = None
    while True:
        with file.database.reading() as connection:
            page = select(connection, mapped, branches, where, order=("RID",), limit=size, after=after)
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
    looked = [mapped.lookup if time is None else mapped.past_lookup for mapped in tables]
    for start in range(0, len(looked) if rids else 0, TABLES_AT_ONCE):
        asked = " UNION ALL ".join(looked[start : start + TABLES_AT_ONCE])
        parameters = (json.dumps(list(rids)),) if time is None else (json.dumps(list(rids)), time)
        found.update((row[0], row[1]) for row in connection.exec_driver_sql(asked, parameters))
    return found
