"""Send what is staged and not yet sent: bytes to the store, several files at once, then rows and links."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from stat import S_ISLNK
from threading import Event
from typing import TYPE_CHECKING

from deriva_ml_core.assets.retry import TRANSIENT, RetryingStore
from deriva_ml_core.assets.rows import FileRows
from deriva_ml_core.assets.writers import open_for_writing
from deriva_ml_core.connection import Connection
from deriva_ml_core.crew import as_done
from deriva_ml_core.definitions import RID, Handover
from deriva_ml_core.errors import CatalogReadOnly, CatalogUnavailable, DerivaMLException
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.story import FileStory, FileTime, Noted, Stored
from deriva_ml_core.models import Asset, StagedAsset, UnsentAsset, UploadOptions, UploadProgress, UploadReport

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["NEVER_WRITTEN", "Upload"]

BATCH = 1000
"""Files between two writes to the catalog."""

WORTH_A_CONNECTION = 2
"""Files that make another connection to a server worth its making."""

UNREACHABLE = (*TRANSIENT, CatalogUnavailable, CatalogReadOnly)
"""What would befall every further file too."""

NEVER_WRITTEN = "it was registered and never written, or has vanished"


class _Stopped(Exception):
    """A pass has ended while a file was on its way."""


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
    stop: Event = field(default_factory=Event)
    """Set when the pass ends early, so that what another thread still sends stops at its next step."""

    @property
    def rows(self) -> FileRows:
        """What writes rows and links."""
        return FileRows(self.connection, self.journal, self.execution)

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
            if stored := self._store(batch, progress):
                self._record(stored)
        unsent = {each.asset.key: each for each in self.unsent}  # one that was tried again by itself is told once
        return UploadReport(sent=_by_table(self.sent), unsent=tuple(unsent.values()))

    def _store(self, files: list[FileStory], progress: _Progress) -> list[FileStory]:
        """Bring files' bytes into the store, several at once; returns those that are there, in their order."""
        failed: dict[str, Exception] = {}
        sending = as_done(self._try, files, self._workers(len(files)), name="deriva-ml-file", stop=self.stop)
        with closing(sending) as done:
            for file, error in done:
                if error is None:
                    progress.done(file)
                else:
                    failed[file.asset.key] = error
        for file in files:
            if (error := failed.get(file.asset.key)) is not None:
                self._leave([file], error)
        return [file for file in files if file.asset.key not in failed]

    def _workers(self, files: int) -> int:
        most = RetryingStore(self.connection.store).at_once
        return self.options.upload_workers or min(most, -(-files // WORTH_A_CONNECTION))

    def _try(self, file: FileStory) -> Exception | None:
        """Bring one file's bytes into the store; returns what went wrong."""
        if self.broken is not None:
            return self.broken
        try:
            if file.stored is None or _is_back(file):
                self._put(file)
        except (DerivaMLException, OSError) as error:
            if isinstance(error, UNREACHABLE):
                self.broken = error
            return error
        return None

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
            note=lambda note: self._note(asset, note),
        )
        # a store elsewhere cannot take a file away: what is left of it goes when all is recorded
        left = None if handover is Handover.move and not asset.path.exists() else before
        self.journal.append(Stored(key=asset.key, object=stored, file_time=left))
        file.stored, file.file_time = stored, left

    def _note(self, asset: StagedAsset, note: JsonValue) -> None:
        self.journal.append(Noted(key=asset.key, note=note))
        if self.stop.is_set():
            raise _Stopped

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
        reason = NEVER_WRITTEN if isinstance(error, FileNotFoundError) else str(error)
        self.unsent.extend(UnsentAsset(asset=file.asset, reason=reason) for file in files)

    def _record(self, files: list[FileStory]) -> None:
        """Write rows and links; where one file's row is refused, the others' are written without it."""
        try:
            self.connection.store.sync()
            for recorded, refused in self.rows.write(files):
                self.sent.extend(recorded)
                for file, error in refused:
                    self._leave([file], error)
        except (DerivaMLException, OSError) as error:
            if isinstance(error, UNREACHABLE):
                self.broken = error
            if len(files) == 1 or self.broken is not None:
                self._leave(files, error)
                return
            for file in files:
                if file.rid is None:
                    self._record([file])


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


def _is_back(file: FileStory) -> bool:
    """Whether a file that was stored before a crash was written anew since."""
    return FileTime.of(file.asset.path) not in (None, file.file_time)


def _by_table(assets: Iterable[Asset]) -> dict[str, tuple[Asset, ...]]:
    tables: dict[str, list[Asset]] = {}
    for asset in assets:
        tables.setdefault(asset.table, []).append(asset)
    return {table: tuple(of_table) for table, of_table in tables.items()}
