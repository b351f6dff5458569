"""System faults: another user without permissions, and a small or full disk."""

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
UNREADABLE = "other users cannot read this code"


def run_as_nobody(function: Callable[[], None]) -> None:
    """Run a function in a forked child that is subject to permissions; as root, as another user.

    An exception of the child fails the test with its traceback.
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
            function()
        except BaseException:
            os.write(writer, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        output = pipe.read().decode()
    os.waitpid(child, 0)
    if output == UNREADABLE:
        pytest.skip(UNREADABLE)
    assert not output, output


@contextmanager
def mount_small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a disk of this many bytes; skip the test if mounting is not possible."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"cannot mount a small disk: {result.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def fill_disk(disk: Path) -> Iterator[None]:
    """Fill the disk completely while the block runs."""
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
