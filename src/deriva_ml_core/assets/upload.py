"""Upload staged files: bytes to the store, several files at once, then rows and links.

The order is: bytes written and flushed to disk, recorded as stored in the journal, the journal flushed, rows and links,
recorded as uploaded in the journal. So no row names an object that a crash of the machine can lose, and none is stored
twice after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from stat import S_ISLNK
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING

from deriva_ml_core._concurrency.thread_pool import map_unordered
from deriva_ml_core._retry import TRANSIENT_ERRORS, RetryingStore
from deriva_ml_core.assets.asset_rows import AssetRowWriter
from deriva_ml_core.assets.staging import files_open_for_writing
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, TransferMode
from deriva_ml_core.errors import CatalogReadOnly, CatalogUnavailable, DerivaMLException
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import FileStamp, FileState, Stored, TransferNoted
from deriva_ml_core.models import (
    Asset,
    StagedAsset,
    StoredObject,
    UnsentAsset,
    UploadOptions,
    UploadProgress,
    UploadReport,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["MISSING_FILE_REASON", "Upload"]

BATCH_SIZE = 1000
"""Number of files per write to the catalog."""

FLUSH_INTERVAL = 1.0
"""Seconds after which stored files are flushed and recorded, so that an interrupted upload repeats little work.

A flush for each file would take longer than storing a small one.
"""

FILES_PER_CONNECTION = 2
"""Number of files per connection to a server; fewer do not pay for opening one."""

FATAL_ERRORS = (*TRANSIENT_ERRORS, CatalogUnavailable, CatalogReadOnly)
"""Errors that every further file would cause too."""

MISSING_FILE_REASON = "the file was registered and never written, or was deleted"


class _UploadStopped(Exception):
    """The upload was stopped during the transfer of a file."""


@dataclass
class Upload:
    """One upload of the pending files of an execution; after an interruption, the next upload resumes.

    Args:
        connection: The catalog and store.
        journal: The journal to record each step in.
        execution: The execution that created the files.
        options: How to upload.
        move_files: Whether new files in the staging folder are moved into the store instead of copied.
        progress_callback: Called before the first file and after each.
    """

    connection: Connection
    journal: Journal
    execution: RID
    options: UploadOptions
    move_files: bool
    progress_callback: Callable[[UploadProgress], None] | None = None
    sent: list[Asset] = field(default_factory=list)
    unsent: list[UnsentAsset] = field(default_factory=list)
    fatal_error: Exception | None = None
    """The error that ended the upload early, such as an unreachable store or catalog."""
    open_files: Set[tuple[int, int]] = frozenset()
    """The files that are open for writing; they are copied, never moved."""
    stop: Event = field(default_factory=Event)
    """Set when the upload ends early, so that other threads stop at their next step."""

    @property
    def row_writer(self) -> AssetRowWriter:
        """The writer of rows and links."""
        return AssetRowWriter(self.connection, self.journal, self.execution)

    def run(self, files: Iterable[FileState]) -> UploadReport:
        """Upload files in batches.

        Returns:
            The uploaded files by table, and those not uploaded with the reasons.
        """
        pending = list(files)
        if self.move_files or any(file.immutable_stamp for file in pending):
            self.open_files = files_open_for_writing()
        progress = _ProgressCounter(pending, self.progress_callback)
        for batch in _split_batches(pending, BATCH_SIZE):
            if stored := self._store_batch(batch, progress):
                self._record_rows(stored)
        unsent = {each.asset.key: each for each in self.unsent}  # a file that was tried twice is listed once
        return UploadReport(sent=_group_by_table(self.sent), unsent=tuple(unsent.values()))

    def _store_batch(self, files: list[FileState], progress: _ProgressCounter) -> list[FileState]:
        """Store the bytes of files, several at once; returns the stored files in their order."""
        failed: dict[str, Exception] = {}
        stored: list[Stored] = []
        last_flush = monotonic()
        sending = map_unordered(
            self._try_store, files, self._worker_count(len(files)), name="deriva-ml-file", stop=self.stop
        )
        with closing(sending) as done:
            for file, result in done:
                if isinstance(result, Exception):
                    failed[file.asset.key] = result
                    continue
                progress.count_file(file)
                if result is not None:
                    stored.append(result)
                if monotonic() - last_flush > FLUSH_INTERVAL:
                    failed |= self._record_stored(stored)
                    stored, last_flush = [], monotonic()
        failed |= self._record_stored(stored)
        for file in files:
            if (error := failed.get(file.asset.key)) is not None:
                self._add_unsent([file], error)
        return [file for file in files if file.asset.key not in failed]

    def _worker_count(self, files: int) -> int:
        most = RetryingStore(self.connection.store).preferred_concurrency
        return self.options.upload_workers or min(most, -(-files // FILES_PER_CONNECTION))

    def _record_stored(self, events: list[Stored]) -> dict[str, Exception]:
        """Flush stored files to disk, and record them in the journal; returns the errors by key."""
        if not events:
            return {}
        try:
            self.connection.store.sync()
            self.journal.append(*events)
            self.journal.sync()
        except (DerivaMLException, OSError) as error:
            self._note_fatal_error(error)
            return {event.key: error for event in events}
        files = self.journal.state.files  # applies the events, also if another process wrote before them
        for event in events:
            files[event.key].stored, files[event.key].stored_stamp = event.object, event.file_time
        return {}

    def _note_fatal_error(self, error: Exception) -> None:
        if isinstance(error, FATAL_ERRORS):
            self.fatal_error = error

    def _try_store(self, file: FileState) -> Stored | Exception | None:
        """Store the bytes of one file; returns the event to record, the error, or None if it was stored before."""
        if self.fatal_error is not None:
            return self.fatal_error
        try:
            if file.stored is not None and not _is_rewritten(file) and self._is_kept(file.stored):
                return None
            if file.stored is not None and file.asset.record:  # such as the journal, which grows
                self.row_writer.complete(file)
            return self._store_file(file)
        except (DerivaMLException, OSError) as error:
            self._note_fatal_error(error)
            return error

    def _is_kept(self, stored: StoredObject) -> bool:
        """Whether the store still has what an interrupted upload stored; a clean-up may have deleted it since."""
        return RetryingStore(self.connection.store).renew(stored.url)

    def _store_file(self, file: FileState) -> Stored:
        asset = file.asset
        handover = self._transfer_mode(file)
        before = FileStamp.from_path(asset.path)
        stored = RetryingStore(self.connection.store).put(
            asset.table,
            asset.filename,
            asset.path,
            handover=handover,
            options=self.options,
            resume=file.transfer_note,
            note=lambda note: self._record_progress(asset, note),
        )
        # a store on another machine cannot move a file; what is left here is deleted once the row is recorded
        left = None if handover is TransferMode.move and not asset.path.exists() else before
        return Stored(key=asset.key, object=stored, file_time=left)

    def _record_progress(self, asset: StagedAsset, note: JsonValue) -> None:
        self.journal.append(TransferNoted(key=asset.key, note=note))
        if self.stop.is_set():
            raise _UploadStopped

    def _transfer_mode(self, file: FileState) -> TransferMode:
        """Return what the store may do with a file: an immutable, unchanged one is hard-linked, a kept one copied."""
        asset = file.asset
        if asset.record or not self._is_movable(asset.path):
            return TransferMode.copy
        if file.immutable_stamp is not None:
            return (
                TransferMode.hardlink if FileStamp.from_path(asset.path) == file.immutable_stamp else TransferMode.copy
            )
        return TransferMode.move if self.move_files and not file.is_kept else TransferMode.copy

    def _is_movable(self, path: Path) -> bool:
        """Whether a file is not a link, and not open for writing in this process."""
        try:
            status = path.lstat()
        except OSError:
            return True  # the store handles a missing file
        return not S_ISLNK(status.st_mode) and (status.st_dev, status.st_ino) not in self.open_files

    def _add_unsent(self, files: Iterable[FileState], error: Exception) -> None:
        reason = MISSING_FILE_REASON if isinstance(error, FileNotFoundError) else str(error)
        self.unsent.extend(UnsentAsset(asset=file.asset, reason=reason) for file in files)

    def _record_rows(self, files: list[FileState]) -> None:
        """Write rows and links; if the catalog refuses one file's row, the others are written without it."""
        try:
            for recorded, refused in self.row_writer.write(files):
                self.sent.extend(recorded)
                for file, error in refused:
                    self._add_unsent([file], error)
        except (DerivaMLException, OSError) as error:
            self._note_fatal_error(error)
            if len(files) == 1 or self.fatal_error is not None:
                self._add_unsent(files, error)
                return
            for file in files:
                if file.rid is None:
                    self._record_rows([file])


class _ProgressCounter:
    """Counts files and bytes, and calls the progress callback."""

    def __init__(self, files: list[FileState], progress_callback: Callable[[UploadProgress], None] | None) -> None:
        self._progress_callback = progress_callback
        if progress_callback is None:
            return
        self._sizes = {file.asset.key: _file_size(file) for file in files}
        self._state = UploadProgress(files_done=0, files=len(files), bytes_done=0, bytes=sum(self._sizes.values()))
        progress_callback(self._state)

    def count_file(self, file: FileState) -> None:
        if self._progress_callback is None:
            return
        self._state = self._state.model_copy(
            update={
                "files_done": self._state.files_done + 1,
                "bytes_done": self._state.bytes_done + self._sizes[file.asset.key],
                "filename": file.asset.filename,
            }
        )
        self._progress_callback(self._state)


def _file_size(file: FileState) -> int:
    stamp = FileStamp.from_path(file.asset.path)
    return stamp.size if stamp else file.stored.length if file.stored else 0


def _split_batches(files: list[FileState], size: int) -> Iterator[list[FileState]]:
    rest = iter(files)
    while portion := list(islice(rest, size)):
        yield portion


def _is_rewritten(file: FileState) -> bool:
    """Whether a file that was stored before a crash has been rewritten since."""
    return FileStamp.from_path(file.asset.path) not in (None, file.stored_stamp)


def _group_by_table(assets: Iterable[Asset]) -> dict[str, tuple[Asset, ...]]:
    tables: dict[str, list[Asset]] = {}
    for asset in assets:
        tables.setdefault(asset.table, []).append(asset)
    return {table: tuple(of_table) for table, of_table in tables.items()}
