"""``deriva-ml tag``: add tags to an execution, or remove them."""

from __future__ import annotations

from typing import Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

__all__ = ["app"]


@command(
    "deriva-ml tag 1-4A2C paper 'first draft'",
    "deriva-ml tag 1-4A2C --remove 'first draft'",
    "deriva-ml list --tag paper",
)
def app(
    rid: Rid,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="TAG...", help="The tags; without any, those of the run are printed.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the tags instead of adding them.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Add tags to an execution, or remove them.

    A tag is one line without commas, of at most 100 characters; upper and lower case differ. The tags that the run has
    afterwards are printed. `deriva-ml list --tag TAG` lists the runs with a tag.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import create_console, print_json, safe_text

    if remove and not tags:
        raise typer.BadParameter("Name at least one tag to remove.")
    with open_client(host, catalog) as ml:
        execution = ml.lookup_execution(rid)
        if remove:
            execution.remove_tags(*tags or ())
        elif tags:
            execution.add_tags(*tags)
        present = execution.tags
    if as_json:
        print_json({"rid": execution.execution_rid, "tags": list(present)})
    else:
        text = safe_text(", ".join(present)) if present else safe_text("has no tags", "dim")
        create_console().print(safe_text(execution.execution_rid, "bold"), text, soft_wrap=True)
