"""An execution's row and its metrics, brought to where its journal is: at once, or beside the run until they are."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from deriva_ml_core._concurrency.background_worker import BackgroundWorker
from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core.connection import Connection
from deriva_ml_core.default_schema import metrics_table
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLTable
from deriva_ml_core.errors import CatalogCorrupt, CatalogReadOnly, CatalogUnavailable, DerivaMLException
from deriva_ml_core.execution.exit_status import format_catalog_duration
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import ExecutionState
from deriva_ml_core.models import MetricSummary
from deriva_ml_core.schema import CatalogModel

__all__ = ["MetricsSync", "RowSync", "has_metrics", "list_metrics", "metric_from_row"]

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
        except Exception as error:  # noqa: BLE001 - a training goes on, whatever a catalog does
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
            except Exception as error:  # noqa: BLE001 - a training goes on, whatever a catalog does
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


MetricKey = tuple[str, str]


def has_metrics(model: CatalogModel) -> bool:
    """Whether a catalog has a place for executions' metrics; one that another client made need have none."""
    known = model.tables.get(MLTable.execution_metric)
    return known is not None and known.column_names >= metrics_table().column_names


def list_metrics(
    connection: Connection, rids: Iterable[RID], where: Mapping[str, Any] = MappingProxyType({})
) -> dict[RID, list[MetricSummary]]:
    """Where the metrics of executions stand, as the catalog has it; none where it has no place for them.

    Args:
        connection: The catalog.
        rids: The executions.
        where: Which metrics, by the table's columns; empty for all.
    """
    wanted = list(rids)
    found: dict[RID, list[MetricSummary]] = {}
    if wanted and has_metrics(connection.catalog.model):
        rows = connection.catalog.select(MLTable.execution_metric, {"Execution": wanted, **where}, order=("RCT", "RID"))
        for row in rows:
            found.setdefault(row["Execution"], []).append(metric_from_row(row))
    return found


def metric_from_row(row: Mapping[str, Any]) -> MetricSummary:
    """What a row of the table tells."""
    return MetricSummary(
        stage=row["Stage"],
        name=row["Name"],
        last=row["Last"],
        best=row["Best"],
        best_at=row["Best_At"],
        larger_is_better=bool(row["Larger_Is_Better"]),
    )


class MetricsSync:
    """Brings an execution's metrics to the catalog; what it has already costs no request.

    Args:
        connection: The catalog.
        execution: Whose metrics they are.
    """

    def __init__(self, connection: Connection, execution: RID) -> None:
        self._connection = connection
        self._execution = execution
        self._written: dict[MetricKey, MetricSummary] = {}
        self._rids: dict[MetricKey, RID] = {}

    def needs_write(self, state: ExecutionState) -> bool:
        """Whether the catalog may not have all that a journal tells of metrics."""
        return state.metrics != self._written and has_metrics(self._connection.catalog.model)

    def refresh(self) -> None:
        """See what the catalog has: an earlier process may have written there."""
        if has_metrics(self._connection.catalog.model):
            rows = self._connection.catalog.select(MLTable.execution_metric, {"Execution": self._execution})
            self._written = {(row["Stage"], row["Name"]): metric_from_row(row) for row in rows}
            self._rids = {(row["Stage"], row["Name"]): row["RID"] for row in rows}

    def write(self, state: ExecutionState) -> None:
        """Write what has changed: once a metric is there, by one request for all of them.

        Raises:
            DerivaMLException: The catalog refuses, or cannot be reached.
        """
        if not self.needs_write(state):
            return
        told = dict(state.metrics)
        new = {key: each for key, each in told.items() if key not in self._written}
        if new:
            self._insert(new)
        changed = {key: each for key, each in told.items() if self._written.get(key) != each}
        if changed.keys() - self._rids.keys():
            self.refresh()
        rows = [{"RID": rid, **_metric_columns(each)} for key, each in changed.items() if (rid := self._rids.get(key))]
        if rows:
            self._connection.catalog.update(MLTable.execution_metric, rows)
            self._written |= changed

    def _insert(self, new: Mapping[MetricKey, MetricSummary]) -> None:
        rows = [
            {"Execution": self._execution, "Stage": stage, "Name": name, **_metric_columns(each)}
            for (stage, name), each in new.items()
        ]
        if self._connection.catalog.insert(MLTable.execution_metric, rows, skip_existing=True) == len(rows):
            self._written |= new
        else:
            self.refresh()


def _metric_columns(metric: MetricSummary) -> dict[str, Any]:
    return {
        "Last": metric.last,
        "Best": metric.best,
        "Best_At": metric.best_at,
        "Larger_Is_Better": metric.larger_is_better,
    }
