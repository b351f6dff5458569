"""The files that this process is still writing: a log's, say, whose handler nobody has closed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

__all__ = ["is_open_file", "files_open_for_writing"]

FileIdentity = tuple[int, int]
"""A file's device and inode."""


def files_open_for_writing() -> frozenset[FileIdentity]:
    """The files that this process has open for writing; none where the system does not tell."""
    found = set()
    with suppress(OSError):
        for name in os.listdir("/dev/fd"):
            with suppress(OSError):  # the one that listed them is closed again
                file = os.fstat(int(name))
                if S_ISREG(file.st_mode) and fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
                    found.add((file.st_dev, file.st_ino))
    return frozenset(found)


def is_open_file(path: Path, open_files: Set[FileIdentity]) -> bool:
    """Whether the file at a path is one of these."""
    try:
        file = path.stat()
    except OSError:
        return False
    return (file.st_dev, file.st_ino) in open_files
