"""Flush files to disk: each file for a few files, the whole file system for many."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from threading import Thread

from deriva_ml_core._files.atomic import sync_path

__all__ = ["BackgroundFsync", "Disk", "MAX_SINGLE_FSYNCS", "make_durable"]

MAX_SINGLE_FSYNCS = 16
"""Maximum number of files to flush one by one. Above it, one syncfs is cheaper than many fsyncs."""


class Disk:
    """The calls that flush files. A test passes a subclass that observes them, or lets them fail."""

    def sync_path(self, path: Path) -> None:
        """Wait until a file's bytes, or a folder's names, are on disk."""
        sync_path(path)

    def sync_descriptor(self, descriptor: int) -> None:
        """Wait until the bytes of an open file are on disk."""
        os.fsync(descriptor)

    def sync_file_system(self, folder: Path) -> bool:
        """Wait until the whole file system of a folder is on disk. Return False if the system cannot do that."""
        return _sync_file_system(folder)


class BackgroundFsync:
    """Background thread that flushes a file while its digest is computed.

    If the system refuses to start the thread, the file is flushed before this returns.

    Args:
        descriptor: Descriptor of the open file. The caller may close it before the flush ends.
        disk: The calls that flush.
    """

    def __init__(self, descriptor: int, disk: Disk) -> None:
        self._disk = disk
        self._descriptor = os.dup(descriptor)
        self._error: OSError | None = None
        self._thread: Thread | None = Thread(target=self._run, name="deriva-ml-sync", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # a container's limit is reached, or the process is exiting
            self._thread = None
            self._run()

    def _run(self) -> None:
        try:
            self._disk.sync_descriptor(self._descriptor)
        except OSError as error:
            self._error = error
        finally:
            os.close(self._descriptor)

    def wait(self) -> None:
        """Wait until the file is on disk, or raise the error of the flush."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error


def make_durable(files: Iterable[Path], folder: Path, disk: Disk) -> None:
    """Wait until files and the folders that contain them are on disk.

    Args:
        files: The written files.
        folder: Folder that contains all files, on one file system.
        disk: The calls that flush.

    Raises:
        FileNotFoundError: A file was deleted.
        OSError: The disk failed.
    """
    paths = list(files)
    if len(paths) > MAX_SINGLE_FSYNCS and disk.sync_file_system(folder):
        for path in paths:
            path.stat()
        return
    folders = {parent for path in paths for parent in path.parents if parent.is_relative_to(folder)}
    for path in (*paths, *sorted(folders, reverse=True)):
        disk.sync_path(path)


def _sync_file_system(folder: Path) -> bool:
    """Call Linux's syncfs(2), which Python does not provide. Return False if the system has no syncfs."""
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
