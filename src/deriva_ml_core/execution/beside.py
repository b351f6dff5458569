"""What goes on beside a run, which its end waits for no longer than the patience lasts."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID
from deriva_ml_core.execution.row import RowSync
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.news import NotificationDispatcher
from deriva_ml_core.worker import BackgroundWorker

__all__ = ["BackgroundTasks"]


class BackgroundTasks:
    """The way of an execution's row to the catalog, and of its news to the plugins.

    Args:
        connection: The catalog, the plugins and the patience.
        journal: What the row should say.
        execution: Whose they are.
    """

    def __init__(self, connection: Connection, journal: Journal, execution: RID) -> None:
        self._exit_timeout = connection.exit_timeout
        self._worker = BackgroundWorker("deriva-ml-execution")
        self.notifications = NotificationDispatcher(connection.plugins)
        self.row_sync = RowSync(connection, journal, execution, self._worker)

    def submit(self, task: Callable[[], object]) -> None:
        """Have something done once the row is written; it returns at once."""
        self._worker.submit(task)

    def drain(self) -> None:
        """Wait, as long as the patience lasts, for all that is under way."""
        end = monotonic() + self._exit_timeout
        if not self._worker.drain(self._exit_timeout):
            self.row_sync.warn_timed_out()
        self.notifications.drain(end - monotonic())
