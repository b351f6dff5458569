"""Rows of stored files, and their links to the execution and to asset types."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from deriva_ml_core.backend import catalog_transaction
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, Role
from deriva_ml_core.errors import AccessRefused, DuplicateRow, MetadataConflict
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import FileState, Recorded
from deriva_ml_core.models import Asset
from deriva_ml_core.schema import asset_execution_table_name, asset_type_table_name

__all__ = ["AssetRowWriter", "find_shared_rows", "link_asset_types", "move_type_link", "unlink_asset_types"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AssetRowWriter:
    """Writes the rows of an execution's files, many per request; writing them again changes nothing.

    Args:
        connection: The catalog and store.
        journal: The journal to record written rows in.
        execution: The execution that created the files.
    """

    connection: Connection
    journal: Journal
    execution: RID

    def write(self, files: Iterable[FileState]) -> Iterator[tuple[list[Asset], list[tuple[FileState, Exception]]]]:
        """Write rows and links, table by table, the rows in the files' order.

        A new version of a training file gets the row of the version before, with its new URL, length and digest.

        Returns:
            For each table, the assets that have rows now, and the files whose existing rows have other metadata.

        Raises:
            DerivaMLException: The catalog refused a row, and with it the rows of the same request.
        """
        for table, of_table in _group_by_table(files):
            yield self._write_table(table, of_table)

    def complete(self, file: FileState) -> None:
        """Add the link and the types to the row of a stored file, if an interrupted upload left the row without them.

        Raises:
            DerivaMLException: The catalog refuses the write or cannot be reached.
        """
        table = file.asset.table
        if rows := self.connection.catalog.select(table, {"URL": _stored_object(file).url}):
            self._link_assets(table, [(file, row["RID"]) for row in rows])

    def _write_table(self, table: str, files: list[FileState]) -> tuple[list[Asset], list[tuple[FileState, Exception]]]:
        replaced = self._replace_rows(table, files)
        new_files = [file for file in files if file.asset.key not in replaced]
        with catalog_transaction(self.connection.catalog):
            recorded, refused = self._write_new_rows(table, new_files)
        recorded += [(file, replaced[file.asset.key]) for file in files if file.asset.key in replaced]
        self.journal.append(Recorded(rids={file.asset.key: rid for file, rid in recorded}))
        for file, rid in recorded:
            file.rid = rid
        return [_recorded_asset(file, rid) for file, rid in recorded], refused

    def _write_new_rows(
        self, table: str, files: list[FileState]
    ) -> tuple[list[tuple[FileState, RID]], list[tuple[FileState, Exception]]]:
        """Write rows and links; return the files with the RIDs of their rows, and the refused ones."""
        rows = self._insert_missing_rows(table, files)
        recorded: list[tuple[FileState, RID]] = []
        refused: list[tuple[FileState, Exception]] = []
        for file in files:
            row = rows[_stored_object(file).url]
            if differing := _differing_columns(file, row):
                refused.append((file, MetadataConflict(_conflict_message(file, row, differing))))
            else:
                recorded.append((file, row["RID"]))
        if recorded:
            self._link_assets(table, recorded)
        return recorded, refused

    def _replace_rows(self, table: str, files: list[FileState]) -> dict[str, RID]:
        """Update the rows of training files that were uploaded before; returns their RIDs by key.

        A row that another execution shares or has as an input stays as it is, and the file gets a new one.
        """
        state = self.journal.state
        found = {file.asset.key: (file, state.find_recorded_version(file)) for file in files if file.has_one_row}
        previous = {key: (file, old) for key, (file, old) in found.items() if old is not None and old.rid is not None}
        if not previous:
            return {}
        rids = [old.rid for _, old in previous.values()]
        links = self.connection.catalog.select(asset_execution_table_name(table), {table: rids})
        shared = {
            link[table] for link in links if (link["Execution"], link["Asset_Role"]) != (self.execution, Role.output)
        }
        replaced = {
            key: old.rid
            for key, (file, old) in previous.items()
            if old.rid is not None and old.rid not in shared and self._update_row(table, file, old.rid)
        }
        typed = [(previous[key], rid) for key, rid in replaced.items()]
        new_types = [
            (file, rid) for (file, old), rid in typed if set(file.asset.asset_types) - set(old.asset.asset_types)
        ]
        if new_types:
            _insert_type_links(self.connection, table, new_types)
        return replaced

    def _update_row(self, table: str, file: FileState, rid: RID) -> bool:
        """Update the row of a file to its new version; returns false if that is not allowed or the row is gone."""
        stored = _stored_object(file)
        row = {"RID": rid, "URL": stored.url, "Length": stored.length, "MD5": stored.md5}
        try:
            return self.connection.catalog.update(table, [row]) == 1
        except (AccessRefused, DuplicateRow) as error:
            log.info("%s of %s is recorded in a new row: %s", file.asset.filename, self.execution, error)
            return False

    def _insert_missing_rows(self, table: str, files: list[FileState]) -> dict[str, dict[str, Any]]:
        """Return the row of each URL; insert those that are missing."""
        if not files:
            return {}
        new_rows: dict[str, dict[str, Any]] = {}
        for file in files:
            stored = _stored_object(file)
            row = {"URL": stored.url, "Filename": file.asset.filename, "Length": stored.length, "MD5": stored.md5}
            new_rows.setdefault(stored.url, row | dict(file.asset.metadata))
        rows = self.connection.catalog.insert_missing(table, list(new_rows.values()), "URL")
        return {row["URL"]: row for row in rows}

    def _link_assets(self, table: str, recorded: list[tuple[FileState, RID]]) -> None:
        catalog = self.connection.catalog
        rids = dict.fromkeys(rid for _, rid in recorded)
        links = [{table: rid, "Execution": self.execution, "Asset_Role": Role.output} for rid in rids]
        if catalog.insert(asset_execution_table_name(table), links, skip_existing=True) < len(links):
            self._warn_unchanged_inputs(table, list(rids))
        _insert_type_links(self.connection, table, recorded)

    def _warn_unchanged_inputs(self, table: str, rids: list[RID]) -> None:
        where = {table: rids, "Execution": self.execution, "Asset_Role": Role.input}
        for row in self.connection.catalog.select(asset_execution_table_name(table), where):
            log.warning(
                "%s %s is an input of execution %s and was uploaded unchanged; it stays recorded as input.",
                table,
                row[table],
                self.execution,
            )


def link_asset_types(connection: Connection, files: Iterable[FileState]) -> None:
    """Link files that have rows to all of their asset types."""
    for table, of_table in _group_by_table(files):
        _insert_type_links(connection, table, [(file, file.rid) for file in of_table if file.rid is not None])


def unlink_asset_types(connection: Connection, execution: RID, files: Iterable[FileState]) -> None:
    """Remove the links of files with rows to types that were removed from them.

    A row that another execution uploaded too keeps its types.
    """
    for table, of_table in _group_by_table(files):
        types = {file.rid: list(file.removed_types) for file in of_table if file.rid is not None and file.removed_types}
        for rid in types.keys() - find_shared_rows(connection, execution, table, types):
            try:
                connection.catalog.delete(asset_type_table_name(table), {table: rid, "Asset_Type": types[rid]})
            except AccessRefused as error:
                log.warning("%s %s keeps the types %s: %s", table, rid, ", ".join(types[rid]), error)


def find_shared_rows(connection: Connection, execution: RID, table: str, rids: Iterable[RID]) -> set[RID]:
    """Return the RIDs of those rows of files that another execution uploaded too.

    Args:
        connection: The catalog.
        execution: The execution whose files they are.
        table: The asset table.
        rids: RIDs of the rows.
    """
    if not (wanted := list(rids)):
        return set()
    where = {table: wanted, "Asset_Role": Role.output}
    links = connection.catalog.select(asset_execution_table_name(table), where)
    return {link[table] for link in links if link["Execution"] != execution}


def move_type_link(
    connection: Connection, execution: RID, asset_type: str, *, removed: Iterable[Asset], added: Iterable[Asset]
) -> None:
    """Move an asset type from some outputs of an execution to others, in one transaction if the catalog has them.

    A row that another execution uploaded too keeps its types, and gets no new one.

    Raises:
        DerivaMLException: The catalog refuses a write or cannot be reached.
    """
    old, new = _rids_by_table(removed), _rids_by_table(added)
    with catalog_transaction(connection.catalog):
        for table, rids in new.items():
            own = set(rids) - find_shared_rows(connection, execution, table, rids)
            _insert_links(connection, table, [(rid, asset_type) for rid in rids if rid in own])
        for table, rids in old.items():
            if own := set(rids) - find_shared_rows(connection, execution, table, rids):
                where = {table: sorted(own), "Asset_Type": [asset_type]}
                connection.catalog.delete(asset_type_table_name(table), where)


def _rids_by_table(assets: Iterable[Asset]) -> dict[str, list[RID]]:
    rids: dict[str, list[RID]] = {}
    for asset in assets:
        rids.setdefault(asset.table, []).append(asset.rid)
    return rids


def _group_by_table(files: Iterable[FileState]) -> Iterator[tuple[str, list[FileState]]]:
    table = attrgetter("asset.table")
    return ((name, list(of_table)) for name, of_table in groupby(sorted(files, key=table), key=table))


def _insert_type_links(connection: Connection, table: str, recorded: Iterable[tuple[FileState, RID]]) -> None:
    _insert_links(connection, table, {(rid, term): None for file, rid in recorded for term in file.asset.asset_types})


def _insert_links(connection: Connection, table: str, types: Iterable[tuple[RID, str]]) -> None:
    rows = [{table: rid, "Asset_Type": term} for rid, term in types]
    connection.catalog.insert(asset_type_table_name(table), rows, skip_existing=True)


def _stored_object(file: FileState) -> Any:
    assert file.stored is not None
    return file.stored


def _differing_columns(file: FileState, row: dict[str, Any]) -> list[str]:
    return [column for column, value in file.asset.metadata.items() if row.get(column) != value]


def _conflict_message(file: FileState, row: dict[str, Any], columns: list[str]) -> str:
    asset = file.asset
    differences = ", ".join(
        f"{column} is {row.get(column)!r} there and {asset.metadata[column]!r} here" for column in columns
    )
    return (
        f"{asset.table}/{asset.filename} has the same bytes and name as {row['RID']}, but {differences}. "
        "Use another name, or the same metadata."
    )


def _recorded_asset(file: FileState, rid: RID) -> Asset:
    stored = _stored_object(file)
    return Asset(
        rid=rid,
        table=file.asset.table,
        filename=file.asset.filename,
        url=stored.url,
        length=stored.length,
        md5=stored.md5,
        asset_types=file.asset.asset_types,
        metadata=file.asset.metadata,
        role=Role.output,
    )
