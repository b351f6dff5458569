"""Object store in a folder. Each object is stored once, under its digest, and is read-only.

An object is never more readable than its original and the umask allow.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from io import FileIO
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import TYPE_CHECKING

from deriva_ml_core._deprecation import deprecated_attributes
from deriva_ml_core._files.atomic import open_new, try_reflink
from deriva_ml_core._files.partial_download import open_partial_file
from deriva_ml_core._files.permissions import create_folder, is_shared_with_group, object_mode
from deriva_ml_core._text import format_size
from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.folder.durability import BackgroundFsync, Disk, make_durable
from deriva_ml_core.backends.object_names import FOLDER_OBJECT_VERSION, ObjectName, check_filename, parse_object_url
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


__all__ = ["FolderStore", "compute_md5", "copy_with_md5", "fetch_object", "has_same_bytes", "write_all"]

CHUNK_SIZE = 2**20
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
MAX_READ_ATTEMPTS = 3
"""Attempts to read a file that keeps changing, before it is copied as it is. Not a retry of a failed call."""

BACKGROUND_FSYNC_SIZE = 8 * 2**20
"""Size in bytes from which a file is flushed to disk while its digest is computed."""


def _ignore_note(state: JsonValue) -> None:
    """Do nothing."""


class FolderStore:
    """Object store in ``<folder>/objects/<first two digits of the MD5>/<MD5>``.

    A file is moved or hard-linked into the store if its `TransferMode` allows it, and copied once otherwise. No object
    shares an inode with a path that may be written again. Objects are stored by digest, whatever their file names are.
    ``UploadOptions.timeout`` and ``chunk_size`` have no effect, because nothing is sent over a network.

    Args:
        folder: The catalog's folder. Working folders inside it are on the same file system, so a move is a rename.
        disk: The calls that flush files to disk. None for those of the system.
    """

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        self._folder = folder
        self._disk = disk or Disk()
        self._objects = folder / "objects"
        # a deque needs no lock, which a forked process could inherit locked
        self._unsynced: deque[Path] = deque()

    @property
    def preferred_concurrency(self) -> int:
        """1: on 2 cores, two threads stored 1,000 files of 4 KiB 20 % slower, and 8 copies of 32 MiB no faster."""
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
        """Store a file's bytes: move or hard-link the file if that is allowed and possible, else copy it.

        Symbolic links, files on another file system, and files to move that have several hard links are copied. A
        symbolic link stays in its place.

        Raises:
            FileNotFoundError: The file does not exist, and was not stored before.
            InvalidFileName: The name leaves its folder, or the path is not a file.
            DiskFull: The disk has too little free space.
            PermissionError: The file is not readable.
            CatalogReadOnly: The store's folder is read-only.
            StoreUnavailable: The folder cannot be written at the moment.
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
                raise InvalidFileName(f"{file} is not a file. Only files can be stored.")
        url = ObjectName(table, md5, filename).url(FOLDER_OBJECT_VERSION)
        return StoredObject(url=url, md5=md5, length=length)

    def sync(self) -> None:
        """Wait until all stored objects are on disk.

        Raises:
            ChecksumMismatch: An object was deleted meanwhile. The next call flushes the others.
            DiskFull, StoreUnavailable: The disk failed. The next call flushes the same objects.
        """
        unsynced = set(_drain(self._unsynced))
        if not unsynced:
            return
        try:
            make_durable(unsynced, self._folder, self._disk)
        except FileNotFoundError as error:
            lost = {path for path in unsynced if not path.exists()}
            self._unsynced.extend(unsynced - lost)
            names = ", ".join(map(str, sorted(lost))) or error.filename
            raise ChecksumMismatch(
                f"The object {names} was deleted before it was flushed to disk. Write and upload its file again."
            ) from error
        except OSError as error:
            self._unsynced.extend(unsynced)
            error_class = DiskFull if error.errno in DISK_FULL_ERRNOS else StoreUnavailable
            raise error_class(
                f"The objects in {self._objects} could not be flushed to disk ({error.strerror}). Check the disk, and "
                "upload again."
            ) from error

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:  # noqa: ARG002
        path = self._find_object(url)
        try:
            fetch_object(path, url, target, length=length, md5=md5)
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise DiskFull(
                    f"The object {url} ({format_size(length)}) cannot be copied to {target}: the disk is full. "
                    "Free some space and try again; the copy resumes."
                ) from error
            raise StoreUnavailable(
                f"The object {url} cannot be copied to {target}: {error}. Try again later."
            ) from error

    def verify(self, url: str, *, length: int, md5: str) -> None:
        path = self._find_object(url)
        actual = (compute_md5(path), path.stat().st_size)
        if actual != (md5, length):
            raise _damaged_object_error(url, path, actual, (md5, length))

    def source(self, url: str) -> str:
        return self._object_path(parse_object_url(url).md5).absolute().as_uri()

    def close(self) -> None:
        """Do nothing: no file stays open."""

    @property
    def folder(self) -> Path:
        """The catalog's folder."""
        return self._folder

    def renew(self, url: str) -> bool:
        """Mark an object as used now, so that `delete_if_unused_since` keeps it until a row names it.

        Returns:
            Whether the store has the object.
        """
        with _held_object(self._object_path(parse_object_url(url).md5)) as path:
            return path is not None and _renew(path)

    def delete_if_unused_since(self, md5: str, time: float) -> bool:
        """Delete an object that no call uses and that was neither stored nor used since a time.

        Args:
            md5: Digest of the object.
            time: Seconds since 1970, by the clock of the file system.

        Returns:
            Whether the object is gone.
        """
        path = self._object_path(md5)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        except OSError:  # another user's object, or no file
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_file_at(path, descriptor) or os.fstat(descriptor).st_ctime >= time:
                return False
            path.unlink()
        except OSError:  # it is in use, or the folder is read-only
            return False
        finally:
            os.close(descriptor)
        return True

    def _object_path(self, md5: str) -> Path:
        return self._objects.joinpath(md5[:2], md5)

    def _find_object(self, url: str) -> Path:
        path = self._object_path(parse_object_url(url).md5)
        if not path.exists():
            raise ChecksumMismatch(f"The object {url} is lost: {path} does not exist. Restore it from a backup.")
        return path

    def _move(self, file: Path, note: Callable[[JsonValue], None]) -> tuple[str, int]:
        for _ in range(MAX_READ_ATTEMPTS):
            md5, before = _digest_and_sync(file, self._disk)
            if before.st_nlink > 1:
                break
            note({"md5": md5, "length": before.st_size})
            if not _try_make_read_only(file, before.st_mode):
                break
            if _is_unchanged(before, file.lstat()):
                try:
                    self._move_into_place(file, md5)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    break
                return md5, before.st_size
        md5, length = self._copy(file, note)
        note({"md5": md5, "length": length})
        file.unlink()
        return md5, length

    def _hardlink(self, file: Path, note: Callable[[JsonValue], None]) -> tuple[str, int]:
        """Hard-link a file into the store. The link keeps the bytes if the original is removed or replaced."""
        with self._reserve_draft(note) as draft, suppress(_HardlinkFailed):
            md5, length = _hardlink_and_digest(file, draft, self._disk)
            self._move_into_place(draft, md5)
            return md5, length
        return self._copy(file, note)

    def _copy(self, file: Path, note: Callable[[JsonValue], None]) -> tuple[str, int]:
        with self._reserve_draft(note) as draft:
            mode = file.stat().st_mode
            md5, length = copy_with_md5(file, draft)
            draft.chmod(object_mode(mode))
            self._move_into_place(draft, md5)
        return md5, length

    @contextmanager
    def _reserve_draft(self, note: Callable[[JsonValue], None]) -> Iterator[Path]:
        """Yield a temporary path in the store for an incomplete object, and remove it afterwards."""
        # _files/atomic.py names it otherwise: the journal stores this name, and the next upload deletes the draft
        draft = self._objects / f"draft-{os.getpid()}-{os.urandom(8).hex()}"
        note({"draft": draft.name})
        create_folder(self._objects, self._folder)
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def _move_into_place(self, file: Path, md5: str) -> None:
        """Move a file to the path of its digest, or delete it if the store already has its bytes."""
        path = self._object_path(md5)
        with _held_object(path) as present:
            if present is None or self._is_damaged(present, file, md5):
                self._rename_creating_parent(file, path)
            else:
                _widen_mode(present, file.stat().st_mode)
                if _renew(present) or present.samefile(file):
                    file.unlink()
                else:  # another user's object, which a clean-up might delete
                    self._rename_creating_parent(file, path)
        self._unsynced.append(path)

    def _rename_creating_parent(self, file: Path, path: Path) -> None:
        """Rename a file, and create the target's folder if needed. In a shared store, it gets the folder's group."""
        try:
            file.rename(path)
        except FileNotFoundError:
            create_folder(path.parent, self._folder)
            file.rename(path)
        if is_shared_with_group(self._folder):
            _set_group(path, self._folder)

    def _is_damaged(self, path: Path, file: Path, md5: str) -> bool:
        if path.samefile(file) or has_same_bytes(path, file):
            return False
        if compute_md5(path) == md5:
            raise FileConflict(f"{file} cannot be stored: it has the same MD5 as the object {path}, and other bytes.")
        return True

    def _find_moved_object(self, file: Path, resume: JsonValue | None) -> tuple[str, int]:
        match resume:
            case {"md5": str(md5), "length": int(length)} if self._has_object(md5, length):
                _renew(self._object_path(md5))
                self._unsynced.append(self._object_path(md5))
                return md5, length
        raise FileNotFoundError(errno.ENOENT, "The file does not exist, and was not stored before", str(file))

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
                raise  # the error concerns the file, not the store
            if error.errno in DISK_FULL_ERRNOS:
                raise _disk_full_error(self._objects, file) from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise CatalogReadOnly(
                    f"{file} cannot be stored in {self._objects}: {error}. Make the folder writable for this user."
                ) from error
            raise StoreUnavailable(f"{file} cannot be stored in {self._objects}: {error}. Try again later.") from error


def _drain(paths: deque[Path]) -> Iterator[Path]:
    with suppress(IndexError):
        while True:
            yield paths.popleft()


def _disk_full_error(objects: Path, file: Path) -> DiskFull:
    needed, free = file.stat().st_size, shutil.disk_usage(objects.parent).free
    return DiskFull(
        f"{file} cannot be stored: it has {format_size(needed)}, and the disk of {objects} has {format_size(free)} "
        "free. Free some space and upload again. The file stays in its place."
    )


def _file_mode(file: Path) -> int | None:
    """Return the mode of a file or link, or None if the file or the target of the link does not exist."""
    try:
        mode = file.lstat().st_mode
        return mode if not S_ISLNK(mode) or file.exists() else None
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _held_object(path: Path) -> Iterator[Path | None]:
    """Keep an object from being deleted as unused; yields its path, or None if it does not exist."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except PermissionError:  # another user's object, which only that user deletes
        yield path
        return
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield path if _is_file_at(path, descriptor) else None
    finally:
        os.close(descriptor)


def _is_file_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _renew(path: Path) -> bool:
    """Renew the time at which the status of a file changed; its other times stay. Returns whether that was allowed."""
    try:
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    except (PermissionError, FileNotFoundError):
        return False
    return True


def _widen_mode(path: Path, mode: int) -> None:
    """Let those read an object who may read the equal file that is stored again."""
    current = path.stat().st_mode & 0o777
    if mode & 0o444 & ~current:
        with suppress(PermissionError):  # another user's object
            path.chmod(current | mode & 0o444)


def _set_group(file: Path, folder: Path) -> None:
    with suppress(PermissionError):  # another user's file, or a group that the user is not in
        if (group := folder.stat().st_gid) != file.stat().st_gid:
            os.chown(file, -1, group)


def _digest_and_sync(file: Path, disk: Disk) -> tuple[str, os.stat_result]:
    with file.open("rb", buffering=0) as opened:
        before = os.fstat(opened.fileno())
        fsync = BackgroundFsync(opened.fileno(), disk) if before.st_size >= BACKGROUND_FSYNC_SIZE else None
        md5 = compute_md5(opened)
        if fsync is not None:
            fsync.wait()
    return md5, before


def _try_make_read_only(file: Path, mode: int) -> bool:
    """Remove the write bits of a file, and the read bits that the umask denies."""
    try:
        file.chmod(object_mode(mode))
    except PermissionError:  # another user's file in this user's folder
        return False
    return True


class _HardlinkFailed(Exception):
    """The file cannot be hard-linked and must be copied."""


def _hardlink_and_digest(file: Path, draft: Path, disk: Disk) -> tuple[str, int]:
    """Hard-link a file, and return the MD5 and length of the link."""
    try:
        draft.hardlink_to(file)
    except FileNotFoundError:
        raise
    except OSError as error:  # another file system, a file system without links, or another user's file
        raise _HardlinkFailed from error
    md5, before = _digest_and_sync(draft, disk)
    if not _try_make_read_only(draft, before.st_mode) or not _has_same_content(before, draft.lstat()):
        raise _HardlinkFailed
    return md5, before.st_size


def _is_unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return before.st_nlink == after.st_nlink and _has_same_content(before, after)


def _has_same_content(before: os.stat_result, after: os.stat_result) -> bool:
    return all(getattr(before, part) == getattr(after, part) for part in ("st_ino", "st_size", "st_mtime_ns"))


def _damaged_object_error(url: str, path: Path, actual: tuple[str, int], expected: tuple[str, int]) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"The object {url} is damaged: {path} has {actual[1]} bytes with MD5 {actual[0]}, not {expected[1]} with "
        f"{expected[0]}. Restore it from a backup, or upload the file again."
    )


def fetch_object(path: Path, url: str, target: Path, *, length: int, md5: str) -> None:
    """Copy an object out of the store, resuming an interrupted copy.

    Args:
        path: Path of the object.
        url: URL of the object, for messages.
        target: Path of the copy. It appears complete and verified, or not at all.
        length: Expected number of bytes.
        md5: Expected MD5, 32 hex digits.

    Raises:
        ChecksumMismatch: The object's bytes differ.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_partial_file(target.parent, md5) as (part, name):
        _restrict_mode(part, path.stat().st_mode)
        for restart in (False, True):
            if restart:
                part.truncate(0)
            actual = _resume_copy(path, part)
            if actual == (md5, length):
                name.replace(target)
                return
        name.unlink()
    raise _damaged_object_error(url, path, actual, (md5, length))


def _restrict_mode(part: FileIO, mode: int) -> None:
    """Deny a copy to those who cannot read the object. Those who can read it may get write access by the umask."""
    allowed = mode & 0o444 | (mode & 0o444) >> 1 | 0o600
    current = os.fstat(part.fileno()).st_mode & 0o777
    if current & ~allowed:
        os.fchmod(part.fileno(), current & allowed)


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


CHUNK_SIZE = 2**20


def compute_md5(file: Path | FileIO) -> str:
    """Return the MD5 of a file, 32 hex digits."""
    if isinstance(file, Path):
        with file.open("rb", buffering=0) as opened:
            return compute_md5(opened)
    md5 = hashlib.md5(usedforsecurity=False)
    # hashlib.file_digest allocates a buffer and looks up the algorithm, which costs more than reading a small file
    while piece := file.read(CHUNK_SIZE):
        md5.update(piece)
    return md5.hexdigest()


def copy_with_md5(file: Path, destination: Path) -> tuple[str, int]:
    """Copy a file, and return the MD5 and length of the copy, even if the original is written meanwhile.

    A file system that can share the bytes of two files on disk does so.

    Args:
        file: The original. Its times are copied too.
        destination: Path of the copy, which must not exist. Only its owner can read it until its mode is set.
    """
    md5, length = hashlib.md5(usedforsecurity=False), 0
    with file.open("rb", buffering=0) as source, open_new(destination, 0o600) as target:
        is_cloned = try_reflink(source, target)
        piece = memoryview(bytearray(min(CHUNK_SIZE, os.fstat(source.fileno()).st_size + 1)))
        with destination.open("rb", buffering=0) if is_cloned else nullcontext(source) as content:
            while count := content.readinto(piece):
                md5.update(piece[:count])
                length += count if is_cloned else write_all(target, piece[:count])
        times = os.fstat(source.fileno())
        os.utime(target.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))
    return md5.hexdigest(), length


def write_all(file: FileIO, data: bytes | memoryview) -> int:
    """Write all bytes, and return their number. A write to a nearly full disk may be partial before it fails."""
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[file.write(remaining) :]
    return len(data)


def has_same_bytes(first: Path, second: Path) -> bool:
    """Whether two files have the same bytes. Both are read."""
    if first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb", buffering=0) as one, second.open("rb", buffering=0) as other:
        while piece := one.read(CHUNK_SIZE):
            if other.read(len(piece)) != piece:
                return False
    return True


if TYPE_CHECKING:
    _: type[ObjectStore] = FolderStore
