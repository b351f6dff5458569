"""Content of a file to upload: its digest, whether it has changed, and slices of it as request bodies."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from deriva_ml_core.errors import InvalidFileName

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["FileChanged", "FileContent", "FileSlice"]

READ_SIZE = 2**20


class FileChanged(Exception):
    """A file changed while it was uploaded."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """Digest and length of a file when it was read.

    Args:
        file: The file.
        md5: MD5 of its bytes, 32 hex digits.
        length: Number of bytes.
        stamp: The file's inode, size and modification time in nanoseconds; the bytes are the same while it is.
    """

    file: Path
    md5: str
    length: int
    stamp: tuple[int, ...]

    @classmethod
    def read(cls, file: Path, resume: JsonValue = None) -> FileContent:
        """Compute a file's digest, or take it from the saved progress if the file has not changed since.

        Raises:
            FileNotFoundError: The file does not exist.
            InvalidFileName: The path is not a regular file.
        """
        stamp = _read_stamp(file)
        match resume:
            case {"md5": str(digest), "stamp": list(saved)} if saved == list(stamp):
                return cls(file, digest, stamp[1], stamp)
        md5 = hashlib.md5(usedforsecurity=False)
        length = 0
        with file.open("rb", buffering=0) as stream:
            while block := stream.read(READ_SIZE):
                md5.update(block)
                length += len(block)
        return cls(file, md5.hexdigest(), length, stamp)

    @classmethod
    def stat(cls, file: Path) -> FileContent:
        """Return a file's length and stamp, without its digest.

        Raises:
            FileNotFoundError: The file does not exist.
            InvalidFileName: The path is not a regular file.
        """
        stamp = _read_stamp(file)
        return cls(file, "", stamp[1], stamp)

    def with_md5(self, md5: str) -> FileContent:
        """Return the content with its digest."""
        return replace(self, md5=md5)

    @property
    def md5_header(self) -> str:
        """The MD5 in base64, as in Hatrac's headers."""
        return base64.b64encode(bytes.fromhex(self.md5)).decode()

    def has_changed(self) -> bool:
        """Whether the file has changed since."""
        return _read_stamp(self.file) != self.stamp

    def is_identical_to(self, md5_header: str | None, length: str | None) -> bool:
        """Whether an object with these headers has the same bytes."""
        return md5_header == self.md5_header and length == str(self.length)


def _read_stamp(file: Path) -> tuple[int, ...]:
    try:
        status = file.stat()
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file)) from error
    if not file.is_file():
        raise InvalidFileName(f"{file} is not a regular file; only regular files can be stored.")
    return (status.st_ino, status.st_size, status.st_mtime_ns)


class FileSlice:
    """Part of a file as a request body, read block by block while it is sent.

    Args:
        file: The file, opened for this slice only.
        start: Offset of the first byte.
        length: Number of bytes.
    """

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length
        self.seek(0)

    def __len__(self) -> int:
        return self._length

    def tell(self) -> int:
        """Return the position within the slice."""
        return self._length - self._remaining

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Set the position within the slice, as of a file, and return it."""
        position += 0 if whence == os.SEEK_SET else self._length if whence == os.SEEK_END else self.tell()
        self._file.seek(self._start + position)
        self._remaining = self._length - position
        return position

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes.

        Raises:
            FileChanged: The file has fewer bytes than the slice.
        """
        wanted = self._remaining if size is None or size < 0 else min(size, self._remaining)
        piece = self._file.read(wanted)
        if len(piece) < wanted:
            raise FileChanged
        self._remaining -= len(piece)
        return piece
