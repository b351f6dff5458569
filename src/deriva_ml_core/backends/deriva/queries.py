"""Queries of a catalog on a Deriva server, in its present state or at a snapshot."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, product
from typing import Any

from deriva_ml_core.backend import ALL_ROWS, AllOf, AnyOf, Filter, InSubquery, Row, Where
from deriva_ml_core.backends.deriva.ermrest_client import ErmrestClient, error_from_response, parse_value
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
from deriva_ml_core.errors import ConfigurationError, MalformedData, UnknownTable
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel, Table

__all__ = ["RID_LEASE_TABLE", "ModelCache", "CatalogReader"]

MAX_SINGLE_LOOKUPS = 8
"""Most RIDs that are looked up one by one, each in all tables with one request."""

RID_LEASE_TABLE = "ERMrest_RID_Lease"
"""Table of reserved RIDs. Those that an owner reserved stay in it after they are used."""


class ModelCache:
    """Cache of a catalog's model.

    Args:
        client: The catalog.
        is_new: Whether the catalog was just created, so that it has no tables of a project yet.
    """

    def __init__(self, client: ErmrestClient, *, is_new: bool = False) -> None:
        self._client = client
        self._load_document({"schemas": {"public": {"tables": {}}}} if is_new else self._fetch_document())

    def refresh(self) -> CatalogModel:
        """Read the model again."""
        return self._load_document(self._fetch_document())

    def _fetch_document(self) -> Any:
        return self._client.get_json("/schema", self._client.url)

    def _load_document(self, document: Any) -> CatalogModel:
        try:
            self.model = parse_model(document)
            self.schemas = frozenset(document["schemas"])
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise MalformedData(
                f"The schema document of {self._client.url} has an unexpected form ({type(error).__name__}: {error}). "
                "Check whether that address is one of a Deriva catalog."
            ) from error
        self._converters: dict[str, Any] = {}
        return self.model

    def lookup_table(self, table: str) -> Table:
        """Return the table of that name; read the model again if it is missing, since another process can create it."""
        if table not in self.model.tables:
            self.refresh()
        return self.model.table(table)

    def convert_rows(self, table: Table, rows: list[Row]) -> list[Row]:
        """Convert the server's values in place, and add columns that a snapshot lacks."""
        converters = self._converters.get(table.name)
        if converters is None:
            converters = self._converters[table.name] = column_converters(table)
        width = len(SYSTEM_COLUMNS) + len(table.columns)
        for row in rows:
            for column, converter in converters.items():
                if column in row:
                    row[column] = converter(row[column])
            if len(row) < width:
                for column in table.columns:
                    row.setdefault(column.name, None)
        return rows


class CatalogReader:
    """The reading methods of a catalog.

    Args:
        server: The server.
        catalog_id: The catalog's number.
        model_cache: The catalog's model; None to read it.
        snapshot: ID of the snapshot; None for the present state.
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
        """Return the URL that the server resolves: ``https://<host>/id/<catalog>/<RID>[@<snapshot>]``."""
        return f"{self._server.url}/id/{self._catalog_id}/{check_rid(rid)}" + (f"@{snapshot}" if snapshot else "")

    def select(
        self,
        table: str,
        where: Where = ALL_ROWS,
        *,
        order: Sequence[str] = ("RID",),
        descending: bool = False,
        limit: int | None = None,
        after: Sequence[Any] = (),
    ) -> list[Row]:
        target = self._model_cache.lookup_table(table)
        check_columns(target, order)
        paths, where = self._resolve_subquery(target, where)
        filters = filter_paths(target, where)
        if limit == 0:
            return []
        modifiers = sort_modifier(order, descending=descending, after=after)
        modifiers += "" if limit is None else f"?limit={limit}"
        parts = [self._fetch_rows(target, condition + modifiers, path) for path in paths for condition in filters]
        if len(parts) == 1:
            return parts[0]
        rows = list({row["RID"]: row for part in parts for row in part}.values())
        rows.sort(key=lambda row: [_sort_key(row[column]) for column in order], reverse=descending)
        return rows[:limit]

    def _resolve_subquery(self, table: Table, where: Where) -> tuple[list[str], Where]:
        """Return the paths to a table's rows, through the tables of subqueries, and the remaining conditions."""
        if isinstance(where, AnyOf):
            return [table_path(table)], where
        own, subqueries = _split_filter(where)
        if not subqueries:
            return [table_path(table)], where
        aliases = (f"S{number}" for number in count(1))
        steps = [[f"{step}/$T" for step in self._subquery_steps(column, each, aliases)] for column, each in subqueries]
        paths = ["/".join((f"T:={table_path(table)}", *path)) for path in product(*steps)]
        return paths, own

    def _subquery_steps(self, column: str, subquery: InSubquery, aliases: Iterator[str]) -> list[str]:
        """Return paths from a table to the rows of a subquery, which together match all of them.

        Args:
            column: The column of the table.
            subquery: The subquery.
            aliases: New names for tables in the path.
        """
        linked = self._model_cache.lookup_table(subquery.table)
        check_columns(linked, (subquery.column,))
        link = f"({quote_segment(column)})=({table_path(linked)}:{quote_segment(subquery.column)})"
        paths: list[str] = []
        for where in subquery.where.filters if isinstance(subquery.where, AnyOf) else (subquery.where,):
            own, nested = _split_filter(where)
            parts = filter_paths(linked, own)
            if not nested:
                paths += ["/".join(filter(None, (link, part))) for part in parts]
                continue
            inner = next(aliases)
            steps = [
                [f"{step}/${inner}" for step in self._subquery_steps(name, each, aliases)] for name, each in nested
            ]
            paths += ["/".join(filter(None, (f"{inner}:={link}", *parts))) for parts in product(parts, *steps)]
        return paths

    def pages(self, table: str, where: Where = ALL_ROWS, *, size: int = 2000) -> Iterator[list[Row]]:
        if size < 1:
            raise ConfigurationError(f"The page size must be at least 1, not {size}.")
        target = self._model_cache.lookup_table(table)
        return self._iter_pages(target, filter_paths(target, where), size)

    def _iter_pages(self, table: Table, filters: list[str], size: int) -> Iterator[list[Row]]:
        if len(filters) == 1:
            yield from self._iter_filter_pages(table, filters[0], size)
            return
        streams = [(row for rows in self._iter_filter_pages(table, path, size) for row in rows) for path in filters]
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
        """Return the rows at a table's path; none if the table was created after the snapshot."""
        separator = "" if suffix.startswith(("@", "?")) or not suffix else "/"
        try:
            rows = self._client.get_rows(f"/entity/{base_path or table_path(table)}{separator}{suffix}", table.name)
        except UnknownTable:
            if "@" not in self._client.catalog_id:
                raise
            return []
        return self._model_cache.convert_rows(table, rows)

    def locate(self, rids: Sequence[str], tables: Sequence[str] = ()) -> dict[str, str]:
        candidates = [self._model_cache.lookup_table(table) for table in tables]
        left = {check_row_rid(rid) for rid in rids}
        located: dict[str, str] = {}
        if len(left) <= (len(candidates) or MAX_SINGLE_LOOKUPS):
            located = self._locate_individually(left)
            left = {rid for rid in left if located.get(rid) == RID_LEASE_TABLE}
            located = {rid: table for rid, table in located.items() if table in (tables or self.model.tables)}
        for table in candidates or _sort_by_likelihood(self.model.tables.values() if left else ()):
            for condition in filter_paths(table, {"RID": left}):
                try:
                    rows = self._client.get_rows(f"/attribute/{table_path(table)}/{condition}/RID", table.name)
                except UnknownTable:
                    continue  # it was created after the snapshot, or deleted
                located.update((row["RID"], table.name) for row in rows)
            left -= located.keys()
        return located

    def _locate_individually(self, rids: Iterable[str]) -> dict[str, str]:
        """Return each RID's table as the server names it; `RID_LEASE_TABLE` even if a row uses the RID by now."""
        located: dict[str, str] = {}
        for rid in rids:
            response = self._client.request("GET", f"/entity_rid/{quote_segment(rid)}", rid, allowed_statuses=(404,))
            if response.status_code < 400:
                located[rid] = parse_value(response, rid, "table_name")
            elif "html" in response.headers.get("Content-Type", ""):
                raise error_from_response(response, self._server.host, rid)
        if not set(located.values()) <= self.model.tables.keys() | {RID_LEASE_TABLE}:
            self.refresh()
        return located

    def close(self) -> None:
        self._server.close()


def _split_filter(where: Filter) -> tuple[dict[str, Any], list[tuple[str, InSubquery]]]:
    """Return the conditions of a filter without subqueries, and the subqueries with their columns."""
    own: dict[str, Any] = {}
    subqueries: list[tuple[str, InSubquery]] = []
    for name, value in where.items():
        conditions = value.conditions if isinstance(value, AllOf) else (value,)
        subqueries += [(name, each) for each in conditions if isinstance(each, InSubquery)]
        kept = tuple(each for each in conditions if not isinstance(each, InSubquery))
        if kept:
            own[name] = AllOf(kept) if isinstance(value, AllOf) else value
    return own, subqueries


def _sort_by_likelihood(tables: Iterable[Table]) -> list[Table]:
    """Return tables by how likely users have RIDs of their rows: link tables and vocabularies last."""
    return sorted(tables, key=lambda table: (table.is_vocabulary, len(table.foreign_keys) > 1, table.name))


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Sort empty values last, as the server does."""
    return value is None, "" if value is None else value
