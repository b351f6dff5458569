"""What is read from a remote catalog, as it is now or as it was."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Any

from deriva_ml_core.backend import AnyOf, InSubquery, Row, Where
from deriva_ml_core.backends.deriva.ermrest_client import ErmrestClient, error_from_response
from deriva_ml_core.backends.deriva.ermrest_paths import (
    filter_paths,
    quote_segment,
    sort_modifier,
    table_path,
)
from deriva_ml_core.backends.deriva.http import Server
from deriva_ml_core.backends.deriva.model import column_converters, parse_model
from deriva_ml_core.backends.row_checks import check_columns, check_row_rid
from deriva_ml_core.definitions import check_rid
from deriva_ml_core.errors import ConfigurationError, UnknownTable
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel, Table

__all__ = ["RID_LEASE_TABLE", "ModelCache", "CatalogReader"]

ALL_ROWS: Where = MappingProxyType({})
"""The condition that every row meets."""

MAX_SINGLE_LOOKUPS = 8
"""Up to so many record ids are looked up one by one, in all tables at once."""

RID_LEASE_TABLE = "ERMrest_RID_Lease"
"""Where reserved record ids stand; an owner's stay there when they are used."""


class ModelCache:
    """The model of a catalog, read once and kept.

    Args:
        client: The catalog.
        is_new: Whether it was made just now, so that it has none of ours.
    """

    def __init__(self, client: ErmrestClient, *, is_new: bool = False) -> None:
        self._client = client
        self._load_document({"schemas": {"public": {"tables": {}}}} if is_new else self._fetch_document())

    def refresh(self) -> CatalogModel:
        """Read the tables again."""
        return self._load_document(self._fetch_document())

    def _fetch_document(self) -> Any:
        return self._client.get_json("/schema", self._client.url)

    def _load_document(self, document: Any) -> CatalogModel:
        self.schemas = frozenset(document["schemas"])
        self.model = parse_model(document)
        self._converters: dict[str, Any] = {}
        return self.model

    def lookup_table(self, table: str) -> Table:
        """The table of that name; another process may just have made it."""
        if table not in self.model.tables:
            self.refresh()
        return self.model.table(table)

    def convert_rows(self, table: Table, rows: list[Row]) -> list[Row]:
        """Rows as ours are, whatever columns there were then."""
        change = self._converters.get(table.name) or self._converters.setdefault(table.name, column_converters(table))
        width = len(SYSTEM_COLUMNS) + len(table.columns)
        for row in rows:
            for column, converter in change.items():
                if column in row:
                    row[column] = converter(row[column])
            if len(row) < width:
                for column in table.columns:
                    row.setdefault(column.name, None)
        return rows


class CatalogReader:
    """What can be asked of a catalog, now or then.

    Args:
        server: The server.
        catalog_id: The catalog's number.
        model_cache: Its tables, known already; None to read them.
        snapshot: The state; None for the present one.
    """

    def __init__(
        self, server: Server, catalog_id: str, model_cache: ModelCache | None = None, snapshot: str | None = None
    ) -> None:
        self._server, self._catalog_id = server, catalog_id
        self._client = ErmrestClient(server, catalog_id if snapshot is None else f"{catalog_id}@{snapshot}")
        self._model_cache = model_cache or ModelCache(self._client)

    @property
    def name(self) -> str:
        return self._client.url

    @property
    def catalog_id(self) -> str:
        """The catalog's number on its server."""
        return self._catalog_id

    @property
    def model(self) -> CatalogModel:
        return self._model_cache.model

    def refresh(self) -> CatalogModel:
        return self._model_cache.refresh()

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        """The URL that the server resolves: ``https://<host>/id/<catalog>/<RID>[@<snapshot>]``."""
        return f"{self._server.url}/id/{self._catalog_id}/{check_rid(rid)}" + (f"@{snapshot}" if snapshot else "")

    def select(
        self,
        table: str,
        where: Where = ALL_ROWS,
        *,
        order: Sequence[str] = ("RID",),
        descending: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        found = self._model_cache.lookup_table(table)
        check_columns(found, order)
        places, where = self._resolve_subquery(found, where)
        asked = filter_paths(found, where)
        if limit == 0:
            return []
        bound = sort_modifier(order, descending=descending) + ("" if limit is None else f"?limit={limit}")
        parts = [self._fetch_rows(found, each + bound, place) for place in places for each in asked]
        if len(parts) == 1:
            return parts[0]
        rows = list({row["RID"]: row for part in parts for row in part}.values())
        rows.sort(key=lambda row: [_sort_key(row[column]) for column in order], reverse=descending)
        return rows[:limit]

    def _resolve_subquery(self, table: Table, where: Where) -> tuple[list[str], Where]:
        """The paths whose rows are meant, from the linked rows where a condition asks for some; and what is left."""
        linked = (
            {} if isinstance(where, AnyOf) else {c: each for c, each in where.items() if isinstance(each, InSubquery)}
        )
        if not linked or isinstance(where, AnyOf):
            return [table_path(table)], where
        ((column, asked),) = linked.items()
        other = self._model_cache.lookup_table(asked.table)
        step = f"(RID)=({table_path(table)}:{quote_segment(column)})"
        places = ["/".join(filter(None, (table_path(other), each, step))) for each in filter_paths(other, asked.where)]
        return places, {each: value for each, value in where.items() if each != column}

    def pages(self, table: str, where: Where = ALL_ROWS, *, size: int = 2000) -> Iterator[list[Row]]:
        if size < 1:
            raise ConfigurationError(f"A page has at least one row, not {size}.")
        found = self._model_cache.lookup_table(table)
        return self._iter_pages(found, filter_paths(found, where), size)

    def _iter_pages(self, table: Table, filters: list[str], size: int) -> Iterator[list[Row]]:
        if len(filters) == 1:
            yield from self._iter_filter_pages(table, filters[0], size)
            return
        streams = [(row for page in self._iter_filter_pages(table, each, size) for row in page) for each in filters]
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

    def _iter_filter_pages(self, table: Table, filter_path: str, size: int) -> Iterator[list[Row]]:
        after = ""
        while True:
            page = self._fetch_rows(table, f"{filter_path}@sort(RID){after}?limit={size}")
            if page:
                yield page
            if len(page) < size:
                return
            after = f"@after({quote_segment(page[-1]['RID'])})"

    def _fetch_rows(self, table: Table, suffix: str, base_path: str = "") -> list[Row]:
        """The rows behind a table's path; none where the table was made after the state that is asked for."""
        separator = "" if suffix.startswith(("@", "?")) or not suffix else "/"
        try:
            rows = self._client.get_json(f"/entity/{base_path or table_path(table)}{separator}{suffix}", table.name)
        except UnknownTable:
            if "@" not in self._client.catalog_id:
                raise
            return []
        return self._model_cache.convert_rows(table, rows)

    def locate(self, rids: Sequence[str], tables: Sequence[str] = ()) -> dict[str, str]:
        among = [self._model_cache.lookup_table(table) for table in tables]
        left = {check_row_rid(rid) for rid in rids}
        located: dict[str, str] = {}
        if len(left) <= (len(among) or MAX_SINGLE_LOOKUPS):
            located = self._locate_individually(left)
            left = {rid for rid in left if located.get(rid) == RID_LEASE_TABLE}
            located = {rid: table for rid, table in located.items() if table in (tables or self.model.tables)}
        for table in among or _sort_by_likelihood(self.model.tables.values() if left else ()):
            for condition in filter_paths(table, {"RID": left}):
                try:
                    rows = self._client.get_json(f"/attribute/{table_path(table)}/{condition}/RID", table.name)
                except UnknownTable:
                    continue  # it was made later, or is gone
                located.update((row["RID"], table.name) for row in rows)
            left -= located.keys()
        return located

    def _locate_individually(self, rids: Iterable[str]) -> dict[str, str]:
        """The table that the server names for each record id: perhaps `LEASES`, though a row has that id by now."""
        found = {}
        for rid in rids:
            response = self._client.request("GET", f"/entity_rid/{quote_segment(rid)}", rid, allowed_statuses=(404,))
            if response.status_code < 400:
                found[rid] = response.json()["table_name"]
            elif "html" in response.headers.get("Content-Type", ""):
                raise error_from_response(response, self._server.host, rid)
        if not set(found.values()) <= self.model.tables.keys() | {RID_LEASE_TABLE}:
            self.refresh()
        return found

    def close(self) -> None:
        self._server.close()


def _sort_by_likelihood(tables: Iterable[Table]) -> list[Table]:
    """Tables in the order in which people have ids of their rows: links and terms last."""
    return sorted(tables, key=lambda table: (table.is_vocabulary, len(table.foreign_keys) > 1, table.name))


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Empty values last, as the server sorts them."""
    return value is None, "" if value is None else value
