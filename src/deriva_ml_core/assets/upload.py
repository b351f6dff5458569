"""Send what is staged and not yet sent: bytes to the store, then rows and links to the catalog."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import attrgetter
from pathlib import Path
from stat import S_ISLNK
from typing import Any

from deriva_ml_core.assets.retry import TRANSIENT, RetryingStore
from deriva_ml_core.assets.writers import open_for_writing
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, Handover, Role
from deriva_ml_core.errors import CatalogReadOnly, CatalogUnavailable, DerivaMLException, MetadataConflict
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.story import FileStory, FileTime, Noted, Recorded, Stored
from deriva_ml_core.models import Asset, UnsentAsset, UploadOptions, UploadProgress, UploadReport
from deriva_ml_core.schema import asset_type_table, execution_table

__all__ = ["NEVER_WRITTEN", "Upload", "link_types"]

BATCH = 1000
"""Files between two writes to the catalog."""

UNREACHABLE = (*TRANSIENT, CatalogUnavailable, CatalogReadOnly)
"""What would befall every further file too."""

NEVER_WRITTEN = "it was registered and never written, or has vanished"

log = logging.getLogger(__name__)


@dataclass
class Upload:
    """One pass over the open files of an execution; whatever stops it, the next pass goes on from there.

    Args:
        connection: Where to send them.
        journal: Where each step is written.
        execution: The execution that made them.
        options: How to send.
        move: Whether files that we handed out are moved into the store, not copied.
        tell: Called before the first file and after each.
    """

    connection: Connection
    journal: Journal
    execution: RID
    options: UploadOptions
    move: bool
    tell: Callable[[UploadProgress], None] | None = None
    sent: list[Asset] = field(default_factory=list)
    unsent: list[UnsentAsset] = field(default_factory=list)
    broken: Exception | None = None
    """What ended the pass early: a store or catalog that cannot be reached."""
    held: Set[tuple[int, int]] = frozenset()
    """The files that are still being written, and therefore copied."""

    def run(self, files: Iterable[FileStory]) -> UploadReport:
        """Send the files, in batches.

        Returns:
            What was sent, by table, and what was not, with the reasons.
        """
        waiting = list(files)
        if self.move or any(file.sealed for file in waiting):
            self.held = open_for_writing()
        progress = _Progress(waiting, self.tell)
        for batch in _portions(waiting, BATCH):
            stored = [file for file in batch if self._store(file, progress)]
            if stored:
                self._record(stored)
        unsent = {each.asset.key: each for each in self.unsent}  # one that was tried again by itself is told once
        return UploadReport(sent=_by_table(self.sent), unsent=tuple(unsent.values()))

    def _store(self, file: FileStory, progress: _Progress) -> bool:
        """Bring one file's bytes into the store; False where that failed and was noted."""
        asset = file.asset
        if self.broken is not None:
            self._leave([file], self.broken)
            return False
        try:
            if file.stored is None or _is_back(file):
                self._put(file)
        except FileNotFoundError:
            self.unsent.append(UnsentAsset(asset=asset, reason=NEVER_WRITTEN))
            return False
        except (DerivaMLException, OSError) as error:
            if isinstance(error, UNREACHABLE):
                self.broken = error
            self._leave([file], error)
            return False
        progress.done(file)
        return True

    def _put(self, file: FileStory) -> None:
        asset = file.asset
        handover = self._handover(file)
        before = FileTime.of(asset.path)
        stored = RetryingStore(self.connection.store).put(
            asset.table,
            asset.filename,
            asset.path,
            handover=handover,
            options=self.options,
            resume=file.note,
            note=lambda note: self.journal.append(Noted(key=asset.key, note=note)),
        )
        # a store elsewhere cannot take a file away: what is left of it goes when all is recorded
        left = None if handover is Handover.move and not asset.path.exists() else before
        self.journal.append(Stored(key=asset.key, object=stored, file_time=left))
        file.stored, file.file_time = stored, left

    def _handover(self, file: FileStory) -> Handover:
        """What the store may do with the file: one that is sealed, and is what it was then, stays in its place."""
        asset = file.asset
        if asset.record or not self._is_free(asset.path):
            return Handover.copy
        if file.sealed is not None:
            return Handover.share if FileTime.of(asset.path) == file.sealed else Handover.copy
        return Handover.move if self.move else Handover.copy

    def _is_free(self, path: Path) -> bool:
        """Whether a file is no link, and nobody in this process still writes to it."""
        try:
            found = path.lstat()
        except OSError:
            return True  # the store knows best what became of it
        return not S_ISLNK(found.st_mode) and (found.st_dev, found.st_ino) not in self.held

    def _leave(self, files: Iterable[FileStory], error: Exception) -> None:
        self.unsent.extend(UnsentAsset(asset=file.asset, reason=str(error)) for file in files)

    def _record(self, files: list[FileStory]) -> None:
        """Write rows and links; where one file's row is refused, the others' are written without it."""
        try:
            self.connection.store.sync()
            self._record_rows(files)
        except (DerivaMLException, OSError) as error:
            if isinstance(error, UNREACHABLE):
                self.broken = error
            if len(files) == 1 or self.broken is not None:
                self._leave(files, error)
                return
            for file in files:
                if file.rid is None:
                    self._record([file])

    def _record_rows(self, files: list[FileStory]) -> None:
        for table, of_table in groupby(sorted(files, key=attrgetter("asset.table")), key=attrgetter("asset.table")):
            self._record_table(table, list(of_table))

    def _record_table(self, table: str, files: list[FileStory]) -> None:
        rows = self._rows(table, files)
        recorded = []
        for file in files:
            row = rows[_stored(file).url]
            if differing := _differences(file, row):
                self._leave([file], MetadataConflict(_conflict(file, row, differing)))
            else:
                recorded.append((file, row["RID"]))
        self._link(table, recorded)
        self.journal.append(Recorded(rids={file.asset.key: rid for file, rid in recorded}))
        for file, rid in recorded:
            file.rid = rid
            self.sent.append(_asset(file, rid))

    def _rows(self, table: str, files: list[FileStory]) -> dict[str, dict[str, Any]]:
        """The row of each URL, made where there was none."""
        wanted: dict[str, dict[str, Any]] = {}
        for file in files:
            stored = _stored(file)
            row = {"URL": stored.url, "Filename": file.asset.filename, "Length": stored.length, "MD5": stored.md5}
            wanted.setdefault(stored.url, row | dict(file.asset.metadata))
        there = self.connection.catalog.insert_missing(table, list(wanted.values()), "URL")
        return {row["URL"]: row for row in there}

    def _link(self, table: str, recorded: list[tuple[FileStory, RID]]) -> None:
        catalog = self.connection.catalog
        rids = dict.fromkeys(rid for _, rid in recorded)
        links = [{table: rid, "Execution": self.execution, "Asset_Role": Role.output} for rid in rids]
        if catalog.insert(execution_table(table), links, skip_existing=True) < len(links):
            self._report_inputs(table, list(rids))
        _link_types(self.connection, table, recorded)

    def _report_inputs(self, table: str, rids: list[RID]) -> None:
        where = {table: rids, "Execution": self.execution, "Asset_Role": Role.input}
        for row in self.connection.catalog.select(execution_table(table), where):
            log.warning(
                "%s %s went into execution %s and came out of it unchanged; it stays recorded as input.",
                table,
                row[table],
                self.execution,
            )


def link_types(connection: Connection, files: Iterable[FileStory]) -> None:
    """Link files that have rows to all of their types."""
    for table, of_table in groupby(sorted(files, key=attrgetter("asset.table")), key=attrgetter("asset.table")):
        _link_types(connection, table, [(file, file.rid) for file in of_table if file.rid is not None])


def _link_types(connection: Connection, table: str, recorded: Iterable[tuple[FileStory, RID]]) -> None:
    types = {(rid, term): None for file, rid in recorded for term in file.asset.asset_types}
    rows = [{table: rid, "Asset_Type": term} for rid, term in types]
    connection.catalog.insert(asset_type_table(table), rows, skip_existing=True)


class _Progress:
    """Counts files and bytes, and tells."""

    def __init__(self, files: list[FileStory], tell: Callable[[UploadProgress], None] | None) -> None:
        self._tell = tell
        if tell is None:
            return
        self._sizes = {file.asset.key: _size(file) for file in files}
        self._state = UploadProgress(files_done=0, files=len(files), bytes_done=0, bytes=sum(self._sizes.values()))
        tell(self._state)

    def done(self, file: FileStory) -> None:
        if self._tell is None:
            return
        self._state = self._state.model_copy(
            update={
                "files_done": self._state.files_done + 1,
                "bytes_done": self._state.bytes_done + self._sizes[file.asset.key],
                "filename": file.asset.filename,
            }
        )
        self._tell(self._state)


def _size(file: FileStory) -> int:
    found = FileTime.of(file.asset.path)
    return found.size if found else file.stored.length if file.stored else 0


def _portions(files: list[FileStory], size: int) -> Iterator[list[FileStory]]:
    rest = iter(files)
    while portion := list(islice(rest, size)):
        yield portion


def _stored(file: FileStory) -> Any:
    assert file.stored is not None
    return file.stored


def _is_back(file: FileStory) -> bool:
    """Whether a file that was stored before a crash was written anew since."""
    return FileTime.of(file.asset.path) not in (None, file.file_time)


def _differences(file: FileStory, row: dict[str, Any]) -> list[str]:
    return [column for column, value in file.asset.metadata.items() if row.get(column) != value]


def _conflict(file: FileStory, row: dict[str, Any], columns: list[str]) -> str:
    asset = file.asset
    told = ", ".join(f"{column} is {row.get(column)!r} there and {asset.metadata[column]!r} here" for column in columns)
    return (
        f"{asset.table}/{asset.filename} has the same bytes and name as {row['RID']}, but {told}: "
        "give it another name, or the same metadata."
    )


def _asset(file: FileStory, rid: RID) -> Asset:
    stored = _stored(file)
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


def _by_table(assets: Iterable[Asset]) -> dict[str, tuple[Asset, ...]]:
    tables: dict[str, list[Asset]] = {}
    for asset in assets:
        tables.setdefault(asset.table, []).append(asset)
    return {table: tuple(of_table) for table, of_table in tables.items()}
