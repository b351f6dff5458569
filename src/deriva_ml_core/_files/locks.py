"""Locks on files, which the system releases when the file is closed or the process dies.

Work on a folder is locked by ``filelock``, which locks a marker file that it creates and, in several versions,
truncates. Data files that are being written are locked themselves: a marker for each would double the number of files.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from weakref import finalize

from deriva_ml_core._files.os_errors import translate_os_errors

__all__ = ["SharedLock", "is_locked", "lock_file", "locked_folder", "try_lock_file"]


@contextmanager
def locked_folder(marker: Path, action: str, *, blocking: bool = True) -> Iterator[bool]:
    """Lock the work on a folder between processes.

    Args:
        marker: The file that is locked. It is created in the folder.
        action: What is locked, for messages: ``upload execution 1-4A2C``.
        blocking: Whether to wait for another process.

    Yields:
        Whether the lock is held; false only if it does not wait, and another process holds it.

    Raises:
        CatalogReadOnly, DiskFull, FileUnavailable: The file cannot be created or locked.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(marker)
    with translate_os_errors(f"Cannot {action}: the lock {marker} cannot be taken", marker.parent), suppress(Timeout):
        lock.acquire(blocking=blocking)
    try:
        yield lock.is_locked
    finally:
        lock.release()


class SharedLock:
    """Lock of a file that several processes can hold, from creation until the object is deleted or its process ends.

    Args:
        path: The file. It is created if needed.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # a forked child that deletes its copy of the object closes only its own descriptor
        finalize(self, os.close, descriptor).atexit = False
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def lock_file(file: IO[bytes]) -> None:
    """Lock an open file until it is closed, so that `remove_leftovers` does not delete it."""
    fcntl.flock(file, fcntl.LOCK_EX)


def try_lock_file(file: IO[bytes]) -> bool:
    """Lock an open file unless another process holds the lock; returns whether it succeeded."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    with path.open("rb") as file:
        return not try_lock_file(file)
