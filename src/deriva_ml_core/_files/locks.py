"""Locks on data files that are being written.

Everything else uses ``filelock``, which locks a marker file that it creates and, in several versions, truncates. Here
the lock is held on the open data file itself: a marker for each would double the number of files. The system releases
the lock when the file is closed or the process dies.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

__all__ = ["is_locked", "lock_file", "try_lock_file"]


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
