"""Copies that are there whole or not at all, and the taking away of those that a killed process began."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

__all__ = ["copy_whole", "put_aside", "remove_abandoned"]

_PART = re.compile(r"\.[0-9a-f]{32}\.part")


def copy_whole(original: Path, target: Path) -> None:
    """Copy a file to a place where it appears when it is whole; what lay there before is replaced."""
    from shutil import copyfile

    part = _part(target)
    try:
        with part.open("xb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # let go by the system when this process dies
            copyfile(original, part)
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def put_aside(path: Path) -> Path | None:
    """Take a file or folder out of its place at once, so that it can be deleted later, which takes long if it is big.

    Returns:
        Where it is now: `remove_abandoned` deletes it if nobody else does. None where there was nothing.
    """
    aside = _part(path)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    return aside


def _part(target: Path) -> Path:
    return target.with_name(f".{uuid4().hex}.part")


def remove_abandoned(folder: Path) -> None:
    """Take away, anywhere below a folder, what was put aside, and the beginnings of copies whose process is no more."""
    from shutil import rmtree

    for above, folders, names in os.walk(folder):
        for aside in [name for name in folders if _PART.fullmatch(name)]:
            rmtree(Path(above) / aside, ignore_errors=True)  # somebody else may be deleting it
            folders.remove(aside)
        for part in (Path(above) / name for name in names if _PART.fullmatch(name)):
            with suppress(FileNotFoundError):
                if not _is_held(part):
                    part.unlink()


def _is_held(part: Path) -> bool:
    with part.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
