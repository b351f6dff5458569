"""The append-only journal file of an execution: one JSON line per event, written by one ``write(2)``."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from weakref import finalize

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core._files.atomic import delete_leftover, partial_path, publish_new, sync_path
from deriva_ml_core._files.json_lines import append_lines, complete_lines, open_for_append
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core.errors import DerivaMLException, MissingFiles
from deriva_ml_core.journal.events import parse_event
from deriva_ml_core.journal.state import Event, ExecutionState, StatusSet
from deriva_ml_core.models import StatusUpdate

__all__ = ["BufferedJournal", "Journal", "create_journal", "load_state"]

log = logging.getLogger(__name__)

MAX_STATUSES_IN_MEMORY = 32
"""Maximum number of statuses that a journal in use holds in memory; `list_statuses` reads all from the file."""

FIRST_RETRY_DELAY = 0.05
"""Seconds before the first retry of a failed write; the delay doubles with each retry."""


def load_state(path: Path) -> ExecutionState:
    """Load the state from a journal; read access is enough.

    Args:
        path: The file in the working folder. Paths in that folder are stored relative to it, so the folder can be
            moved.

    Raises:
        CatalogReadOnly, FileUnavailable: The file cannot be read.
    """
    with translate_os_errors(f"Cannot read {path}", path.parent):
        lines = complete_lines(path.read_bytes())
    return _apply_lines(lines, path.parent, ExecutionState())


def create_journal(path: Path, events: Iterable[Event]) -> None:
    """Create a journal with all of the events; an interruption leaves no part of it.

    Args:
        path: The file; its folder must exist. A journal that another process created meanwhile stays.
        events: The events.

    Raises:
        DiskFull, CatalogReadOnly, FileUnavailable: The file cannot be written.
    """
    draft = partial_path(path)
    with translate_os_errors(f"Cannot write {path}", path.parent):
        try:
            draft.write_bytes(_to_lines(events, path.parent))
            sync_path(draft)
            publish_new(draft, path)
        finally:
            delete_leftover(draft)


def _to_lines(events: Iterable[Event], folder: Path) -> bytes:
    stored = (event.to_stored(folder) for event in events)
    return "".join(event.model_dump_json(exclude_none=True) + "\n" for event in stored).encode()


def _apply_lines(lines: list[bytes], folder: Path, state: ExecutionState) -> ExecutionState:
    for line in lines:
        if (event := parse_event(line)) is not None:
            event.from_stored(folder, state).apply(state)
    return state


class Journal:
    """The journal of one execution; several threads and processes can write to it at once.

    Args:
        path: The file; its folder must exist before the first event is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path.parent
        self._translate_read_errors = partial(translate_os_errors, f"Cannot read {path}", self._folder)
        self._translate_write_errors = partial(translate_os_errors, f"Cannot write {path}", self._folder)
        self._state = ExecutionState(max_statuses=MAX_STATUSES_IN_MEMORY)
        self._read_bytes = 0
        self._descriptor: int | None = None
        self._finalizer: finalize[..., Journal] | None = None
        self._lock = ForkSafeRLock()

    @property
    def state(self) -> ExecutionState:
        """State of all events written so far by this and other processes; it has the newest statuses only.

        Raises:
            CatalogReadOnly, FileUnavailable: The file cannot be read.
        """
        with self._lock, self._translate_read_errors():
            return _apply_lines(self._read_new_lines(), self._folder, self._state)

    def append(self, *events: Event) -> None:
        """Write events by one ``write(2)``; a crash of the machine can only leave a torn last line.

        Raises:
            DiskFull, CatalogReadOnly, FileUnavailable: The file cannot be written.
            MissingFiles: The file was deleted since it was read.
        """
        text = _to_lines(events, self._folder)
        with self._lock, self._translate_write_errors():
            self.check_not_deleted()
            descriptor = self._open()
            written = append_lines(descriptor, text, known_size=self._read_bytes)
            # lines that directly follow those read so far need not be read back
            if os.lseek(descriptor, 0, os.SEEK_CUR) == self._read_bytes + written:
                self._read_bytes += written
                for event in events:
                    event.apply(self._state)

    def sync(self) -> None:
        """Wait until all events written so far, by any process, are on disk. Other threads can write meanwhile.

        Raises:
            FileUnavailable: The disk failed.
        """
        with translate_os_errors(f"Cannot flush {self.path} to disk", self._folder):
            with self._lock:
                descriptor = os.dup(self._open())
            try:
                getattr(os, "fdatasync", os.fsync)(descriptor)  # macOS has no fdatasync
            finally:
                os.close(descriptor)

    def list_statuses(self) -> list[StatusUpdate]:
        """Read all statuses from the file; empty if there is none.

        Raises:
            CatalogReadOnly, FileUnavailable: The file cannot be read.
        """
        return load_state(self.path).statuses if self.path.exists() else []

    def close(self) -> None:
        """Close the file; the next event opens it again."""
        with self._lock:
            if self._finalizer is not None:
                self._finalizer()
                self._descriptor = self._finalizer = None

    def check_not_deleted(self) -> None:
        """Raise `MissingFiles` if the file was deleted. A new one in its place would lack all earlier events."""
        if self._descriptor is not None:
            is_deleted = os.fstat(self._descriptor).st_nlink == 0
        else:
            is_deleted = self._read_bytes > 0 and not self.path.exists()
        if is_deleted:
            raise MissingFiles(
                f"{self.path} was deleted, for example by `deriva-ml cleanup`. Continue with a new object from "
                f"ml.restore_execution({self.path.parent.name!r}) or ml.resume_execution({self.path.parent.name!r})."
            )

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = open_for_append(self.path)
            # a process that creates thousands of executions must not run out of descriptors
            self._finalizer = finalize(self, os.close, self._descriptor)
            self._finalizer.atexit = False
        return self._descriptor

    def _read_new_lines(self) -> list[bytes]:
        if self._descriptor is not None:
            return self._read_lines(self._descriptor)
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        try:
            return self._read_lines(descriptor)
        finally:
            os.close(descriptor)

    def _read_lines(self, descriptor: int) -> list[bytes]:
        size = os.fstat(descriptor).st_size
        if size <= self._read_bytes:
            return []
        lines = complete_lines(os.pread(descriptor, size - self._read_bytes, self._read_bytes))
        self._read_bytes += sum(len(line) + 1 for line in lines)
        return lines


class BufferedJournal:
    """Journal that buffers events while the disk is full. It never raises, so a full disk does not stop a training.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._buffer: list[Event] = []
        self._is_failing = False
        """Whether the last write failed and a warning was logged."""
        self._lock = ForkSafeRLock()

    def append(self, *events: Event) -> list[Event]:
        """Write the buffered events, then new ones.

        Returns:
            The events written by this call.
        """
        written = []
        with self._lock:
            self._buffer += events
            try:
                while self._buffer:
                    self._journal.append(self._buffer[0])
                    written.append(self._buffer.pop(0))
                self._is_failing = False
            except DerivaMLException as error:
                if not self._is_failing:
                    log.warning("Failed to write %s; retrying with the next event: %s", self._journal.path, error)
                self._is_failing = True
        return written

    def flush(self, timeout: float) -> list[Event]:
        """Write the buffered events, with retries.

        Args:
            timeout: Maximum seconds to retry.

        Returns:
            The events written by this call.
        """
        written, deadline, delay = self.append(), time.monotonic() + timeout, FIRST_RETRY_DELAY
        while self._buffer and (remaining := deadline - time.monotonic()) > 0:
            time.sleep(min(delay, remaining))
            delay *= 2
            written += self.append()
        return written

    @property
    def state(self) -> ExecutionState:
        """State of all events, written or buffered."""
        with self._lock:
            state = self._journal.state
            if not self._buffer:
                return state
            # the journal's own state must not have the buffered events: they are applied when they are written
            state = replace(
                state,
                statuses=list(state.statuses),
                metrics=dict(state.metrics),
                failures=list(state.failures),
                best_corrections=list(state.best_corrections),
                files=dict(state.files),
            )
            for event in self._buffer:
                event.apply(state)
            return state

    def sync(self) -> None:
        """Wait until all events that could be written are on disk; see `Journal.sync`."""
        self._journal.sync()

    def list_statuses(self) -> list[StatusUpdate]:
        """Return all statuses, written or buffered.

        Raises:
            CatalogReadOnly, FileUnavailable: The file cannot be read.
        """
        with self._lock:
            buffered = [event.update for event in self._buffer if isinstance(event, StatusSet)]
            return self._journal.list_statuses() + buffered

    @property
    def last_status(self) -> StatusUpdate | None:
        """The last status, written or buffered; None before the first."""
        buffered = [event.update for event in self._buffer if isinstance(event, StatusSet)]
        return next(reversed(buffered or self._journal.state.statuses), None)
