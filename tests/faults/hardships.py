"""Another user, a small disk, and interrupts from outside."""

from __future__ import annotations

import os
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import deriva_ml_core

NOBODY = 65534
UNREADABLE = "this code lies where no other user may read it"


def as_nobody(act: Callable[[], None]) -> None:
    """Do something in a forked child for whom permissions count; for root as another user.

    What the child raises fails the test with its traceback.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            if not os.access(deriva_ml_core.__file__, os.R_OK) or not os.access(pytest.__file__, os.R_OK):
                os.write(writer, UNREADABLE.encode())
                os._exit(0)
            act()
        except BaseException:
            os.write(writer, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        said = told.read().decode()
    os.waitpid(child, 0)
    if said == UNREADABLE:
        pytest.skip(UNREADABLE)
    assert not said, said


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes; where none may be mounted, the test is skipped."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """As long as the block runs, the disk has no room at all."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for piece in (b"x" * 65536, b"x"):
            try:
                while file.write(piece):
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        filler.unlink()
