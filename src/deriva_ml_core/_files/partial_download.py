"""Downloaded files: partial ones of interrupted downloads, which a later call continues, and complete ones.

The name of a partial file is made from the MD5 of the complete file, not at random as in `atomic`: the next call has to
find it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from deriva_ml_core._files.locks import try_lock_file
from deriva_ml_core._text import format_size
from deriva_ml_core.errors import ChecksumMismatch, DiskFull, StoreUnavailable

__all__ = ["check_received", "compute_received", "download_object", "has_bytes", "open_partial_file"]

READ_SIZE = 2**20

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)

Received = tuple[str, int]
"""MD5 and number of the bytes that a store has sent."""


def download_object(
    url: str, target: Path, *, length: int, md5: str, iter_bytes: Callable[[int], Iterable[bytes]]
) -> None:
    """Download an object, resuming an interrupted download; `target` appears once it is complete and verified.

    Args:
        url: URL of the object.
        target: Path of the downloaded file. An existing file is replaced.
        length: Expected number of bytes.
        md5: Expected MD5, 32 hex digits.
        iter_bytes: Function that returns the object's bytes from an offset; none if the store cannot begin there.

    Raises:
        ChecksumMismatch: The object's bytes differ. Nothing is left at `target`.
        DiskFull: The disk is full; the next call resumes the download.
        StoreUnavailable: The target cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_partial_file(target.parent, md5) as (part, name):
            for from_start in (False, True):
                if from_start:
                    part.truncate(0)
                received = _resume_download(part, length, iter_bytes)
                if received == (md5, length):
                    name.replace(target)
                    return
            name.unlink()
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull(
                f"The object {url} ({format_size(length)}) cannot be downloaded to {target}: the disk is full. "
                "Free some space and repeat the call, which resumes the download."
            ) from error
        raise StoreUnavailable(f"The object {url} cannot be downloaded to {target}: {error}.") from error
    check_received(url, received, length=length, md5=md5)


def _resume_download(part: FileIO, length: int, iter_bytes: Callable[[int], Iterable[bytes]]) -> Received:
    """Download the missing rest of a partial file, and return the MD5 and length of the whole file.

    An object that is longer than expected is read for at most one block more.
    """
    digest, count = hashlib.md5(usedforsecurity=False), 0
    part.seek(0)
    while piece := part.read(READ_SIZE):
        digest.update(piece)
        count += len(piece)
    if count < length or not count:
        for piece in iter_bytes(count):
            digest.update(piece)
            count += len(piece)
            left = memoryview(piece)
            while left:
                left = left[part.write(left) :]
            if count > length:
                break
    return digest.hexdigest(), count


def compute_received(pieces: Iterable[bytes], length: int) -> Received:
    """Return MD5 and length of an object. If it is longer than expected, at most one block more is read."""
    digest, count = hashlib.md5(usedforsecurity=False), 0
    for piece in pieces:
        digest.update(piece)
        count += len(piece)
        if count > length:
            break
    return digest.hexdigest(), count


def check_received(url: str, received: Received, *, length: int, md5: str) -> None:
    """Raise `ChecksumMismatch` unless a store has sent the recorded bytes of an object."""
    if received != (md5, length):
        raise ChecksumMismatch(
            f"The object {url} is damaged: received {received[1]} bytes with MD5 {received[0]}, expected {length} with "
            f"{md5}. Try again; if that fails, upload the file again."
        )


@contextmanager
def open_partial_file(folder: Path, md5: str) -> Iterator[tuple[FileIO, Path]]:
    """Open a partial file for reading and appending that no other process uses.

    Args:
        folder: The folder of the complete file.
        md5: The MD5 of the complete file, which names the partial one.

    Yields:
        The file and its path. It holds what an interrupted call left, unless another process is writing to that.
    """
    path = folder / f".{md5}.part"
    file = path.open("ab+", buffering=0)
    if not try_lock_file(file) or not _is_at(file, path):
        file.close()
        path = folder / f".{md5}-{os.urandom(8).hex()}.part"
        file = path.open("xb+", buffering=0)
    with file:
        yield file, path


def has_bytes(path: Path, *, length: int, md5: str) -> bool:
    """Whether a file exists and has the recorded bytes. It is only read if its length is right.

    Args:
        path: The file.
        length: Expected number of bytes.
        md5: Expected MD5, 32 hex digits.

    Raises:
        OSError: The file cannot be read.
    """
    if not path.is_file() or path.stat().st_size != length:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5


def _is_at(file: FileIO, path: Path) -> bool:
    """Whether a path still names an open file, which another process may have renamed before this one locked it."""
    return path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino
