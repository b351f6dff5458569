"""How bytes get onto the disk: file by file where they are few, the whole file system at once where they are many."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Thread

from deriva_ml_core._files.atomic import sync_path

__all__ = ["BackgroundFsync", "MAX_SINGLE_FSYNCS", "make_durable"]

MAX_SINGLE_FSYNCS = 16
"""Files up to which each is synchronized by itself: one fsync costs about what a syncfs costs a few files."""


class BackgroundFsync:
    """A file that is being written to the disk while it is read for its digest.

    Args:
        descriptor: The open file; it may be closed by its owner before the end.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._error: OSError | None = None
        self._thread = Thread(target=self._run, name="deriva-ml-sync", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._error = error
        finally:
            os.close(self._descriptor)

    def wait(self) -> None:
        """Return when the file is on the disk, or raise what kept it from there."""
        self._thread.join()
        if self._error is not None:
            raise self._error


def make_durable(files: Iterable[Path], folder: Path) -> None:
    """Return when the files, and the folders that name them, are on the disk.

    Args:
        files: What was written; one that has gone since is passed over.
        folder: The folder that holds all of them, on one file system.
    """
    names = list(files)
    if len(names) > MAX_SINGLE_FSYNCS and _sync_file_system(folder):
        return
    folders = {above for name in names for above in name.parents if above.is_relative_to(folder)}
    for path in (*names, *sorted(folders, reverse=True)):
        with suppress(FileNotFoundError):
            sync_path(path)


def _sync_file_system(folder: Path) -> bool:
    """Linux's syncfs(2), which Python does not have; False where there is none."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)
    return True
