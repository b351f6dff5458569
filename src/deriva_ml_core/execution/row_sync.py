"""Syncs the catalog row and the metrics of an execution to its journal, at once or in the background with retries."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from deriva_ml_core._concurrency.background_worker import BackgroundWorker
from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core._retry import ROW_SYNC, limit_repeats
from deriva_ml_core.connection import Connection
from deriva_ml_core.default_schema import metrics_table, parameters_table
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLTable
from deriva_ml_core.errors import (
    AccessRefused,
    CatalogCorrupt,
    CatalogReadOnly,
    CatalogUnavailable,
    DerivaMLException,
    LoginRequired,
)
from deriva_ml_core.execution.exit_status import format_catalog_duration
from deriva_ml_core.journal.journal import BufferedJournal, Journal
from deriva_ml_core.journal.state import ExecutionState
from deriva_ml_core.models import MetricSummary
from deriva_ml_core.parameter_values import decode_value, encode_value
from deriva_ml_core.schema import CatalogModel

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = [
    "MetricsSync",
    "ParametersSync",
    "RowSync",
    "has_metrics",
    "has_parameters",
    "list_metrics",
    "list_parameters",
    "metric_from_row",
]

log = logging.getLogger(__name__)


WRITE_INTERVAL = 0.25
"""Minimum seconds between two background writes, so that short epochs do not slow the training down."""


PERMANENT_ERRORS = (CatalogCorrupt, CatalogReadOnly)
"""Errors that a retry cannot fix."""

REFUSALS = (LoginRequired, AccessRefused)
"""Errors that only the user can fix, by a new login or new rights."""

REFUSAL_PAUSE = 60.0
"""Seconds after a refusal in which only the end of the run writes again."""

MAX_WRITE_SECONDS = 10.0
"""Seconds for which a call repeats its write. Then it returns, and a background thread repeats the write."""


class RowSync:
    """Writes the journal's state to the catalog row.

    Each write reads the journal when it starts, and writes do not overlap, so a row never goes back.

    Args:
        connection: The catalog.
        journal: The execution's journal; a buffered one also has the events that a full disk has rejected.
        execution: RID of the execution; a dry run has no row.
        worker: Background thread for the writes; by default a new one.
    """

    def __init__(
        self,
        connection: Connection,
        journal: Journal | BufferedJournal,
        execution: RID,
        worker: BackgroundWorker | None = None,
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._execution = execution
        self._lock = ForkSafeRLock()
        self._worker = worker or BackgroundWorker("deriva-ml-row")
        self._scheduled_pid = 0
        """Id of the process that scheduled a write which has not started; 0 if none is scheduled."""
        self._has_warned = False
        self._refused_until = 0.0
        """Time of the monotonic clock until which the server is not asked again after a refusal."""
        self._written_row: dict[str, Any] | None = None
        self._metrics = MetricsSync(connection, execution)
        self._parameters = ParametersSync(connection, execution)
        self._rejected: set[MetricsSync | ParametersSync] = set()
        """What is no longer written, since the catalog has rejected it."""

    def write(self) -> None:
        """Write the row now.

        Raises:
            DerivaMLException: The catalog rejects the write or cannot be reached.
        """
        if self._execution == DRY_RUN_RID:
            return
        timeout = self._connection.exit_timeout
        if not self._lock.acquire(timeout):
            raise CatalogUnavailable(
                f"The catalog has not responded for {timeout:g} seconds to a write of the row of execution "
                f"{self._execution}; the row is written once it responds."
            )
        try:
            self._write()
        finally:
            self._lock.release()

    def try_write(self) -> None:
        """Write the row now, or in the background if the first attempt fails."""
        if self._is_refused():
            return
        try:
            self.write()
        except REFUSALS as error:
            self._note_refusal(error)
        except Exception as error:  # noqa: BLE001 - a failing catalog must not stop a training
            self._warn_not_written(error)
            self.write_in_background()
        else:
            state = self._journal.state
            if any(details.needs_write(state) for details in self._accepted_details()):
                self.write_in_background()

    def write_metrics(self) -> None:
        """Write missing metrics and parameters now; log a warning if the catalog rejects them."""
        for details in (self._metrics, self._parameters):
            try:
                details.refresh()
                details.write(self._journal.state)
            except DerivaMLException as error:
                self._warn_rejected(details, error)

    def write_in_background(self, *, is_final: bool = False) -> None:
        """Write the row in the background, with retries until it succeeds; return at once.

        Args:
            is_final: Whether the run ends, so that the server is asked also if it refused an earlier write.
        """
        if self._execution == DRY_RUN_RID or (self._is_refused() and not is_final):
            return
        if self._scheduled_pid != os.getpid():
            self._scheduled_pid = os.getpid()
            self._worker.submit(self._sync)

    def warn_timed_out(self) -> None:
        """Log that the run ended before the row was written."""
        log.warning(
            "After %g seconds the catalog does not have the final state of execution %s. The journal has it; "
            "%s writes it to the catalog.",
            self._connection.exit_timeout,
            self._execution,
            f"{self._connection.call}.restore_execution({self._execution!r})",
        )

    def _sync(self) -> None:
        delays = ROW_SYNC.waits()
        while True:
            self._scheduled_pid = 0  # before the journal is read: later events need another write
            start = time.monotonic()
            try:
                with self._lock:
                    if self._build_row(self._journal.state) != self._written_row:
                        self._write()
                self._sync_details()
            except REFUSALS as error:
                self._note_refusal(error)
                return
            except Exception as error:  # noqa: BLE001 - a failing catalog must not stop a training
                self._warn_not_written(error)
                if isinstance(error, PERMANENT_ERRORS):
                    return
                self._scheduled_pid = os.getpid()  # the next attempt writes the events that arrive now
                # the worker pauses, since a run that ends must not wait for a long delay
                self._worker.pause(next(delays), min_seconds=ROW_SYNC.wait_initial)
            else:
                self._worker.pause(WRITE_INTERVAL - (time.monotonic() - start))
                return

    def _write(self) -> None:
        """Write until the row equals the journal's state: another process may append and write meanwhile."""
        self._written_row = None
        with limit_repeats(MAX_WRITE_SECONDS):
            while (row := self._build_row(self._journal.state)) is not None and row != self._written_row:
                if row["Status"].is_terminal:
                    self._sync_journal()
                self._connection.catalog.update(MLTable.execution, [row])
                self._written_row = row
        self._has_warned, self._refused_until = False, 0.0

    def _sync_journal(self) -> None:
        """Let the end of the run be on disk before the catalog names it; a failing disk does not keep the row back."""
        try:
            self._journal.sync()
        except DerivaMLException as error:
            log.warning("%s", error)

    def _accepted_details(self) -> list[MetricsSync | ParametersSync]:
        return [details for details in (self._parameters, self._metrics) if details not in self._rejected]

    def _sync_details(self) -> None:
        """Write parameters and metrics; if the catalog rejects them, the row is still written."""
        for details in self._accepted_details():
            try:
                details.write(self._journal.state)
            except CatalogUnavailable:
                raise
            except DerivaMLException as error:
                self._rejected.add(details)
                self._warn_rejected(details, error)

    def _warn_rejected(self, details: MetricsSync | ParametersSync, error: DerivaMLException) -> None:
        log.warning("Failed to write the %s of execution %s to the catalog: %s", details.noun, self._execution, error)

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

    def _is_refused(self) -> bool:
        return time.monotonic() < self._refused_until

    def _note_refusal(self, error: DerivaMLException) -> None:
        self._refused_until = time.monotonic() + REFUSAL_PAUSE
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "Failed to write the status of execution %s; the end of the run and the next upload write it: %s",
                self._execution,
                error,
            )

    def _warn_not_written(self, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("Failed to write the status of execution %s; retrying: %s", self._execution, error)


MetricKey = tuple[str, str]


def has_metrics(model: CatalogModel) -> bool:
    """Whether a catalog has the table for metrics; one that another client created may lack it."""
    table = model.tables.get(MLTable.execution_metric)
    return table is not None and table.column_names >= metrics_table().column_names


def list_metrics(
    connection: Connection, rids: Iterable[RID], where: Mapping[str, Any] = MappingProxyType({})
) -> dict[RID, list[MetricSummary]]:
    """Return the metrics of executions by RID; empty if the catalog has no table for metrics.

    Args:
        connection: The catalog.
        rids: The executions.
        where: Filter by the table's columns; empty for all metrics.
    """
    executions = list(rids)
    metrics: dict[RID, list[MetricSummary]] = {}
    if executions and has_metrics(connection.catalog.model):
        condition = {"Execution": executions, **where}
        for row in connection.catalog.select(MLTable.execution_metric, condition, order=("RCT", "RID")):
            metrics.setdefault(row["Execution"], []).append(metric_from_row(row))
    return metrics


def metric_from_row(row: Mapping[str, Any]) -> MetricSummary:
    """Return the metric in a row of the metrics table.

    The column for the direction is never null. A row with a last and without a best value has no direction.
    """
    is_unknown = row["Best"] is None and row["Last"] is not None
    return MetricSummary(
        stage=row["Stage"],
        name=row["Name"],
        last=row["Last"],
        best=row["Best"],
        best_at=row["Best_At"],
        larger_is_better=None if is_unknown else bool(row["Larger_Is_Better"]),
    )


class MetricsSync:
    """Writes an execution's metrics to the catalog; unchanged metrics cost no request.

    Args:
        connection: The catalog.
        execution: RID of the execution.
    """

    noun = "metrics"

    def __init__(self, connection: Connection, execution: RID) -> None:
        self._connection = connection
        self._execution = execution
        self._written: dict[MetricKey, MetricSummary] = {}
        self._rids: dict[MetricKey, RID] = {}

    def needs_write(self, state: ExecutionState) -> bool:
        """Whether the catalog may lack metrics that are in the journal."""
        return state.metrics != self._written and has_metrics(self._connection.catalog.model)

    def refresh(self) -> None:
        """Read the metrics in the catalog, since an earlier process may have written some."""
        if has_metrics(self._connection.catalog.model):
            rows = self._connection.catalog.select(MLTable.execution_metric, {"Execution": self._execution})
            self._written = {(row["Stage"], row["Name"]): metric_from_row(row) for row in rows}
            self._rids = {(row["Stage"], row["Name"]): row["RID"] for row in rows}

    def write(self, state: ExecutionState) -> None:
        """Write changed metrics; metrics that already have rows are updated by one request.

        Raises:
            DerivaMLException: The catalog rejects the write or cannot be reached.
        """
        if not self.needs_write(state):
            return
        metrics = dict(state.metrics)
        new = {key: metric for key, metric in metrics.items() if key not in self._written}
        if new:
            self._insert(new)
        changed = {key: metric for key, metric in metrics.items() if self._written.get(key) != metric}
        if changed.keys() - self._rids.keys():
            self.refresh()
        rows = [
            {"RID": rid, **_metric_columns(metric)} for key, metric in changed.items() if (rid := self._rids.get(key))
        ]
        if rows:
            self._connection.catalog.update(MLTable.execution_metric, rows)
            self._written |= changed

    def _insert(self, new: Mapping[MetricKey, MetricSummary]) -> None:
        rows = [
            {"Execution": self._execution, "Stage": stage, "Name": name, **_metric_columns(metric)}
            for (stage, name), metric in new.items()
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
        "Larger_Is_Better": bool(metric.larger_is_better),
    }


def has_parameters(model: CatalogModel) -> bool:
    """Whether a catalog has the table for parameters; an earlier version or another client may have created it."""
    table = model.tables.get(MLTable.execution_parameter)
    return table is not None and table.column_names >= parameters_table().column_names


def list_parameters(connection: Connection, rids: Iterable[RID]) -> dict[RID, dict[str, JsonValue]]:
    """Return the parameters of executions by RID and name; empty if the catalog has no table for parameters."""
    executions = list(rids)
    parameters: dict[RID, dict[str, JsonValue]] = {}
    if executions and has_parameters(connection.catalog.model):
        condition = {"Execution": executions}
        for row in connection.catalog.select(MLTable.execution_parameter, condition, order=("RCT", "RID")):
            parameters.setdefault(row["Execution"], {})[row["Name"]] = decode_value(row["Value"])
    return parameters


class ParametersSync:
    """Writes an execution's parameters to the catalog. A written parameter never changes.

    Args:
        connection: The catalog.
        execution: RID of the execution.
    """

    noun = "parameters"

    def __init__(self, connection: Connection, execution: RID) -> None:
        self._connection = connection
        self._execution = execution
        self._written: set[str] = set()
        self._has_warned = False

    def needs_write(self, state: ExecutionState) -> bool:
        """Whether the catalog may lack parameters that are in the journal, and has a table for them."""
        if state.parameters.keys() <= self._written:
            return False
        is_possible = has_parameters(self._connection.catalog.model)
        if not is_possible and not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s has no table %s, so the parameters of execution %s are only in its files. The catalog's owner adds "
                "the table, without losing data, by DerivaML.create(hostname, project_name, catalog_id=...).",
                self._connection.catalog.name,
                MLTable.execution_parameter,
                self._execution,
            )
        return is_possible

    def refresh(self) -> None:
        """Forget what was written; the next write skips the rows that exist."""
        self._written = set()

    def write(self, state: ExecutionState) -> None:
        """Write the new parameters by one request.

        Raises:
            DerivaMLException: The catalog rejects the write or cannot be reached.
        """
        if not self.needs_write(state):
            return
        new = {name: value for name, value in state.parameters.items() if name not in self._written}
        rows = []
        for name, value in new.items():
            text, number = encode_value(value)
            rows.append({"Execution": self._execution, "Name": name, "Value": text, "Number": number})
        self._connection.catalog.insert(MLTable.execution_parameter, rows, skip_existing=True)
        self._written |= new.keys()
