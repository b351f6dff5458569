"""``deriva-ml list``: executions, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, Limit, PageNumber, command

if TYPE_CHECKING:
    from deriva_ml_cli.runs import Page, Run
    from deriva_ml_core.definitions import Status

__all__ = ["app"]

NARROW, BROAD = 76, 120
"""Columns of the screen below and from which other columns are shown."""


@command(
    "deriva-ml list",
    "deriva-ml list --status failed --limit 5",
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
    limit: Limit = 20,
    page: PageNumber = 1,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List executions, newest first, each in its real state.

    A run whose process was killed is shown as Aborted, though nobody has told the catalog yet.
    """
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.runs import Filters, find_page
    from deriva_ml_cli.screen import print_json

    with opened(host, catalog) as ml:
        filters = Filters(workflow, workflow_type, _state(status), dataset, text)
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
    columns += [Column("Took", right=True), Column("Workflow", flexible=True)] if width >= NARROW else []
    columns += [Column("Description", flexible=True)]
    columns += [Column("Last word", flexible=True, style="dim")] if width >= BROAD else []
    print_table(columns, [_row(run, width) for run in found.runs])
    if found.more:
        print_note(f"There are more: --page {page + 1}")


def _row(run: Run, width: int) -> list[object]:
    from deriva_ml_cli.screen import shown_status
    from deriva_ml_cli.wording import ago, duration, moment

    row: list[object] = [run.rid, shown_status(run.status)]
    row += [moment(run.created) if width >= BROAD else ago(run.created)]
    row += [duration(run.seconds), run.workflow.get("Name") or ""] if width >= NARROW else []
    return [*row, run.description, *([run.detail] if width >= BROAD else [])]
