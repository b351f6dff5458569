"""Executions of this machine with files that were registered and not yet sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core.definitions import DRY_RUN_RID
from deriva_ml_core.execution.provenance import JOURNAL_FILENAME, effective_status
from deriva_ml_core.journal.file import load_state
from deriva_ml_core.journal.story import ExecutionState

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["LocalExecution", "iter_local_executions", "find_unsent_executions"]


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
