"""One push under way: from where, to where, and what is whose copy by now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.errors import UnknownRID
from deriva_ml_core.pushing.gathering import CORE_TABLES
from deriva_ml_core.pushing.ledger import Ledger
from deriva_ml_core.pushing.origin import description_with_source, global_row_id
from deriva_ml_core.pushing.report import PushedRow
from deriva_ml_core.schema import Table

__all__ = ["PushContext", "differing_columns"]

MAX_DESCRIPTION_BYTES = 2000
"""Bytes of a description by which a row is looked for: a server takes 4,000 of a whole question."""


@dataclass
class PushContext:
    """What the steps of one push share.

    Args:
        source_connection: Where it is copied from.
        target_connection: Where to.
        ledger: What was brought there before, from this machine.
        transfer_folder: Where files lie while they are on their way; on the disk of the target's store, where it has one.
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
