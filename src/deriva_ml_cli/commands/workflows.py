"""``deriva-ml workflows``: the code that was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Limit, PageNumber, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.runs import RowPage

__all__ = ["app"]


@command("deriva-ml workflows", "deriva-ml workflows --type Training --text digits")
def app(
    workflow_type: Annotated[str | None, typer.Option("--type", metavar="TERM", help="Of this type.")] = None,
    text: Annotated[str | None, typer.Option(metavar="WORDS", help="With this in name, description or URL.")] = None,
    limit: Limit = 20,
    page: PageNumber = 1,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """List workflows, newest first: the code that was run."""
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json
    from deriva_ml_core.analysis.runs import find_rows, workflow_to_dict
    from deriva_ml_core.definitions import MLTable, MLVocab

    with open_client(host, catalog) as ml:
        where = {}
        if workflow_type is not None:
            ml.connection.terms.require(MLVocab.workflow_type, [workflow_type])
            where["Workflow_Type"] = workflow_type
        columns = ("Name", "Description", "URL")
        found = find_rows(ml.connection, MLTable.workflow, where, text=text, columns=columns, limit=limit, page=page)
    if as_json:
        workflows = [workflow_to_dict(row) for row in found.rows]
        print_json({"workflows": workflows, "page": page, "more": found.has_more})
    else:
        _print(found, page)


def _print(row_page: RowPage, page: int) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table

    if not row_page.rows:
        print_note("No workflow matches." if page == 1 else f"There is no page {page}.")
        return
    columns = [Column("RID", style="bold"), Column("Type"), Column("Created"), Column("Name", flexible=True)]
    columns += [Column("Code", flexible=True, style="dim")] if create_console().width >= 76 else []
    print_table(columns, [_workflow_row(row)[: len(columns)] for row in row_page.rows])
    if row_page.has_more:
        print_note(f"There are more: --page {page + 1}")


def _workflow_row(row: Mapping[str, Any]) -> Sequence[object]:
    from deriva_ml_core._text import format_age, parse_time

    return [row["RID"], row["Workflow_Type"], format_age(parse_time(row["RCT"])), row["Name"], row["URL"]]
