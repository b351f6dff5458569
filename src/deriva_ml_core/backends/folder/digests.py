"""Digest, copy and compare files."""

from __future__ import annotations

import hashlib
import os
from io import FileIO
from pathlib import Path

from deriva_ml_core._files.atomic import open_new

__all__ = ["copy_with_md5", "compute_md5", "has_same_bytes", "write_all"]

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

    Args:
        file: The original. Its times are copied too.
        destination: Path of the copy, which must not exist. Only its owner can read it until its mode is set.
    """
    md5, length = hashlib.md5(usedforsecurity=False), 0
    with file.open("rb", buffering=0) as source, open_new(destination, 0o600) as target:
        piece = memoryview(bytearray(min(CHUNK_SIZE, os.fstat(source.fileno()).st_size + 1)))
        while count := source.readinto(piece):
            md5.update(piece[:count])
            length += write_all(target, piece[:count])
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
