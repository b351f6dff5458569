"""One push under way: from where, to where, and what is whose copy by now."""

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
    """Intents, and what is known to be done, by what names each source row (see `origin`).

    A line is one ``write(2)``; one that a killed process tore is passed over.

    Args:
        path: The file, made by the first line.
    """

    def __init__(self, path: Path) -> None:
        self.reserved_rids: dict[str, RID] = {}
        """The record ids that were reserved for copies, whether or not those are there."""
        self.confirmed_rids: dict[str, RID] = {}
        """The record ids of copies that were seen there."""
        self.resume_data: dict[str, JsonValue] = {}
        """What the store needs to go on with a file."""
        self.stored_objects: dict[str, StoredObject] = {}
        """The files whose bytes are in the store."""
        self.dirty: dict[RID, bool] = {}
        """The datasets there whose members are not yet those of their highest version again."""
        self._path = path
        self._lock = Lock()
        if path.is_file():
            for line in complete_lines(path.read_bytes()):
                self._load_line(line)

    def record_reserved(self, rids: Mapping[str, RID]) -> None:
        """Write down record ids before rows are made with them."""
        self._append({"planned": dict(rids)})

    def record_confirmed(self, rids: Mapping[str, RID]) -> None:
        """Write down copies that were seen there."""
        if new := {name: rid for name, rid in rids.items() if self.confirmed_rids.get(name) != rid}:
            self._append({"there": new})

    def record_progress(self, file_id: str, note: JsonValue) -> None:
        """Write down how far a file is."""
        self._append({"noted": {file_id: note}})

    def record_stored(self, file_id: str, stored: StoredObject) -> None:
        """Write down that a file's bytes are in the store."""
        self._append({"stored": {file_id: stored.model_dump()}})

    def mark_dirty(self, datasets: Iterable[RID], *, dirty: bool) -> None:
        """Write down that datasets' members are about to change, or are what they should be."""
        if told := {rid: dirty for rid in datasets if self.dirty.get(rid, False) is not dirty}:
            self._append({"stirred": told})

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
            translate_os_errors(f"What is copied cannot be written down in {self._path}", self._path.parent),
        ):
            append_line(self._path, json.dumps(record))
            for kind, entries in record.items():
                self._apply(kind, entries)


def creation_time(row: Mapping[str, Any]) -> str:
    """When a row was made, in UTC, to the microsecond."""
    return datetime.fromisoformat(row["RCT"]).astimezone(UTC).isoformat(timespec="microseconds")


def global_row_id(row: Mapping[str, Any]) -> str:
    """What names a row among all rows of all catalogs."""
    return f"{row['RID']}@{creation_time(row)}"


def description_with_source(text: str | None, catalog: Catalog, row: Mapping[str, Any]) -> str:
    """A copy's description: the row's own, and where it came from."""
    source = f"Copied from {catalog.cite(row['RID'])}, made {creation_time(row)}"
    return f"{text}\n\n{source}" if text else source


class PushedRow(FrozenModel):
    """A row and its copy.

    Args:
        table: The table of both.
        source: The record id where it was copied from.
        target: The record id of the copy.
        new: Whether this push made the copy; else it was there.
    """

    table: str
    source: RID
    target: RID
    new: bool


class PushReport(FrozenModel):
    """What one push did.

    Args:
        source: The citation of the execution.
        target: The citation of its copy.
        execution: The record id of the copy.
        rows: Every row that was copied, with its copy, in the order in which they were settled.
        tables: The tables that were made there.
        terms: The terms that were added there, each after its vocabulary: ``Asset_Type: Mask``.
        files: How many files were sent; those that were there already are not counted.
        bytes: Their bytes.
        unsent: Files that the executions registered and never uploaded, so that they are not copied.
        notes: What could not be copied as it is, or differs there.
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
        """The record id of the copy of each row."""
        return {row.source: row.target for row in self.rows}

    @property
    def new(self) -> tuple[PushedRow, ...]:
        """The copies that this push made."""
        return tuple(row for row in self.rows if row.new)


MAX_DESCRIPTION_BYTES = 2000
"""Bytes of a description by which a row is looked for: a server takes 4,000 of a whole question."""


@dataclass
class PushContext:
    """What the steps of one push share.

    Args:
        source_connection: Where it is copied from.
        target_connection: Where to.
        ledger: What was brought there before, from this machine.
        transfer_folder: Where files lie while they are on their way; on the disk of the target's store, where it has
            one.
    """

    source_connection: Connection
    target_connection: Connection
    ledger: Ledger
    transfer_folder: Path
    pushed_rows: dict[RID, PushedRow] = field(default_factory=dict)
    """What was settled, by the record id of the row that was copied."""
    global_ids: dict[RID, str] = field(default_factory=dict)
    """What names each of these rows among all rows of all catalogs."""
    added_terms: list[str] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    files_sent: int = 0
    bytes_sent: int = 0
    target_terms: dict[str, frozenset[str]] = field(default_factory=dict)
    """Those of the needed terms that the target has, by vocabulary."""
    translated_terms: dict[tuple[str, str, Any], Any] = field(default_factory=dict)
    """What names a term at the target where that is not its name: by vocabulary, column, and what names it here."""

    @property
    def source(self) -> Catalog:
        """The rows that are copied."""
        return self.source_connection.catalog

    @property
    def target(self) -> Catalog:
        """Where they are copied to."""
        return self.target_connection.catalog

    def target_rid(self, rid: RID) -> RID:
        """The record id of a row's copy.

        Raises:
            KeyError: It has none yet.
        """
        return self.pushed_rows[rid].target

    def record_copy(self, table: str, rows: Mapping[RID, Row], copies: Mapping[RID, RID], *, new: bool) -> None:
        """Note that rows have copies, and write down which."""
        self.global_ids |= {rid: global_row_id(rows[rid]) for rid in copies}
        self.ledger.record_confirmed({self.global_ids[rid]: copy for rid, copy in copies.items()})
        for rid, copy in copies.items():
            known = self.pushed_rows.get(rid)
            is_new = new or (known is not None and known.new)
            self.pushed_rows[rid] = PushedRow(table=table, source=rid, target=copy, new=is_new)

    def find_or_insert(self, table: str, row: Row, copy: Row) -> tuple[Row, bool]:
        """Make a row without a key of its own, or find it by the source that its description names.

        Args:
            table: The table.
            row: The row here.
            copy: The row there, all but its description.

        Returns:
            The row there, and whether it is new.
        """
        text, short = (
            description_with_source(row["Description"], self.source, row),
            description_with_source(None, self.source, row),
        )
        if not _is_long_description(text):
            return self.target.insert_unless(table, {"Description": text}, {**copy, "Description": text})
        if table != MLTable.execution and (known := self._find_by_description(table, text)) is not None:
            return known, False  # an execution is found by its record
        found, new = self.target.insert_unless(table, {"Description": short}, {**copy, "Description": short})
        self.complete_descriptions(table, {row["RID"]: row}, {row["RID"]: found})
        return found, new

    def _find_by_description(self, table: str, text: str) -> Row | None:
        """The row with a description that is too long to be asked for."""
        rows = (row for page in self.target.pages(table) for row in page)
        return next((row for row in rows if row["Description"] == text), None)

    def complete_descriptions(self, table: str, rows: Mapping[RID, Row], copies: Mapping[RID, Row]) -> None:
        """Give copies of long descriptions all of these, which a claim, or one that was cut off, has only begun."""
        begun = [
            {"RID": copy["RID"], "Description": text}
            for rid, copy in copies.items()
            if _is_long_description(text := description_with_source(rows[rid]["Description"], self.source, rows[rid]))
            and copy["Description"] == description_with_source(None, self.source, rows[rid])
        ]
        if begun:
            self.target.update(table, begun)

    def find_copies(self, table: str, rows: Mapping[RID, Row]) -> dict[RID, Row]:
        """The copies that an earlier push from this machine made, and that are there still."""
        told = {
            rid: self.ledger.confirmed_rids.get(name) or self.ledger.reserved_rids.get(name)
            for rid, name in _global_row_ids(rows)
        }
        wanted = sorted({copy for copy in told.values() if copy is not None})
        present = {row["RID"]: row for row in self.target.select(table, {"RID": wanted})} if wanted else {}
        return {rid: present[copy] for rid, copy in told.items() if copy in present}

    def reserve_rids(self, rows: Mapping[RID, Row]) -> dict[RID, RID]:
        """Record ids for copies, written down before they are used; one that was used up since is not used again."""
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
        """A row of the project's as the target takes it: its own columns, with record ids of copies.

        Args:
            table: The table as it is here.
            row: The row.
            planned: Copies that are being made beside it.

        Raises:
            UnknownRID: It has to name a row that is not copied.
        """
        takes = self.target.model.table(table.name).column_names
        copy = {column.name: row.get(column.name) for column in table.columns if column.name in takes}
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
        known = planned.get(value) or (self.pushed_rows[value].target if value in self.pushed_rows else None)
        if known is not None:
            return known
        told = f"{table.name} {row['RID']} names {referenced_table} {value} as its {column}, which is not copied"
        if next((each.nullok for each in table.columns if each.name == column), True):
            self.notes[f"{told}; the copy names none."] = None
            return None
        hint = " Copy that first, or with lineage." if referenced_table in CORE_TABLES else ""
        raise UnknownRID(f"{told}, and a {table.name} without one is not allowed.{hint}")


def _is_long_description(description: str) -> bool:
    return len(description.encode()) > MAX_DESCRIPTION_BYTES


def _global_row_ids(rows: Mapping[RID, Row]) -> list[tuple[RID, str]]:
    return [(rid, global_row_id(row)) for rid, row in rows.items()]


def differing_columns(wanted: Mapping[str, Any], found: Mapping[str, Any], *, ignore_empty: bool = False) -> list[str]:
    """The columns in which a copy is not what it should be.

    Args:
        wanted: What it should be.
        found: What it is.
        ignore_empty: Whether columns that should be empty do not count.
    """
    return [
        column
        for column, value in wanted.items()
        if not (ignore_empty and value is None) and not _is_same_value(value, found.get(column))
    ]


def _is_same_value(one: Any, other: Any) -> bool:
    if one == other:
        return True
    try:  # two catalogs may write one moment in two ways
        return datetime.fromisoformat(one) == datetime.fromisoformat(other)
    except (TypeError, ValueError):
        return False
