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

__all__ = ["Changed", "Content", "Slice"]

PIECE = 2**20


class Changed(Exception):
    """A file whose bytes are others than those that were promised."""


@dataclass(frozen=True, slots=True)
class Content:
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
    def read(cls, file: Path, resume: JsonValue = None) -> Content:
        """Read a file; one that is as it was when it was last noted is not read again.

        Raises:
            FileNotFoundError: There is no such file.
            InvalidFileName: It is a folder or the like.
        """
        stamp = _stamp(file)
        match resume:
            case {"md5": str(known), "stamp": list(noted)} if noted == list(stamp):
                return cls(file, known, stamp[1], stamp)
        md5 = hashlib.md5(usedforsecurity=False)
        length = 0
        with file.open("rb", buffering=0) as opened:
            while piece := opened.read(PIECE):
                md5.update(piece)
                length += len(piece)
        return cls(file, md5.hexdigest(), length, stamp)

    @property
    def header(self) -> str:
        """The MD5 as Hatrac's headers have it."""
        return base64.b64encode(bytes.fromhex(self.md5)).decode()

    def changed(self) -> bool:
        """Whether the file has been written since."""
        return _stamp(self.file) != self.stamp

    def equals(self, md5_header: str | None, length: str | None) -> bool:
        """Whether an object with these headers has the same bytes."""
        return md5_header == self.header and length == str(self.length)


def _stamp(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, "There is no such file", str(file)) from error
    if not file.is_file():
        raise InvalidFileName(f"{file} is not a file: only files can be stored.")
    return (found.st_ino, found.st_size, found.st_mtime_ns)


class Slice:
    """Part of a file as a body: read block by block while it is sent.

    Args:
        opened: The file, open for this slice alone.
        start: Where it begins.
        length: How many bytes it has.
    """

    def __init__(self, opened: IO[bytes], start: int, length: int) -> None:
        opened.seek(start)
        self._read: Callable[[int], bytes] = opened.read
        self._length = self._left = length

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """The next bytes; never fewer in all than were promised.

        Raises:
            Changed: The file has become shorter.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        piece = self._read(wanted)
        if len(piece) < wanted:
            raise Changed
        self._left -= len(piece)
        return piece
