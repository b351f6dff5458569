"""An execution's row and its metrics, brought to where its journal is: at once, or beside the run until they are."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLTable
from deriva_ml_core.errors import CatalogCorrupt, CatalogReadOnly, CatalogUnavailable, DerivaMLException
from deriva_ml_core.execution.ending import format_catalog_duration
from deriva_ml_core.execution.scoring import MetricsSync
from deriva_ml_core.forklock import ForkSafeRLock
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.story import ExecutionState
from deriva_ml_core.worker import BackgroundWorker

__all__ = ["RowSync"]

log = logging.getLogger(__name__)

WRITE_INTERVAL = 0.25
"""Seconds between two writes beside the run, so that short epochs do not each take time from the training."""

MIN_RETRY_DELAY, MAX_RETRY_DELAY = 0.2, 10.0
"""Seconds before a catalog that failed is asked again: twice as long each time, up to the second of these."""

PERMANENT_ERRORS = (CatalogCorrupt, CatalogReadOnly)
"""What another attempt cannot mend."""


class RowSync:
    """Writes what the journal says when the writing begins, one write at a time: a row never goes back.

    Args:
        connection: Where the row is.
        journal: What it should say.
        execution: Whose row it is; a dry run has none.
        worker: What writes it beside the run.
    """

    def __init__(
        self, connection: Connection, journal: Journal, execution: RID, worker: BackgroundWorker | None = None
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._execution = execution
        self._lock = ForkSafeRLock()
        self._worker = worker or BackgroundWorker("deriva-ml-row")
        self._scheduled_pid = 0
        """The process that has asked for a write which has not begun; 0 where none has."""
        self._has_warned = False
        self._written_row: dict[str, Any] | None = None
        self._metrics = MetricsSync(connection, execution)
        self._are_metrics_accepted = True
        """Whether the metrics are written; not where the catalog refused them."""

    def write(self) -> None:
        """Write the row now.

        Raises:
            DerivaMLException: The catalog refuses, or cannot be reached.
        """
        if self._execution == DRY_RUN_RID:
            return
        patience = self._connection.exit_timeout
        if not self._lock.acquire(patience):
            raise CatalogUnavailable(
                f"The catalog has not answered for {patience:g} seconds to a write of the row of execution "
                f"{self._execution}; the row is written when it does."
            )
        try:
            self._write()
        finally:
            self._lock.release()

    def try_write(self) -> None:
        """Write the row now if the catalog takes it at the first attempt, else beside the run."""
        try:
            self.write()
        except Exception as error:
            self._warn_not_written(error)
            self.write_in_background()
        else:
            if self._are_metrics_accepted and self._metrics.needs_write(self._journal.state):
                self.write_in_background()

    def write_metrics(self) -> None:
        """Write the metrics now, as far as the catalog does not have them; one that refuses is warned about."""
        try:
            self._metrics.refresh()
            self._metrics.write(self._journal.state)
        except DerivaMLException as error:
            self._warn_metrics_rejected(error)

    def write_in_background(self) -> None:
        """Have the row written beside the run, again and again until the catalog has it; it returns at once."""
        if self._execution != DRY_RUN_RID and self._scheduled_pid != os.getpid():
            self._scheduled_pid = os.getpid()
            self._worker.submit(self._sync)

    def warn_timed_out(self) -> None:
        """Say that the end of the run could not wait for the row."""
        log.warning(
            "After %g seconds the catalog has not taken all of execution %s: its journal has it, and "
            "DerivaML(%r).restore_execution(%r) brings it there.",
            self._connection.exit_timeout,
            self._execution,
            self._connection.address.hostname or "",
            self._execution,
        )

    def _sync(self) -> None:
        wait = MIN_RETRY_DELAY
        while True:
            self._scheduled_pid = 0  # before the journal is read: what comes later is due again
            begun = time.monotonic()
            try:
                with self._lock:
                    if self._build_row(self._journal.state) != self._written_row:
                        self._write()
                self._sync_metrics()
            except Exception as error:
                self._warn_not_written(error)
                if isinstance(error, PERMANENT_ERRORS):
                    return
                self._scheduled_pid = os.getpid()  # what comes now is written by the next attempt
                self._worker.pause(wait, min_seconds=MIN_RETRY_DELAY)
                wait = min(2 * wait, MAX_RETRY_DELAY)
            else:
                self._worker.pause(WRITE_INTERVAL - (time.monotonic() - begun))
                return

    def _write(self) -> None:
        """Write until the row is what the journal says: another process may have gone on meanwhile, and written too."""
        self._written_row = None
        while (row := self._build_row(self._journal.state)) is not None and row != self._written_row:
            self._connection.catalog.update(MLTable.execution, [row])
            self._written_row = row
        self._has_warned = False

    def _sync_metrics(self) -> None:
        """Write the metrics; a catalog that refuses them has all else of the run."""
        if not self._are_metrics_accepted:
            return
        try:
            self._metrics.write(self._journal.state)
        except CatalogUnavailable:
            raise
        except DerivaMLException as error:
            self._are_metrics_accepted = False
            self._warn_metrics_rejected(error)

    def _warn_metrics_rejected(self, error: DerivaMLException) -> None:
        log.warning("The metrics of execution %s cannot be written to the catalog: %s", self._execution, error)

    def _build_row(self, state: ExecutionState) -> dict[str, Any] | None:
        if not state.statuses:
            return None
        last = state.statuses[-1]
        row: dict[str, Any] = {
            "RID": self._execution,
            "Status": last.status,
            "Status_Detail": last.error or last.message,
        }
        if state.start_time is not None:
            row["Duration"] = None if state.stop_time is None else format_catalog_duration(state.run_time)
        return row

    def _warn_not_written(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("The status of execution %s could not be written yet: %s", self._execution, error)
