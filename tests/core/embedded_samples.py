"""Helpers for tests of the embedded backend: other users, small disks, and counts of SQLite instructions."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deriva_ml_core.backends.embedded import SqlCatalog
from waits import HANG

NOBODY = 65534


def run_in_child(act: Callable[[], None], *, user: int | None = None) -> str:
    """Run a function in a forked process, and return the type and message of its exception, or an empty text.

    Args:
        act: The function.
        user: User id to switch to first. Only root can switch.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        if user is not None:
            os.setgid(user)
            os.setuid(user)
        try:
            act()
        except Exception as error:
            sender.send(f"{type(error).__name__}: {error}")
        else:
            sender.send("")

    child = context.Process(target=run)
    child.start()
    child.join(HANG)
    if child.is_alive():
        child.kill()
        child.join()
    assert receiver.poll(), f"the child exited with {child.exitcode}"
    return str(receiver.recv())


def unprivileged_user() -> int | None:
    """Return the user id of nobody if this is root, whom permissions do not restrict, else None."""
    return NOBODY if os.geteuid() == 0 else None


@contextmanager
def world_writable_folder() -> Iterator[Path]:
    """Create a folder that every user can enter and write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o777)
        if not all(parent.stat().st_mode & 0o001 for parent in folder.parents):
            pytest.skip(f"other users cannot enter {folder.parent}")
        yield folder


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes in memory. Skip the test if mounting is not possible."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def count_sqlite_steps(catalog: SqlCatalog, act: Callable[[], object]) -> int:
    """Return the approximate number of SQLite virtual machine instructions of a function."""
    count = 0

    def count_step() -> int:
        nonlocal count
        count += 1
        return 0

    database = catalog._source.database
    with database.read_transaction() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(count_step, 1)
    try:
        act()
    finally:
        driver.set_progress_handler(None, 0)
    return count
