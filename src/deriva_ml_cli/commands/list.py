"""``deriva-ml list``: the executions of a catalog."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Limit, PageNumber, command

if TYPE_CHECKING:
    from deriva_ml_cli.terminal import Column
    from deriva_ml_core.analysis.runs import ExecutionPage, ExecutionSummary
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.execution.query import Ranking
    from deriva_ml_core.models import MetricSummary

__all__ = ["app"]

MEDIUM_WIDTH, WIDE_WIDTH = 76, 120
"""Characters of a line from which more columns are shown."""

MAX_NAME_LENGTH = 20
"""Characters of a metric's or a parameter's name in a heading; twice as many on a wide terminal."""

MAX_VALUE_LENGTH = 16
"""Characters of a parameter's value; more are cut."""

MAX_TAGS_LENGTH = 24
"""Characters of the tags of a run; more are cut."""

FLEXIBLE_COLUMNS = frozenset({"description", "status_detail", "workflow", "tags"})
"""Chosen columns that shrink on a narrow terminal."""

MIN_DESCRIPTION_WIDTH = 12
"""Characters of the description that chosen columns leave."""


SortMetric = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC",
        help="Sort by a metric: METRIC by its best value, METRIC:last by its last, METRIC:min or "
        ":max by the smallest or the largest last value.",
    ),
]
Conditions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="Only runs with these values of parameters or metrics, such as 'lr > 0.001', 'optimizer = Adam', "
        "'val_loss < 0.3' (its best value) or 'last(val_loss) < 0.3'. Repeat it for several conditions.",
    ),
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="TAG", help="Only runs with this tag. Repeat it: a run must have all of them."),
]
ColumnNames = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Show these columns of --csv, separated by commas, in this order, such as "
        "'rid,user,params.lr,metrics.loss'.",
    ),
]
ParameterNames = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Show these parameters, separated by commas, instead of those that differ."),
]
MetricNames = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Show these metrics of fits, separated by commas: their best values."),
]


@command(
    "deriva-ml list",
    "deriva-ml list --status failed --limit 5",
    "deriva-ml list --sort val_loss --type Training",
    "deriva-ml list --where 'lr > 0.001' --where 'optimizer = Adam'",
    "deriva-ml list --text 'learning rate' --json",
)
def app(
    workflow: Annotated[str | None, typer.Option(metavar="RID", help="Only runs of this workflow.")] = None,
    workflow_type: Annotated[
        str | None, typer.Option("--type", metavar="TERM", help="Only workflows of this type, such as Training.")
    ] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only with this status, such as running.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="RID", help="Only runs that used this dataset.")] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only with this text in the description or workflow name.")
    ] = None,
    sort: SortMetric = None,
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="The metric's stage: fit, validate, test or predict.")
    ] = None,
    where: Conditions = None,
    tags: Tags = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this user.")] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="RID", help="Only runs nested in this one, such as the jobs of a sweep.")
    ] = None,
    columns: ColumnNames = None,
    params: ParameterNames = None,
    metrics: MetricNames = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print all parameters and metrics of the page as CSV, one row for each run.")
    ] = False,
    limit: Limit = 20,
    page: PageNumber = 1,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List executions, newest first or best first.

    A run whose process was killed on this machine is shown as Aborted, even if the catalog still has it as Running.

    Parameters that differ between the listed runs are shown as far as the terminal is wide enough, and the metric that
    decides the best checkpoint.

    With --sort only runs that have the metric are listed. The training, or the name of a known metric, decides whether
    smaller or larger values are better. A metric without a best value, such as a learning rate, needs :min or :max.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    filters: dict[str, Any] = {
        "workflow": workflow,
        "workflow_type": workflow_type,
        "status": _parse_status(status),
        "dataset": dataset,
        "text": text,
        "sort": sort,
        "stage": stage,
        "where": where or (),
        "tags": tags or (),
        "user": user,
        "parent": parent,
    }
    with open_client(host, catalog) as ml:
        result = ml.list_executions(**filters, limit=limit, page=page)
        name = ml.connection.catalog.name
        similar = {} if result.executions else _find_similar_tags(ml, tags or ())
    if as_csv:
        _print_csv(result, _split_names(columns))
    elif as_json:
        executions = [execution.to_dict() for execution in result.executions]
        print_json({"executions": executions, "page": page, "more": result.has_more})
    elif result.executions and columns is not None:
        _print_columns(result, page, _split_names(columns))
    elif result.executions:
        _print(result, page, _split_names(params), _split_names(metrics))
    else:
        is_empty = page == 1 and not any(filters.values())
        _print_nothing_found(name if is_empty else None, page, similar)


def _parse_status(text: str | None) -> Status | None:
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.errors import ConfigurationError

    statuses = {status.name: status for status in Status}
    if text is not None and text.lower() not in statuses:
        raise ConfigurationError(f"There is no status {text!r}; use one of {', '.join(statuses)}.")
    return None if text is None else statuses[text.lower()]


def _find_similar_tags(ml: DerivaML, tags: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return the tags that no run has, each with similar ones."""
    from deriva_ml_core.execution.tags import find_similar_tags

    return find_similar_tags(ml.connection, tags)


def _print_nothing_found(empty_catalog: str | None, page: int, similar_tags: Mapping[str, Sequence[str]]) -> None:
    from deriva_ml_cli.terminal import print_note

    if empty_catalog is not None:
        print_note(f"The catalog in {empty_catalog} has no executions yet.")
        print_note(
            "Record one with a callback or `ml.create_execution(...)`, or try `make demo` in a clone of deriva-ml-core."
        )
    else:
        print_note("No execution matches." if page == 1 else f"There is no page {page}.")
    for tag, others in similar_tags.items():
        hint = f" Did you mean {' or '.join(map(repr, others))}?" if others else ""
        print_note(f"No execution has the tag {tag!r}.{hint}")


def _print_csv(result: ExecutionPage, columns: list[str] | None) -> None:
    import csv
    import sys

    from deriva_ml_core.analysis.runs import tabulate_executions

    rows = tabulate_executions(result.executions, columns)
    writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else columns or [])
    writer.writeheader()
    writer.writerows({column: _escape_formula(value) for column, value in row.items()} for row in rows)


def _escape_formula(value: object) -> object:
    """Return a text that a spreadsheet would run as a formula with an apostrophe before it; others as they are.

    Whoever may write to a shared catalog chooses descriptions and parameters. Source of the characters: OWASP, CSV
    Injection.
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _print_columns(result: ExecutionPage, page: int, names: list[str] | None) -> None:
    """Print the chosen columns; those that do not fit the terminal are named."""
    from datetime import datetime

    from deriva_ml_cli.terminal import COLUMN_GAP, Column, create_console, print_note, print_table
    from deriva_ml_core._text import format_number, format_time
    from deriva_ml_core.analysis.runs import tabulate_executions

    def format_cell(name: str, value: object) -> str:
        if isinstance(value, datetime):
            return format_time(value)
        is_measured = isinstance(value, float) and (name.startswith("metrics.") or name == "duration_seconds")
        text = format_number(value) if is_measured and isinstance(value, float) else "" if value is None else str(value)
        return _cut(text, MAX_VALUE_LENGTH) if name.startswith("params.") else text

    rows = tabulate_executions(result.executions, names)
    shown: list[str] = []
    free = create_console().width
    for name in rows[0]:
        is_flexible = name in FLEXIBLE_COLUMNS
        cells = [len(name), *(len(format_cell(name, row[name])) for row in rows)]
        width = MIN_DESCRIPTION_WIDTH if is_flexible else max(cells)
        if shown and width > free:
            break
        shown.append(name)
        free -= width + COLUMN_GAP
    print_table(
        [Column(name, flexible=name in FLEXIBLE_COLUMNS) for name in shown],
        [[format_cell(name, row[name]) for name in shown] for row in rows],
    )
    if hidden := list(rows[0])[len(shown) :]:
        print_note(f"Too narrow for {', '.join(map(_one_line, hidden))}; --csv prints all.")
    if result.has_more:
        print_note(f"There are more: --page {page + 1}")


def _split_names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


@dataclass(frozen=True, slots=True)
class _ListColumn:
    """A column of the list.

    Args:
        column: Its heading and form.
        cell: Function that returns its cell for an execution.
    """

    column: Column
    cell: Callable[[ExecutionSummary], object]

    def width(self, executions: Sequence[ExecutionSummary]) -> int:
        """Return the characters of its widest cell, with the gap to the next column."""
        from deriva_ml_cli.terminal import COLUMN_GAP

        cells = (str(self.cell(execution) or "") for execution in executions)
        return max([len(self.column.title), *map(len, cells)]) + COLUMN_GAP


def _print(result: ExecutionPage, page: int, params: list[str] | None, metrics: list[str] | None) -> None:
    from deriva_ml_cli.terminal import create_console, print_note, print_table

    columns = _choose_columns(result, create_console().width, params, metrics)
    rows = [[column.cell(execution) for column in columns] for execution in result.executions]
    print_table([column.column for column in columns], rows)
    titles = [column.column.title for column in columns]
    if hidden := [name for name in params or () if _short_title(name, create_console().width) not in titles]:
        print_note(f"Too narrow for {', '.join(map(_one_line, hidden))}; --csv prints all.")
    if result.ranking:
        print_note(_describe_ranking(result.ranking))
    elif len(result.executions) > 1:
        for name in _choose_metrics(result, metrics):
            _print_best(name, result.executions)
    _print_baselines(result.executions)
    if result.has_more:
        print_note(f"There are more: --page {page + 1}")


def _choose_columns(
    result: ExecutionPage, width: int, params: list[str] | None, metrics: list[str] | None
) -> list[_ListColumn]:
    """Return the columns that fit: those that differ come before those that every list has."""
    from deriva_ml_cli.terminal import Column, status_text
    from deriva_ml_core._text import format_age, format_duration, format_time

    executions = result.executions
    is_wide = width >= WIDE_WIDTH
    columns = [
        _ListColumn(Column("RID", style="bold"), lambda each: each.rid),
        _ListColumn(Column("Status"), lambda each: status_text(each.status)),
        _ListColumn(Column("Created"), lambda each: (format_time if is_wide else format_age)(each.created)),
    ]
    columns += _ranking_columns(result.ranking, width) if result.ranking else []
    columns += [_metric_column(name, width) for name in _choose_metrics(result, metrics)]
    description = _ListColumn(Column("Description", flexible=True), lambda each: each.description)
    message = _ListColumn(Column("Message", flexible=True, style="dim"), lambda each: each.status_detail)
    free = width - sum(column.width(executions) for column in columns) - MIN_DESCRIPTION_WIDTH
    tags = _ListColumn(Column("Tags"), lambda each: _cut(", ".join(each.tags), MAX_TAGS_LENGTH))
    user = _ListColumn(Column("User"), lambda each: _cut(each.user, MAX_VALUE_LENGTH))
    optional = [tags] if any(each.tags for each in executions) else []
    optional += [user] if len({each.user for each in executions}) > 1 else []
    names_of_parameters = _varying_parameters(executions) if params is None else params
    optional += [_parameter_column(name, width) for name in names_of_parameters]
    for column in optional:
        if column.width(executions) <= free:
            columns.append(column)
            free -= column.width(executions)
    duration = _ListColumn(Column("Duration", align_right=True), lambda each: format_duration(each.duration_seconds))
    if width >= MEDIUM_WIDTH and (free := free - duration.width(executions)) >= 0:
        columns.append(duration)
    workflow = _ListColumn(
        Column("Workflow", flexible=True), lambda each: each.workflow.name if each.workflow else None
    )
    names = {each.workflow.name if each.workflow else None for each in executions}
    all_widths = sum(column.width(executions) for column in (*columns, workflow, description))
    if width >= MEDIUM_WIDTH and free >= MIN_DESCRIPTION_WIDTH and (len(names) > 1 or all_widths <= width):
        columns.append(workflow)
    has_failure = any(each.status_detail and str(each.status) in ("Failed", "Aborted") for each in executions)
    is_message_next = is_wide or (has_failure and not any(each.description for each in executions))
    return [*columns, description, message] if is_message_next else [*columns, description]


def _varying_parameters(executions: Sequence[ExecutionSummary]) -> list[str]:
    """Return the parameters that differ between executions, in the order in which they were recorded."""
    names = dict.fromkeys(name for execution in reversed(executions) for name in execution.params)
    return [name for name in names if len({repr(execution.params.get(name)) for execution in executions}) > 1]


def _parameter_column(name: str, width: int) -> _ListColumn:
    from deriva_ml_cli.terminal import Column

    def cell(execution: ExecutionSummary) -> str:
        return _cut(str(execution.params.get(name)) if name in execution.params else "", MAX_VALUE_LENGTH)

    return _ListColumn(Column(_short_title(name, width)), cell)


def _one_line(text: str) -> str:
    from deriva_ml_core._text import sanitize_line

    return sanitize_line(text)


def _cut(text: str, max_length: int) -> str:
    from deriva_ml_core._text import sanitize_line

    text = sanitize_line(text)
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


def _choose_metrics(result: ExecutionPage, names: list[str] | None) -> list[str]:
    """Return the metrics to show: the given ones, else the one that decides which checkpoint is the best."""
    from deriva_ml_core.metric_modes import choose_metric

    if names is not None:
        return names
    if result.ranking is not None:
        return []
    fits = (metric.name for each in result.executions for metric in each.metrics if metric.stage == "fit")
    name = choose_metric(fits)
    return [] if name is None else [name]


def _metric_column(name: str, width: int) -> _ListColumn:
    from deriva_ml_cli.terminal import Column
    from deriva_ml_core._text import format_number

    def cell(execution: ExecutionSummary) -> str:
        metric: MetricSummary | None = next(
            (each for each in execution.metrics if each.stage == "fit" and each.name == name), None
        )
        return "" if metric is None else format_number(metric.last if metric.best is None else metric.best)

    return _ListColumn(Column(_short_title(name, width), align_right=True), cell)


def _print_best(name: str, executions: Sequence[ExecutionSummary]) -> None:
    """Print which of the listed runs has the best value of a metric, if any has one."""
    from deriva_ml_cli.terminal import print_note
    from deriva_ml_core._text import format_number, sanitize_line

    values = [
        (metric.best, metric.larger_is_better, execution.rid)
        for execution in executions
        for metric in execution.metrics
        if metric.stage == "fit" and metric.name == name and metric.best is not None
    ]
    if values:
        choose = max if values[0][1] else min
        best, _, rid = choose(values, key=lambda value: value[0])
        print_note(f"Best {sanitize_line(name)} of these: {format_number(best)} by {rid}")


def _print_baselines(executions: Sequence[ExecutionSummary]) -> None:
    """Print which of the listed runs are baselines."""
    from deriva_ml_cli.terminal import print_note
    from deriva_ml_core._text import sanitize_line
    from deriva_ml_core.execution.tags import is_baseline_tag

    for execution in executions:
        for tag in filter(is_baseline_tag, execution.tags):
            _, _, name = tag.partition(":")
            print_note(f"Baseline{f' {sanitize_line(name)}' if name else ''}: {execution.rid}")


def _short_title(name: str, width: int) -> str:
    return _cut(name, MAX_NAME_LENGTH if width < WIDE_WIDTH else 2 * MAX_NAME_LENGTH)


def _describe_ranking(ranking: Ranking) -> str:
    stage = "" if ranking.stage == "fit" else f" of the stage {ranking.stage}"
    value = "last" if ranking.by_last_value else "best"
    order = "largest" if ranking.larger_is_better else "smallest"
    return f"Sorted by the {value} value of {ranking.name}{stage}, {order} first; runs without it are not listed."


def _ranking_columns(ranking: Ranking, width: int) -> list[_ListColumn]:
    """Return the column of the sorted value; on a wide terminal also its other value and the epoch of the best."""
    from deriva_ml_cli.terminal import Column
    from deriva_ml_core._text import format_number

    def value(name: str) -> Callable[[ExecutionSummary], object]:
        return lambda each: format_number(getattr(each.metric, name)) if each.metric else ""

    first, second = ("last", "best") if ranking.by_last_value else ("best", "last")
    title = _short_title(ranking.name, width)
    columns = [_ListColumn(Column(f"{title}, last" if first == "last" else title, align_right=True), value(first))]
    if width >= WIDE_WIDTH:
        columns += [
            _ListColumn(Column(second, align_right=True), value(second)),
            _ListColumn(
                Column("at epoch", align_right=True), lambda each: each.metric.best_at if each.metric else None
            ),
        ]
    return columns
