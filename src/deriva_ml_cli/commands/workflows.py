"""``deriva-ml workflows``: the workflows of a catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Limit, PageNumber, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.runs import WorkflowPage, WorkflowSummary

__all__ = ["app"]


@command("deriva-ml workflows", "deriva-ml workflows --type Training --text digits")
def app(
    workflow_type: Annotated[str | None, typer.Option("--type", metavar="TERM", help="Only this type.")] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only with this text in name, description or URL.")
    ] = None,
    limit: Limit = 20,
    page: PageNumber = 1,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List workflows, newest first."""
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        result = ml.list_workflows(workflow_type=workflow_type, text=text, limit=limit, page=page)
    if as_json:
        workflows = [workflow.to_dict() for workflow in result.workflows]
        print_json({"workflows": workflows, "page": page, "more": result.has_more})
    else:
        _print(result, page)


def _print(result: WorkflowPage, page: int) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table

    if not result.workflows:
        print_note("No workflow matches." if page == 1 else f"There is no page {page}.")
        return
    columns = [Column("RID", style="bold"), Column("Type"), Column("Created"), Column("Name", flexible=True)]
    columns += [Column("Code", flexible=True, style="dim")] if create_console().width >= 76 else []
    print_table(columns, [_workflow_row(workflow)[: len(columns)] for workflow in result.workflows])
    if result.has_more:
        print_note(f"There are more: --page {page + 1}")


def _workflow_row(workflow: WorkflowSummary) -> Sequence[object]:
    from deriva_ml_core._text import format_age, parse_time

    created = format_age(parse_time(workflow.created))
    return [workflow.rid, workflow.workflow_type, created, workflow.name, workflow.url]
