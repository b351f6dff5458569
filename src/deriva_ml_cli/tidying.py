"""What may be deleted on this machine, since all of it is in the catalog and the store, or can be brought again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_cli.places import CACHE_FOLDER, OBJECTS_FOLDER, iter_files, measure_disk_usage
from deriva_ml_cli.unsent import LocalExecution, iter_local_executions
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.execution.provenance import JOURNAL_FILENAME
from deriva_ml_core.journal.story import FileStamp, FileState

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["KeptFolder", "Removable", "delete_removable", "find_removable"]

ABANDONED_AFTER_SECONDS = 86400.0
"""Seconds after which a half-written object is nobody's any more."""

INPUTS_FOLDER = "inputs"


@dataclass(frozen=True, slots=True)
class Removable:
    """What may go.

    Args:
        kind: ``working folder``, ``download`` or ``draft``.
        name: An execution's record id, a dataset's version, or a file's name.
        path: Where it lies.
        files: How many files it has.
        bytes: Their bytes.
    """

    kind: str
    name: str
    path: Path
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class KeptFolder:
    """A working folder that stays, and why."""

    name: str
    path: Path
    reason: str


def find_removable(
    ml: DerivaML, min_age: timedelta, *, include_downloads: bool
) -> tuple[list[Removable], list[KeptFolder]]:
    """Find what may go, and the working folders of ended runs that have to stay.

    Args:
        ml: The catalog.
        min_age: How long ago a run must have ended.
        include_downloads: Whether downloaded datasets count too.
    """
    leftovers, kept = [], []
    ended = [
        each
        for each in iter_local_executions(ml)
        if each.has_ended and _has_ended_before(each, datetime.now(UTC) - min_age)
    ]
    rows = ml.connection.catalog.select(MLTable.execution, {"RID": [each.rid for each in ended]}) if ended else []
    recorded = {row["RID"] for row in rows}
    for each in ended:
        reason = _find_reason_to_keep(each) if each.rid in recorded else "its execution is not in this catalog"
        if reason:
            kept.append(KeptFolder(each.rid, each.folder, reason))
        else:
            leftovers.append(_measure_removable("working folder", each.rid, each.folder))
    folder = ml.connection.folder
    if include_downloads and (folder / CACHE_FOLDER).is_dir():
        leftovers += [
            _measure_removable("download", each.name, each) for each in sorted((folder / CACHE_FOLDER).iterdir())
        ]
    leftovers += [
        _measure_removable("draft", each.name, each) for each in _iter_abandoned_drafts(folder / OBJECTS_FOLDER)
    ]
    return leftovers, kept


def delete_removable(removable: Iterable[Removable]) -> int:
    """Delete what may go, and return the bytes that were freed; what another process is at work on stays."""
    freed = 0
    for each in removable:
        if each.kind == "draft":
            each.path.unlink(missing_ok=True)
        elif each.kind == "download":
            if not _delete_download(each.path):
                continue
        else:
            shutil.rmtree(each.path)
        freed += each.bytes
    return freed


def _measure_removable(kind: str, name: str, path: Path) -> Removable:
    amount = measure_disk_usage(path)
    return Removable(kind, name, path, amount.files, amount.bytes)


def _delete_download(folder: Path) -> bool:
    from filelock import FileLock, Timeout

    with suppress(Timeout), FileLock(folder / "lock", timeout=0):
        shutil.rmtree(folder)
        return True
    return False


def _has_ended_before(execution: LocalExecution, time_limit: datetime) -> bool:
    times = [execution.state.stop_time, *(each.time for each in execution.state.statuses[-1:])]
    return max((each for each in times if each is not None), default=datetime.now(UTC)) <= time_limit


def _find_reason_to_keep(execution: LocalExecution) -> str:
    """Why a working folder has to stay: something in it is nowhere else; empty where everything is."""
    story = execution.state
    if story.pending_files() or story.unlinked_keys:
        return f"files wait to be sent: `deriva-ml upload {execution.rid}`"
    if not story.status.is_terminal:
        return f"its end is not recorded: `deriva-ml status {execution.rid}`"
    if not _is_journal_uploaded(execution):
        return "its last statuses are nowhere else, as no upload took a copy of them along"
    strangers = list(_iter_unsaved_files(execution))
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        return f"{strangers[0]}{more} was never registered, or was changed since it was sent"
    return ""


def _is_journal_uploaded(execution: LocalExecution) -> bool:
    """Whether the journal's copy in the catalog tells every status."""
    copies = [file for file in execution.state.files.values() if _is_journal(file) and file.rid and file.stored]
    if not copies:
        return False
    with (execution.folder / JOURNAL_FILENAME).open("rb") as journal:
        journal.seek(max(file.stored.length for file in copies if file.stored))
        return b'"event":"status"' not in journal.read()


def _is_journal(file: FileState) -> bool:
    return file.asset.record and file.asset.filename == JOURNAL_FILENAME


def _iter_unsaved_files(execution: LocalExecution) -> Iterator[str]:
    """The files in a working folder that the store does not have as they are now."""
    sent: dict[Path, list[FileState]] = {}
    for file in execution.state.files.values():
        if file.rid:
            for path in (file.asset.path, file.asset.original):
                if path is not None:
                    sent.setdefault(path, []).append(file)
    for entry in iter_files(execution.folder):
        path = Path(entry.path)
        inside = path.relative_to(execution.folder)
        if inside.parts[0] in (INPUTS_FOLDER, JOURNAL_FILENAME, f"{JOURNAL_FILENAME}.lock") or path.is_symlink():
            continue
        now = FileStamp.from_path(path)
        if not any(_is_unchanged(file, now) for file in sent.get(path, ())):
            yield str(inside)


def _is_unchanged(file: FileState, now: FileStamp | None) -> bool:
    return file.stored_stamp is not None and file.stored_stamp == now


def _iter_abandoned_drafts(objects: Path) -> Iterator[Path]:
    for path in objects.glob("draft-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER_SECONDS:
                yield path
