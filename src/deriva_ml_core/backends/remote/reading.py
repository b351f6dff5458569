"""What is read from a remote catalog, as it is now or as it was."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

from deriva_ml_core.backend import Either, Linked, Row, Where
from deriva_ml_core.backends.remote.asking import Asking
from deriva_ml_core.backends.remote.inserting import check_given
from deriva_ml_core.backends.remote.mistakes import refusal
from deriva_ml_core.backends.remote.model import converters, read_model
from deriva_ml_core.backends.remote.paths import check_columns, filters, name, order_by, qualified
from deriva_ml_core.backends.remote.server import Server
from deriva_ml_core.definitions import check_rid
from deriva_ml_core.errors import ConfigurationError, UnknownTable
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel, Table

__all__ = ["LEASES", "KnownTables", "Readable"]

ALL: Where = MappingProxyType({})
"""The condition that every row meets."""

ONE_BY_ONE = 8
"""Up to so many record ids are looked up one by one, in all tables at once."""

LEASES = "ERMrest_RID_Lease"
"""Where reserved record ids stand; an owner's stay there when they are used."""


class KnownTables:
    """The model of a catalog, read once and kept.

    Args:
        asking: The catalog.
        new: Whether it was made just now, so that it has none of ours.
    """

    def __init__(self, asking: Asking, *, new: bool = False) -> None:
        self._asking = asking
        self._know({"schemas": {"public": {"tables": {}}}} if new else self._read())

    def refresh(self) -> CatalogModel:
        """Read the tables again."""
        return self._know(self._read())

    def _read(self) -> Any:
        return self._asking.read("/schema", self._asking.name)

    def _know(self, document: Any) -> CatalogModel:
        self.schemas = frozenset(document["schemas"])
        self.model = read_model(document)
        self._converters: dict[str, Any] = {}
        return self.model

    def find(self, table: str) -> Table:
        """The table of that name; another process may just have made it."""
        if table not in self.model.tables:
            self.refresh()
        return self.model.table(table)

    def convert(self, table: Table, rows: list[Row]) -> list[Row]:
        """Rows as ours are, whatever columns there were then."""
        change = self._converters.get(table.name) or self._converters.setdefault(table.name, converters(table))
        width = len(SYSTEM_COLUMNS) + len(table.columns)
        for row in rows:
            for column, converter in change.items():
                if column in row:
                    row[column] = converter(row[column])
            if len(row) < width:
                for column in table.columns:
                    row.setdefault(column.name, None)
        return rows


class Readable:
    """What can be asked of a catalog, now or then.

    Args:
        server: The server.
        number: The catalog's number.
        tables: Its tables, known already; None to read them.
        snapshot: The state; None for the present one.
    """

    def __init__(
        self, server: Server, number: str, tables: KnownTables | None = None, snapshot: str | None = None
    ) -> None:
        self._server, self._number = server, number
        self._asking = Asking(server, number if snapshot is None else f"{number}@{snapshot}")
        self._tables = tables or KnownTables(self._asking)

    @property
    def name(self) -> str:
        return self._asking.name

    @property
    def number(self) -> str:
        """The catalog's number on its server."""
        return self._number

    @property
    def model(self) -> CatalogModel:
        return self._tables.model

    def refresh(self) -> CatalogModel:
        return self._tables.refresh()

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        """The URL that the server resolves: ``https://<host>/id/<catalog>/<RID>[@<snapshot>]``."""
        return f"{self._server.url}/id/{self._number}/{check_rid(rid)}" + (f"@{snapshot}" if snapshot else "")

    def select(
        self,
        table: str,
        where: Where = ALL,
        *,
        order: Sequence[str] = ("RID",),
        descending: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        found = self._tables.find(table)
        check_columns(found, order)
        places, where = self._places(found, where)
        asked = filters(found, where)
        if limit == 0:
            return []
        bound = order_by(order, descending=descending) + ("" if limit is None else f"?limit={limit}")
        parts = [self._rows(found, each + bound, place) for place in places for each in asked]
        if len(parts) == 1:
            return parts[0]
        rows = list({row["RID"]: row for part in parts for row in part}.values())
        rows.sort(key=lambda row: [_sortable(row[column]) for column in order], reverse=descending)
        return rows[:limit]

    def _places(self, table: Table, where: Where) -> tuple[list[str], Where]:
        """The paths whose rows are meant, from the linked rows where a condition asks for some; and what is left."""
        linked = {} if isinstance(where, Either) else {c: each for c, each in where.items() if isinstance(each, Linked)}
        if not linked or isinstance(where, Either):
            return [qualified(table)], where
        ((column, asked),) = linked.items()
        other = self._tables.find(asked.table)
        step = f"(RID)=({qualified(table)}:{name(column)})"
        places = ["/".join(filter(None, (qualified(other), each, step))) for each in filters(other, asked.where)]
        return places, {each: value for each, value in where.items() if each != column}

    def pages(self, table: str, where: Where = ALL, *, size: int = 2000) -> Iterator[list[Row]]:
        if size < 1:
            raise ConfigurationError(f"A page has at least one row, not {size}.")
        found = self._tables.find(table)
        return self._pages(found, filters(found, where), size)

    def _pages(self, table: Table, asked: list[str], size: int) -> Iterator[list[Row]]:
        if len(asked) == 1:
            yield from self._pages_of_one(table, asked[0], size)
            return
        streams = [(row for page in self._pages_of_one(table, each, size) for row in page) for each in asked]
        page: list[Row] = []
        last = None
        for row in heapq.merge(*streams, key=lambda row: row["RID"]):
            if row["RID"] != last:
                page.append(row)
            last = row["RID"]
            if len(page) == size:
                yield page
                page = []
        if page:
            yield page

    def _pages_of_one(self, table: Table, condition: str, size: int) -> Iterator[list[Row]]:
        after = ""
        while True:
            page = self._rows(table, f"{condition}@sort(RID){after}?limit={size}")
            if page:
                yield page
            if len(page) < size:
                return
            after = f"@after({name(page[-1]['RID'])})"

    def _rows(self, table: Table, rest: str, place: str = "") -> list[Row]:
        """The rows behind a table's path; none where the table was made after the state that is asked for."""
        separator = "" if rest.startswith(("@", "?")) or not rest else "/"
        try:
            rows = self._asking.read(f"/entity/{place or qualified(table)}{separator}{rest}", table.name)
        except UnknownTable:
            if "@" not in self._asking.catalog:
                raise
            return []
        return self._tables.convert(table, rows)

    def locate(self, rids: Sequence[str], tables: Sequence[str] = ()) -> dict[str, str]:
        among = [self._tables.find(table) for table in tables]
        left = {check_given(rid) for rid in rids}
        located: dict[str, str] = {}
        if len(left) <= (len(among) or ONE_BY_ONE):
            located = self._named_one_by_one(left)
            left = {rid for rid in left if located.get(rid) == LEASES}
            located = {rid: table for rid, table in located.items() if table in (tables or self.model.tables)}
        for table in among or _likely_first(self.model.tables.values() if left else ()):
            for condition in filters(table, {"RID": left}):
                try:
                    rows = self._asking.read(f"/attribute/{qualified(table)}/{condition}/RID", table.name)
                except UnknownTable:
                    continue  # it was made later, or is gone
                located.update((row["RID"], table.name) for row in rows)
            left -= located.keys()
        return located

    def _named_one_by_one(self, rids: Iterable[str]) -> dict[str, str]:
        """The table that the server names for each record id: perhaps `LEASES`, though a row has that id by now."""
        found = {}
        for rid in rids:
            response = self._asking.send("GET", f"/entity_rid/{name(rid)}", rid, expected=(404,))
            if response.status_code < 400:
                found[rid] = response.json()["table_name"]
            elif "html" in response.headers.get("Content-Type", ""):
                raise refusal(response, self._server.host, rid)
        if not set(found.values()) <= self.model.tables.keys() | {LEASES}:
            self.refresh()
        return found

    def close(self) -> None:
        self._server.close()


def _likely_first(tables: Iterable[Table]) -> list[Table]:
    """Tables in the order in which people have ids of their rows: links and terms last."""
    return sorted(tables, key=lambda table: (table.is_vocabulary, len(table.foreign_keys) > 1, table.name))


def _sortable(value: Any) -> tuple[bool, Any]:
    """Empty values last, as the server sorts them."""
    return value is None, "" if value is None else value
