"""Per-process state of an execution. Ranks above 0 get a scratch copy that is discarded."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import finalize

from deriva_ml_core._concurrency.background_worker import BackgroundWorker, run_in_background
from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._files.permissions import create_folder
from deriva_ml_core.assets.staging import StagingArea
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, RID, Status
from deriva_ml_core.distributed import current_rank, process_group_rank
from deriva_ml_core.execution.inputs import Inputs
from deriva_ml_core.execution.outputs import Outputs
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.execution.row_sync import RowSync
from deriva_ml_core.execution.status_tracker import StatusTracker
from deriva_ml_core.journal.journal import BufferedJournal, Journal, load_state
from deriva_ml_core.journal.state import JOURNAL_FILENAME, ExecutionState, InputRecorded
from deriva_ml_core.models import ExecutionInfo, MetricSummary, StatusUpdate
from deriva_ml_core.plugins.notifications import NotificationDispatcher

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pydantic import JsonValue

__all__ = ["BackgroundTasks", "ExecutionRuntime", "_ExecutionBase"]


class BackgroundTasks:
    """Background work of an execution: row writes and plugin notifications, drained on exit with a timeout.

    Args:
        connection: Catalog, plugins and the exit timeout.
        journal: Source of the row's values.
        execution: RID of the execution.
    """

    def __init__(self, connection: Connection, journal: BufferedJournal, execution: RID) -> None:
        self._exit_timeout = connection.exit_timeout
        self._worker = BackgroundWorker("deriva-ml-execution")
        self.notifications = NotificationDispatcher(connection.plugins)
        self.row_sync = RowSync(connection, journal, execution, self._worker)
        self._records_upload: tuple[int, Future[None]] | None = None
        """The process that uploads the execution's own records, and the upload."""

    def upload_records(self, task: Callable[[], None]) -> None:
        """Upload the execution's own records on a thread of its own; the interpreter waits for it on exit.

        Args:
            task: Function that uploads them.
        """
        self._records_upload = os.getpid(), run_in_background("deriva-ml-records", task)

    def submit(self, task: Callable[[], object]) -> None:
        """Run a task after the pending row write; return at once."""
        self._worker.submit(task)

    def drain(self) -> None:
        """Wait for all pending work, at most for the exit timeout."""
        deadline = monotonic() + self._exit_timeout
        if not self._worker.drain(self._exit_timeout):
            self.row_sync.warn_timed_out()
        if self._records_upload is not None and self._records_upload[0] == os.getpid():
            from concurrent.futures import wait

            wait([self._records_upload[1]], max(0.0, deadline - monotonic()))
        self.notifications.drain(deadline - monotonic())


@dataclass(frozen=True)
class ExecutionRuntime:
    """Everything that writes for one execution, in one working folder."""

    folder: Path
    journal: Journal
    staging: StagingArea
    background: BackgroundTasks
    status_tracker: StatusTracker
    inputs: Inputs
    outputs: Outputs

    @classmethod
    def open(
        cls, connection: Connection, execution: RID, folder: Path, on_status: Callable[[StatusUpdate], None]
    ) -> ExecutionRuntime:
        """Build the runtime of an execution; this writes nothing.

        Args:
            connection: Catalog and store of the execution.
            execution: RID of the execution; that of a dry run writes nothing to catalog and store.
            folder: The working folder.
            on_status: Called with each status once it is in the journal.
        """
        journal = Journal(folder / JOURNAL_FILENAME)
        staging = StagingArea(connection, journal, folder / "outputs")
        buffered = BufferedJournal(journal)
        background = BackgroundTasks(connection, buffered, execution)
        return cls(
            folder=folder,
            journal=journal,
            staging=staging,
            background=background,
            status_tracker=StatusTracker(execution, buffered, on_status, background.row_sync),
            inputs=Inputs(connection, journal, execution),
            outputs=Outputs(connection, journal, staging, execution),
        )


class _ExecutionBase(RecordedExecution):
    """An execution with a runtime; ranks above 0 use the runtime of a dry run in a scratch folder.

    Args:
        connection: Catalog and store of the execution.
        row: The execution's row of the table Execution.
        folder: The working folder.
        rank: Rank of the process that creates the object. Above 0, this process and its children write nothing.
        creator_pid: Id of that process; by default the current one. Any other process got the object by fork or pickle
            and may learn its rank late, so the rank is determined at each use.
    """

    def __init__(
        self,
        connection: Connection,
        row: dict[str, Any],
        folder: Path,
        *,
        rank: int = 0,
        creator_pid: int | None = None,
    ) -> None:
        super().__init__(connection, row)
        self._folder = folder
        self._rank = rank
        self._creator_pid = os.getpid() if creator_pid is None else creator_pid
        self._own_runtime = ExecutionRuntime.open(connection, self.execution_rid, folder, self._notify_status)
        self._lock = ForkSafeRLock()
        self._scratch_runtime: tuple[int, ExecutionRuntime] | None = None

    @property
    def is_rank_zero(self) -> bool:
        """Whether this process records the run; ranks above 0 write nothing to catalog, store or plugins."""
        if self._rank or self._creator_pid == os.getpid():
            return self._rank == 0
        return (current_rank(os.environ) or 0) == 0

    @property
    def rank(self) -> int:
        """Rank of this process in a distributed run; 0 for a process that runs alone."""
        rank = process_group_rank()
        if rank is None:
            return self._rank if self._rank or self._creator_pid == os.getpid() else current_rank(os.environ) or 0
        return rank

    @property
    def _runtime(self) -> ExecutionRuntime:
        """The runtime that this process writes to."""
        return self._own_runtime if self.is_rank_zero else self._get_scratch_runtime()

    @property
    def working_dir(self) -> Path:
        """The working folder: journal, staged files, downloads, and any files that the run puts there."""
        return self._runtime.folder

    @property
    def info(self) -> ExecutionInfo:
        """The execution as one frozen value."""
        return super().info.model_copy(update={"working_dir": self.working_dir})

    @property
    def params(self) -> dict[str, JsonValue]:
        """Its parameters by name, such as ``lr`` or ``optimizer.lr``.

        The values are text, numbers, bools, None and lists.
        """
        return dict(self._load_state().parameters) or super().params

    def _summarize_metrics(self) -> list[MetricSummary]:
        return list(self._load_state().metrics.values()) or super()._summarize_metrics()

    def list_statuses(self) -> list[StatusUpdate]:
        """List all its statuses in order, from the journal."""
        return self._runtime.status_tracker.list_all()

    def _notify_status(self, update: StatusUpdate) -> None:
        """Notify plugins of a status that is in the journal."""
        self._notify("status_changed", "update", update)

    def _notify(self, hook: str, argument: str, value: object) -> None:
        notifications = self._own_runtime.background.notifications
        if self.is_rank_zero and notifications.has_listeners(hook):
            notifications.notify(hook, {"execution": self.info, argument: value})

    def _load_state(self) -> ExecutionState:
        return self._runtime.journal.state

    def _current_status(self) -> tuple[Status, str]:
        return self._runtime.status_tracker.current

    def _get_scratch_runtime(self) -> ExecutionRuntime:
        with self._lock:
            if self._scratch_runtime is None or self._scratch_runtime[0] != os.getpid():
                self._scratch_runtime = os.getpid(), self._open_scratch_runtime()
            return self._scratch_runtime[1]

    def _open_scratch_runtime(self) -> ExecutionRuntime:
        import tempfile

        parent = self._connection.working_folder(DRY_RUN_RID)
        with translate_os_errors(f"Cannot create a folder in {parent}", parent):
            create_folder(parent, self._connection.folder)
            folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=parent))
        finalize(self, _remove_scratch_folder, folder, os.getpid())
        runtime = ExecutionRuntime.open(self._connection, DRY_RUN_RID, folder, self._notify_status)
        if (self._folder / JOURNAL_FILENAME).is_file():
            state = load_state(self._folder / JOURNAL_FILENAME)
            runtime.journal.append(*(InputRecorded(dataset=spec) for spec in state.datasets.values()))
            runtime.journal.append(*(InputRecorded(asset=rid) for rid in state.assets))
        return runtime


def _remove_scratch_folder(folder: Path, creator_pid: int) -> None:
    import shutil

    if creator_pid == os.getpid():  # a forked child must not remove the folder of its parent
        shutil.rmtree(folder, ignore_errors=True)
