"""What goes on beside a run, which its end waits for no longer than the patience lasts."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID
from deriva_ml_core.execution.row import RowWriter
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.news import NewsThread
from deriva_ml_core.worker import Worker

__all__ = ["Beside"]


class Beside:
    """The way of an execution's row to the catalog, and of its news to the plugins.

    Args:
        connection: The catalog, the plugins and the patience.
        journal: What the row should say.
        execution: Whose they are.
    """

    def __init__(self, connection: Connection, journal: Journal, execution: RID) -> None:
        self._patience = connection.patience
        self._worker = Worker("deriva-ml-execution")
        self.news = NewsThread(connection.plugins)
        self.row = RowWriter(connection, journal, execution, self._worker)

    def submit(self, task: Callable[[], object]) -> None:
        """Have something done once the row is written; it returns at once."""
        self._worker.submit(task)

    def drain(self) -> None:
        """Wait, as long as the patience lasts, for all that is under way."""
        end = monotonic() + self._patience
        if not self._worker.drain(self._patience):
            self.row.warn_of_delay()
        self.news.drain(end - monotonic())
