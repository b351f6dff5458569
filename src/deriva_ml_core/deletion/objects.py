"""Objects that no present or past row names, and deletions whose time is over: what a clean-up of the store deletes.

An object is deleted if no row of the catalog and of its history names its digest, no journal and no ledger of a push on
this machine does, it is not in the trash, and it was stored or used at least `MIN_AGE` ago. A store marks an object as
used whenever equal bytes are stored again, and holds it locked meanwhile, so that an upload cannot lose it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID
from deriva_ml_core.deletion.deletion import settle_deletions
from deriva_ml_core.deletion.trash import RECORD_NAME, DeletionRecord, DeletionState, Trash
from deriva_ml_core.errors import FileUnavailable
from deriva_ml_core.journal.state import JOURNAL_FILENAME
from deriva_ml_core.paths import CATALOG_FILENAME

__all__ = [
    "MIN_AGE",
    "UnusedObject",
    "delete_unused_objects",
    "expire_deletions",
    "find_expired_deletions",
    "find_store_obstacle",
    "find_unused_objects",
]

MIN_AGE = timedelta(days=7)
"""Minimum time since an object was stored or used, after which no upload is still about to name it."""

CHUNK_SIZE = 2**20

_DIGEST = re.compile(r"[0-9a-f]{32}")
_DIGEST_BYTES = re.compile(rb"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class UnusedObject:
    """An object that nothing names.

    Args:
        md5: Its digest, which is its file name.
        path: Its file.
        bytes: Its size.
    """

    md5: str
    path: Path
    bytes: int


def find_store_obstacle(connection: Connection) -> str:
    """Return why no object of the store may be deleted; an empty text if the catalog owns the store alone."""
    folder = connection.folder
    if not connection.address.is_embedded or getattr(connection.store, "folder", None) != folder:
        return "the objects are not in a folder of this catalog"
    objects = folder / "objects"
    if objects.is_symlink() or folder.is_symlink():
        return f"{objects} is a link, and other catalogs may use the same objects"
    if not hasattr(connection.catalog, "iter_texts"):
        return "the catalog cannot list its past rows"
    for path in sorted(folder.iterdir()):
        if path.name != CATALOG_FILENAME and _is_database(path):
            return f"{path} is another database, whose rows may name the same objects: move it to another folder"
    return ""


def _is_database(path: Path) -> bool:
    """Whether a file is a SQLite database, such as a copy of a catalog."""
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError:  # a folder, or a file that this user cannot read
        return False


def find_expired_deletions(connection: Connection, now: datetime | None = None) -> list[DeletionRecord]:
    """Return the deletions whose time in the trash is over.

    Args:
        connection: The catalog.
        now: The time, by default the present one.
    """
    time = now or datetime.now(UTC)
    trash = Trash(connection)
    if not connection.address.is_embedded or not trash.folder.is_dir():
        return []
    return [each for each in trash.find_all() if each.state is DeletionState.deleted and each.until <= time]


def expire_deletions(connection: Connection, rids: Iterable[RID], now: datetime | None = None) -> list[RID]:
    """Give up deleted executions whose time is over; they cannot be restored afterwards.

    Args:
        connection: The catalog.
        rids: The executions. One that was restored meanwhile is left out.
        now: The time, by default the present one.

    Returns:
        The executions that were given up.
    """
    wanted = set(rids)
    if not wanted:
        return []
    trash = Trash(connection)
    with trash.lock():
        settle_deletions(connection, trash)
        expired = [record for record in find_expired_deletions(connection, now) if record.execution in wanted]
        for record in expired:
            trash.expire(record)
    return [record.execution for record in expired]


def find_unused_objects(connection: Connection, now: datetime | None = None) -> list[UnusedObject]:
    """Return the objects that nothing names, which may be deleted once the expired deletions are given up.

    Args:
        connection: The catalog.
        now: The time, by default the present one.

    Returns:
        The objects; none if the catalog does not own its store alone.
    """
    if find_store_obstacle(connection):
        return []
    time = now or datetime.now(UTC)
    candidates = {each.md5: each for each in _iter_old_objects(connection.folder / "objects", time)}
    if not candidates:
        return []
    given_up = _list_given_up_rids(connection, time)
    for rid, is_present, text in connection.catalog.iter_texts():  # type: ignore[attr-defined]
        if is_present or rid not in given_up:
            for md5 in _DIGEST.findall(text):
                candidates.pop(md5, None)
    for path in _iter_record_files(connection, time):
        for md5 in _iter_digests(path):
            candidates.pop(md5, None)
    return sorted(candidates.values(), key=lambda each: each.md5)


def delete_unused_objects(
    connection: Connection, objects: Iterable[UnusedObject], now: datetime | None = None
) -> tuple[list[UnusedObject], list[UnusedObject]]:
    """Delete objects, each after another look at whether something names or uses it.

    Args:
        connection: The catalog.
        objects: What `find_unused_objects` returned, perhaps long ago.
        now: The time, by default the present one.

    Returns:
        The deleted objects, and those that came into use meanwhile and are kept.
    """
    listed = list(objects)
    if not listed:
        return [], []
    time = now or datetime.now(UTC)
    with Trash(connection).lock():  # no execution is deleted or restored meanwhile
        unused = {each.md5 for each in find_unused_objects(connection, time)}
        delete = connection.store.delete_if_unused_since  # type: ignore[attr-defined]
        limit = (time - MIN_AGE).timestamp()
        deleted = [each for each in listed if each.md5 in unused and delete(each.md5, limit)]
    kept = [each for each in listed if each not in deleted]
    return deleted, kept


def _iter_old_objects(objects: Path, time: datetime) -> Iterator[UnusedObject]:
    limit = (time - MIN_AGE).timestamp()
    for path in objects.glob("[0-9a-f][0-9a-f]/*"):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        # the modification time is that of the original; a file's status changes when it is stored and when it is used
        if _DIGEST.fullmatch(path.name) and path.is_file() and status.st_ctime < limit:
            yield UnusedObject(path.name, path, status.st_size)


def _list_given_up_rids(connection: Connection, time: datetime) -> frozenset[RID]:
    """Return the RIDs of the rows whose deletion is final; their past versions do not keep objects."""
    trash = Trash(connection)
    records = trash.find_all() if trash.folder.is_dir() else []
    final = (
        record.rids
        for record in records
        if record.state is DeletionState.expired or (record.state is DeletionState.deleted and record.until <= time)
    )
    return frozenset().union(*final)


def _iter_record_files(connection: Connection, time: datetime) -> Iterator[Path]:
    """Yield the files that can name objects before a row does: journals, ledgers of pushes, and the trash."""
    folder = connection.folder
    expired = {record.execution for record in find_expired_deletions(connection, time)}
    yield from connection.working_folder("0000").parent.glob(f"*/{JOURNAL_FILENAME}")
    yield from (folder / "executions").glob(f"*/{JOURNAL_FILENAME}")
    yield from (path for path in (folder / "pushed").rglob("*") if path.is_file())
    for path in (folder / "trash").glob("*"):
        if path.name not in expired:
            yield from path.glob(f"*/{JOURNAL_FILENAME}")
            yield from path.glob(RECORD_NAME)


def _iter_digests(path: Path) -> Iterator[str]:
    """Yield everything in a file that can be the digest of an object, without reading it at once."""
    try:
        with path.open("rb") as file:
            rest = b""
            while chunk := file.read(CHUNK_SIZE):
                rest += chunk
                yield from (digest.decode() for digest in _DIGEST_BYTES.findall(rest))
                rest = rest[-31:]
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileUnavailable(
            f"{path} cannot be read, and may name objects: {error}. No object was deleted."
        ) from error
