"""Copies that are there whole or not at all, and the taking away of those that a killed process began."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import uuid4

__all__ = ["partial_path", "copy_atomic", "lock_file", "rename_for_deletion", "remove_abandoned"]

_TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{32}(\.part|-part(\..*)?)")


def copy_atomic(original: Path, target: Path) -> None:
    """Copy a file to a place where it appears when it is whole; what lay there before is replaced."""
    from shutil import copyfile

    part = _temporary_path(target)
    try:
        with part.open("xb") as held:
            lock_file(held)
            copyfile(original, part)
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def partial_path(target: Path) -> Path:
    """Where somebody may write a file before it is whole; if he is killed, `remove_abandoned` deletes it.

    Its name ends as the file's own does, since some judge by that what to write.
    """
    return target.with_name(f".{uuid4().hex}-part{''.join(target.suffixes[-2:])}")


def lock_file(file: IO[bytes]) -> None:
    """Keep the beginning of a file from being deleted while it is open; the system lets go when this process dies."""
    fcntl.flock(file, fcntl.LOCK_EX)


def rename_for_deletion(path: Path) -> Path | None:
    """Take a file or folder out of its place at once, so that it can be deleted later, which takes long if it is big.

    Returns:
        Where it is now: `remove_abandoned` deletes it if nobody else does. None where there was nothing.
    """
    aside = _temporary_path(path)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    return aside


def _temporary_path(target: Path) -> Path:
    return target.with_name(f".{uuid4().hex}.part")


def remove_abandoned(folder: Path) -> None:
    """Take away, anywhere below a folder, what was put aside, and the beginnings of copies whose process is no more."""
    from shutil import rmtree

    for above, folders, names in os.walk(folder):
        for aside in [name for name in folders if _TEMPORARY_NAME.fullmatch(name)]:
            rmtree(Path(above) / aside, ignore_errors=True)  # somebody else may be deleting it
            folders.remove(aside)
        for part in (Path(above) / name for name in names if _TEMPORARY_NAME.fullmatch(name)):
            with suppress(FileNotFoundError):
                if not _is_locked(part):
                    part.unlink()


def _is_locked(part: Path) -> bool:
    with part.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
