"""Downloaded files: partial ones of interrupted downloads, which a later call continues, and complete ones.

The name of a partial file is made from the MD5 of the complete file, not at random as in `atomic`: the next call has to
find it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from deriva_ml_core._files.locks import try_lock_file

__all__ = ["has_bytes", "open_partial_file"]


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
