"""The folder store: each object once, under its digest, read-only, by the inode rule."""

from __future__ import annotations

import errno
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import TYPE_CHECKING

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.embedded.contents import copy_digesting, digest, same_bytes
from deriva_ml_core.backends.embedded.durability import EarlySync, make_durable
from deriva_ml_core.backends.embedded.fetching import fetch
from deriva_ml_core.backends.embedded.urls import ObjectName, parse
from deriva_ml_core.backends.filenames import check_filename
from deriva_ml_core.definitions import Handover
from deriva_ml_core.errors import (
    CatalogReadOnly,
    ChecksumMismatch,
    FileConflict,
    InvalidFileName,
    StoreFull,
    StoreUnavailable,
)
from deriva_ml_core.models import StoredObject, UploadOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["FolderStore"]

READ_ONLY = 0o444
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
TRIES = 3
"""How often a file is read that changes while it is read, before it is copied as it is."""

BIG = 8 * 2**20
"""Bytes from which a file's way to the disk is begun while it is read for its digest."""


def _no_note(said: JsonValue) -> None:
    """Forget it."""


class FolderStore:
    """Objects in ``<folder>/objects/<first two digits of the MD5>/<MD5>``.

    What the caller gives away is moved in, what nobody will write to in place again gets a second name here (a hard
    link), and anything else is copied exactly once. No object shares an inode with a path that anybody may write again.
    Objects are kept by digest, whatever they are called.
    Since nothing is sent anywhere, ``UploadOptions.timeout`` and ``chunk_size`` have no meaning here.

    Args:
        folder: The catalog's folder; working folders in it are on the same file system, so that moving is renaming.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._objects = folder / "objects"
        # a deque takes and gives without a lock, which a fork could find held for ever
        self._unsynced: deque[Path] = deque()

    @property
    def at_once(self) -> int:
        """One: on 2 cores two threads made 1,000 files of 4 KiB slower by a fifth, and 8 copies of 32 MiB no faster."""
        return 1

    def put(
        self,
        table: str,
        filename: str,
        file: Path,
        *,
        handover: Handover,
        options: UploadOptions,  # noqa: ARG002
        resume: JsonValue | None = None,
        note: Callable[[JsonValue], None] = _no_note,
    ) -> StoredObject:
        """Store a file's bytes, by moving or sharing it where that is allowed and can be done, else by copying it once.

        A link, a file on another file system, and one with several names that is to be moved are copied; the link
        itself stays.

        Raises:
            FileNotFoundError: There is no such file, and it was not stored before.
            InvalidFileName: The name climbs out, or the path is a folder.
            StoreFull: The disk has no room.
            PermissionError: The file may not be read.
            CatalogReadOnly: The store's folder may not be written.
            StoreUnavailable: The folder cannot be written now.
        """
        check_filename(filename)
        with self._explained(file):
            self._forget_draft(resume)
            mode = _mode(file)
            if mode is None:
                md5, length = self._taken_before(file, resume)
            elif handover is Handover.move and S_ISREG(mode):
                md5, length = self._take(file, note)
            elif handover is Handover.share and S_ISREG(mode):
                md5, length = self._share(file, note)
            elif file.is_file():
                md5, length = self._copy(file, note)
            else:
                raise InvalidFileName(f"{file} is not a file: only files can be stored.")
        return StoredObject(url=ObjectName(table, md5, filename).url, md5=md5, length=length)

    def sync(self) -> None:
        """Return when everything that was put is on the disk."""
        waiting = set(_emptied(self._unsynced))
        if not waiting:
            return
        try:
            make_durable(waiting, self._folder)
        except OSError as error:
            self._unsynced.extend(waiting)
            kind = StoreFull if error.errno in NO_ROOM else StoreUnavailable
            raise kind(f"The objects in {self._objects} do not get onto the disk ({error.strerror}).") from error

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:  # noqa: ARG002
        path = self._find(url)
        try:
            fetch(path, url, target, length=length, md5=md5)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise StoreFull(
                    f"The object {url} cannot be brought to {target}: it has {length} bytes, and that disk is full. "
                    "Free some space, and the same call goes on."
                ) from error
            raise StoreUnavailable(f"The object {url} cannot be brought to {target} now: {error}.") from error

    def verify(self, url: str, *, length: int, md5: str) -> None:
        path = self._find(url)
        found = (digest(path), path.stat().st_size)
        if found != (md5, length):
            raise ChecksumMismatch(
                f"The object {url} is damaged: {path} has {found[1]} bytes with MD5 {found[0]}, "
                f"not {length} with {md5}. "
                "Put back a copy of it, or upload the file again."
            )

    def source(self, url: str) -> str:
        return self._path(parse(url).md5).absolute().as_uri()

    def close(self) -> None:
        """Nothing is kept open."""

    def _path(self, md5: str) -> Path:
        return self._objects.joinpath(md5[:2], md5)

    def _find(self, url: str) -> Path:
        path = self._path(parse(url).md5)
        if not path.exists():
            raise ChecksumMismatch(f"The object {url} is lost: {path} does not exist. Put it back from a copy.")
        return path

    def _take(self, file: Path, note: Callable[[JsonValue], None]) -> tuple[str, int]:
        for _ in range(TRIES):
            md5, seen = _digest_to_disk(file)
            if seen.st_nlink > 1:
                break
            note({"md5": md5, "length": seen.st_size})
            if not _made_read_only(file):
                break
            if _unchanged(seen, file.lstat()):
                try:
                    self._settle(file, md5)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    break
                return md5, seen.st_size
        md5, length = self._copy(file, note)
        note({"md5": md5, "length": length})
        file.unlink()
        return md5, length

    def _share(self, file: Path, note: Callable[[JsonValue], None]) -> tuple[str, int]:
        """Give a file its place by a second name, which holds fast what is read whatever becomes of the first."""
        with self._draft(note) as draft, suppress(_NotShared):
            md5, length = _digest_shared(file, draft)
            self._settle(draft, md5)
            return md5, length
        return self._copy(file, note)

    def _copy(self, file: Path, note: Callable[[JsonValue], None]) -> tuple[str, int]:
        with self._draft(note) as draft:
            md5, length = copy_digesting(file, draft)
            draft.chmod(READ_ONLY)
            self._settle(draft, md5)
        return md5, length

    @contextmanager
    def _draft(self, note: Callable[[JsonValue], None]) -> Iterator[Path]:
        """A name in the store's folder for an object in the making, which is free again afterwards."""
        draft = self._objects / f"draft-{os.getpid()}-{os.urandom(8).hex()}"
        note({"draft": draft.name})
        self._objects.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def _settle(self, file: Path, md5: str) -> None:
        """Give a file that is ours its place, or remove it where its bytes are there already."""
        path = self._path(md5)
        if path.exists() and not self._damaged(path, file, md5):
            file.unlink()
        else:
            _rename(file, path)
        self._unsynced.append(path)

    def _damaged(self, path: Path, file: Path, md5: str) -> bool:
        if path.samefile(file) or same_bytes(path, file):
            return False
        if digest(path) == md5:
            raise FileConflict(f"{file} differs from the object {path} with the same MD5; it cannot be stored.")
        return True

    def _taken_before(self, file: Path, resume: JsonValue | None) -> tuple[str, int]:
        match resume:
            case {"md5": str(md5), "length": int(length)} if self._holds(md5, length):
                self._unsynced.append(self._path(md5))
                return md5, length
        raise FileNotFoundError(errno.ENOENT, "There is no such file, and it was not stored before", str(file))

    def _holds(self, md5: str, length: int) -> bool:
        path = self._path(md5)
        return path.exists() and path.stat().st_size == length

    def _forget_draft(self, resume: JsonValue | None) -> None:
        match resume:
            case {"draft": str(name)} if name.startswith("draft-") and "/" not in name:
                (self._objects / name).unlink(missing_ok=True)

    @contextmanager
    def _explained(self, file: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if (error.filename, error.filename2) == (str(file), None):
                raise  # the file's own fault, not the store's
            if error.errno in NO_ROOM:
                raise _full(self._objects, file) from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise CatalogReadOnly(
                    f"{file} cannot be stored in {self._objects}: {error}. Let this user write there."
                ) from error
            raise StoreUnavailable(f"{file} cannot be stored in {self._objects} now: {error}.") from error


def _emptied(waiting: deque[Path]) -> Iterator[Path]:
    with suppress(IndexError):
        while True:
            yield waiting.popleft()


def _full(objects: Path, file: Path) -> StoreFull:
    needed, free = file.stat().st_size, shutil.disk_usage(objects.parent).free
    return StoreFull(
        f"{file} cannot be stored: it has {needed} bytes, and the disk of {objects} has {free} free. "
        "Free some space and upload again; the file stays where it is."
    )


def _mode(file: Path) -> int | None:
    """The kind of a file or link; None where there is none, and where a link leads nowhere."""
    try:
        mode = file.lstat().st_mode
        return mode if not S_ISLNK(mode) or file.exists() else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _rename(file: Path, path: Path) -> None:
    """Move a file into a folder, which is made where this is the first object in it."""
    try:
        file.rename(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file.rename(path)


def _digest_to_disk(file: Path) -> tuple[str, os.stat_result]:
    with file.open("rb", buffering=0) as opened:
        before = os.fstat(opened.fileno())
        early = EarlySync(opened.fileno()) if before.st_size >= BIG else None
        md5 = digest(opened)
        if early is not None:
            early.wait()
    return md5, before


def _made_read_only(file: Path) -> bool:
    try:
        file.chmod(READ_ONLY)
    except PermissionError:  # another user's file in a folder of ours
        return False
    return True


class _NotShared(Exception):
    """A file that cannot be shared, and is copied."""


def _digest_shared(file: Path, draft: Path) -> tuple[str, int]:
    """Give a file a second name, and read it under that; its MD5 and length."""
    try:
        draft.hardlink_to(file)
    except FileNotFoundError:
        raise
    except OSError as error:  # another file system, one without links, or another user's file
        raise _NotShared from error
    md5, seen = _digest_to_disk(draft)
    if not _made_read_only(draft) or not _same_content(seen, draft.lstat()):
        raise _NotShared
    return md5, seen.st_size


def _unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return before.st_nlink == after.st_nlink and _same_content(before, after)


def _same_content(before: os.stat_result, after: os.stat_result) -> bool:
    return all(getattr(before, part) == getattr(after, part) for part in ("st_ino", "st_size", "st_mtime_ns"))


if TYPE_CHECKING:
    _: type[ObjectStore] = FolderStore
