"""State that the steps of a push share: the two catalogs, the ledger, and which row is a copy of which."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import JsonValue, ValidationError

from deriva_ml_core._files.json_lines import append_line, complete_lines, parse_object
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.errors import UnknownRID
from deriva_ml_core.models import FrozenModel, StoredObject
from deriva_ml_core.push.collect import CORE_TABLES
from deriva_ml_core.schema import Table

__all__ = [
    "Ledger",
    "PushContext",
    "PushReport",
    "PushedRow",
    "creation_time",
    "description_with_source",
    "differing_columns",
    "global_row_id",
]


class Ledger:
    """Append-only file of planned and completed steps, by the global ID of each source row (`global_row_id`).

    Each line is one ``write(2)``. A line that a killed process left incomplete is skipped.

    Args:
        path: The file; the first line creates it.
    """

    def __init__(self, path: Path) -> None:
        self.reserved_rids: dict[str, RID] = {}
        """RIDs reserved for copies, whether or not the copies exist."""
        self.confirmed_rids: dict[str, RID] = {}
        """RIDs of copies that exist at the target."""
        self.resume_data: dict[str, JsonValue] = {}
        """Progress of files whose upload was interrupted, as the store noted it."""
        self.stored_objects: dict[str, StoredObject] = {}
        """Files whose bytes are on the disk of the target's store."""
        self.dirty: dict[RID, bool] = {}
        """Datasets at the target whose members differ from those of their highest version."""
        self._path = path
        self._lock = Lock()
        if path.is_file():
            for line in complete_lines(path.read_bytes()):
                self._load_line(line)

    def record_reserved(self, rids: Mapping[str, RID]) -> None:
        """Save RIDs before rows are created with them."""
        self._append({"planned": dict(rids)})

    def record_confirmed(self, rids: Mapping[str, RID]) -> None:
        """Save the RIDs of copies that exist at the target."""
        if new := {name: rid for name, rid in rids.items() if self.confirmed_rids.get(name) != rid}:
            self._append({"there": new})

    def record_progress(self, file_id: str, note: JsonValue) -> None:
        """Save the progress of a file's upload."""
        self._append({"noted": {file_id: note}})

    def record_stored(self, objects: Mapping[str, StoredObject]) -> None:
        """Save that the bytes of files are on the disk of the target's store."""
        if objects:
            self._append({"stored": {file_id: stored.model_dump() for file_id, stored in objects.items()}})

    def mark_dirty(self, datasets: Iterable[RID], *, dirty: bool) -> None:
        """Save that the members of datasets are about to change, or are restored."""
        if changes := {rid: dirty for rid in datasets if self.dirty.get(rid, False) is not dirty}:
            self._append({"stirred": changes})

    def _load_line(self, line: bytes) -> None:
        with suppress(TypeError, ValidationError):  # a damaged line
            for kind, entries in (parse_object(line) or {}).items():
                self._apply(kind, entries)

    def _apply(self, kind: str, entries: dict[str, Any]) -> None:
        if kind == "planned":
            self.reserved_rids |= entries
        elif kind == "there":
            self.confirmed_rids |= entries
        elif kind == "noted":
            self.resume_data |= entries
        elif kind == "stirred":
            self.dirty |= entries
        elif kind == "stored":
            self.stored_objects |= {name: StoredObject.model_validate(stored) for name, stored in entries.items()}

    def _append(self, record: dict[str, Any]) -> None:
        with (
            self._lock,
            translate_os_errors(f"The progress of the push cannot be saved in {self._path}", self._path.parent),
        ):
            append_line(self._path, json.dumps(record))
            for kind, entries in record.items():
                self._apply(kind, entries)


def creation_time(row: Mapping[str, Any]) -> str:
    """Return the creation time of a row, in UTC with microseconds."""
    return datetime.fromisoformat(row["RCT"]).astimezone(UTC).isoformat(timespec="microseconds")


def global_row_id(row: Mapping[str, Any]) -> str:
    """Return an ID of a row that is unique across catalogs: its RID and creation time."""
    return f"{row['RID']}@{creation_time(row)}"


def description_with_source(text: str | None, catalog: Catalog, row: Mapping[str, Any]) -> str:
    """Return a copy's description: the row's own, followed by its source."""
    source = f"Copied from {catalog.cite(row['RID'])}, made {creation_time(row)}"
    return f"{text}\n\n{source}" if text else source


class PushedRow(FrozenModel):
    """A copied row.

    Args:
        table: Name of the table.
        source: RID of the row in the source catalog.
        target: RID of the copy in the target catalog.
        new: Whether this push created the copy; otherwise it existed before.
    """

    table: str
    source: RID
    target: RID
    new: bool


class PushReport(FrozenModel):
    """Result of a push.

    Args:
        source: Citation of the execution.
        target: Citation of its copy.
        execution: RID of the copy.
        rows: Every row that has a copy, in the order in which they were copied.
        tables: Tables that were created at the target.
        terms: Terms that were added at the target, with their vocabulary, such as ``Asset_Type: Mask``.
        files: Number of files that were sent, without those that existed at the target.
        bytes: Total size of the files that were sent.
        unsent: Files that the executions staged but never uploaded; they are not copied.
        notes: What could not be copied as it is, or differs at the target.
    """

    source: str
    target: str
    execution: RID
    rows: tuple[PushedRow, ...] = ()
    tables: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()
    files: int = 0
    bytes: int = 0
    unsent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rids(self) -> dict[RID, RID]:
        """RID of each row's copy, by the row's RID."""
        return {row.source: row.target for row in self.rows}

    @property
    def new(self) -> tuple[PushedRow, ...]:
        """The rows that this push created."""
        return tuple(row for row in self.rows if row.new)


MAX_DESCRIPTION_BYTES = 2000
"""Bytes of a description that a row can be looked up by; a server accepts 4,000 for a whole query."""


@dataclass
class PushContext:
    """State that the steps of one push share.

    Args:
        source_connection: The catalog to copy from.
        target_connection: The catalog to copy to.
        ledger: Progress of this and earlier pushes from this machine.
        transfer_folder: Folder for files in transfer, on the disk of the target's store if that is on this machine.
    """

    source_connection: Connection
    target_connection: Connection
    ledger: Ledger
    transfer_folder: Path
    pushed_rows: dict[RID, PushedRow] = field(default_factory=dict)
    """Rows that have a copy, by the RID of the source row."""
    global_ids: dict[RID, str] = field(default_factory=dict)
    """Global ID of each of these rows."""
    added_terms: list[str] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    files_sent: int = 0
    bytes_sent: int = 0
    target_terms: dict[str, frozenset[str]] = field(default_factory=dict)
    """Terms of the plan that the target has, by vocabulary."""
    translated_terms: dict[tuple[str, str, Any], Any] = field(default_factory=dict)
    """Values that identify terms at the target by another column than the name: by vocabulary, column, source value."""

    @property
    def source(self) -> Catalog:
        """The source catalog."""
        return self.source_connection.catalog

    @property
    def target(self) -> Catalog:
        """The target catalog."""
        return self.target_connection.catalog

    def target_rid(self, rid: RID) -> RID:
        """Return the RID of a row's copy.

        Raises:
            KeyError: The row has no copy yet.
        """
        return self.pushed_rows[rid].target

    def record_copy(self, table: str, rows: Mapping[RID, Row], copies: Mapping[RID, RID], *, new: bool) -> None:
        """Record which rows have which copies, and save it in the ledger."""
        self.global_ids |= {rid: global_row_id(rows[rid]) for rid in copies}
        self.ledger.record_confirmed({self.global_ids[rid]: copy for rid, copy in copies.items()})
        for rid, copy in copies.items():
            existing = self.pushed_rows.get(rid)
            is_new = new or (existing is not None and existing.new)
            self.pushed_rows[rid] = PushedRow(table=table, source=rid, target=copy, new=is_new)

    def find_or_insert(self, table: str, row: Row, copy: Row) -> tuple[Row, bool]:
        """Create the copy of a row without a key, or find it by the source in its description.

        Args:
            table: Name of the table.
            row: The row at the source.
            copy: The row to create at the target, without its description.

        Returns:
            The row at the target, and whether it is new.
        """
        text, source_text = (
            description_with_source(row["Description"], self.source, row),
            description_with_source(None, self.source, row),
        )
        if not _is_long_description(text):
            return self.target.insert_unless(table, {"Description": text}, {**copy, "Description": text})
        if table != MLTable.execution and (existing := self._find_by_description(table, text)) is not None:
            return existing, False  # executions are matched by their source record instead
        target_row, is_new = self.target.insert_unless(
            table, {"Description": source_text}, {**copy, "Description": source_text}
        )
        self.complete_descriptions(table, {row["RID"]: row}, {row["RID"]: target_row})
        return target_row, is_new

    def _find_by_description(self, table: str, text: str) -> Row | None:
        """Return the row with a description that is too long for a query."""
        rows = (row for page in self.target.pages(table) for row in page)
        return next((row for row in rows if row["Description"] == text), None)

    def complete_descriptions(self, table: str, rows: Mapping[RID, Row], copies: Mapping[RID, Row]) -> None:
        """Write the whole of long descriptions, since `find_or_insert` creates such copies with the source only."""
        incomplete = [
            {"RID": copy["RID"], "Description": text}
            for rid, copy in copies.items()
            if _is_long_description(text := description_with_source(rows[rid]["Description"], self.source, rows[rid]))
            and copy["Description"] == description_with_source(None, self.source, rows[rid])
        ]
        if incomplete:
            self.target.update(table, incomplete)

    def find_copies(self, table: str, rows: Mapping[RID, Row]) -> dict[RID, Row]:
        """Return the copies that an earlier push from this machine created, as far as they still exist."""
        copies = {
            rid: self.ledger.confirmed_rids.get(name) or self.ledger.reserved_rids.get(name)
            for rid, name in _global_row_ids(rows)
        }
        candidates = sorted({copy for copy in copies.values() if copy is not None})
        present = {row["RID"]: row for row in self.target.select(table, {"RID": candidates})} if candidates else {}
        return {rid: present[copy] for rid, copy in copies.items() if copy in present}

    def reserve_rids(self, rows: Mapping[RID, Row]) -> dict[RID, RID]:
        """Return RIDs for copies, saved before they are used. A reserved RID is reused until a copy with it exists."""
        names = dict(_global_row_ids(rows))
        ledger = self.ledger
        unused = {
            rid: ledger.reserved_rids[name]
            for rid, name in names.items()
            if name in ledger.reserved_rids and ledger.confirmed_rids.get(name) != ledger.reserved_rids[name]
        }
        missing = [rid for rid in rows if rid not in unused]
        if missing:
            fresh = dict(zip(missing, self.target.reserve(len(missing)), strict=True))
            ledger.record_reserved({names[rid]: copy for rid, copy in fresh.items()})
            unused |= fresh
        return unused

    def translate_row(self, table: Table, row: Row, *, planned: Mapping[RID, RID] | None = None) -> Row:
        """Return a row as it is written to the target: the columns of its table, with the RIDs of copies.

        Args:
            table: The table at the source.
            row: The row.
            planned: RIDs of copies that are created together with this one.

        Raises:
            UnknownRID: A required column refers to a row that is not copied.
        """
        target_columns = self.target.model.table(table.name).column_names
        copy = {column.name: row.get(column.name) for column in table.columns if column.name in target_columns}
        for key in table.foreign_keys:
            value = row.get(key.column)
            if value is None or key.column not in copy:
                continue
            if (key.table, key.to, value) in self.translated_terms:
                copy[key.column] = self.translated_terms[key.table, key.to, value]
            elif key.to == "RID":
                copy[key.column] = self._translate_reference(table, row, key.column, key.table, planned or {})
        return copy

    def _translate_reference(
        self, table: Table, row: Row, column: str, referenced_table: str, planned: Mapping[RID, RID]
    ) -> RID | None:
        value: RID = row[column]
        copy = planned.get(value) or (self.pushed_rows[value].target if value in self.pushed_rows else None)
        if copy is not None:
            return copy
        message = f"{column} of {table.name} {row['RID']} refers to {referenced_table} {value}, which is not copied"
        if next((definition.nullok for definition in table.columns if definition.name == column), True):
            self.notes[f"{message}; it is empty in the copy."] = None
            return None
        hint = " Push that first, or push with lineage." if referenced_table in CORE_TABLES else ""
        raise UnknownRID(f"{message}, and {column} may not be empty.{hint}")


def _is_long_description(description: str) -> bool:
    return len(description.encode()) > MAX_DESCRIPTION_BYTES


def _global_row_ids(rows: Mapping[RID, Row]) -> list[tuple[RID, str]]:
    return [(rid, global_row_id(row)) for rid, row in rows.items()]


def differing_columns(wanted: Mapping[str, Any], found: Mapping[str, Any], *, ignore_empty: bool = False) -> list[str]:
    """Return the columns in which a copy differs.

    Args:
        wanted: The values that it should have.
        found: The values that it has.
        ignore_empty: Whether to ignore columns that should be empty.
    """
    return [
        column
        for column, value in wanted.items()
        if not (ignore_empty and value is None) and not _is_same_value(value, found.get(column))
    ]


def _is_same_value(one: Any, other: Any) -> bool:
    if one == other:
        return True
    try:  # catalogs may write the same time differently
        return datetime.fromisoformat(one) == datetime.fromisoformat(other)
    except (TypeError, ValueError):
        return False
