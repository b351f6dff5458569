"""``deriva-ml cleanup``: delete local files that are stored in the catalog."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
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
from deriva_ml_core._files.atomic import delete_leftover, is_leftover, iter_leftovers, rename_for_deletion
from deriva_ml_core._files.locks import is_locked, locked_folder
from deriva_ml_core.datasets.bag_cache import IN_USE_NAME
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.deletion.objects import (
    UnusedObject,
    delete_unused_objects,
    expire_deletions,
    find_expired_deletions,
    find_unused_objects,
)
from deriva_ml_core.deletion.trash import Trash
from deriva_ml_core.execution.run_lock import RESUME_LOCK_NAME, UPLOAD_LOCK_NAME
from deriva_ml_core.journal.journal import load_state
from deriva_ml_core.journal.state import JOURNAL_FILENAME, FileStamp, FileState

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.connection import Connection

__all__ = ["KeptFolder", "Removable", "app", "delete_removable", "find_removable"]


@command("deriva-ml cleanup --dry-run", "deriva-ml cleanup --older-than 30 --yes")
def app(
    older_than: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="Only runs that ended this many days ago.")
    ] = 0,
    downloads: Annotated[
        bool, typer.Option("--downloads/--no-downloads", help="Delete downloaded datasets too.")
    ] = True,
    objects: Annotated[
        bool, typer.Option("--objects/--no-objects", help="Delete objects that nothing in the catalog names.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what can be deleted.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Delete local files that are stored in the catalog.

    These are working folders of finished, fully uploaded runs, downloaded datasets, and incomplete objects of killed
    processes. A working folder with a file that is nowhere else is kept, and so is a dataset that a process reads. You
    are asked before anything is deleted, and what came into use meanwhile is kept.

    In the store of an embedded catalog, these are also deleted runs whose 30 days in the trash are over, and objects
    that no present or past row names, if they were stored or used at least 7 days ago.
    """
    from datetime import timedelta

    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json, print_note
    from deriva_ml_core._text import format_size

    if as_json and not (yes or dry_run):
        raise typer.BadParameter("--json cannot ask for confirmation: add --yes or --dry-run.")
    with open_client(host, catalog) as ml:
        removable, kept = find_removable(
            ml, timedelta(days=older_than), include_downloads=downloads, include_objects=objects
        )
        if not as_json:
            _print(removable, kept)
        is_confirmed = bool(removable) and not dry_run and (yes or typer.confirm("Delete all of this?"))
        freed, in_use = delete_removable(ml, removable) if is_confirmed else (0, [])
    if as_json:
        still_used = {each.path for each in in_use}
        deleted = [each for each in removable if each.path not in still_used]
        print_json({**_to_dict(deleted, [*kept, *in_use]), "freed": freed})
    elif is_confirmed:
        _print_kept(in_use)
        print_note(f"{format_size(freed)} freed.")


def _to_dict(removable: list[Removable], kept: list[KeptFolder]) -> dict[str, object]:
    from dataclasses import asdict

    return {"may_go": [asdict(each) for each in removable], "stays": [asdict(each) for each in kept]}


def _print_kept(kept: list[KeptFolder]) -> None:
    from deriva_ml_cli.terminal import Column, print_note, print_table, print_title

    if not kept:
        return
    print_title("Kept")
    columns = Column("Name", style="cyan"), Column("Reason", flexible=True, wrapped=True)
    print_table(columns, [(each.name, each.reason) for each in kept[:MAX_ROWS]], indent=2)
    if len(kept) > MAX_ROWS:
        print_note(f"  and {len(kept) - MAX_ROWS:,} more")


def _print(removable: list[Removable], kept: list[KeptFolder]) -> None:
    from deriva_ml_cli.terminal import Column, print_note, print_table, print_title
    from deriva_ml_core._text import format_count, format_size

    _print_kept(kept)
    if not removable:
        print_note("There is nothing to delete.")
        return
    print_title("Can be deleted")
    kinds = dict.fromkeys(each.kind for each in removable)
    rows = []
    for kind in kinds:
        of_kind = [each for each in removable if each.kind == kind]
        total = sum(each.bytes for each in of_kind)
        examples = ", ".join(each.name for each in of_kind[:5]) + (", ..." if len(of_kind) > 5 else "")
        rows.append((format_count(len(of_kind), kind), format_size(total), examples))
    print_table([Column("Content"), Column("Size", align_right=True), Column("Name", flexible=True)], rows, indent=2)
    print_note(f"  {format_size(sum(each.bytes for each in removable))} in all")


READ_REASON = "a process reads it"

MAX_ROWS = 20
"""Kept folders that are listed."""

ABANDONED_AFTER_SECONDS = 86400.0
"""Age in seconds after which no process still writes an incomplete object."""

INPUTS_FOLDER = "inputs"
_OWN_NAMES = (INPUTS_FOLDER, JOURNAL_FILENAME, UPLOAD_LOCK_NAME, RESUME_LOCK_NAME)


@dataclass(frozen=True, slots=True)
class Removable:
    """A file or folder that can be deleted.

    Args:
        kind: ``working folder``, ``download``, ``draft``, ``partial file``, ``deleted run`` or ``object``.
        name: An execution's RID, a dataset's version, an object's digest, or a file's name.
        path: Its path.
        files: The number of its files.
        bytes: Their size.
    """

    kind: str
    name: str
    path: Path
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class KeptFolder:
    """A working folder or a downloaded dataset that is kept, and the reason."""

    name: str
    path: Path
    reason: str


def find_removable(
    ml: DerivaML,
    min_age: timedelta,
    *,
    include_downloads: bool,
    include_objects: bool = True,
    now: datetime | None = None,
) -> tuple[list[Removable], list[KeptFolder]]:
    """Return what can be deleted, and what is kept: working folders of finished runs, and datasets in use.

    Args:
        ml: The catalog.
        min_age: The minimum time since the end of a run.
        include_downloads: Whether downloaded datasets can be deleted.
        include_objects: Whether objects that nothing names, and expired deletions, can be deleted.
        now: The time from which the age of objects and deletions counts, by default the present one.
    """
    removable, kept = [], []
    ended = [
        each
        for each in iter_local_executions(ml)
        if each.has_ended and _has_ended_before(each, datetime.now(UTC) - min_age)
    ]
    rows = ml.connection.catalog.select(MLTable.execution, {"RID": [each.rid for each in ended]}) if ended else []
    recorded = {row["RID"] for row in rows}
    for each in ended:
        reason = (
            _find_reason_to_keep(ml.connection, each)
            if each.rid in recorded
            else "its execution is not in this catalog"
        )
        if reason:
            kept.append(KeptFolder(each.rid, each.folder, reason))
        else:
            removable.append(_measure_removable("working folder", each.rid, each.folder))
    folder = ml.connection.folder
    if include_downloads and (folder / CACHE_FOLDER).is_dir():
        for download in filter(Path.is_dir, sorted((folder / CACHE_FOLDER).iterdir())):
            if _is_in_use(download):
                kept.append(KeptFolder(download.name, download, READ_REASON))
            else:
                removable.append(_measure_removable("download", download.name, download))
    removable += [
        _measure_removable("draft", each.name, each) for each in _iter_abandoned_drafts(folder / OBJECTS_FOLDER)
    ]
    listed = {each.path for each in removable}
    removable += [
        _measure_removable("partial file", path.name, path)
        for path in _iter_abandoned_partial_files(folder)
        if listed.isdisjoint(path.parents)
    ]
    if include_objects:
        removable += _find_unused(ml, now)
    return removable, kept


def _find_unused(ml: DerivaML, now: datetime | None) -> Iterator[Removable]:
    """Yield the deleted runs that cannot be restored any more, and the objects that nothing names."""
    for record in find_expired_deletions(ml.connection, now):
        path = Trash(ml.connection).working_path(record.execution)
        usage = measure_disk_usage(path)
        yield Removable("deleted run", record.execution, path, usage.files, usage.bytes)
    for each in find_unused_objects(ml.connection, now):
        yield Removable("object", each.md5, each.path, 1, each.bytes)


def delete_removable(
    ml: DerivaML, removable: Iterable[Removable], now: datetime | None = None
) -> tuple[int, list[KeptFolder]]:
    """Delete files and folders, each after another look at it.

    Args:
        ml: The catalog.
        removable: What `find_removable` returned, perhaps long ago.
        now: The time from which the age of objects and deletions counts, by default the present one.

    Returns:
        The freed bytes, and what came into use meanwhile and is kept.
    """
    freed, kept = 0, []
    listed = list(removable)
    reasons = _delete_unused(ml, listed, now)
    for each in listed:
        reason = reasons[each.path] if each.kind in ("deleted run", "object") else _delete(ml, each)
        if reason:
            kept.append(KeptFolder(each.name, each.path, reason))
        else:
            freed += each.bytes
    return freed, kept


def _delete_unused(ml: DerivaML, removable: list[Removable], now: datetime | None) -> dict[Path, str]:
    """Delete expired deletions and unused objects; return for each path why it is kept, or an empty text."""
    runs = [each for each in removable if each.kind == "deleted run"]
    objects = [UnusedObject(each.name, each.path, each.bytes) for each in removable if each.kind == "object"]
    given_up = set(expire_deletions(ml.connection, [each.name for each in runs], now))
    _, kept = delete_unused_objects(ml.connection, objects, now)
    reasons = {each.path: "" if each.name in given_up else "it was restored" for each in runs}
    return reasons | {each.path: "" for each in objects} | {each.path: "it is in use" for each in kept}


def _delete(ml: DerivaML, removable: Removable) -> str:
    """Delete a file or folder; return why it is kept instead, or an empty text."""
    if removable.kind == "working folder":
        return _delete_working_folder(ml, removable.path)
    if removable.kind == "download":
        return _delete_download(removable.path)
    is_leftover_file = removable.kind == "partial file"
    if not _is_abandoned(removable.path) or (is_leftover_file and _is_written(removable.path)):
        return "a process writes it"
    if is_leftover_file:
        delete_leftover(removable.path)
    else:
        removable.path.unlink(missing_ok=True)
    return ""


def _delete_working_folder(ml: DerivaML, folder: Path) -> str:
    """Delete a working folder unless the run was resumed, or files were staged, since it was listed."""
    if not (folder / JOURNAL_FILENAME).is_file():  # deleted meanwhile; a lock would create the folder again
        return ""
    # the locks of a resume and of an upload; they are held until the folder has another name
    with (
        locked_folder(folder / RESUME_LOCK_NAME, f"delete {folder}", blocking=False) as is_not_resuming,
        locked_folder(folder / UPLOAD_LOCK_NAME, f"delete {folder}", blocking=False) as is_not_uploading,
    ):
        if not (is_not_resuming and is_not_uploading):
            return "another process works in it"
        execution = LocalExecution(folder.name, folder, load_state(folder / JOURNAL_FILENAME))
        if not execution.has_ended:
            return "its run is not finished"
        if reason := _find_reason_to_keep(ml.connection, execution):
            return reason
        renamed = rename_for_deletion(folder)
    if renamed is not None:
        shutil.rmtree(renamed)
    return ""


def _delete_download(folder: Path) -> str:
    """Delete a downloaded dataset unless a process reads or downloads it."""
    if not folder.is_dir():
        return ""
    with locked_folder(folder / "lock", f"delete {folder}", blocking=False) as is_free:
        if not is_free or _is_in_use(folder):
            return READ_REASON
        renamed = rename_for_deletion(folder)
    if renamed is not None:
        shutil.rmtree(renamed)
    return ""


def _is_in_use(download: Path) -> bool:
    return _is_written(download / IN_USE_NAME)


def _is_written(path: Path) -> bool:
    """Whether a process has locked a file."""
    try:
        return path.is_file() and is_locked(path)
    except FileNotFoundError:
        return False


def _measure_removable(kind: str, name: str, path: Path) -> Removable:
    usage = measure_disk_usage(path)
    return Removable(kind, name, path, usage.files, usage.bytes)


def _has_ended_before(execution: LocalExecution, time_limit: datetime) -> bool:
    times = [execution.state.stop_time, *(each.time for each in execution.state.statuses[-1:])]
    return max((each for each in times if each is not None), default=datetime.now(UTC)) <= time_limit


def _find_reason_to_keep(connection: Connection, execution: LocalExecution) -> str:
    """Return why a working folder is kept, or an empty text if everything in it is stored elsewhere."""
    state = execution.state
    pending = state.pending_files()
    if state.unlinked_keys or any(file.is_written for file in pending):
        return f"files are not uploaded: `{connection.command('upload', execution.rid)}`"
    if not state.status.is_terminal:
        return f"its end is not recorded: `{connection.command('status', execution.rid)}`"
    if pending:
        asset = pending[0].asset
        call = f"{connection.call}.restore_execution({execution.rid!r}).forget({str(asset.path)!r})"
        return f"{asset.filename} was never written: write it, or {call}"
    if state.is_journal_copy_outdated:
        return f"its journal is not uploaded: `{connection.command('upload', execution.rid)}`"
    unsaved = list(_iter_unsaved_files(execution))
    if unsaved:
        more = f" and {len(unsaved) - 1} more" if len(unsaved) > 1 else ""
        return f"{unsaved[0]}{more} was never registered, or changed after its upload"
    return ""


def _iter_unsaved_files(execution: LocalExecution) -> Iterator[str]:
    """Yield the files in a working folder whose present content is not in the store."""
    uploaded: dict[Path, list[FileState]] = {}
    for file in execution.state.files.values():
        if file.rid:
            for path in (file.asset.path, file.asset.original):
                if path is not None:
                    uploaded.setdefault(path, []).append(file)
    for entry in iter_files(execution.folder):
        path = Path(entry.path)
        relative = path.relative_to(execution.folder)
        if relative.parts[0] in _OWN_NAMES or path.is_symlink():
            continue
        if any(map(is_leftover, relative.parts)):  # the run has ended, so no process completes it
            continue
        stamp = FileStamp.from_path(path)
        if not any(_is_unchanged(file, stamp) for file in uploaded.get(path, ())):
            yield str(relative)


def _is_unchanged(file: FileState, stamp: FileStamp | None) -> bool:
    return file.stored_stamp is not None and file.stored_stamp == stamp


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
