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

from deriva_ml_cli.places import CACHE, OBJECTS, amount_of, walk
from deriva_ml_cli.unsent import Local, local_executions
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.execution.provenance import JOURNAL
from deriva_ml_core.journal.story import FileStory, FileTime

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["Kept", "Leftover", "delete", "find_leftovers"]

ABANDONED = 86400.0
"""Seconds after which a half-written object is nobody's any more."""

INPUTS = "inputs"


@dataclass(frozen=True, slots=True)
class Leftover:
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
class Kept:
    """A working folder that stays, and why."""

    name: str
    path: Path
    reason: str


def find_leftovers(ml: DerivaML, older: timedelta, *, downloads: bool) -> tuple[list[Leftover], list[Kept]]:
    """Find what may go, and the working folders of ended runs that have to stay.

    Args:
        ml: The catalog.
        older: How long ago a run must have ended.
        downloads: Whether downloaded datasets count too.
    """
    leftovers, kept = [], []
    ended = [each for each in local_executions(ml) if each.ended and _ended_before(each, datetime.now(UTC) - older)]
    rows = ml.connection.catalog.select(MLTable.execution, {"RID": [each.rid for each in ended]}) if ended else []
    recorded = {row["RID"] for row in rows}
    for each in ended:
        reason = _reason_to_keep(each) if each.rid in recorded else "its execution is not in this catalog"
        if reason:
            kept.append(Kept(each.rid, each.folder, reason))
        else:
            leftovers.append(_measured("working folder", each.rid, each.folder))
    folder = ml.connection.folder
    if downloads and (folder / CACHE).is_dir():
        leftovers += [_measured("download", each.name, each) for each in sorted((folder / CACHE).iterdir())]
    leftovers += [_measured("draft", each.name, each) for each in _drafts(folder / OBJECTS)]
    return leftovers, kept


def delete(leftovers: Iterable[Leftover]) -> int:
    """Delete what may go, and return the bytes that were freed; what another process is at work on stays."""
    freed = 0
    for each in leftovers:
        if each.kind == "draft":
            each.path.unlink(missing_ok=True)
        elif each.kind == "download":
            if not _delete_download(each.path):
                continue
        else:
            shutil.rmtree(each.path)
        freed += each.bytes
    return freed


def _measured(kind: str, name: str, path: Path) -> Leftover:
    amount = amount_of(path)
    return Leftover(kind, name, path, amount.files, amount.bytes)


def _delete_download(folder: Path) -> bool:
    from filelock import FileLock, Timeout

    with suppress(Timeout), FileLock(folder / "lock", timeout=0):
        shutil.rmtree(folder)
        return True
    return False


def _ended_before(local: Local, time_limit: datetime) -> bool:
    times = [local.story.stop, *(each.time for each in local.story.statuses[-1:])]
    return max((each for each in times if each is not None), default=datetime.now(UTC)) <= time_limit


def _reason_to_keep(local: Local) -> str:
    """Why a working folder has to stay: something in it is nowhere else; empty where everything is."""
    story = local.story
    if story.open_files() or story.unlinked:
        return f"files wait to be sent: `deriva-ml upload {local.rid}`"
    if not story.status.ended:
        return f"its end is not recorded: `deriva-ml status {local.rid}`"
    if not _journal_is_kept(local):
        return "its last statuses are nowhere else, as no upload took a copy of them along"
    strangers = list(_strangers(local))
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        return f"{strangers[0]}{more} was never registered, or was changed since it was sent"
    return ""


def _journal_is_kept(local: Local) -> bool:
    """Whether the journal's copy in the catalog tells every status."""
    copies = [file for file in local.story.files.values() if _is_journal(file) and file.rid and file.stored]
    if not copies:
        return False
    with (local.folder / JOURNAL).open("rb") as journal:
        journal.seek(max(file.stored.length for file in copies if file.stored))
        return b'"event":"status"' not in journal.read()


def _is_journal(file: FileStory) -> bool:
    return file.asset.record and file.asset.filename == JOURNAL


def _strangers(local: Local) -> Iterator[str]:
    """The files in a working folder that the store does not have as they are now."""
    sent: dict[Path, list[FileStory]] = {}
    for file in local.story.files.values():
        if file.rid:
            for path in (file.asset.path, file.asset.original):
                if path is not None:
                    sent.setdefault(path, []).append(file)
    for entry in walk(local.folder):
        path = Path(entry.path)
        inside = path.relative_to(local.folder)
        if inside.parts[0] in (INPUTS, JOURNAL, f"{JOURNAL}.lock") or path.is_symlink():
            continue
        now = FileTime.of(path)
        if not any(_is_sent(file, now) for file in sent.get(path, ())):
            yield str(inside)


def _is_sent(file: FileStory, now: FileTime | None) -> bool:
    return file.file_time is not None and file.file_time == now


def _drafts(objects: Path) -> Iterator[Path]:
    for path in objects.glob("draft-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                yield path
