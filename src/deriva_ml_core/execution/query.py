"""Finds executions, newest first or best first by a metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deriva_ml_core.backend import NOT_NULL, AllOf, AnyOf, Comparison, InSubquery
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Status, row_statuses
from deriva_ml_core.errors import ConfigurationError, UnknownMetric
from deriva_ml_core.execution.conditions import STAGES, missing_table_error
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.execution.row_sync import has_metrics
from deriva_ml_core.execution.tags import has_tags
from deriva_ml_core.metric_modes import has_best
from deriva_ml_core.row_values import list_valid_rows

__all__ = ["Ranking", "find_executions", "resolve_ranking"]

MAX_METRIC_ROWS = 2000
"""Maximum number of metric rows read to list the known names."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The metric that executions are ordered by, best first.

    Args:
        name: Name of the metric.
        stage: Stage of the metric.
        by_last_value: Whether to order by the last value instead of the best.
        larger_is_better: Whether larger values are better.
    """

    name: str
    stage: str
    by_last_value: bool
    larger_is_better: bool

    @property
    def column(self) -> str:
        """Name of the catalog column to order by."""
        return "Last" if self.by_last_value else "Best"

    @property
    def where(self) -> Mapping[str, Any]:
        """Filter that selects the metric's rows."""
        return {"Name": self.name, "Stage": self.stage}


def resolve_ranking(connection: Connection, sort: str, stage: str | None) -> Ranking:
    """Look up the metric to order executions by.

    Args:
        connection: The catalog.
        sort: The metric's name, optionally followed by ``:best`` for its best value (the default), ``:last`` for its
            last value, or ``:min`` or ``:max`` for its smallest or its largest last value first.
        stage: ``fit``, ``validate``, ``test`` or ``predict``; None for the first of them that has the metric.

    Raises:
        UnknownMetric: No execution has the metric; the message names the known ones.
        ConfigurationError: There is no such stage, the metric has no best value, or the catalog has no table for
            metrics.
    """
    if stage is not None and stage not in STAGES:
        raise ConfigurationError(f"Unknown stage {stage!r}: use one of {', '.join(STAGES)}.")
    if not has_metrics(connection.catalog.model):
        raise missing_table_error(connection, MLTable.execution_metric, "metrics to sort by")
    base, _, suffix = sort.rpartition(":")
    name, order = (base, suffix) if base and suffix in ("last", "best", "min", "max") else (sort, "best")
    for candidate in STAGES if stage is None else (stage,):
        where = {"Name": name, "Stage": candidate}
        if connection.catalog.select(MLTable.execution_metric, where, order=(), limit=1):
            if order in ("min", "max"):
                return Ranking(name, candidate, by_last_value=True, larger_is_better=order == "max")
            larger = _find_direction(connection, where)
            return Ranking(name, candidate, by_last_value=order == "last", larger_is_better=larger)
    raise UnknownMetric(f"No execution has {_describe_metric(name, stage)}. {_describe_known_metrics(connection)}")


def _find_direction(connection: Connection, where: Mapping[str, Any]) -> bool:
    """Return whether larger values of a metric are better, by the newest row with a best value.

    Raises:
        ConfigurationError: The metric has no best value.
    """
    name = where["Name"]
    rows = connection.catalog.select(
        MLTable.execution_metric, {**where, "Best": NOT_NULL}, order=("RCT", "RID"), descending=True, limit=1
    )
    if rows and (has_best(name) or rows[0]["Larger_Is_Better"]):  # earlier versions stored a best of every metric
        return bool(rows[0]["Larger_Is_Better"])
    raise ConfigurationError(
        f"The metric {name!r} has no best value: it is unknown whether larger values are better. Sort by its last "
        f"value with {name + ':max'!r} (largest first) or {name + ':min'!r} (smallest first)."
    )


def _describe_metric(name: str, stage: str | None) -> str:
    return f"a metric {name!r}" + (f" of stage {stage}" if stage else "")


def _describe_known_metrics(connection: Connection) -> str:
    rows = connection.catalog.select(MLTable.execution_metric, order=("RCT",), descending=True, limit=MAX_METRIC_ROWS)
    names = sorted({row["Name"] if row["Stage"] == "fit" else f"{row['Name']} ({row['Stage']})" for row in rows})
    if not names:
        return "No run has reported a metric yet: update_status(progress=...) and the callbacks report them."
    return f"The known metrics are {', '.join(names)}."


def find_executions(
    connection: Connection,
    *,
    workflow: RID | None = None,
    workflow_type: str | None = None,
    status: Status | None = None,
    dataset: RID | None = None,
    limit: int | None = None,
    ranking: Ranking | None = None,
    conditions: Sequence[InSubquery] = (),
    tags: Sequence[str] = (),
    user: str | None = None,
    parent: RID | None = None,
) -> list[RecordedExecution]:
    """Return matching executions, newest or best first; see ``DerivaML.find_executions``."""
    where: dict[str, Any] = {}
    if workflow is not None:
        where["Workflow"] = workflow
    if workflow_type is not None:
        of_type = {"Workflow_Type": workflow_type} | ({} if workflow is None else {"RID": workflow})
        where["Workflow"] = InSubquery(MLTable.workflow, of_type)
    if status is not None:
        where["Status"] = _possible_row_statuses(status)
    if user is not None:
        where["RCB"] = user
    if tags and not has_tags(connection.catalog.model):
        return []
    tagged = [InSubquery(MLTable.execution_tag, {"Tag": tag}, column="Execution") for tag in tags]
    used = [] if dataset is None else [_used_dataset(connection, dataset)]
    nested = [] if parent is None else [_nested_in(parent)]
    subqueries = [*used, *nested, *tagged, *conditions]
    if ranking is None:
        rows = _newest_first(connection, where, subqueries)
    else:
        rows = _best_first(connection, where, ranking, subqueries)
    return _take_matching(connection, rows, limit, lambda execution: status is None or execution.status is status)


def _nested_in(parent: RID) -> InSubquery:
    """Return the subquery for the executions that are nested in an execution."""
    return InSubquery(MLTable.nested_execution, {"Execution": parent}, column="Nested_Execution")


def _used_dataset(connection: Connection, dataset: RID) -> InSubquery:
    """Return the subquery for the executions that read a dataset.

    Another client also links a dataset to the execution that made its first version, which has not read it.
    """
    versions = connection.catalog.select(MLTable.dataset_version, {"Dataset": dataset}, order=("RCT", "RID"), limit=1)
    creator = versions[0]["Execution"] if versions else None
    where: dict[str, Any] = {"Dataset": dataset}
    if creator is not None:
        where["Execution"] = Comparison("!=", creator)
    return InSubquery(MLTable.dataset_execution, where, column="Execution")


def _possible_row_statuses(status: Status) -> list[str]:
    """Return what the row of an execution with a status may hold.

    A row with a status that is not terminal may be outdated: journal and process have priority.
    """
    return [text for known in Status if known is status or not known.is_terminal for text in row_statuses(known)]


RowQuery = Callable[[int | None], list[dict[str, Any]]]
"""Function of a limit that returns the first rows of the table Execution."""


def _newest_first(connection: Connection, where: Mapping[str, Any], subqueries: Sequence[InSubquery]) -> RowQuery:
    if subqueries:
        where = {**where, "RID": AllOf(tuple(subqueries))}

    def rows(limit: int | None) -> list[dict[str, Any]]:
        return connection.catalog.select(MLTable.execution, where, order=("RCT", "RID"), descending=True, limit=limit)

    return rows


def _best_first(
    connection: Connection, where: Mapping[str, Any], ranking: Ranking, subqueries: Sequence[InSubquery]
) -> RowQuery:
    """Return a query that the catalog sorts and limits; executions without a finite value are left out."""
    catalog = connection.catalog
    bounds = [bound for each in subqueries if (bound := _find_bound(each, ranking)) is not None]
    others = [each for each in subqueries if _find_bound(each, ranking) is None]
    metric_filter = {**ranking.where, ranking.column: AllOf(tuple(bounds)) if bounds else NOT_NULL}
    if where:
        others.insert(0, InSubquery(MLTable.execution, where))
    if others:
        metric_filter["Execution"] = AllOf(tuple(others))

    def rows(limit: int | None) -> list[dict[str, Any]]:
        order = (ranking.column, "RID")
        metrics = catalog.select(
            MLTable.execution_metric, metric_filter, order=order, descending=ranking.larger_is_better, limit=limit
        )
        rids = [metric["Execution"] for metric in metrics]
        by_rid = {row["RID"]: row for row in catalog.select(MLTable.execution, {"RID": rids})} if rids else {}
        return [by_rid[rid] for rid in rids if rid in by_rid]

    return rows


def _find_bound(subquery: InSubquery, ranking: Ranking) -> Comparison | None:
    """Return the comparison of a condition on the value that executions are ordered by; None for another condition."""
    if subquery.table != MLTable.execution_metric or isinstance(subquery.where, AnyOf):
        return None
    value = subquery.where.get(ranking.column)
    is_of_ranking = {**subquery.where, ranking.column: None} == {**ranking.where, ranking.column: None}
    return value if is_of_ranking and isinstance(value, Comparison) else None


def _take_matching(
    connection: Connection, query: RowQuery, limit: int | None, matches: Callable[[RecordedExecution], bool]
) -> list[RecordedExecution]:
    batch_size = limit
    while True:
        rows = query(batch_size)
        valid_rows = list_valid_rows(MLTable.execution, rows)
        executions = [execution for row in valid_rows if matches(execution := RecordedExecution(connection, row))]
        if batch_size is None or len(rows) < batch_size or len(executions) >= batch_size:
            return executions[:limit]
        batch_size *= 4
