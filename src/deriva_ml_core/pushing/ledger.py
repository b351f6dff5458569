"""What this machine has brought from one catalog to another, line by line, so that a push goes on where it stopped."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import JsonValue, ValidationError

from deriva_ml_core.definitions import RID
from deriva_ml_core.disk import translate_os_errors
from deriva_ml_core.models import StoredObject

__all__ = ["Ledger"]


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
            for line in path.read_bytes().split(b"\n"):
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
        try:
            told = json.loads(line)
            for kind, entries in told.items():
                self._apply(kind, entries)
        except (ValueError, AttributeError, TypeError, ValidationError):
            return  # an empty line, or a torn one

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
        # a line break first: after a torn line this one stands alone
        text = f"\n{json.dumps(record)}\n".encode()
        with (
            self._lock,
            translate_os_errors(f"What is copied cannot be written down in {self._path}", self._path.parent),
        ):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                if os.write(descriptor, text) < len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            finally:
                os.close(descriptor)
            for kind, entries in record.items():
                self._apply(kind, entries)
