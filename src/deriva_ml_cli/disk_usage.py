"""Disk usage of a catalog's folders on this machine, and the executions with working folders here."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core.definitions import DRY_RUN_RID
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.execution.exit_status import effective_status
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME
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


log = logging.getLogger(__name__)

CACHE_FOLDER, OBJECTS_FOLDER = "cache", "objects"


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """The number of files in a folder, and their size in bytes."""

    files: int = 0
    bytes: int = 0


def executions_folder(ml: DerivaML) -> Path:
    """Return the folder that contains the working folders."""
    return ml.connection.working_folder(DRY_RUN_RID).parent


def iter_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield every file and link below a folder; folders that do not exist or disappear are skipped."""
    folders = [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as scan:
                entries = list(scan)
        except OSError:
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                yield entry


def measure_disk_usage(path: Path, counted_inodes: set[tuple[int, int]] | None = None) -> DiskUsage:
    """Return the number and size of the files in a folder, or of one file.

    Args:
        path: The file or folder.
        counted_inodes: Device and inode of files that are counted already, so that hard links count once. The files
            of this folder are added to it.
    """
    if path.is_file():
        return DiskUsage(1, path.stat().st_size)
    counted = set() if counted_inodes is None else counted_inodes
    files = total = 0
    for entry in iter_files(path):
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        files += 1
        if (status.st_dev, status.st_ino) not in counted:
            counted.add((status.st_dev, status.st_ino))
            total += status.st_size
    return DiskUsage(files, total)


def measure_asset_tables(ml: DerivaML) -> list[dict[str, Any]]:
    """Return the number and size of the assets in each asset table, the largest first."""
    catalog = ml.connection.catalog
    tables = []
    for table in catalog.refresh().tables.values():
        if table.is_asset:
            rows = total = 0
            for page in catalog.pages(table.name, size=10_000):
                rows += len(page)
                total += sum(row["Length"] for row in page)
            tables.append({"table": table.name, "files": rows, "bytes": total})
    return sorted(tables, key=lambda each: -int(each["bytes"]))


def free_space(folder: Path) -> tuple[int, int]:
    """Return the free and the total bytes of the disk that a folder is on, or will be on."""
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    usage = shutil.disk_usage(existing)
    return usage.free, usage.total


@dataclass(frozen=True, slots=True)
class LocalExecution:
    """An execution with a working folder on this machine.

    Args:
        rid: Its RID.
        folder: The working folder.
        state: The state of its journal.
    """

    rid: str
    folder: Path
    state: ExecutionState

    @property
    def has_ended(self) -> bool:
        """Whether its run is over, recorded or not."""
        current = effective_status(self.state)
        return current is not None and current[0].is_terminal

    @property
    def is_possibly_running(self) -> bool:
        """Whether its process may still run."""
        return not self.has_ended and self.state.process is not None and self.state.process.is_dead() is not True


def iter_local_executions(ml: DerivaML) -> Iterator[LocalExecution]:
    """Yield the executions with working folders on this machine, sorted by RID.

    One whose journal cannot be read is left out, and a warning names it.
    """
    parent = executions_folder(ml)
    for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
        try:
            if not (folder / JOURNAL_FILENAME).is_file() or folder.name == DRY_RUN_RID:
                continue
            state = load_state(folder / JOURNAL_FILENAME)
        except (DerivaMLException, OSError) as error:
            log.warning("Failed to read the journal in %s; the execution is left out: %s", folder, error)
        else:
            yield LocalExecution(folder.name, folder, state)


def find_unsent_executions(ml: DerivaML) -> list[LocalExecution]:
    """Return the local executions that an upload would complete.

    They have staged files that exist, stored files that lack a link to their row, or an end that the stored copy of
    their journal does not contain. The files that describe an execution count too, also if its creation failed.
    """
    return [
        each
        for each in iter_local_executions(ml)
        if (each.state.is_created or each.state.pending_files()) and _is_unsent(each)
    ]


def _is_unsent(execution: LocalExecution) -> bool:
    state = execution.state
    if state.unlinked_keys or any(file.is_written for file in state.pending_files()):
        return True
    # a run whose process died is recorded as Aborted by the upload
    return execution.has_ended and (state.is_journal_copy_outdated or not state.status.is_terminal)
