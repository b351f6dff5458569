"""An execution's metrics in the catalog, where each stands: written beside the run, so that runs can be ordered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable
from deriva_ml_core.journal.story import Story
from deriva_ml_core.models import MetricSummary
from deriva_ml_core.schema import CatalogModel
from deriva_ml_core.standard import metrics_table

__all__ = ["Scoring", "has_metrics", "list_metrics", "metric_of"]

Key = tuple[str, str]


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
            found.setdefault(row["Execution"], []).append(metric_of(row))
    return found


def metric_of(row: Mapping[str, Any]) -> MetricSummary:
    """What a row of the table tells."""
    return MetricSummary(
        stage=row["Stage"],
        name=row["Name"],
        last=row["Last"],
        best=row["Best"],
        best_at=row["Best_At"],
        larger_is_better=bool(row["Larger_Is_Better"]),
    )


class Scoring:
    """Brings an execution's metrics to the catalog; what it has already costs no request.

    Args:
        connection: The catalog.
        execution: Whose metrics they are.
    """

    def __init__(self, connection: Connection, execution: RID) -> None:
        self._connection = connection
        self._execution = execution
        self._written: dict[Key, MetricSummary] = {}
        self._rids: dict[Key, RID] = {}

    def is_behind(self, story: Story) -> bool:
        """Whether the catalog may not have all that a journal tells of metrics."""
        return story.metrics != self._written and has_metrics(self._connection.catalog.model)

    def look(self) -> None:
        """See what the catalog has: an earlier process may have written there."""
        if has_metrics(self._connection.catalog.model):
            rows = self._connection.catalog.select(MLTable.execution_metric, {"Execution": self._execution})
            self._written = {(row["Stage"], row["Name"]): metric_of(row) for row in rows}
            self._rids = {(row["Stage"], row["Name"]): row["RID"] for row in rows}

    def write(self, story: Story) -> None:
        """Write what has changed: once a metric is there, by one request for all of them.

        Raises:
            DerivaMLException: The catalog refuses, or cannot be reached.
        """
        if not self.is_behind(story):
            return
        told = dict(story.metrics)
        new = {key: each for key, each in told.items() if key not in self._written}
        if new:
            self._add(new)
        changed = {key: each for key, each in told.items() if self._written.get(key) != each}
        if changed.keys() - self._rids.keys():
            self.look()
        rows = [{"RID": rid, **_values(each)} for key, each in changed.items() if (rid := self._rids.get(key))]
        if rows:
            self._connection.catalog.update(MLTable.execution_metric, rows)
            self._written |= changed

    def _add(self, new: Mapping[Key, MetricSummary]) -> None:
        rows = [
            {"Execution": self._execution, "Stage": stage, "Name": name, **_values(each)}
            for (stage, name), each in new.items()
        ]
        if self._connection.catalog.insert(MLTable.execution_metric, rows, skip_existing=True) == len(rows):
            self._written |= new
        else:
            self.look()


def _values(metric: MetricSummary) -> dict[str, Any]:
    return {
        "Last": metric.last,
        "Best": metric.best,
        "Best_At": metric.best_at,
        "Larger_Is_Better": metric.larger_is_better,
    }
