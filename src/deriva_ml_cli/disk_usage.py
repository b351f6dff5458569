"""The folders of a catalog on this machine, and how much lies in each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core.definitions import DRY_RUN_RID
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME, effective_status
from deriva_ml_core.journal.journal import load_state
from deriva_ml_core.journal.state import ExecutionState

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = [
    "CACHE_FOLDER",
    "OBJECTS_FOLDER",
    "DiskUsage",
    "LocalExecution",
    "executions_folder",
    "find_unsent_executions",
    "iter_files",
    "iter_local_executions",
    "measure_asset_tables",
    "measure_disk_usage",
]


CACHE_FOLDER, OBJECTS_FOLDER = "cache", "objects"


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """How many files lie somewhere, and the bytes that they take on the disk."""

    files: int = 0
    bytes: int = 0


def executions_folder(ml: DerivaML) -> Path:
    """The folder in which executions have their working folders."""
    return ml.connection.working_folder(DRY_RUN_RID).parent


def iter_files(folder: Path) -> Iterator[os.DirEntry[str]]:
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


def measure_disk_usage(path: Path, counted_inodes: set[tuple[int, int]] | None = None) -> DiskUsage:
    """How much lies in a file or folder.

    Args:
        path: The file or folder.
        counted_inodes: The files that were counted already, by device and inode: a file with two names takes its
            bytes once.
    """
    if path.is_file():
        return DiskUsage(1, path.stat().st_size)
    known = set() if counted_inodes is None else counted_inodes
    files = total = 0
    for entry in iter_files(path):
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        files += 1
        if (found.st_dev, found.st_ino) not in known:
            known.add((found.st_dev, found.st_ino))
            total += found.st_size
    return DiskUsage(files, total)


def measure_asset_tables(ml: DerivaML) -> list[dict[str, Any]]:
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


@dataclass(frozen=True, slots=True)
class LocalExecution:
    """An execution with a working folder on this machine.

    Args:
        rid: Its record id.
        folder: The working folder.
        state: What its journal tells.
    """

    rid: str
    folder: Path
    state: ExecutionState

    @property
    def has_ended(self) -> bool:
        """Whether its run is over, said or unsaid."""
        last = effective_status(self.state)
        return last is not None and last[0].is_terminal

    @property
    def is_possibly_running(self) -> bool:
        """Whether a process may be at work in it."""
        return not self.has_ended and self.state.process is not None and self.state.process.is_dead() is not True


def iter_local_executions(ml: DerivaML) -> Iterator[LocalExecution]:
    """The executions whose working folders lie here, in the order of their names."""
    around = ml.connection.working_folder(DRY_RUN_RID).parent
    for folder in sorted(around.iterdir()) if around.is_dir() else ():
        if (folder / JOURNAL_FILENAME).is_file() and folder.name != DRY_RUN_RID:
            yield LocalExecution(folder.name, folder, load_state(folder / JOURNAL_FILENAME))


def find_unsent_executions(ml: DerivaML) -> list[LocalExecution]:
    """Those of them with files to send that exist, or that still wait for something to be sent."""
    return [
        each
        for each in iter_local_executions(ml)
        if each.state.is_created
        and (each.state.unlinked_keys or any(_file_exists(file.asset.path) for file in each.state.pending_files()))
    ]


def _file_exists(path: Path) -> bool:
    return path.exists()
