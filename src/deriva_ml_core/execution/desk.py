"""Where an execution's words and files go: to its own desk, or, in a process that follows, to one that nobody reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import finalize

from deriva_ml_core.assets.staging import Staging
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, RID, Status
from deriva_ml_core.execution.beside import Beside
from deriva_ml_core.execution.course import Course
from deriva_ml_core.execution.inputs import Inputs
from deriva_ml_core.execution.outputs import Outputs
from deriva_ml_core.execution.provenance import RecordedExecution
from deriva_ml_core.forklock import ForkLock
from deriva_ml_core.journal.file import Journal, read_story
from deriva_ml_core.journal.story import JOURNAL, Input, Story
from deriva_ml_core.models import ExecutionRecord, StatusUpdate
from deriva_ml_core.ranks import group_rank, present_rank

__all__ = ["Desk", "DeskExecution"]


@dataclass(frozen=True)
class Desk:
    """All that writes for one execution, in one working folder."""

    folder: Path
    journal: Journal
    staging: Staging
    beside: Beside
    course: Course
    inputs: Inputs
    outputs: Outputs

    @classmethod
    def laid(cls, connection: Connection, execution: RID, folder: Path, tell: Callable[[StatusUpdate], None]) -> Desk:
        """Lay out a desk; nothing is written by that.

        Args:
            connection: Where the execution is recorded.
            execution: Which one; for a dry run nothing reaches catalog and store.
            folder: Where it works.
            tell: Told each state once it is in the journal.
        """
        journal = Journal(folder / JOURNAL)
        staging = Staging(connection, journal, folder / "outputs")
        beside = Beside(connection, journal, execution)
        return cls(
            folder=folder,
            journal=journal,
            staging=staging,
            beside=beside,
            course=Course(execution, journal, tell, beside.row),
            inputs=Inputs(connection, journal, execution),
            outputs=Outputs(connection, journal, staging, execution),
        )


class DeskExecution(RecordedExecution):
    """An execution with a desk; in a process of a rank above zero that desk is a dry run's, in a scratch folder.

    Args:
        connection: Where it is recorded.
        row: Its row of the table Execution.
        folder: The folder that it works in.
        rank: The rank of the process that makes it; above zero it follows that of rank zero, as do its children.
        made_by: The number of that process, the present one by default. In any other, which the execution came to by a
            fork or a pickle, and which may learn its rank late, rank zero's execution is judged at each use.
    """

    def __init__(
        self,
        connection: Connection,
        row: dict[str, Any],
        folder: Path,
        *,
        rank: int = 0,
        made_by: int | None = None,
    ) -> None:
        super().__init__(connection, row)
        self._home = folder
        self._rank = rank
        self._made_by = os.getpid() if made_by is None else made_by
        self._own = Desk.laid(connection, self.execution_rid, folder, self.tell_status)
        self._lock = ForkLock()
        self._scratch: tuple[int, Desk] | None = None

    @property
    def follower(self) -> bool:
        """Whether the process of rank zero writes for this one, which brings nothing to catalog, store or plugins."""
        if self._rank or self._made_by == os.getpid():
            return self._rank > 0
        return (present_rank(os.environ) or 0) > 0

    @property
    def rank(self) -> int:
        """The number of this process among those of the training, 0 for one that runs alone."""
        found = group_rank()
        if found is None:
            return self._rank if self._rank or self._made_by == os.getpid() else present_rank(os.environ) or 0
        return found

    @property
    def desk(self) -> Desk:
        """Where it writes in this process."""
        return self._scratch_desk() if self.follower else self._own

    @property
    def working_dir(self) -> Path:
        """The folder that it works in: its journal, staged files and downloads, and whatever the run puts there."""
        return self.desk.folder

    @property
    def record(self) -> ExecutionRecord:
        """All of this as one frozen value."""
        return super().record.model_copy(update={"working_dir": self.working_dir})

    def tell_status(self, update: StatusUpdate) -> None:
        """Tell plugins a status that is in the journal."""
        self._announce("status_changed", "update", update)

    def _announce(self, hook: str, name: str, value: object) -> None:
        news = self._own.beside.news
        if not self.follower and news.is_heard(hook):
            news.tell(hook, {"execution": self.record, name: value})

    def _story(self) -> Story:
        return self.desk.journal.story

    def _last(self) -> tuple[Status, str]:
        return self.desk.course.last

    def _scratch_desk(self) -> Desk:
        with self._lock:
            if self._scratch is None or self._scratch[0] != os.getpid():
                self._scratch = os.getpid(), self._laid_in_scratch()
            return self._scratch[1]

    def _laid_in_scratch(self) -> Desk:
        import tempfile

        parent = self._connection.working_folder(DRY_RUN_RID)
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="follower-", dir=parent))
        finalize(self, _remove, folder, os.getpid())
        desk = Desk.laid(self._connection, DRY_RUN_RID, folder, self.tell_status)
        if (self._home / JOURNAL).is_file():
            story = read_story(self._home / JOURNAL)
            desk.journal.append(*(Input(dataset=spec) for spec in story.datasets.values()))
            desk.journal.append(*(Input(asset=rid) for rid in story.assets))
        return desk


def _remove(folder: Path, process: int) -> None:
    import shutil

    if process == os.getpid():  # not a child that it forked
        shutil.rmtree(folder, ignore_errors=True)
