"""``deriva-ml cleanup``: what may go from this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Yes, command
from deriva_ml_cli.disk_usage import (
    CACHE_FOLDER,
    OBJECTS_FOLDER,
    LocalExecution,
    iter_files,
    iter_local_executions,
    measure_disk_usage,
)
from deriva_ml_core._files.atomic import delete_leftover, is_leftover, iter_leftovers
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME
from deriva_ml_core.journal.state import FileStamp, FileState

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["KeptFolder", "Removable", "app", "delete_removable", "find_removable"]


@command("deriva-ml cleanup --dry-run", "deriva-ml cleanup --older-than 30 --yes")
def app(
    older_than: Annotated[float, typer.Option(min=0, metavar="DAYS", help="Of runs that ended so many days ago.")] = 0,
    downloads: Annotated[
        bool, typer.Option("--downloads/--no-downloads", help="Downloaded datasets too, which can be brought again.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what may go.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Delete what is safe to delete on this machine; it asks first.

    That are working folders of ended runs of which everything was sent, downloaded datasets, and halves of objects
    that a killed process left. A folder with a file that is nowhere else stays.
    """
    from datetime import timedelta

    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json, print_note
    from deriva_ml_core._text import format_size

    if as_json and not (yes or dry_run):
        raise typer.BadParameter("With --json nobody can be asked: give --yes or --dry-run too.")
    with open_client(host, catalog) as ml:
        leftovers, kept = find_removable(ml, timedelta(days=older_than), include_downloads=downloads)
        if not as_json:
            _print(leftovers, kept)
        wanted = bool(leftovers) and not dry_run and (yes or typer.confirm("Delete all this?"))
        freed = delete_removable(leftovers) if wanted else 0
    if as_json:
        print_json({**_to_dict(leftovers, kept), "freed": freed})
    elif wanted:
        print_note(f"{format_size(freed)} are free again.")


def _to_dict(removable: list[Removable], kept: list[KeptFolder]) -> dict[str, object]:
    from dataclasses import asdict

    return {"may_go": [asdict(each) for each in removable], "stays": [asdict(each) for each in kept]}


def _print(removable: list[Removable], kept: list[KeptFolder]) -> None:
    from deriva_ml_cli.terminal import Column, print_note, print_table, print_title
    from deriva_ml_core._text import format_count, format_size

    most = 20
    if kept:
        print_title("Stays")
        columns = Column("Execution", style="cyan"), Column("Why", flexible=True, wrapped=True)
        print_table(columns, [(each.name, each.reason) for each in kept[:most]], indent=2)
        if len(kept) > most:
            print_note(f"  and {len(kept) - most:,} more")
    if not removable:
        print_note("There is nothing to delete.")
        return
    print_title("May go")
    kinds = dict.fromkeys(each.kind for each in removable)
    rows = []
    for kind in kinds:
        of_kind = [each for each in removable if each.kind == kind]
        total = sum(each.bytes for each in of_kind)
        examples = ", ".join(each.name for each in of_kind[:5]) + (", ..." if len(of_kind) > 5 else "")
        rows.append((format_count(len(of_kind), kind), format_size(total), examples))
    print_table([Column("What"), Column("Size", align_right=True), Column("Which", flexible=True)], rows, indent=2)
    print_note(f"  {format_size(sum(each.bytes for each in removable))} in all")


ABANDONED_AFTER_SECONDS = 86400.0
"""Seconds after which a half-written object is nobody's any more."""

INPUTS_FOLDER = "inputs"
_OWN_NAMES = (INPUTS_FOLDER, JOURNAL_FILENAME, f"{JOURNAL_FILENAME}.lock", f"{JOURNAL_FILENAME}.resume")


@dataclass(frozen=True, slots=True)
class Removable:
    """What may go.

    Args:
        kind: ``working folder``, ``download``, ``draft`` or ``partial file``.
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
    covered = {each.path for each in leftovers}
    leftovers += [
        _measure_removable("partial file", path.name, path)
        for path in _iter_abandoned_partial_files(folder)
        if covered.isdisjoint(path.parents)
    ]
    return leftovers, kept


def delete_removable(removable: Iterable[Removable]) -> int:
    """Delete what may go, and return the bytes that were freed; what another process is at work on stays."""
    freed = 0
    for each in removable:
        if each.kind == "draft":
            each.path.unlink(missing_ok=True)
        elif each.kind == "partial file":
            delete_leftover(each.path)
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
        if inside.parts[0] in _OWN_NAMES or path.is_symlink():
            continue
        if any(map(is_leftover, inside.parts)):  # the run has ended, so that no process finishes it
            continue
        now = FileStamp.from_path(path)
        if not any(_is_unchanged(file, now) for file in sent.get(path, ())):
            yield str(inside)


def _is_unchanged(file: FileState, now: FileStamp | None) -> bool:
    return file.stored_stamp is not None and file.stored_stamp == now


def _iter_abandoned_drafts(objects: Path) -> Iterator[Path]:
    return filter(_is_abandoned, objects.glob("draft-*"))


def _iter_abandoned_partial_files(folder: Path) -> Iterator[Path]:
    """Yield the temporary files of killed processes; the objects' drafts are named differently and are many."""
    for child in folder.iterdir() if folder.is_dir() else ():
        if is_leftover(child.name):
            yield from filter(_is_abandoned, [child])
        elif child.is_dir() and child.name != OBJECTS_FOLDER:
            yield from filter(_is_abandoned, iter_leftovers(child))


def _is_abandoned(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > ABANDONED_AFTER_SECONDS
    except OSError:
        return False
