"""``deriva-ml list``: executions, newest first, or best first by a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, Limit, PageNumber, command

if TYPE_CHECKING:
    from deriva_ml_cli.runs import Page, Run
    from deriva_ml_cli.screen import Column
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.execution.finding import Ranking

__all__ = ["app"]

NARROW, BROAD = 76, 120
"""Columns of the screen below and from which other columns are shown."""

LONGEST_NAME = 20
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
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.runs import Filters, find_page
    from deriva_ml_cli.screen import print_json

    with opened(host, catalog) as ml:
        filters = Filters(workflow, workflow_type, _state(status), dataset, text, sort, stage)
        found = find_page(ml, filters, limit=limit, page=page)
    if as_json:
        print_json({"executions": [run.as_json() for run in found.runs], "page": page, "more": found.more})
    else:
        _print(found, page)


def _state(text: str | None) -> Status | None:
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.errors import ConfigurationError

    known = {state.name: state for state in Status}
    if text is not None and text.lower() not in known:
        raise ConfigurationError(f"There is no state {text!r}; give one of {', '.join(known)}.")
    return None if text is None else known[text.lower()]


def _print(found: Page, page: int) -> None:
    from deriva_ml_cli.screen import Column, console, print_note, print_table

    if not found.runs:
        print_note("No execution matches." if page == 1 else f"There is no page {page}.")
        return
    width = console().width
    columns = [Column("RID", style="bold"), Column("Status"), Column("Created")]
    columns += _measures(found.ranking, width) if found.ranking else []
    columns += [Column("Took", right=True), Column("Workflow", flexible=True)] if width >= NARROW else []
    columns += [Column("Description", flexible=True)]
    columns += [Column("Last word", flexible=True, style="dim")] if width >= BROAD else []
    print_table(columns, [_row(run, width, found.ranking) for run in found.runs])
    if found.ranking:
        stage = "" if found.ranking.stage == "fit" else f" of the stage {found.ranking.stage}"
        most = "largest" if found.ranking.larger else "smallest"
        value = "last" if found.ranking.last else "best"
        print_note(
            f"By the {value} value of {found.ranking.name}{stage}, the {most} first; runs without it are not listed."
        )
    if found.more:
        print_note(f"There are more: --page {page + 1}")


def _measures(ranking: Ranking, width: int) -> list[Column]:
    """The metric that they are ordered by; where there is room, its other value and the epoch of the best."""
    from deriva_ml_cli.screen import Column, one_line

    name = one_line(ranking.name)
    room = LONGEST_NAME if width < BROAD else 2 * LONGEST_NAME
    title = name if len(name) <= room else f"{name[: room - 3]}..."
    found = [Column(f"{title}, last" if ranking.last else title, right=True)]
    second = "best" if ranking.last else "last"
    return [*found, Column(second, right=True), Column("at epoch", right=True)] if width >= BROAD else found


def _measured(run: Run, ranking: Ranking, width: int) -> list[object]:
    from deriva_ml_cli.wording import number

    metric = run.metric
    last, best, at = (metric.last, metric.best, metric.best_at) if metric else (None, None, None)
    first, second = (last, best) if ranking.last else (best, last)
    return [number(first), number(second), at] if width >= BROAD else [number(first)]


def _row(run: Run, width: int, ranking: Ranking | None) -> list[object]:
    from deriva_ml_cli.screen import shown_status
    from deriva_ml_cli.wording import ago, duration, moment

    row: list[object] = [run.rid, shown_status(run.status)]
    row += [moment(run.created) if width >= BROAD else ago(run.created)]
    row += _measured(run, ranking, width) if ranking else []
    row += [duration(run.seconds), run.workflow.get("Name") or ""] if width >= NARROW else []
    return [*row, run.description, *([run.detail] if width >= BROAD else [])]
