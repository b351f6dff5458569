"""A file's bytes on their way out: their digest, and slices of them that are never in memory as a whole."""

from __future__ import annotations

import base64
import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from deriva_ml_core.errors import InvalidFileName

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["FileChanged", "FileContent", "FileSlice"]

READ_SIZE = 2**20


class FileChanged(Exception):
    """A file whose bytes are others than those that were promised."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes as they were when they were read.

    Args:
        file: The file.
        md5: Their MD5, 32 hex digits.
        length: Their number.
        stamp: The file's inode, size and modification time in nanoseconds: where these are the same, so are the bytes.
    """

    file: Path
    md5: str
    length: int
    stamp: tuple[int, ...]

    @classmethod
    def read(cls, file: Path, resume: JsonValue = None) -> FileContent:
        """Read a file; one that is as it was when it was last noted is not read again.

        Raises:
            FileNotFoundError: There is no such file.
            InvalidFileName: It is a folder or the like.
        """
        stamp = _read_stamp(file)
        match resume:
            case {"md5": str(known), "stamp": list(noted)} if noted == list(stamp):
                return cls(file, known, stamp[1], stamp)
        md5 = hashlib.md5(usedforsecurity=False)
        length = 0
        with file.open("rb", buffering=0) as opened:
            while piece := opened.read(READ_SIZE):
                md5.update(piece)
                length += len(piece)
        return cls(file, md5.hexdigest(), length, stamp)

    @property
    def md5_header(self) -> str:
        """The MD5 as Hatrac's headers have it."""
        return base64.b64encode(bytes.fromhex(self.md5)).decode()

    def has_changed(self) -> bool:
        """Whether the file has been written since."""
        return _read_stamp(self.file) != self.stamp

    def is_identical_to(self, md5_header: str | None, length: str | None) -> bool:
        """Whether an object with these headers has the same bytes."""
        return md5_header == self.md5_header and length == str(self.length)


def _read_stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, "There is no such file", str(file)) from error
    if not file.is_file():
        raise InvalidFileName(f"{file} is not a file: only files can be stored.")
    return (found.st_ino, found.st_size, found.st_mtime_ns)


class FileSlice:
    """Part of a file as a body: read block by block while it is sent.

    Args:
        file: The file, open for this slice alone.
        start: Where it begins.
        length: How many bytes it has.
    """

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        file.seek(start)
        self._read: Callable[[int], bytes] = file.read
        self._length = self._remaining = length

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """The next bytes; never fewer in all than were promised.

        Raises:
            Changed: The file has become shorter.
        """
        wanted = self._remaining if size < 0 else min(size, self._remaining)
        piece = self._read(wanted)
        if len(piece) < wanted:
            raise FileChanged
        self._remaining -= len(piece)
        return piece
