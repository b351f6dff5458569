"""Executions as a list shows them: the state that each is really in, asked of the catalog once for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from deriva_ml_core._text import parse_duration
from deriva_ml_core.backend import Where
from deriva_ml_core.definitions import MLTable, MLVocab, Status, check_rid
from deriva_ml_core.errors import ConfigurationError

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection
    from deriva_ml_core.execution.query import Ranking
    from deriva_ml_core.execution.recorded import RecordedExecution
    from deriva_ml_core.models import MetricSummary

__all__ = [
    "ExecutionFilters",
    "ExecutionPage",
    "ExecutionSummary",
    "RowPage",
    "find_execution_page",
    "find_rows",
    "summarize_executions",
]


@dataclass(frozen=True, slots=True)
class ExecutionFilters:
    """Which executions are meant; None leaves a question out.

    Args:
        workflow: Of the workflow with this record id.
        workflow_type: Of workflows of this type.
        status: In this state.
        dataset: Of which this dataset went in.
        text: With this in their description, or in their workflow's name, in capitals or not.
        sort: By what metric they are ordered, the best first: its name, with ``:last`` for its last value; None for
            the newest first.
        stage: Of which stage that metric is.
    """

    workflow: str | None = None
    workflow_type: str | None = None
    status: Status | None = None
    dataset: str | None = None
    text: str | None = None
    sort: str | None = None
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionSummary:
    """One execution.

    Args:
        rid: Its record id.
        status: The state that it is in.
        status_detail: The words beside it.
        description: What it was for.
        created: When its row was made.
        duration_seconds: How long it ran, or has run so far; None where that is not known.
        workflow: The workflow's row; empty where it has none.
        metric: Where the metric stands by which they are ordered; None where they are not.
    """

    rid: str
    status: Status
    status_detail: str
    description: str
    created: datetime | None
    duration_seconds: float | None
    workflow: Mapping[str, Any]
    metric: MetricSummary | None = None

    def to_dict(self) -> dict[str, object]:
        """Its value for programs."""
        found = self._base_fields()
        return found if self.metric is None else {**found, "metric": self.metric.model_dump()}

    def _base_fields(self) -> dict[str, object]:
        return {
            "rid": self.rid,
            "status": str(self.status),
            "status_detail": self.status_detail,
            "description": self.description,
            "created": self.created,
            "duration_seconds": self.duration_seconds,
            "workflow": workflow_to_dict(self.workflow) if self.workflow else None,
        }


@dataclass(frozen=True, slots=True)
class ExecutionPage:
    """Some of the executions that match, whether there are more, and by what they are ordered."""

    executions: tuple[ExecutionSummary, ...]
    has_more: bool
    ranking: Ranking | None = None


def workflow_to_dict(row: Mapping[str, Any]) -> dict[str, object]:
    """A workflow's row for programs."""
    return {
        "rid": row["RID"],
        "name": row["Name"],
        "type": row["Workflow_Type"],
        "description": row["Description"] or "",
        "url": row["URL"],
        "checksum": row["Checksum"],
        "version": row["Version"],
        "created": row["RCT"],
    }


def find_execution_page(connection: Connection, filters: ExecutionFilters, *, limit: int, page: int) -> ExecutionPage:
    """Find executions, newest first, or best first by a metric.

    Args:
        connection: The catalog.
        filters: Which ones.
        limit: How many a page has.
        page: Which page, from 1.

    Raises:
        InvalidRID, UnknownRID, WrongTable, UnknownTerm, UnknownMetric: A filter names what the catalog does not have.
        ConfigurationError: The catalog has no place for metrics, or there is no such stage.
    """
    from deriva_ml_core.execution.query import resolve_ranking

    if filters.stage is not None and filters.sort is None:
        raise ConfigurationError("--stage says of which stage the metric of --sort is: give --sort with it.")
    for table, rid in ((MLTable.workflow, filters.workflow), (MLTable.dataset, filters.dataset)):
        if rid is not None:
            connection.require_row(table, check_rid(rid))
    if filters.workflow_type is not None:
        connection.terms.require(MLVocab.workflow_type, [filters.workflow_type])
    ranking = None if filters.sort is None else resolve_ranking(connection, filters.sort, filters.stage)
    wanted = limit * page + 1
    found = _find_matching(connection, filters, ranking, wanted)
    runs = summarize_executions(connection, found[wanted - 1 - limit : wanted - 1])
    return ExecutionPage(
        runs if ranking is None else _add_metrics(connection, runs, ranking), len(found) == wanted, ranking
    )


def _add_metrics(
    connection: Connection, summaries: Sequence[ExecutionSummary], ranking: Ranking
) -> tuple[ExecutionSummary, ...]:
    from deriva_ml_core.execution.row_sync import list_metrics

    found = list_metrics(connection, [run.rid for run in summaries], ranking.where)
    return tuple(replace(run, metric=next(iter(found.get(run.rid, ())), None)) for run in summaries)


def _find_matching(
    connection: Connection, filters: ExecutionFilters, ranking: Ranking | None, count: int
) -> list[RecordedExecution]:
    from deriva_ml_core.execution.query import find_executions

    asked = count
    while True:
        found = find_executions(
            connection,
            workflow=filters.workflow,
            workflow_type=filters.workflow_type,
            status=filters.status,
            dataset=filters.dataset,
            limit=asked,
            ranking=ranking,
        )
        matching = found if filters.text is None else _filter_by_text(connection, found, filters.text.casefold())
        if len(found) < asked or len(matching) >= count:
            return matching[:count]
        asked *= 4


def _filter_by_text(
    connection: Connection, recorded: Sequence[RecordedExecution], text: str
) -> list[RecordedExecution]:
    workflows = _load_workflows(connection, recorded)
    return [
        each
        for each in recorded
        if text in each.description.casefold()
        or text in str(workflows.get(each.workflow_rid or "", {}).get("Name") or "").casefold()
    ]


def summarize_executions(connection: Connection, recorded: Iterable[RecordedExecution]) -> tuple[ExecutionSummary, ...]:
    """The executions with their workflows, which one question brings."""
    executions = list(recorded)
    workflows = _load_workflows(connection, executions)
    return tuple(_summarize_execution(each, workflows.get(each.workflow_rid or "", {})) for each in executions)


def _load_workflows(connection: Connection, recorded: Sequence[RecordedExecution]) -> dict[str, dict[str, Any]]:
    rids = sorted({each.workflow_rid for each in recorded if each.workflow_rid})
    rows = connection.catalog.select(MLTable.workflow, {"RID": rids}) if rids else []
    return {row["RID"]: row for row in rows}


def _summarize_execution(execution: RecordedExecution, workflow: Mapping[str, Any]) -> ExecutionSummary:
    status = execution.status
    return ExecutionSummary(
        rid=execution.execution_rid,
        status=status,
        status_detail=execution.status_detail,
        description=execution.description,
        created=execution.created,
        duration_seconds=_compute_duration(execution, status),
        workflow=workflow,
    )


def _compute_duration(execution: RecordedExecution, status: Status) -> float | None:
    """How long it ran by its row; of one that runs, how long it has by its journal on this machine."""
    from deriva_ml_core.execution.recorded import load_local_state

    if (known := parse_duration(execution.duration)) is not None or status.is_terminal:
        return known
    story = load_local_state(execution._connection, execution.execution_rid)
    return (datetime.now(UTC) - story.start_time).total_seconds() if story and story.start_time else None


@dataclass(frozen=True, slots=True)
class RowPage:
    """Some of the rows that match, and whether there are more."""

    rows: tuple[Mapping[str, Any], ...]
    has_more: bool


def find_rows(
    connection: Connection, table: str, where: Where, *, text: str | None, columns: Sequence[str], limit: int, page: int
) -> RowPage:
    """Find rows of a table, newest first.

    Args:
        connection: The catalog.
        table: The table.
        where: Which rows.
        text: What one of `columns` must hold, in capitals or not; None for whatever they hold.
        columns: Where the text is looked for.
        limit: How many a page has.
        page: Which page, from 1.
    """
    wanted = asked = limit * page + 1
    order = ("RCT", "RID")
    while True:
        found = connection.catalog.select(table, where, order=order, descending=True, limit=asked)
        small = (text or "").casefold()
        matching = [row for row in found if any(small in str(row[name] or "").casefold() for name in columns)]
        if len(found) < asked or len(matching) >= wanted:
            kept = matching[:wanted]
            return RowPage(tuple(kept[wanted - 1 - limit : wanted - 1]), len(kept) == wanted)
        asked *= 4
