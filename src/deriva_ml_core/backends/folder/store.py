"""The folder store: each object once, under its digest, read-only, by the inode rule."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import TYPE_CHECKING

from deriva_ml_core._deprecation import deprecated_attributes
from deriva_ml_core._files.partial_download import open_partial_file
from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.folder.digests import compute_md5, copy_with_md5, has_same_bytes, write_all
from deriva_ml_core.backends.folder.durability import BackgroundFsync, make_durable
from deriva_ml_core.backends.object_names import FolderObjectName, check_filename, parse_object_url
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import (
    CatalogReadOnly,
    ChecksumMismatch,
    DiskFull,
    FileConflict,
    InvalidFileName,
    StoreUnavailable,
)
from deriva_ml_core.models import StoredObject, UploadOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["FolderStore", "fetch_object"]


READ_ONLY_MODE = 0o444
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
MAX_READ_ATTEMPTS = 3
"""How often a file is read that changes while it is read, before it is copied as it is."""

BACKGROUND_FSYNC_SIZE = 8 * 2**20
"""Bytes from which a file's way to the disk is begun while it is read for its digest."""


def _ignore_note(state: JsonValue) -> None:
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
    def preferred_concurrency(self) -> int:
        """One: on 2 cores two threads made 1,000 files of 4 KiB slower by a fifth, and 8 copies of 32 MiB no faster."""
        return 1

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes({"at_once": "preferred_concurrency"})

    def put(
        self,
        table: str,
        filename: str,
        file: Path,
        *,
        handover: TransferMode,
        options: UploadOptions,  # noqa: ARG002
        resume: JsonValue | None = None,
        note: Callable[[JsonValue], None] = _ignore_note,
    ) -> StoredObject:
        """Store a file's bytes, by moving or sharing it where that is allowed and can be done, else by copying it once.

        A link, a file on another file system, and one with several names that is to be moved are copied; the link
        itself stays.

        Raises:
            FileNotFoundError: There is no such file, and it was not stored before.
            InvalidFileName: The name climbs out, or the path is a folder.
            DiskFull: The disk has no room.
            PermissionError: The file may not be read.
            CatalogReadOnly: The store's folder may not be written.
            StoreUnavailable: The folder cannot be written now.
        """
        check_filename(filename)
        with self._translate_errors(file):
            self._delete_draft(resume)
            mode = _file_mode(file)
            if mode is None:
                md5, length = self._find_moved_object(file, resume)
            elif handover is TransferMode.move and S_ISREG(mode):
                md5, length = self._move(file, note)
            elif handover is TransferMode.hardlink and S_ISREG(mode):
                md5, length = self._hardlink(file, note)
            elif file.is_file():
                md5, length = self._copy(file, note)
            else:
                raise InvalidFileName(f"{file} is not a file: only files can be stored.")
        return StoredObject(url=FolderObjectName(table, md5, filename).url, md5=md5, length=length)

    def sync(self) -> None:
        """Return when everything that was put is on the disk."""
        waiting = set(_drain(self._unsynced))
        if not waiting:
            return
        try:
            make_durable(waiting, self._folder)
        except OSError as error:
            self._unsynced.extend(waiting)
            kind = DiskFull if error.errno in DISK_FULL_ERRNOS else StoreUnavailable
            raise kind(f"The objects in {self._objects} do not get onto the disk ({error.strerror}).") from error

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:  # noqa: ARG002
        path = self._find_object(url)
        try:
            fetch_object(path, url, target, length=length, md5=md5)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise DiskFull(
                    f"The object {url} cannot be brought to {target}: it has {length} bytes, and that disk is full. "
                    "Free some space, and the same call goes on."
                ) from error
            raise StoreUnavailable(f"The object {url} cannot be brought to {target} now: {error}.") from error

    def verify(self, url: str, *, length: int, md5: str) -> None:
        path = self._find_object(url)
        found = (compute_md5(path), path.stat().st_size)
        if found != (md5, length):
            raise ChecksumMismatch(
                f"The object {url} is damaged: {path} has {found[1]} bytes with MD5 {found[0]}, "
                f"not {length} with {md5}. "
                "Put back a copy of it, or upload the file again."
            )

    def source(self, url: str) -> str:
        return self._object_path(parse_object_url(url).md5).absolute().as_uri()

    def close(self) -> None:
        """Nothing is kept open."""

    def _object_path(self, md5: str) -> Path:
        return self._objects.joinpath(md5[:2], md5)

    def _find_object(self, url: str) -> Path:
        path = self._object_path(parse_object_url(url).md5)
        if not path.exists():
            raise ChecksumMismatch(f"The object {url} is lost: {path} does not exist. Put it back from a copy.")
        return path

    def _move(self, file: Path, note: Callable[[JsonValue], None]) -> tuple[str, int]:
        for _ in range(MAX_READ_ATTEMPTS):
            md5, seen = _digest_and_sync(file)
            if seen.st_nlink > 1:
                break
            note({"md5": md5, "length": seen.st_size})
            if not _try_make_read_only(file):
                break
            if _is_unchanged(seen, file.lstat()):
                try:
                    self._move_into_place(file, md5)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    break
                return md5, seen.st_size
        md5, length = self._copy(file, note)
        note({"md5": md5, "length": length})
        file.unlink()
        return md5, length

    def _hardlink(self, file: Path, note: Callable[[JsonValue], None]) -> tuple[str, int]:
        """Give a file its place by a second name, which holds fast what is read whatever becomes of the first."""
        with self._reserve_draft(note) as draft, suppress(_HardlinkFailed):
            md5, length = _hardlink_and_digest(file, draft)
            self._move_into_place(draft, md5)
            return md5, length
        return self._copy(file, note)

    def _copy(self, file: Path, note: Callable[[JsonValue], None]) -> tuple[str, int]:
        with self._reserve_draft(note) as draft:
            md5, length = copy_with_md5(file, draft)
            draft.chmod(READ_ONLY_MODE)
            self._move_into_place(draft, md5)
        return md5, length

    @contextmanager
    def _reserve_draft(self, note: Callable[[JsonValue], None]) -> Iterator[Path]:
        """A name in the store's folder for an object in the making, which is free again afterwards."""
        # not named as in _files/atomic.py: the journal holds the name, and the next upload deletes the draft by it
        draft = self._objects / f"draft-{os.getpid()}-{os.urandom(8).hex()}"
        note({"draft": draft.name})
        self._objects.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def _move_into_place(self, file: Path, md5: str) -> None:
        """Give a file that is ours its place, or remove it where its bytes are there already."""
        path = self._object_path(md5)
        if path.exists() and not self._is_damaged(path, file, md5):
            file.unlink()
        else:
            _rename_creating_parent(file, path)
        self._unsynced.append(path)

    def _is_damaged(self, path: Path, file: Path, md5: str) -> bool:
        if path.samefile(file) or has_same_bytes(path, file):
            return False
        if compute_md5(path) == md5:
            raise FileConflict(f"{file} differs from the object {path} with the same MD5; it cannot be stored.")
        return True

    def _find_moved_object(self, file: Path, resume: JsonValue | None) -> tuple[str, int]:
        match resume:
            case {"md5": str(md5), "length": int(length)} if self._has_object(md5, length):
                self._unsynced.append(self._object_path(md5))
                return md5, length
        raise FileNotFoundError(errno.ENOENT, "There is no such file, and it was not stored before", str(file))

    def _has_object(self, md5: str, length: int) -> bool:
        path = self._object_path(md5)
        return path.exists() and path.stat().st_size == length

    def _delete_draft(self, resume: JsonValue | None) -> None:
        match resume:
            case {"draft": str(name)} if name.startswith("draft-") and "/" not in name:
                (self._objects / name).unlink(missing_ok=True)

    @contextmanager
    def _translate_errors(self, file: Path) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if (error.filename, error.filename2) == (str(file), None):
                raise  # the file's own fault, not the store's
            if error.errno in DISK_FULL_ERRNOS:
                raise _disk_full_error(self._objects, file) from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise CatalogReadOnly(
                    f"{file} cannot be stored in {self._objects}: {error}. Let this user write there."
                ) from error
            raise StoreUnavailable(f"{file} cannot be stored in {self._objects} now: {error}.") from error


def _drain(waiting: deque[Path]) -> Iterator[Path]:
    with suppress(IndexError):
        while True:
            yield waiting.popleft()


def _disk_full_error(objects: Path, file: Path) -> DiskFull:
    needed, free = file.stat().st_size, shutil.disk_usage(objects.parent).free
    return DiskFull(
        f"{file} cannot be stored: it has {needed} bytes, and the disk of {objects} has {free} free. "
        "Free some space and upload again; the file stays where it is."
    )


def _file_mode(file: Path) -> int | None:
    """The kind of a file or link; None where there is none, and where a link leads nowhere."""
    try:
        mode = file.lstat().st_mode
        return mode if not S_ISLNK(mode) or file.exists() else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _rename_creating_parent(file: Path, path: Path) -> None:
    """Move a file into a folder, which is made where this is the first object in it."""
    try:
        file.rename(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file.rename(path)


def _digest_and_sync(file: Path) -> tuple[str, os.stat_result]:
    with file.open("rb", buffering=0) as opened:
        before = os.fstat(opened.fileno())
        early = BackgroundFsync(opened.fileno()) if before.st_size >= BACKGROUND_FSYNC_SIZE else None
        md5 = compute_md5(opened)
        if early is not None:
            early.wait()
    return md5, before


def _try_make_read_only(file: Path) -> bool:
    try:
        file.chmod(READ_ONLY_MODE)
    except PermissionError:  # another user's file in a folder of ours
        return False
    return True


class _HardlinkFailed(Exception):
    """A file that cannot be shared, and is copied."""


def _hardlink_and_digest(file: Path, draft: Path) -> tuple[str, int]:
    """Give a file a second name, and read it under that; its MD5 and length."""
    try:
        draft.hardlink_to(file)
    except FileNotFoundError:
        raise
    except OSError as error:  # another file system, one without links, or another user's file
        raise _HardlinkFailed from error
    md5, seen = _digest_and_sync(draft)
    if not _try_make_read_only(draft) or not _has_same_content(seen, draft.lstat()):
        raise _HardlinkFailed
    return md5, seen.st_size


def _is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return before.st_nlink == after.st_nlink and _has_same_content(before, after)


def _has_same_content(before: os.stat_result, after: os.stat_result) -> bool:
    return all(getattr(before, part) == getattr(after, part) for part in ("st_ino", "st_size", "st_mtime_ns"))


if TYPE_CHECKING:
    _: type[ObjectStore] = FolderStore

CHUNK_SIZE = 2**20


def fetch_object(path: Path, url: str, target: Path, *, length: int, md5: str) -> None:
    """Copy an object.

    Args:
        path: Where it lies.
        url: What to call it in a message.
        target: Where it is wanted; it appears there whole and checked, or not at all.
        length: Its bytes' number, as recorded.
        md5: Their MD5, as recorded.

    Raises:
        ChecksumMismatch: Its bytes are others.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_partial_file(target.parent, md5) as (part, name):
        for begin_again in (False, True):
            if begin_again:
                part.truncate(0)
            found = _resume_copy(path, part)
            if found == (md5, length):
                name.replace(target)
                return
        name.unlink()
    raise ChecksumMismatch(
        f"The object {url} is damaged: {path} has {found[1]} bytes with MD5 {found[0]}, not {length} with {md5}. "
        "Put back a copy of it, or upload the file again."
    )


def _resume_copy(path: Path, part: FileIO) -> tuple[str, int]:
    md5, length = hashlib.md5(usedforsecurity=False), 0
    part.seek(0)
    while piece := part.read(CHUNK_SIZE):
        md5.update(piece)
        length += len(piece)
    with path.open("rb", buffering=0) as source:
        source.seek(length)
        while piece := source.read(CHUNK_SIZE):
            md5.update(piece)
            length += write_all(part, piece)
    return md5.hexdigest(), length
