"""Executions that match, the newest first or the best first by one of their metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deriva_ml_core.backend import NOT_NULL, InSubquery
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Status, row_statuses
from deriva_ml_core.errors import ConfigurationError, UnknownMetric
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.execution.row_sync import has_metrics

__all__ = ["Ranking", "find_executions", "resolve_ranking"]

STAGES = ("fit", "validate", "test", "predict")
"""Where a metric is looked for that is named without its stage, in this order."""

MAX_METRIC_ROWS = 2000
"""Rows of metrics in which the names are looked up of those that there are."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """By what executions are ordered, the best first.

    Args:
        name: A metric.
        stage: Of which stage.
        by_last_value: Whether by its last value, not by its best.
        larger_is_better: Whether larger values are better.
    """

    name: str
    stage: str
    by_last_value: bool
    larger_is_better: bool

    @property
    def column(self) -> str:
        """The column of the catalog that says by what."""
        return "Last" if self.by_last_value else "Best"

    @property
    def where(self) -> Mapping[str, Any]:
        """Which metrics."""
        return {"Name": self.name, "Stage": self.stage}


def resolve_ranking(connection: Connection, sort: str, stage: str | None) -> Ranking:
    """Look a metric up.

    Args:
        connection: The catalog.
        sort: The metric's name, with ``:last`` after it for its last value; ``:best`` says the default.
        stage: ``fit``, ``validate``, ``test`` or ``predict``; None for the first of them that has it.

    Raises:
        UnknownMetric: No execution has it; those that there are, are named.
        ConfigurationError: There is no such stage, or the catalog has no place for metrics.
    """
    if stage is not None and stage not in STAGES:
        raise ConfigurationError(f"There is no stage {stage!r}; give one of {', '.join(STAGES)}.")
    if not has_metrics(connection.catalog.model):
        remedy = (
            "Whoever may write it adds it by opening it once with this version."
            if connection.address.is_embedded
            else "Its owner adds it, and loses nothing, with DerivaML.create(hostname, project_name, catalog_id=...)."
        )
        raise ConfigurationError(
            f"{connection.catalog.name} has no table {MLTable.execution_metric} for metrics to order by. {remedy}"
        )
    base, _, word = sort.rpartition(":")
    name, last = (base, word == "last") if base and word in ("last", "best") else (sort, False)
    for each in STAGES if stage is None else (stage,):
        where = {"Name": name, "Stage": each}
        found = connection.catalog.select(MLTable.execution_metric, where, order=("Best",), limit=1)
        if found:
            return Ranking(name, each, last, bool(found[0]["Larger_Is_Better"]))
    raise UnknownMetric(f"No execution has {_describe_metric(name, stage)}. {_describe_known_metrics(connection)}")


def _describe_metric(name: str, stage: str | None) -> str:
    return f"a metric {name!r}" + (f" of the stage {stage}" if stage else "")


def _describe_known_metrics(connection: Connection) -> str:
    rows = connection.catalog.select(MLTable.execution_metric, order=("RCT",), descending=True, limit=MAX_METRIC_ROWS)
    names = sorted({row["Name"] if row["Stage"] == "fit" else f"{row['Name']} ({row['Stage']})" for row in rows})
    if not names:
        return "None has told of any metric yet: update_status(progress=...) and the callbacks do."
    return f"There are {', '.join(names)}."


def find_executions(
    connection: Connection,
    *,
    workflow: RID | None = None,
    workflow_type: str | None = None,
    status: Status | None = None,
    dataset: RID | None = None,
    limit: int | None = None,
    ranking: Ranking | None = None,
) -> list[RecordedExecution]:
    """The executions that match, newest or best first; see ``DerivaML.find_executions``."""
    catalog = connection.catalog
    where: dict[str, Any] = {}
    if workflow is not None:
        where["Workflow"] = [workflow]
    if workflow_type is not None:
        of_type = {row["RID"] for row in catalog.select(MLTable.workflow, {"Workflow_Type": workflow_type})}
        where["Workflow"] = sorted(of_type.intersection(where.get("Workflow", of_type)))
    if dataset is not None:
        links = catalog.select(MLTable.dataset_execution, {"Dataset": dataset})
        where["RID"] = sorted({link["Execution"] for link in links})
    if status is not None:
        where["Status"] = _possible_row_statuses(status)
    if any(value == [] for value in where.values()):
        return []
    rows = _newest_first(connection, where) if ranking is None else _best_first(connection, where, ranking)
    return _take_matching(connection, rows, limit, lambda found: status is None or found.status is status)


def _possible_row_statuses(status: Status) -> list[str]:
    """Return what the row of an execution with a status may hold.

    A row with a status that is not terminal may be out of date: the journal or the process knows better.
    """
    return [text for each in Status if each is status or not each.is_terminal for text in row_statuses(each)]


RowQuery = Callable[[int | None], list[dict[str, Any]]]
"""Gives the first rows of the table Execution, at most so many."""


def _newest_first(connection: Connection, where: Mapping[str, Any]) -> RowQuery:
    def rows(limit: int | None) -> list[dict[str, Any]]:
        return connection.catalog.select(MLTable.execution, where, order=("RCT", "RID"), descending=True, limit=limit)

    return rows


def _best_first(connection: Connection, where: Mapping[str, Any], ranking: Ranking) -> RowQuery:
    """Ordered and cut by the catalog; an execution of which the metric is no finite number is left out."""
    catalog = connection.catalog
    asked = {**ranking.where, ranking.column: NOT_NULL}
    if where:
        asked["Execution"] = InSubquery(MLTable.execution, where)

    def rows(limit: int | None) -> list[dict[str, Any]]:
        order = (ranking.column, "RID")
        metrics = catalog.select(
            MLTable.execution_metric, asked, order=order, descending=ranking.larger_is_better, limit=limit
        )
        rids = [metric["Execution"] for metric in metrics]
        found = {row["RID"]: row for row in catalog.select(MLTable.execution, {"RID": rids})} if rids else {}
        return [found[rid] for rid in rids if rid in found]

    return rows


def _take_matching(
    connection: Connection, query: RowQuery, limit: int | None, matches: Callable[[RecordedExecution], bool]
) -> list[RecordedExecution]:
    portion = limit
    while True:
        asked = query(portion)
        found = [execution for row in asked if matches(execution := RecordedExecution(connection, row))]
        if portion is None or len(asked) < portion or len(found) >= portion:
            return found[:limit]
        portion *= 4
