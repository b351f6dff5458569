"""The folders of a catalog on this machine, and how much lies in each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core.definitions import DRY_RUN_RID

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["CACHE", "OBJECTS", "Amount", "amount_of", "executions_folder", "tables_of", "walk"]

CACHE, OBJECTS = "cache", "objects"


@dataclass(frozen=True, slots=True)
class Amount:
    """How many files lie somewhere, and the bytes that they take on the disk."""

    files: int = 0
    bytes: int = 0


def executions_folder(ml: DerivaML) -> Path:
    """The folder in which executions have their working folders."""
    return ml.connection.working_folder(DRY_RUN_RID).parent


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Every file and link below a folder; none where there is no folder, and what vanishes meanwhile is passed over."""
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                found = list(entries)
        except OSError:
            continue
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                yield entry


def amount_of(place: Path, seen: set[tuple[int, int]] | None = None) -> Amount:
    """How much lies in a file or folder.

    Args:
        place: The file or folder.
        seen: The files that were counted already, by device and inode: a file with two names takes its bytes once.
    """
    if place.is_file():
        return Amount(1, place.stat().st_size)
    known = set() if seen is None else seen
    files = total = 0
    for entry in walk(place):
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        files += 1
        if (found.st_dev, found.st_ino) not in known:
            known.add((found.st_dev, found.st_ino))
            total += found.st_size
    return Amount(files, total)


def tables_of(ml: DerivaML) -> list[dict[str, Any]]:
    """How many files each asset table names, and how many bytes they have, the largest first."""
    catalog = ml.connection.catalog
    found = []
    for table in catalog.refresh().tables.values():
        if table.is_asset:
            rows = total = 0
            for page in catalog.pages(table.name, size=10_000):
                rows += len(page)
                total += sum(row["Length"] for row in page)
            found.append({"table": table.name, "files": rows, "bytes": total})
    return sorted(found, key=lambda each: -int(each["bytes"]))


def free_space(folder: Path) -> tuple[int, int]:
    """The free and all bytes of the disk of a folder, or of the nearest one above it that exists."""
    place = next(each for each in (folder, *folder.parents) if each.exists())
    usage = shutil.disk_usage(place)
    return usage.free, usage.total
