"""Lists of executions, workflows and datasets, page by page, with a fixed number of queries."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from deriva_ml_core._text import format_count, format_duration, format_time, parse_duration
from deriva_ml_core._views import Badge, Cell, Grid, Link, Presentable, View
from deriva_ml_core.backend import AnyOf, InSubquery, Where
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets.versions import current_version_rows, is_release
from deriva_ml_core.definitions import MLTable, MLVocab, Status, check_rid, split_rid
from deriva_ml_core.errors import ConfigurationError, UnknownColumn, UnknownRID
from deriva_ml_core.execution.conditions import resolve_conditions
from deriva_ml_core.execution.query import Ranking, find_executions, resolve_ranking
from deriva_ml_core.execution.recorded import RecordedExecution, load_local_state
from deriva_ml_core.execution.row_sync import list_metrics, list_parameters
from deriva_ml_core.execution.tags import as_tags, list_tags
from deriva_ml_core.models import MetricSummary
from deriva_ml_core.row_values import check_row, convert_rows, parse_row_time

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = [
    "DatasetPage",
    "DatasetSummary",
    "ExecutionFilters",
    "ExecutionList",
    "ExecutionPage",
    "ExecutionSummary",
    "WorkflowPage",
    "WorkflowSummary",
    "build_execution_grid",
    "label_metric",
    "list_datasets",
    "list_execution_rows",
    "list_executions",
    "list_workflows",
    "lookup_table",
    "summarize_execution",
    "summarize_executions",
    "summarize_with_values",
    "tabulate_executions",
]


MAX_LISTED, MAX_PARAMETERS, MAX_METRICS = 50, 8, 6
"""Maximum executions of a list in its table, and maximum parameters and metrics."""


@dataclass(frozen=True, slots=True)
class WorkflowSummary:
    """A workflow as its row has it.

    Args:
        rid: Its RID.
        name: Its name.
        workflow_type: Its type, a term of the vocabulary Workflow_Type; None if it has none.
        description: What it does.
        url: Where its code is.
        checksum: The Git hash of the code, or the digest of the container image.
        version: The version of the code's project.
        created: When its row was created, as ISO 8601.
    """

    rid: str
    name: str | None
    workflow_type: str | None
    description: str
    url: str | None
    checksum: str | None
    version: str | None
    created: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> WorkflowSummary:
        """Return the workflow of a row of the table Workflow.

        Raises:
            MalformedData: Its RID or its creation time is none.
        """
        parse_row_time(MLTable.workflow, check_row(MLTable.workflow, row))
        return cls(
            rid=row["RID"],
            name=row["Name"] or "",
            workflow_type=row["Workflow_Type"] or "",
            description=row["Description"] or "",
            url=row["URL"],
            checksum=row["Checksum"],
            version=row["Version"],
            created=row["RCT"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the workflow as ``deriva-ml workflows --json`` prints it."""
        values = asdict(self)
        return {("type" if name == "workflow_type" else name): value for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class ExecutionSummary:
    """An execution in one line of a list.

    Args:
        rid: Its RID.
        status: Its status; Aborted if its process died.
        status_detail: The message of its last status.
        description: Its description.
        created: When its row was created, in UTC.
        duration_seconds: How long it ran, or has run so far; None if unknown.
        workflow: Its workflow; None if it has none.
        metric: The metric that the list is sorted by; None in other lists.
        params: Its parameters by name.
        metrics: Its metrics, in the order in which it first reported them.
        tags: Its tags, sorted.
        user: The user who created it.
    """

    rid: str
    status: Status
    status_detail: str
    description: str
    created: datetime | None
    duration_seconds: float | None
    workflow: WorkflowSummary | None
    metric: MetricSummary | None = None
    params: Mapping[str, JsonValue] = field(default_factory=dict)
    metrics: tuple[MetricSummary, ...] = ()
    tags: tuple[str, ...] = ()
    user: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the execution as ``deriva-ml list --json`` prints it."""
        values: dict[str, Any] = {
            "rid": self.rid,
            "status": str(self.status),
            "status_detail": self.status_detail,
            "description": self.description,
            "created": self.created,
            "duration_seconds": self.duration_seconds,
            "workflow": self.workflow.to_dict() if self.workflow else None,
            "tags": list(self.tags),
            "user": self.user,
            "params": dict(self.params),
            "metrics": [metric.model_dump() for metric in self.metrics],
        }
        return values if self.metric is None else {**values, "metric": self.metric.model_dump()}

    def to_row(self) -> dict[str, Any]:
        """Return the execution as one flat row of a table.

        A metric of a fit is in the column ``metrics.NAME``, one of another stage in ``metrics.NAME (STAGE)``. Its value
        is the best one, or the last one if it has no best value.
        """
        row: dict[str, Any] = {
            "rid": self.rid,
            "workflow": self.workflow.name if self.workflow else None,
            "status": str(self.status),
            "status_detail": self.status_detail,
            "created": self.created,
            "duration_seconds": self.duration_seconds,
            "description": self.description,
            "tags": ", ".join(self.tags),
            "user": self.user,
        }
        row |= {f"params.{name}": value for name, value in self.params.items()}
        return row | {
            f"metrics.{label_metric(metric)}": metric.last if metric.best is None else metric.best
            for metric in self.metrics
        }


def label_metric(metric: MetricSummary) -> str:
    """Return the name of a metric, with its stage if that is not the fit."""
    return metric.label


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A dataset in one line of a list.

    Args:
        rid: Its RID.
        description: Its description.
        types: Its types, terms of the vocabulary Dataset_Type, sorted.
        version: Its current version; None if it has none.
        changed: When that version was created, as ISO 8601; None if it has none.
        created: When the dataset's row was created, as ISO 8601.
        deleted: Whether it is marked as deleted.
    """

    rid: str
    description: str
    types: tuple[str, ...]
    version: str | None
    changed: str | None
    created: str
    deleted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the dataset as ``deriva-ml datasets --json`` prints it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ExecutionPage(Presentable):
    """One page of a list of executions.

    Args:
        executions: The executions of the page.
        has_more: Whether another page follows.
        ranking: The metric that the list is sorted by; None if it is sorted by age.
    """

    executions: tuple[ExecutionSummary, ...]
    has_more: bool
    ranking: Ranking | None = None

    def _view(self) -> View:
        more = ["There is another page."] if self.has_more else []
        return View(format_count(len(self.executions), "execution"), [build_execution_grid(self.executions), *more])


class ExecutionList(list[RecordedExecution], Presentable):
    """Recorded executions: a list that notebooks show as a table. A slice of it is one too.

    Args:
        connection: Their catalog.
        executions: The executions.
    """

    def __init__(self, connection: Connection, executions: Iterable[RecordedExecution] = ()) -> None:
        super().__init__(executions)
        self._connection = connection

    @overload
    def __getitem__(self, index: SupportsIndex) -> RecordedExecution: ...
    @overload
    def __getitem__(self, index: slice) -> ExecutionList: ...
    def __getitem__(self, index: SupportsIndex | slice) -> RecordedExecution | ExecutionList:
        if isinstance(index, slice):
            return ExecutionList(self._connection, super().__getitem__(index))
        return super().__getitem__(index)

    def __reduce__(self) -> tuple[type[list[RecordedExecution]], tuple[list[RecordedExecution]]]:
        return list, (list(self),)  # a connection cannot be pickled

    def _view(self) -> View:
        summaries = summarize_with_values(self._connection, self[:MAX_LISTED])
        grid = build_execution_grid(summaries, omitted=len(self) - len(summaries))
        return View(format_count(len(self), "execution"), [grid] if self else [])


@dataclass(frozen=True, slots=True)
class WorkflowPage(Presentable):
    """One page of a list of workflows.

    Args:
        workflows: The workflows of the page.
        has_more: Whether another page follows.
    """

    workflows: tuple[WorkflowSummary, ...]
    has_more: bool

    def _view(self) -> View:
        rows = [
            [Link(each.rid, each.url or ""), each.name, each.workflow_type, each.version, each.description]
            for each in self.workflows
        ]
        grid = Grid(rows, ("RID", "Name", "Type", "Version", "Description"))
        return View(format_count(len(rows), "workflow"), [grid, *(["There is another page."] if self.has_more else [])])


@dataclass(frozen=True, slots=True)
class DatasetPage(Presentable):
    """One page of a list of datasets.

    Args:
        datasets: The datasets of the page.
        has_more: Whether another page follows.
    """

    datasets: tuple[DatasetSummary, ...]
    has_more: bool

    def _view(self) -> View:
        rows = [
            [each.rid, each.version, ", ".join(each.types), "deleted" if each.deleted else "", each.description]
            for each in self.datasets
        ]
        grid = Grid(rows, ("RID", "Version", "Types", "", "Description"))
        return View(format_count(len(rows), "dataset"), [grid, *(["There is another page."] if self.has_more else [])])


@dataclass(frozen=True, slots=True)
class ExecutionFilters:
    """Conditions on executions; None means no condition.

    Args:
        workflow: The RID of their workflow.
        workflow_type: The type of their workflow.
        status: Their status.
        dataset: The RID of a dataset that they used as input.
        text: A text in their description or in their workflow's name, upper or lower case.
        sort: The metric to sort by, best value first; ``"<metric>:last"`` sorts by its last value, ``"<metric>:min"``
            and ``"<metric>:max"`` by the smallest or the largest last value.
        stage: The stage of that metric: ``fit``, ``validate``, ``test`` or ``predict``.
        where: Conditions on parameters and metrics, such as ``lr > 0.001``.
        params: Values of parameters.
        tags: Their tags; all must be there.
        user: The user who created them.
        parent: The RID of the execution that they are nested in.
    """

    workflow: str | None = None
    workflow_type: str | None = None
    status: Status | None = None
    dataset: str | None = None
    text: str | None = None
    sort: str | None = None
    stage: str | None = None
    where: str | Sequence[str] = ()
    params: Mapping[str, JsonValue] = field(default_factory=dict)
    tags: str | Sequence[str] = ()
    user: str | None = None
    parent: str | None = None


def list_executions(connection: Connection, filters: ExecutionFilters, *, limit: int, page: int) -> ExecutionPage:
    """Return one page of executions; see ``DerivaML.list_executions``."""
    end = limit * page
    executions, ranking = _find_executions(connection, filters, end + 1)
    summaries = _add_values(connection, summarize_executions(connection, executions[end - limit : end]), ranking)
    return ExecutionPage(summaries, has_more=len(executions) > end, ranking=ranking)


def list_execution_rows(connection: Connection, filters: ExecutionFilters, limit: int | None) -> list[dict[str, Any]]:
    """Return one flat row for each execution; see ``DerivaML.execution_rows``."""
    executions, ranking = _find_executions(connection, filters, limit)
    return tabulate_executions(_add_values(connection, summarize_executions(connection, executions), ranking))


def tabulate_executions(
    executions: Iterable[ExecutionSummary], columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return one flat row for each execution, all with the same columns.

    Args:
        executions: The executions, with parameters and metrics.
        columns: The columns, in order; None for all, where those of parameters and of metrics stand together.

    Raises:
        UnknownColumn: No execution has a column; the message names similar ones.
    """
    rows = [each.to_row() for each in executions]
    known = list(dict.fromkeys(column for row in rows for column in row))
    order = {"params": 1, "metrics": 2}
    known.sort(key=lambda column: order.get(column.partition(".")[0], 0))
    unknown = [column for column in columns or () if rows and column not in known]
    if unknown:
        similar = difflib.get_close_matches(unknown[0], known, n=5, cutoff=0.5) or known[:10]
        raise UnknownColumn(f"The list has no column {unknown[0]!r}. Did you mean {' or '.join(map(repr, similar))}?")
    return [{column: row.get(column) for column in (known if columns is None else columns)} for row in rows]


def _find_executions(
    connection: Connection, filters: ExecutionFilters, count: int | None
) -> tuple[list[RecordedExecution], Ranking | None]:
    """Check the filters, and return the first executions that match and the metric that they are sorted by."""
    if filters.stage is not None and filters.sort is None and not filters.where:
        raise ConfigurationError("A stage (--stage) needs a metric to sort by (--sort) or a condition (--where).")
    rids = {
        MLTable.workflow: filters.workflow,
        MLTable.dataset: filters.dataset,
        MLTable.execution: filters.parent,
    }
    for table, rid in rids.items():
        if rid is not None:
            connection.require_row(table, check_rid(rid))
    if filters.workflow_type is not None:
        connection.terms.require(MLVocab.workflow_type, [filters.workflow_type])
    ranking = None if filters.sort is None else resolve_ranking(connection, filters.sort, filters.stage)
    conditions = resolve_conditions(connection, filters.where, filters.params, filters.stage)
    return _find_matching(connection, filters, ranking, conditions, count), ranking


def _add_values(
    connection: Connection, summaries: Sequence[ExecutionSummary], ranking: Ranking | None
) -> tuple[ExecutionSummary, ...]:
    """Add tags, parameters and metrics, among them the one of the ranking; they are read with three queries."""
    rids = [summary.rid for summary in summaries]
    params, metrics = list_parameters(connection, rids), list_metrics(connection, rids)
    tags = list_tags(connection, rids)

    def ranked(own: Sequence[MetricSummary]) -> MetricSummary | None:
        key = ranking and (ranking.name, ranking.stage)
        return next((metric for metric in own if (metric.name, metric.stage) == key), None)

    return tuple(
        replace(
            summary,
            params=params.get(summary.rid, {}),
            tags=tags.get(summary.rid, ()),
            metrics=tuple(metrics.get(summary.rid, ())),
            metric=ranked(metrics.get(summary.rid, ())),
        )
        for summary in summaries
    )


def summarize_with_values(
    connection: Connection, executions: Iterable[RecordedExecution]
) -> tuple[ExecutionSummary, ...]:
    """Return the summaries of executions with their parameters and metrics."""
    return _add_values(connection, summarize_executions(connection, executions), None)


def build_execution_grid(executions: Sequence[ExecutionSummary], *, omitted: int = 0, title: str = "") -> Grid:
    """Return a table of executions with the parameters that differ and their metrics.

    Args:
        executions: The executions, with parameters and metrics.
        omitted: The number of further executions.
        title: The title above the table.
    """
    names = dict.fromkeys(name for each in executions for name in each.params)
    varying = [name for name in names if len({repr(each.params.get(name)) for each in executions}) > 1]
    params = varying[:MAX_PARAMETERS]
    metrics = list(dict.fromkeys(metric.label for each in executions for metric in each.metrics))[:MAX_METRICS]
    rows: list[list[Cell]] = []
    for each in executions:
        values = {metric.label: metric.last if metric.best is None else metric.best for metric in each.metrics}
        rows.append(
            [
                each.rid,
                Badge(str(each.status)),
                format_time(each.created),
                *(str(each.params[name]) if name in each.params else None for name in params),
                *(values.get(name) for name in metrics),
                format_duration(each.duration_seconds),
                each.workflow.name if each.workflow else None,
                each.description or each.status_detail,
            ]
        )
    header = ["RID", "Status", "Created", *params, *metrics, "Duration", "Workflow", "Description"]
    return Grid(rows, header, title=title, omitted=omitted)


def _find_matching(
    connection: Connection,
    filters: ExecutionFilters,
    ranking: Ranking | None,
    conditions: Sequence[InSubquery],
    count: int | None,
) -> list[RecordedExecution]:
    """Return the first executions that match.

    The text is compared here, not by the catalog, so more rows are read until enough of them match.
    """
    row_limit = count
    while True:
        executions = find_executions(
            connection,
            workflow=filters.workflow,
            workflow_type=filters.workflow_type,
            status=filters.status,
            dataset=filters.dataset,
            limit=row_limit,
            ranking=ranking,
            conditions=conditions,
            tags=as_tags(filters.tags),
            user=filters.user,
            parent=filters.parent,
        )
        matching = executions if filters.text is None else _filter_by_text(connection, executions, filters.text)
        if row_limit is None or count is None or len(executions) < row_limit or len(matching) >= count:
            return matching[:count]
        row_limit *= 4


def _filter_by_text(
    connection: Connection, executions: Sequence[RecordedExecution], text: str
) -> list[RecordedExecution]:
    workflows, lowered = _load_workflows(connection, executions), text.casefold()

    def matches(execution: RecordedExecution) -> bool:
        workflow = workflows.get(execution.workflow_rid or "")
        name = str(workflow.name or "") if workflow else ""
        return lowered in execution.description.casefold() or lowered in name.casefold()

    return [execution for execution in executions if matches(execution)]


def summarize_execution(connection: Connection, execution: RecordedExecution) -> ExecutionSummary:
    """Return the summary of one execution.

    Raises:
        MalformedData: A value in its row has an unexpected form.
    """
    workflow = _load_workflows(connection, [execution]).get(execution.workflow_rid or "")
    return _summarize_execution(connection, execution, workflow)


def summarize_executions(
    connection: Connection, executions: Iterable[RecordedExecution]
) -> tuple[ExecutionSummary, ...]:
    """Return the summaries of executions; their workflows are read with one query.

    A malformed row is left out, and a warning names it.
    """
    listed = list(executions)
    workflows = _load_workflows(connection, listed)

    def summarize(execution: RecordedExecution) -> ExecutionSummary:
        return _summarize_execution(connection, execution, workflows.get(execution.workflow_rid or ""))

    return tuple(convert_rows(summarize, listed))


def _load_workflows(connection: Connection, executions: Sequence[RecordedExecution]) -> dict[str, WorkflowSummary]:
    rids = sorted({execution.workflow_rid for execution in executions if execution.workflow_rid})
    rows = connection.catalog.select(MLTable.workflow, {"RID": rids}) if rids else []
    return {workflow.rid: workflow for workflow in convert_rows(WorkflowSummary.from_row, rows)}


def _summarize_execution(
    connection: Connection, execution: RecordedExecution, workflow: WorkflowSummary | None
) -> ExecutionSummary:
    status = execution.status
    return ExecutionSummary(
        rid=execution.execution_rid,
        status=status,
        status_detail=execution.status_detail,
        description=execution.description,
        created=execution.created,
        duration_seconds=_compute_duration(connection, execution, status),
        workflow=workflow,
        user=execution.user,
    )


def _compute_duration(connection: Connection, execution: RecordedExecution, status: Status) -> float | None:
    """Return the duration in the row; of a running execution, its run time so far by its journal."""
    if (recorded := parse_duration(execution.duration)) is not None or status.is_terminal:
        return recorded
    state = load_local_state(connection, execution.execution_rid)
    return state.elapsed_run_time().total_seconds() if state and state.start_time else None


def list_workflows(
    connection: Connection, *, workflow_type: str | None, text: str | None, limit: int, page: int
) -> WorkflowPage:
    """Return one page of workflows; see ``DerivaML.list_workflows``."""
    where: dict[str, Any] = {}
    if workflow_type is not None:
        connection.terms.require(MLVocab.workflow_type, [workflow_type])
        where["Workflow_Type"] = workflow_type
    columns = ("Name", "Description", "URL")
    rows, has_more = _find_rows(connection, MLTable.workflow, where, text=text, columns=columns, limit=limit, page=page)
    return WorkflowPage(tuple(convert_rows(WorkflowSummary.from_row, rows)), has_more)


def list_datasets(
    connection: Connection, *, text: str | None, include_deleted: bool, limit: int, page: int
) -> DatasetPage:
    """Return one page of datasets; see ``DerivaML.list_datasets``."""
    where: Where = {} if include_deleted else AnyOf(({"Deleted": None}, {"Deleted": False}))
    columns = ("Description",)
    rows, has_more = _find_rows(connection, MLTable.dataset, where, text=text, columns=columns, limit=limit, page=page)
    return DatasetPage(tuple(_summarize_datasets(connection, rows)), has_more)


def _summarize_datasets(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Iterator[DatasetSummary]:
    """Return summaries of datasets; their types and versions are read with two queries."""
    if not rows:
        return iter(())
    catalog = connection.catalog
    version_rids = [row["Version"] for row in rows if row["Version"]]
    versions = {row["RID"]: row for row in catalog.select(MLTable.dataset_version, {"RID": version_rids})}
    # another client names its development version there
    in_development = [row["Dataset"] for row in versions.values() if not is_release(row)]
    releases = current_version_rows(catalog, in_development)
    types: dict[str, list[str]] = {}
    for link in catalog.select(MLTable.dataset_dataset_type, {"Dataset": [row["RID"] for row in rows]}):
        types.setdefault(link["Dataset"], []).append(link["Dataset_Type"])

    def summarize(row: Mapping[str, Any]) -> DatasetSummary:
        version = releases.get(row["RID"]) or versions.get(row["Version"] or "", {})
        parse_row_time(MLTable.dataset, check_row(MLTable.dataset, row))
        parse_row_time(MLTable.dataset_version, version)
        return DatasetSummary(
            rid=row["RID"],
            description=row["Description"] or "",
            types=tuple(sorted(types.get(row["RID"], ()))),
            version=version.get("Version"),
            changed=version.get("RCT"),
            created=row["RCT"],
            deleted=bool(row["Deleted"]),
        )

    return convert_rows(summarize, rows)


def _find_rows(
    connection: Connection,
    table: str,
    where: Where,
    *,
    text: str | None,
    columns: Sequence[str],
    limit: int,
    page: int,
) -> tuple[Sequence[Mapping[str, Any]], bool]:
    """Return one page of a table's rows, newest first, and whether more rows match.

    Args:
        connection: The catalog.
        table: The table.
        where: Conditions that the catalog checks.
        text: A text that one of `columns` contains, upper or lower case; None for no condition.
        columns: The columns to search for the text.
        limit: Rows of a page.
        page: The page, from 1.
    """
    end = limit * page
    row_limit, lowered = end + 1, (text or "").casefold()
    while True:
        rows = connection.catalog.select(table, where, order=("RCT", "RID"), descending=True, limit=row_limit)
        matching = [row for row in rows if any(lowered in str(row[name] or "").casefold() for name in columns)]
        if len(rows) < row_limit or len(matching) > end:
            return matching[end - limit : end], len(matching) > end
        row_limit *= 4


def lookup_table(connection: Connection, rid: str) -> str:
    """Return the name of the table that has a RID.

    Raises:
        InvalidRID: The text is not a RID.
        UnknownRID: No table has it.
    """
    bare_rid = split_rid(rid)[0]
    tables = connection.catalog.locate([bare_rid])
    if bare_rid not in tables:
        raise UnknownRID(
            f"{bare_rid} names no row of {connection.catalog.name}; `{connection.command('list')}` shows the RIDs of "
            "executions."
        )
    return tables[bare_rid]
