"""How an object is brought to a file: going on where an interrupted copy stopped, and checked before it is there."""

from __future__ import annotations

import hashlib
from io import FileIO
from pathlib import Path

from deriva_ml_core.backends.embedded.contents import write_all
from deriva_ml_core.backends.partial import open_partial_file
from deriva_ml_core.errors import ChecksumMismatch

__all__ = ["fetch_object"]

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
