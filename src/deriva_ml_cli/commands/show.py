"""``deriva-ml show``: everything that is recorded about one row."""

from __future__ import annotations

from typing import Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

__all__ = ["app"]


@command("deriva-ml show 1-4A2C", "deriva-ml show 1-4A2C --full", "deriva-ml show 1-4A2C --json | jq .metrics")
def app(
    rid: Rid,
    full: Annotated[bool, typer.Option("--full", help="Show every file and every status.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show an execution, workflow, dataset or asset.

    For an execution it shows status, code, environment, inputs, outputs, curves of the metrics, and the timeline.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        description = ml.describe(rid)
    if as_json:
        print_json(description.to_dict())
    else:
        from deriva_ml_cli.render import print_description

        print_description(ml.connection, description, full=full)
