"""Catalog on a Deriva server: rows in ERMrest, written so that a repeat is safe."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from deriva_ml_core._retry import ABORTED_TRANSACTION, CONCURRENT_WRITE, Attempts
from deriva_ml_core.backend import Catalog, ReadOnlyMixin, Row, Where, order_rows_by_key
from deriva_ml_core.backends.deriva.ermrest_client import (
    error_detail,
    error_from_response,
    is_aborted,
    parse_rows,
    parse_value,
)
from deriva_ml_core.backends.deriva.ermrest_paths import filter_paths, quote_segment, sort_modifier, table_path
from deriva_ml_core.backends.deriva.http import Server, retry_after
from deriva_ml_core.backends.deriva.model import SYSTEM_SCHEMAS, column_document, is_array_type, schema_documents
from deriva_ml_core.backends.deriva.mutations import insert_rows, prepare_rows, select_by_rid
from deriva_ml_core.backends.deriva.queries import RID_LEASE_TABLE, CatalogReader, ModelCache
from deriva_ml_core.backends.row_checks import check_row_updates, table_exists
from deriva_ml_core.definitions import RID_PATTERN
from deriva_ml_core.errors import DerivaMLException, InvalidRID
from deriva_ml_core.schema import DOMAIN_SCHEMA, ML_SCHEMA, Column, Table

if TYPE_CHECKING:
    from requests import Response

__all__ = ["BATCH_SIZE", "CatalogSnapshot", "DerivaCatalog"]

BATCH_SIZE = 10_000
"""Rows that one request adds or changes; a server took 1.4 s for 5,000."""

MAX_CACHED_ROWS = 5000
"""Rows of a snapshot that are cached."""


class DerivaCatalog(CatalogReader):
    """Catalog in its present state.

    A failed call has written nothing, unless a response is lost: rows without a reserved RID that may not be skipped
    are then reported as possibly written (`WriteOutcomeUnknown`).
    """

    def snapshot(self) -> str:
        found: str = parse_value(self._client.request("GET", "", self.name), self.name, "snaptime")
        return found

    def at(self, snapshot: str) -> CatalogSnapshot:
        """Return the catalog at a snapshot.

        Raises:
            InvalidRID: The text is not a snapshot.
        """
        return CatalogSnapshot(self._server, self._catalog_id, self._model_cache, _check_snapshot(snapshot))

    def reserve(self, count: int) -> list[str]:
        rids: list[str] = []
        while len(rids) < count:
            make_rows = partial(_make_lease_rows, min(BATCH_SIZE, count - len(rids)))
            path = f"/entity/public:{RID_LEASE_TABLE}?defaults=RID"
            response = self._client.request("POST", path, RID_LEASE_TABLE, payload=make_rows)
            rids += [row["RID"] for row in parse_rows(response, RID_LEASE_TABLE)]
        return rids

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        target = self._model_cache.lookup_table(table)
        added = 0
        for start in range(0, len(rows), BATCH_SIZE):
            try:
                batch = rows[start : start + BATCH_SIZE]
                added += len(insert_rows(self._client, target, batch, self.reserve, skip_existing=skip_existing))
            except DerivaMLException as error:
                if not added:
                    raise
                raise type(error)(f"{error} The {added} rows before this batch were added.") from error
        return added

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        target = self._model_cache.lookup_table(table)
        present: list[Row] = []
        for start in range(0, len(rows), BATCH_SIZE):
            present += insert_rows(
                self._client, target, rows[start : start + BATCH_SIZE], self.reserve, skip_existing=True
            )
        present = self._model_cache.convert_rows(target, present)
        added = {row[key] for row in present}
        if existing := [row[key] for row in rows if row[key] not in added]:
            present += self.select(table, {key: existing})
        return order_rows_by_key(table, key, [row[key] for row in rows], present)

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        target = self._model_cache.lookup_table(table)
        filters = filter_paths(target, where)
        sent, parameters = prepare_rows(target, [row], self.reserve)
        path = f"/entity/{table_path(target)}" + (f"?{parameters}" if parameters else "")
        attempts = Attempts(CONCURRENT_WRITE, self._server.sleep)
        aborted = Attempts(ABORTED_TRANSACTION, self._server.sleep, f"A request to {self._server.host} for {table}")
        repeat = True
        while repeat:
            existing, etag = self._select_oldest(target, filters)
            if existing is not None:
                return existing, False
            response = self._insert_if_unchanged(path, table, sent, etag)
            if response is not None and response.status_code < 400:
                return self._model_cache.convert_rows(target, parse_rows(response, table))[0], True
            if response is not None and is_aborted(response):  # no writer changed the catalog, so it is not counted
                if not aborted.wait(retry_after(response), error_detail(response)):
                    raise error_from_response(response, self._server.host, table)
                continue
            repeat = attempts.wait(0.0 if response is None else retry_after(response))
        # with this many writers the catalog never stays unchanged: insert the row, and agree on the oldest match
        new = parse_rows(self._client.request("POST", path, table, payload=sent, idempotent=False), table)
        oldest, _ = self._select_oldest(target, filters)
        rows = self._model_cache.convert_rows(target, new)
        return (oldest or rows[0]), oldest is None or oldest["RID"] == rows[0]["RID"]

    def _select_oldest(self, table: Table, filters: list[str]) -> tuple[Row | None, str]:
        """Return the oldest row that matches, and the ETag of the catalog's state when it was read."""
        rows: list[Row] = []
        etag = ""
        for condition in filters:
            separator = "/" if condition else ""
            path = f"/entity/{table_path(table)}{separator}{condition}{sort_modifier(('RCT', 'RID'))}?limit=1"
            # a web server that compresses a response changes its ETag
            response = self._client.request("GET", path, table.name, headers={"Accept-Encoding": "identity"})
            etag = etag or response.headers.get("ETag", "")
            rows += self._model_cache.convert_rows(table, parse_rows(response, table.name))
        return min(rows, key=lambda row: (row["RCT"], row["RID"]), default=None), etag

    def _insert_if_unchanged(self, path: str, table: str, rows: list[Row], etag: str) -> Response | None:
        """Insert rows unless the catalog has changed since the ETag; the response is None if it was lost."""
        headers = {"If-Match": etag} if etag else {}
        return self._client.request_once("POST", path, table, payload=rows, headers=headers)

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        target = self._model_cache.lookup_table(table)
        if not rows:
            return 0
        columns = check_row_updates(target, rows)
        arrays = {column.name for column in target.columns if is_array_type(column.type)}
        sent: Iterator[Row] = (
            {name: (value or None) if name in arrays else value for name, value in row.items()} for row in rows
        )
        latest = list({row["RID"]: row for row in sent}.values())
        if not columns:  # the server rejects a request that names the RID twice
            return len(select_by_rid(self._client, target, [row["RID"] for row in latest]))
        names = ",".join(quote_segment(column) for column in columns)
        path = f"/attributegroup/{table_path(target)}/RID;{names}"
        changed = 0
        for start in range(0, len(latest), BATCH_SIZE):
            batch = latest[start : start + BATCH_SIZE]
            changed += len(parse_rows(self._client.request("PUT", path, table, payload=batch), table))
        return changed

    def delete(self, table: str, where: Where) -> int:
        target = self._model_cache.lookup_table(table)
        filters = filter_paths(target, where)
        matched: set[str] = set()
        for condition in filters:
            separator = "/" if condition else ""
            path = f"{table_path(target)}{separator}{condition}"
            rows = self._client.get_rows(f"/attribute/{path}/RID", table)
            matched.update(row["RID"] for row in rows)
            if rows:
                # 404: a cascade deleted the rows already, or the response to an earlier attempt was lost
                self._client.request("DELETE", f"/entity/{path}", table, allowed_statuses=(404,))
        return len(matched)

    def set_acl(self, acl: str, roles: Sequence[str]) -> None:
        """Set one of ERMrest's access control lists.

        Args:
            acl: Name of the list, such as ``enumerate`` or ``write``.
            roles: Users and groups.
        """
        self._client.request("PUT", f"/acl/{quote_segment(acl)}", self.name, payload=list(roles))

    def create_tables(self, tables: Sequence[Table], *, extra_schemas: Sequence[str] = ()) -> None:
        """Create tables.

        Args:
            tables: The tables; existing ones with the same columns stay as they are.
            extra_schemas: Names of additional, empty schemas to create with them.

        Raises:
            DuplicateRow: A table exists with other columns.
        """
        model = self.model if all(table.name not in self.model.tables for table in tables) else self.refresh()
        new = [self._assign_domain_schema(table) for table in tables if not table_exists(model, table)]
        if not new:
            return
        documents = schema_documents(model, new, self._model_cache.schemas, extra_schemas)
        try:
            self._client.request("POST", "/schema", new[0].name, payload=documents, idempotent=False)
        except DerivaMLException:
            # another process may have created them in the meantime, or the response to their creation was lost
            model = self.refresh()
            if not all(table.name in model.tables and table_exists(model, table) for table in new):
                raise
            return
        self.refresh()

    def add_columns(self, table: str, columns: Sequence[Column]) -> None:
        """Add columns to an existing table. They are empty in existing rows.

        Args:
            table: Name of the table.
            columns: The new columns. They allow nulls and belong to no key.
        """
        found = self.model.table(table)
        path = f"/schema/{quote_segment(found.schema)}/table/{quote_segment(found.name)}/column"
        for column in columns:
            try:
                self._client.request("POST", path, table, payload=column_document(found, column), idempotent=False)
            except DerivaMLException:
                # another process may have added it meanwhile, or the response was lost
                if column.name not in self.refresh().table(table).column_names:
                    raise
        self.refresh()

    def _assign_domain_schema(self, table: Table) -> Table:
        """Return a table of the project with the schema that this catalog uses for such tables."""
        own = self._model_cache.schemas - {ML_SCHEMA, *SYSTEM_SCHEMAS}
        if table.schema != DOMAIN_SCHEMA or table.schema in own or len(own) != 1:
            return table
        return replace(table, schema=next(iter(own)))


def _make_lease_rows(count: int) -> list[Row]:
    """Return new rows for the lease table; leases of a lost response stay unused."""
    return [{"ID": f"deriva-ml-core/{uuid.uuid4()}"} for _ in range(count)]


def _check_snapshot(snapshot: str) -> str:
    if not re.fullmatch(RID_PATTERN, snapshot):
        raise InvalidRID(f"{snapshot!r} is not a snapshot: use what follows '@' in a RID or a citation.")
    return snapshot


class CatalogSnapshot(CatalogReader, ReadOnlyMixin):
    """Catalog at a snapshot. Tables that were created later are empty.

    Args:
        server: The server.
        catalog_id: The catalog's number.
        model_cache: The catalog's tables.
        snapshot: ID of the snapshot.
    """

    def __init__(self, server: Server, catalog_id: str, model_cache: ModelCache, snapshot: str) -> None:
        super().__init__(server, catalog_id, model_cache, snapshot)
        self._snapshot = snapshot
        self._cached_rows: dict[tuple[str, str], list[Row]] = {}

    def _fetch_rows(self, table: Table, suffix: str, base_path: str = "") -> list[Row]:
        """Return rows, from the cache if possible, since a snapshot never changes."""
        key = (base_path or table.name, suffix)
        rows = self._cached_rows.get(key)
        if rows is None:
            rows = super()._fetch_rows(table, suffix, base_path)
            if sum(map(len, list(self._cached_rows.values()))) + len(rows) > MAX_CACHED_ROWS:
                self._cached_rows = {}
            self._cached_rows[key] = rows
        return [dict(row) for row in rows]

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        """Return the URL of a row at a snapshot, by default this one."""
        return super().cite(rid, snapshot or self._snapshot)

    def snapshot(self) -> str:
        return self._snapshot

    def at(self, snapshot: str) -> CatalogSnapshot:
        return CatalogSnapshot(self._server, self._catalog_id, self._model_cache, _check_snapshot(snapshot))


if TYPE_CHECKING:
    _catalog_protocol_check: type[Catalog] = DerivaCatalog
    _snapshot_protocol_check: type[Catalog] = CatalogSnapshot
