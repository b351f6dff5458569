"""What the tests of the embedded backend share: other users, small disks, and counts of SQLite's steps."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deriva_ml_core.backends.embedded import EmbeddedCatalog

NOBODY = 65534


def in_child(act: Callable[[], None], *, user: int | None = None) -> str:
    """Run something in a forked process, and return the type and text of what it raised, or an empty text.

    Args:
        act: What to run.
        user: The number of the user to become first; for root only.
    """
    context = multiprocessing.get_context("fork")
    said, saying = context.Pipe(duplex=False)

    def run() -> None:
        if user is not None:
            os.setgid(user)
            os.setuid(user)
        try:
            act()
        except Exception as error:
            saying.send(f"{type(error).__name__}: {error}")
        else:
            saying.send("")

    child = context.Process(target=run)
    child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
        child.join()
    assert said.poll(), f"the child ended with {child.exitcode}"
    return str(said.recv())


def unprivileged() -> int | None:
    """Whom to become so that permissions count: nobody, where this is root."""
    return NOBODY if os.geteuid() == 0 else None


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that every user may enter and write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o777)
        if not all(above.stat().st_mode & 0o001 for above in folder.parents):
            pytest.skip(f"other users cannot enter {folder.parent}")
        yield folder


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system in memory of so many bytes; the test is skipped where none may be mounted."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def steps(catalog: EmbeddedCatalog, act: Callable[[], object]) -> int:
    """About how many instructions SQLite's machine runs for something."""
    count = 0

    def tell() -> int:
        nonlocal count
        count += 1
        return 0

    database = catalog._file.database
    with database.read_transaction() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(tell, 1)
    try:
        act()
    finally:
        driver.set_progress_handler(None, 0)
    return count
