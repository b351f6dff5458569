"""``deriva-ml list``: the executions of a catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Limit, PageNumber, command

if TYPE_CHECKING:
    from deriva_ml_cli.terminal import Column
    from deriva_ml_core.analysis.runs import ExecutionPage, ExecutionSummary
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.execution.query import Ranking

__all__ = ["app"]

MEDIUM_WIDTH, WIDE_WIDTH = 76, 120
"""Characters of a line from which more columns are shown."""

MAX_NAME_LENGTH = 20
"""Characters of a metric's name in a heading; twice as many on a wide terminal."""


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
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="Sort by a metric: METRIC by its best value, METRIC:last by its last, METRIC:min or "
            ":max by the smallest or the largest last value.",
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="The metric's stage: fit, validate, test or predict.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Only runs with these values of parameters or metrics, such as 'lr > 0.001', 'optimizer = Adam', "
            "'val_loss < 0.3' (its best value) or 'last(val_loss) < 0.3'. Repeat it for several conditions.",
        ),
    ] = None,
    limit: Limit = 20,
    page: PageNumber = 1,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List executions, newest first or best first.

    A run whose process was killed on this machine is shown as Aborted, even if the catalog still has it as Running.

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
    }
    with open_client(host, catalog) as ml:
        result = ml.list_executions(**filters, limit=limit, page=page)
        name = ml.connection.catalog.name
    if as_json:
        executions = [execution.to_dict() for execution in result.executions]
        print_json({"executions": executions, "page": page, "more": result.has_more})
    elif result.executions:
        _print(result, page)
    else:
        is_empty = page == 1 and not any(filters.values())
        _print_nothing_found(name if is_empty else None, page)


def _parse_status(text: str | None) -> Status | None:
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.errors import ConfigurationError

    statuses = {status.name: status for status in Status}
    if text is not None and text.lower() not in statuses:
        raise ConfigurationError(f"There is no status {text!r}; use one of {', '.join(statuses)}.")
    return None if text is None else statuses[text.lower()]


def _print_nothing_found(empty_catalog: str | None, page: int) -> None:
    from deriva_ml_cli.terminal import print_note

    if empty_catalog is not None:
        print_note(f"The catalog in {empty_catalog} has no executions yet.")
        print_note(
            "Record one with a callback or `ml.create_execution(...)`, or try `make demo` in a clone of deriva-ml-core."
        )
    else:
        print_note("No execution matches." if page == 1 else f"There is no page {page}.")


def _print(result: ExecutionPage, page: int) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table

    width = create_console().width
    columns = [Column("RID", style="bold"), Column("Status"), Column("Created")]
    columns += _metric_columns(result.ranking, width) if result.ranking else []
    if width >= MEDIUM_WIDTH:
        columns += [Column("Duration", align_right=True), Column("Workflow", flexible=True)]
    columns += [Column("Description", flexible=True)]
    columns += [Column("Message", flexible=True, style="dim")] if width >= WIDE_WIDTH else []
    print_table(columns, [_execution_row(execution, width, result.ranking) for execution in result.executions])
    if result.ranking:
        print_note(_describe_ranking(result.ranking))
    if result.has_more:
        print_note(f"There are more: --page {page + 1}")


def _describe_ranking(ranking: Ranking) -> str:
    stage = "" if ranking.stage == "fit" else f" of the stage {ranking.stage}"
    value = "last" if ranking.by_last_value else "best"
    order = "largest" if ranking.larger_is_better else "smallest"
    return f"Sorted by the {value} value of {ranking.name}{stage}, {order} first; runs without it are not listed."


def _metric_columns(ranking: Ranking, width: int) -> list[Column]:
    """Return the column of the sorted value; on a wide terminal also its other value and the epoch of the best."""
    from deriva_ml_cli.terminal import Column
    from deriva_ml_core._text import sanitize_line

    name = sanitize_line(ranking.name)
    max_length = MAX_NAME_LENGTH if width < WIDE_WIDTH else 2 * MAX_NAME_LENGTH
    title = name if len(name) <= max_length else f"{name[: max_length - 3]}..."
    columns = [Column(f"{title}, last" if ranking.by_last_value else title, align_right=True)]
    if width >= WIDE_WIDTH:
        other = "best" if ranking.by_last_value else "last"
        columns += [Column(other, align_right=True), Column("at epoch", align_right=True)]
    return columns


def _metric_cells(execution: ExecutionSummary, ranking: Ranking, width: int) -> list[object]:
    from deriva_ml_core._text import format_number

    metric = execution.metric
    last, best, best_at = (metric.last, metric.best, metric.best_at) if metric else (None, None, None)
    first, second = (last, best) if ranking.by_last_value else (best, last)
    return [format_number(first), format_number(second), best_at] if width >= WIDE_WIDTH else [format_number(first)]


def _execution_row(execution: ExecutionSummary, width: int, ranking: Ranking | None) -> list[object]:
    from deriva_ml_cli.terminal import status_text
    from deriva_ml_core._text import format_age, format_duration, format_time

    row: list[object] = [execution.rid, status_text(execution.status)]
    row += [format_time(execution.created) if width >= WIDE_WIDTH else format_age(execution.created)]
    row += _metric_cells(execution, ranking, width) if ranking else []
    if width >= MEDIUM_WIDTH:
        workflow = execution.workflow.name if execution.workflow else None
        row += [format_duration(execution.duration_seconds), workflow]
    return [*row, execution.description, *([execution.status_detail] if width >= WIDE_WIDTH else [])]
