"""The remote catalog: rows over ERMrest, written so that a repeat is safe."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from deriva_ml_core.backend import Catalog, Row, Where
from deriva_ml_core.backends.keyed import in_order
from deriva_ml_core.backends.readonly import ReadOnly
from deriva_ml_core.backends.remote.inserting import check_given, check_writable, insert, prepared
from deriva_ml_core.backends.remote.model import SERVERS_OWN, schema_documents
from deriva_ml_core.backends.remote.paths import filters, name, order_by, qualified
from deriva_ml_core.backends.remote.reading import LEASES, KnownTables, Readable
from deriva_ml_core.backends.remote.server import Server, backoff, wait_asked_for
from deriva_ml_core.definitions import RID_PATTERN
from deriva_ml_core.errors import ConfigurationError, DerivaMLException, DuplicateRow, InvalidRID
from deriva_ml_core.schema import DOMAIN_SCHEMA, ML_SCHEMA, CatalogModel, Table

__all__ = ["BATCH", "CatalogSnapshot", "RemoteCatalog"]

BATCH = 10_000
"""Rows that one request adds or changes; 5,000 took a server 1.4 s."""

REMEMBERED = 5000
"""Rows of a state of the past that are kept while it is read."""

RACES = 12
"""How often one who adds a row unless it is there looks again, when others write meanwhile."""


class RemoteCatalog(Readable):
    """A catalog as it is now.

    Its promise that a call that fails has written nothing ends where an answer is lost: rows that give neither a
    reserved RID nor may be skipped are then reported as perhaps written.
    """

    def snapshot(self) -> str:
        found: str = self._asking.read("", self.name)["snaptime"]
        return found

    def at(self, snapshot: str) -> CatalogSnapshot:
        """The catalog as it was.

        Raises:
            InvalidRID: The text is not a snapshot.
        """
        return CatalogSnapshot(self._server, self._number, self._tables, _checked(snapshot))

    def reserve(self, count: int) -> list[str]:
        rids: list[str] = []
        while len(rids) < count:
            wanted = partial(_new_leases, min(BATCH, count - len(rids)))
            path = f"/entity/public:{LEASES}?defaults=RID"
            rids += [row["RID"] for row in self._asking.send("POST", path, LEASES, given=wanted).json()]
        return rids

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        found = self._tables.find(table)
        added = 0
        for start in range(0, len(rows), BATCH):
            try:
                batch = rows[start : start + BATCH]
                added += len(insert(self._asking, found, batch, self.reserve, skip=skip_existing))
            except DerivaMLException as error:
                if not added:
                    raise
                raise type(error)(f"{error} The {added} rows before this batch were added.") from error
        return added

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        found = self._tables.find(table)
        there: list[Row] = []
        for start in range(0, len(rows), BATCH):
            there += insert(self._asking, found, rows[start : start + BATCH], self.reserve, skip=True)
        there = self._tables.convert(found, there)
        new = {row[key] for row in there}
        if older := [row[key] for row in rows if row[key] not in new]:
            there += self.select(table, {key: older})
        return in_order(table, key, [row[key] for row in rows], there)

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        found = self._tables.find(table)
        asked = filters(found, where)
        sent, parameters = prepared(found, [row], self.reserve)
        path = f"/entity/{qualified(found)}" + (f"?{parameters}" if parameters else "")
        for attempt in range(RACES):
            existing, state = self._oldest(found, asked)
            if existing is not None:
                return existing, False
            added = self._add_if(found, path, sent, state, attempt)
            if added is not None:
                return added, True
        # so many write here that no state lasts: whoever looks takes the oldest
        new = self._asking.send("POST", path, table, given=sent, repeat=False).json()
        oldest, _ = self._oldest(found, asked)
        rows = self._tables.convert(found, new)
        return (oldest or rows[0]), oldest is None or oldest["RID"] == rows[0]["RID"]

    def _oldest(self, table: Table, asked: list[str]) -> tuple[Row | None, str]:
        """The oldest row that matches, and the state of the catalog in which that was so."""
        rows: list[Row] = []
        state = ""
        for condition in asked:
            separator = "/" if condition else ""
            path = f"/entity/{qualified(table)}{separator}{condition}{order_by(('RCT', 'RID'))}?limit=1"
            # a web server that compresses an answer gives it another ETag
            response = self._asking.send("GET", path, table.name, headers={"Accept-Encoding": "identity"})
            state = state or response.headers.get("ETag", "")
            rows += self._tables.convert(table, response.json())
        return min(rows, key=lambda row: (row["RCT"], row["RID"]), default=None), state

    def _add_if(self, table: Table, path: str, rows: list[Row], state: str, attempt: int) -> Row | None:
        """Add a row unless anything has been written since; None where it must be looked for again."""
        response = self._asking.once("POST", path, table.name, given=rows, headers={"If-Match": state} if state else {})
        if response is not None and response.status_code < 400:
            return self._tables.convert(table, response.json())[0]
        self._server.sleep(max(backoff(attempt), wait_asked_for(response) if response is not None else 0))
        return None

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        found = self._tables.find(table)
        if not rows:
            return 0
        columns = [column for column in rows[0] if column != "RID"]
        check_writable(found, columns)
        if any(row.keys() != rows[0].keys() for row in rows):
            raise ConfigurationError(f"Rows to change in {table} at once give the same columns; these do not.")
        if "RID" not in rows[0]:
            raise ConfigurationError(
                f"A row to change gives no RID, only {', '.join(rows[0]) or 'nothing'}; add its RID."
            )
        last = list({check_given(row["RID"]): dict(row) for row in rows}.values())
        path = f"/attributegroup/{qualified(found)}/RID;{','.join(name(column) for column in columns or ['RID'])}"
        changed = 0
        for start in range(0, len(last), BATCH):
            batch = last[start : start + BATCH]
            changed += len(self._asking.send("PUT", path, table, given=batch).json())
        return changed

    def delete(self, table: str, where: Where) -> int:
        found = self._tables.find(table)
        asked = filters(found, where)
        matched: set[str] = set()
        for condition in asked:
            separator = "/" if condition else ""
            path = f"{qualified(found)}{separator}{condition}"
            rows = self._asking.read(f"/attribute/{path}/RID", table)
            matched.update(row["RID"] for row in rows)
            if rows:
                # nothing there any more: a row went with another, or an answer was lost
                self._asking.send("DELETE", f"/entity/{path}", table, expected=(404,))
        return len(matched)

    def grant(self, access: str, who: Sequence[str]) -> None:
        """Say who may do something: users and groups for one of ERMrest's access control lists."""
        self._asking.send("PUT", f"/acl/{name(access)}", self.name, given=list(who))

    def create_tables(self, tables: Sequence[Table], *, also: Sequence[str] = ()) -> None:
        """Add tables, and with them further schemas, which are empty."""
        model = self.model if all(table.name not in self.model.tables for table in tables) else self.refresh()
        new = [self._placed(table) for table in tables if not _exists(model, table)]
        if not new:
            return
        documents = schema_documents(model, new, self._tables.schemas, also)
        try:
            self._asking.send("POST", "/schema", new[0].name, given=documents, repeat=False)
        except DerivaMLException:
            # another process may have made them meanwhile, or the answer was lost after they were made
            model = self.refresh()
            if not all(table.name in model.tables and _exists(model, table) for table in new):
                raise
            return
        self.refresh()

    def _placed(self, table: Table) -> Table:
        """A table of the project's, in the schema that this catalog has for those."""
        own = self._tables.schemas - {ML_SCHEMA, *SERVERS_OWN}
        if table.schema != DOMAIN_SCHEMA or table.schema in own or len(own) != 1:
            return table
        return replace(table, schema=next(iter(own)))


def _new_leases(count: int) -> list[Row]:
    """Leases that were never asked for: those of an answer that was lost are not used, and harm nobody."""
    return [{"ID": f"deriva-ml-core/{uuid.uuid4()}"} for _ in range(count)]


def _exists(model: CatalogModel, table: Table) -> bool:
    found = model.tables.get(table.name)
    if found is None:
        return False
    if {column.name: column.type for column in found.columns} != {column.name: column.type for column in table.columns}:
        raise DuplicateRow(
            f"The table {table.name!r} cannot be made: the catalog has one of that name with the columns "
            f"{', '.join(sorted(found.column_names))}. Use that one, or choose another name."
        )
    return True


def _checked(snapshot: str) -> str:
    if not re.fullmatch(RID_PATTERN, snapshot):
        raise InvalidRID(f"{snapshot!r} is not a snapshot: give what follows '@' in a RID or a citation.")
    return snapshot


class CatalogSnapshot(Readable, ReadOnly):
    """A catalog as it was; tables that were made later are empty.

    Args:
        server: The server.
        number: The catalog's number.
        tables: Its tables.
        snapshot: The name of the state.
    """

    def __init__(self, server: Server, number: str, tables: KnownTables, snapshot: str) -> None:
        super().__init__(server, number, tables, snapshot)
        self._snapshot = snapshot
        self._read: dict[tuple[str, str], list[Row]] = {}

    def _rows(self, table: Table, rest: str, place: str = "") -> list[Row]:
        """What was read before is read no second time, as it never changes; only a little is kept."""
        key = (place or table.name, rest)
        known = self._read.get(key)
        if known is None:
            known = super()._rows(table, rest, place)
            if sum(map(len, list(self._read.values()))) + len(known) > REMEMBERED:
                self._read = {}
            self._read[key] = known
        return [dict(row) for row in known]

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        """The URL of a row as it was at this snapshot, unless another is asked for."""
        return super().cite(rid, snapshot or self._snapshot)

    def snapshot(self) -> str:
        return self._snapshot

    def at(self, snapshot: str) -> CatalogSnapshot:
        return CatalogSnapshot(self._server, self._number, self._tables, _checked(snapshot))


if TYPE_CHECKING:
    _now: type[Catalog] = RemoteCatalog
    _then: type[Catalog] = CatalogSnapshot
