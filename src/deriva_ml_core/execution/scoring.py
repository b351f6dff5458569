"""An execution's metrics in the catalog, where each stands: written beside the run, so that runs can be ordered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.journal.story import ExecutionState
from deriva_ml_core.models import MetricSummary
from deriva_ml_core.schema import CatalogModel
from deriva_ml_core.standard import metrics_table

__all__ = ["MetricsSync", "has_metrics", "list_metrics", "metric_from_row"]

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
