"""``deriva-ml list``: executions, newest first, or best first by a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Limit, PageNumber, command

if TYPE_CHECKING:
    from deriva_ml_cli.terminal import Column
    from deriva_ml_core.analysis.runs import ExecutionPage, ExecutionSummary
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.execution.query import Ranking

__all__ = ["app"]

MEDIUM_WIDTH, WIDE_WIDTH = 76, 120
"""Columns of the screen below and from which other columns are shown."""

MAX_NAME_LENGTH = 20
"""Letters of a metric's name that stand above its values, where the screen is not broad."""


@command(
    "deriva-ml list",
    "deriva-ml list --status failed --limit 5",
    "deriva-ml list --sort val_loss --type Training",
    "deriva-ml list --text 'learning rate' --json",
)
def app(
    workflow: Annotated[str | None, typer.Option(metavar="RID", help="Of this workflow.")] = None,
    workflow_type: Annotated[
        str | None, typer.Option("--type", metavar="TERM", help="Of workflows of this type, such as Training.")
    ] = None,
    status: Annotated[str | None, typer.Option(metavar="STATE", help="In this state, such as running.")] = None,
    dataset: Annotated[str | None, typer.Option(metavar="RID", help="That this dataset went into.")] = None,
    text: Annotated[
        str | None, typer.Option(metavar="WORDS", help="With this in the description or the workflow's name.")
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="METRIC", help="The best first, by its best value; by its last with METRIC:last."),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Of which stage: fit, validate, test or predict.")
    ] = None,
    limit: Limit = 20,
    page: PageNumber = 1,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List executions, newest first or best first, each in its real state.

    A run whose process was killed is shown as Aborted, though nobody has told the catalog yet. With --sort, those that
    have the metric are listed; whether less or more is better is told by its name, or as the training said.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json
    from deriva_ml_core.analysis.runs import ExecutionFilters, find_execution_page

    with open_client(host, catalog) as ml:
        filters = ExecutionFilters(workflow, workflow_type, _parse_status(status), dataset, text, sort, stage)
        found = find_execution_page(ml.connection, filters, limit=limit, page=page)
    if as_json:
        print_json({"executions": [run.to_dict() for run in found.executions], "page": page, "more": found.has_more})
    else:
        _print(found, page)


def _parse_status(text: str | None) -> Status | None:
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.errors import ConfigurationError

    known = {state.name: state for state in Status}
    if text is not None and text.lower() not in known:
        raise ConfigurationError(f"There is no state {text!r}; give one of {', '.join(known)}.")
    return None if text is None else known[text.lower()]


def _print(result: ExecutionPage, page: int) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table

    if not result.executions:
        print_note("No execution matches." if page == 1 else f"There is no page {page}.")
        return
    width = create_console().width
    columns = [Column("RID", style="bold"), Column("Status"), Column("Created")]
    columns += _metric_columns(result.ranking, width) if result.ranking else []
    columns += [Column("Took", align_right=True), Column("Workflow", flexible=True)] if width >= MEDIUM_WIDTH else []
    columns += [Column("Description", flexible=True)]
    columns += [Column("Last word", flexible=True, style="dim")] if width >= WIDE_WIDTH else []
    print_table(columns, [_execution_row(run, width, result.ranking) for run in result.executions])
    if result.ranking:
        stage = "" if result.ranking.stage == "fit" else f" of the stage {result.ranking.stage}"
        most = "largest" if result.ranking.larger_is_better else "smallest"
        value = "last" if result.ranking.by_last_value else "best"
        print_note(
            f"By the {value} value of {result.ranking.name}{stage}, the {most} first; runs without it are not listed."
        )
    if result.has_more:
        print_note(f"There are more: --page {page + 1}")


def _metric_columns(ranking: Ranking, width: int) -> list[Column]:
    """The metric that they are ordered by; where there is room, its other value and the epoch of the best."""
    from deriva_ml_cli.terminal import Column
    from deriva_ml_core._text import sanitize_line

    name = sanitize_line(ranking.name)
    room = MAX_NAME_LENGTH if width < WIDE_WIDTH else 2 * MAX_NAME_LENGTH
    title = name if len(name) <= room else f"{name[: room - 3]}..."
    found = [Column(f"{title}, last" if ranking.by_last_value else title, align_right=True)]
    second = "best" if ranking.by_last_value else "last"
    return (
        [*found, Column(second, align_right=True), Column("at epoch", align_right=True)]
        if width >= WIDE_WIDTH
        else found
    )


def _metric_cells(execution: ExecutionSummary, ranking: Ranking, width: int) -> list[object]:
    from deriva_ml_core._text import format_number

    metric = execution.metric
    last, best, at = (metric.last, metric.best, metric.best_at) if metric else (None, None, None)
    first, second = (last, best) if ranking.by_last_value else (best, last)
    return [format_number(first), format_number(second), at] if width >= WIDE_WIDTH else [format_number(first)]


def _execution_row(execution: ExecutionSummary, width: int, ranking: Ranking | None) -> list[object]:
    from deriva_ml_cli.terminal import status_text
    from deriva_ml_core._text import format_age, format_duration, format_time

    row: list[object] = [execution.rid, status_text(execution.status)]
    row += [format_time(execution.created) if width >= WIDE_WIDTH else format_age(execution.created)]
    row += _metric_cells(execution, ranking, width) if ranking else []
    row += (
        [format_duration(execution.duration_seconds), execution.workflow.get("Name") or ""]
        if width >= MEDIUM_WIDTH
        else []
    )
    return [*row, execution.description, *([execution.status_detail] if width >= WIDE_WIDTH else [])]
