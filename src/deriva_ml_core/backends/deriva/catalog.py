"""The remote catalog: rows over ERMrest, written so that a repeat is safe."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from deriva_ml_core.backend import Catalog, ReadOnlyMixin, Row, Where, order_rows_by_key
from deriva_ml_core.backends.deriva.ermrest_paths import filter_paths, quote_segment, sort_modifier, table_path
from deriva_ml_core.backends.deriva.http import Server, backoff_delay, retry_after
from deriva_ml_core.backends.deriva.model import SYSTEM_SCHEMAS, schema_documents
from deriva_ml_core.backends.deriva.mutations import insert_rows, prepare_rows
from deriva_ml_core.backends.deriva.queries import RID_LEASE_TABLE, CatalogReader, ModelCache
from deriva_ml_core.backends.row_checks import check_row_updates, table_exists
from deriva_ml_core.definitions import RID_PATTERN
from deriva_ml_core.errors import DerivaMLException, InvalidRID
from deriva_ml_core.schema import DOMAIN_SCHEMA, ML_SCHEMA, Table

__all__ = ["BATCH_SIZE", "CatalogSnapshot", "DerivaCatalog"]

BATCH_SIZE = 10_000
"""Rows that one request adds or changes; 5,000 took a server 1.4 s."""

MAX_CACHED_ROWS = 5000
"""Rows of a state of the past that are kept while it is read."""

MAX_RACE_ATTEMPTS = 12
"""How often one who adds a row unless it is there looks again, when others write meanwhile."""


class DerivaCatalog(CatalogReader):
    """A catalog as it is now.

    Its promise that a call that fails has written nothing ends where an answer is lost: rows that give neither a
    reserved RID nor may be skipped are then reported as perhaps written.
    """

    def snapshot(self) -> str:
        found: str = self._client.get_json("", self.name)["snaptime"]
        return found

    def at(self, snapshot: str) -> CatalogSnapshot:
        """The catalog as it was.

        Raises:
            InvalidRID: The text is not a snapshot.
        """
        return CatalogSnapshot(self._server, self._catalog_id, self._model_cache, _check_snapshot(snapshot))

    def reserve(self, count: int) -> list[str]:
        rids: list[str] = []
        while len(rids) < count:
            wanted = partial(_make_lease_rows, min(BATCH_SIZE, count - len(rids)))
            path = f"/entity/public:{RID_LEASE_TABLE}?defaults=RID"
            rids += [row["RID"] for row in self._client.request("POST", path, RID_LEASE_TABLE, payload=wanted).json()]
        return rids

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        found = self._model_cache.lookup_table(table)
        added = 0
        for start in range(0, len(rows), BATCH_SIZE):
            try:
                batch = rows[start : start + BATCH_SIZE]
                added += len(insert_rows(self._client, found, batch, self.reserve, skip_existing=skip_existing))
            except DerivaMLException as error:
                if not added:
                    raise
                raise type(error)(f"{error} The {added} rows before this batch were added.") from error
        return added

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        found = self._model_cache.lookup_table(table)
        there: list[Row] = []
        for start in range(0, len(rows), BATCH_SIZE):
            there += insert_rows(
                self._client, found, rows[start : start + BATCH_SIZE], self.reserve, skip_existing=True
            )
        there = self._model_cache.convert_rows(found, there)
        new = {row[key] for row in there}
        if older := [row[key] for row in rows if row[key] not in new]:
            there += self.select(table, {key: older})
        return order_rows_by_key(table, key, [row[key] for row in rows], there)

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        found = self._model_cache.lookup_table(table)
        asked = filter_paths(found, where)
        sent, parameters = prepare_rows(found, [row], self.reserve)
        path = f"/entity/{table_path(found)}" + (f"?{parameters}" if parameters else "")
        for attempt in range(MAX_RACE_ATTEMPTS):
            existing, state = self._select_oldest(found, asked)
            if existing is not None:
                return existing, False
            added = self._insert_if_unchanged(found, path, sent, state, attempt)
            if added is not None:
                return added, True
        # so many write here that no state lasts: whoever looks takes the oldest
        new = self._client.request("POST", path, table, payload=sent, idempotent=False).json()
        oldest, _ = self._select_oldest(found, asked)
        rows = self._model_cache.convert_rows(found, new)
        return (oldest or rows[0]), oldest is None or oldest["RID"] == rows[0]["RID"]

    def _select_oldest(self, table: Table, filters: list[str]) -> tuple[Row | None, str]:
        """The oldest row that matches, and the state of the catalog in which that was so."""
        rows: list[Row] = []
        state = ""
        for condition in filters:
            separator = "/" if condition else ""
            path = f"/entity/{table_path(table)}{separator}{condition}{sort_modifier(('RCT', 'RID'))}?limit=1"
            # a web server that compresses an answer gives it another ETag
            response = self._client.request("GET", path, table.name, headers={"Accept-Encoding": "identity"})
            state = state or response.headers.get("ETag", "")
            rows += self._model_cache.convert_rows(table, response.json())
        return min(rows, key=lambda row: (row["RCT"], row["RID"]), default=None), state

    def _insert_if_unchanged(self, table: Table, path: str, rows: list[Row], etag: str, attempt: int) -> Row | None:
        """Add a row unless anything has been written since; None where it must be looked for again."""
        response = self._client.request_once(
            "POST", path, table.name, payload=rows, headers={"If-Match": etag} if etag else {}
        )
        if response is not None and response.status_code < 400:
            return self._model_cache.convert_rows(table, response.json())[0]
        self._server.sleep(max(backoff_delay(attempt), retry_after(response) if response is not None else 0))
        return None

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        found = self._model_cache.lookup_table(table)
        if not rows:
            return 0
        columns = check_row_updates(found, rows)
        last = list({row["RID"]: dict(row) for row in rows}.values())
        names = ",".join(quote_segment(column) for column in columns or ["RID"])
        path = f"/attributegroup/{table_path(found)}/RID;{names}"
        changed = 0
        for start in range(0, len(last), BATCH_SIZE):
            batch = last[start : start + BATCH_SIZE]
            changed += len(self._client.request("PUT", path, table, payload=batch).json())
        return changed

    def delete(self, table: str, where: Where) -> int:
        found = self._model_cache.lookup_table(table)
        asked = filter_paths(found, where)
        matched: set[str] = set()
        for condition in asked:
            separator = "/" if condition else ""
            path = f"{table_path(found)}{separator}{condition}"
            rows = self._client.get_json(f"/attribute/{path}/RID", table)
            matched.update(row["RID"] for row in rows)
            if rows:
                # nothing there any more: a row went with another, or an answer was lost
                self._client.request("DELETE", f"/entity/{path}", table, allowed_statuses=(404,))
        return len(matched)

    def set_acl(self, acl: str, roles: Sequence[str]) -> None:
        """Say who may do something: users and groups for one of ERMrest's access control lists."""
        self._client.request("PUT", f"/acl/{quote_segment(acl)}", self.name, payload=list(roles))

    def create_tables(self, tables: Sequence[Table], *, extra_schemas: Sequence[str] = ()) -> None:
        """Add tables, and with them further schemas, which are empty."""
        model = self.model if all(table.name not in self.model.tables for table in tables) else self.refresh()
        new = [self._assign_domain_schema(table) for table in tables if not table_exists(model, table)]
        if not new:
            return
        documents = schema_documents(model, new, self._model_cache.schemas, extra_schemas)
        try:
            self._client.request("POST", "/schema", new[0].name, payload=documents, idempotent=False)
        except DerivaMLException:
            # another process may have made them meanwhile, or the answer was lost after they were made
            model = self.refresh()
            if not all(table.name in model.tables and table_exists(model, table) for table in new):
                raise
            return
        self.refresh()

    def _assign_domain_schema(self, table: Table) -> Table:
        """A table of the project's, in the schema that this catalog has for those."""
        own = self._model_cache.schemas - {ML_SCHEMA, *SYSTEM_SCHEMAS}
        if table.schema != DOMAIN_SCHEMA or table.schema in own or len(own) != 1:
            return table
        return replace(table, schema=next(iter(own)))


def _make_lease_rows(count: int) -> list[Row]:
    """Leases that were never asked for: those of an answer that was lost are not used, and harm nobody."""
    return [{"ID": f"deriva-ml-core/{uuid.uuid4()}"} for _ in range(count)]


def _check_snapshot(snapshot: str) -> str:
    if not re.fullmatch(RID_PATTERN, snapshot):
        raise InvalidRID(f"{snapshot!r} is not a snapshot: give what follows '@' in a RID or a citation.")
    return snapshot


class CatalogSnapshot(CatalogReader, ReadOnlyMixin):
    """A catalog as it was; tables that were made later are empty.

    Args:
        server: The server.
        catalog_id: The catalog's number.
        model_cache: Its tables.
        snapshot: The name of the state.
    """

    def __init__(self, server: Server, catalog_id: str, model_cache: ModelCache, snapshot: str) -> None:
        super().__init__(server, catalog_id, model_cache, snapshot)
        self._snapshot = snapshot
        self._cached_rows: dict[tuple[str, str], list[Row]] = {}

    def _fetch_rows(self, table: Table, suffix: str, base_path: str = "") -> list[Row]:
        """What was read before is read no second time, as it never changes; only a little is kept."""
        key = (base_path or table.name, suffix)
        known = self._cached_rows.get(key)
        if known is None:
            known = super()._fetch_rows(table, suffix, base_path)
            if sum(map(len, list(self._cached_rows.values()))) + len(known) > MAX_CACHED_ROWS:
                self._cached_rows = {}
            self._cached_rows[key] = known
        return [dict(row) for row in known]

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        """The URL of a row as it was at this snapshot, unless another is asked for."""
        return super().cite(rid, snapshot or self._snapshot)

    def snapshot(self) -> str:
        return self._snapshot

    def at(self, snapshot: str) -> CatalogSnapshot:
        return CatalogSnapshot(self._server, self._catalog_id, self._model_cache, _check_snapshot(snapshot))


if TYPE_CHECKING:
    _catalog_protocol_check: type[Catalog] = DerivaCatalog
    _snapshot_protocol_check: type[Catalog] = CatalogSnapshot
