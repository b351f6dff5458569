"""Executions of this machine with files that were registered and not yet sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deriva_ml_core.definitions import DRY_RUN_RID
from deriva_ml_core.execution.provenance import JOURNAL, last_status
from deriva_ml_core.journal.file import read_story
from deriva_ml_core.journal.story import Story

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["Local", "local_executions", "with_unsent"]


@dataclass(frozen=True, slots=True)
class Local:
    """An execution with a working folder on this machine.

    Args:
        rid: Its record id.
        folder: The working folder.
        story: What its journal tells.
    """

    rid: str
    folder: Path
    story: Story

    @property
    def ended(self) -> bool:
        """Whether its run is over, said or unsaid."""
        last = last_status(self.story)
        return last is not None and last[0].ended

    @property
    def may_run(self) -> bool:
        """Whether a process may be at work in it."""
        return not self.ended and self.story.lease is not None and self.story.lease.is_dead() is not True


def local_executions(ml: DerivaML) -> Iterator[Local]:
    """The executions whose working folders lie here, in the order of their names."""
    around = ml.connection.working_folder(DRY_RUN_RID).parent
    for folder in sorted(around.iterdir()) if around.is_dir() else ():
        if (folder / JOURNAL).is_file() and folder.name != DRY_RUN_RID:
            yield Local(folder.name, folder, read_story(folder / JOURNAL))


def with_unsent(ml: DerivaML) -> list[Local]:
    """Those of them with files to send that exist, or that still wait for something to be sent."""
    return [
        each
        for each in local_executions(ml)
        if each.story.created
        and (each.story.unlinked or any(_is_there(file.asset.path) for file in each.story.open_files()))
    ]


def _is_there(path: Path) -> bool:
    return path.exists()
