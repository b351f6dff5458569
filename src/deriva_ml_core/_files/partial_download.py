"""Files that are not whole yet: what an interrupted download left, and no other process is at."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

__all__ = ["open_partial_file"]


@contextmanager
def open_partial_file(folder: Path, md5: str) -> Iterator[tuple[FileIO, Path]]:
    """A partial copy of our own, open to be read and appended to.

    Args:
        folder: Where the whole one will lie.
        md5: What its bytes will have, which names it.

    Yields:
        The file, as an interrupted call left it unless another process is at it just now, and its path.
    """
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
