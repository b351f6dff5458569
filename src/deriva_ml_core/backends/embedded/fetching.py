"""How an object is brought to a file: going on where an interrupted copy stopped, and checked before it is there."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from deriva_ml_core.backends.embedded.contents import write_all
from deriva_ml_core.errors import ChecksumMismatch

__all__ = ["fetch"]

PIECE = 2**20


def fetch(path: Path, url: str, target: Path, *, length: int, md5: str) -> None:
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
    with _part(target.parent, md5) as (part, name):
        for begin_again in (False, True):
            if begin_again:
                part.truncate(0)
            found = _complete(path, part)
            if found == (md5, length):
                name.replace(target)
                return
        name.unlink()
    raise ChecksumMismatch(
        f"The object {url} is damaged: {path} has {found[1]} bytes with MD5 {found[0]}, not {length} with {md5}. "
        "Put back a copy of it, or upload the file again."
    )


@contextmanager
def _part(folder: Path, md5: str) -> Iterator[tuple[FileIO, Path]]:
    """A partial copy of our own: what an interrupted call left, unless another process is at it just now."""
    name = folder / f".{md5}.part"
    part = name.open("ab+", buffering=0)
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not name.exists() or os.fstat(part.fileno()).st_ino != name.stat().st_ino:
            raise BlockingIOError
    except BlockingIOError:
        part.close()
        name = folder / f".{md5}-{os.urandom(8).hex()}.part"
        part = name.open("xb+", buffering=0)
    with part:
        yield part, name


def _complete(path: Path, part: FileIO) -> tuple[str, int]:
    md5, length = hashlib.md5(usedforsecurity=False), 0
    part.seek(0)
    while piece := part.read(PIECE):
        md5.update(piece)
        length += len(piece)
    with path.open("rb", buffering=0) as source:
        source.seek(length)
        while piece := source.read(PIECE):
            md5.update(piece)
            length += write_all(part, piece)
    return md5.hexdigest(), length
