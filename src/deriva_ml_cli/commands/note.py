"""``deriva-ml note``: the description of an execution, a dataset or a workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.datasets import Dataset
    from deriva_ml_core.execution import RecordedExecution
    from deriva_ml_core.workflow import CatalogWorkflow

__all__ = ["app"]


@command("deriva-ml note 1-4A2C", "deriva-ml note 1-4A2C 'Diverged: the rate was too high'", "deriva-ml note 1-4A2C ''")
def app(
    rid: Rid,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The new description; an empty text removes it.")
    ] = None,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show or change the description of an execution, dataset or workflow.

    Without a text, the description is printed. The former description stays in the catalog's earlier snapshots.
    """
    import sys

    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import create_console, print_json, safe_text
    from deriva_ml_core._text import escape_control_characters

    with open_client(host, catalog) as ml:
        described = _lookup(ml, rid)
        if text is not None:
            described.description = text
        description = described.description or ""
    if as_json:
        print_json({"rid": rid, "description": description})
    elif text is None:
        sys.stdout.write(f"{escape_control_characters(description)}\n")
    else:
        shown = safe_text(description) if description else safe_text("has no description", "dim")
        create_console().print(safe_text(rid, "bold"), shown, soft_wrap=True)


def _lookup(ml: DerivaML, rid: str) -> RecordedExecution | Dataset | CatalogWorkflow:
    from deriva_ml_core.analysis.runs import lookup_table
    from deriva_ml_core.definitions import MLTable
    from deriva_ml_core.errors import WrongTable

    table = lookup_table(ml.connection, rid)
    if table == MLTable.execution:
        return ml.lookup_execution(rid)
    if table == MLTable.dataset:
        return ml.lookup_dataset(rid)
    if table == MLTable.workflow:
        return ml.lookup_workflow(rid)
    raise WrongTable(f"{rid} is a row of {table}. Only executions, datasets and workflows can be described.")
