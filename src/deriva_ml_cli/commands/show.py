"""``deriva-ml show``: everything that is known of one execution, workflow, dataset or asset."""

from __future__ import annotations

from typing import Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

__all__ = ["app"]


@command("deriva-ml show 1-4A2C", "deriva-ml show 1-4A2C --full", "deriva-ml show 1-4A2C --json | jq .metrics")
def app(
    rid: Rid,
    full: Annotated[bool, typer.Option("--full", help="Every file and every status, however many.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show an execution, workflow, dataset or asset.

    Of an execution: how it went, what ran, what went in and came out, its statuses, and its metrics as curves.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json
    from deriva_ml_core.analysis.describe import describe

    with open_client(host, catalog) as ml:
        found, curves = describe(ml.connection, rid)
    if as_json:
        print_json(found)
    elif found["kind"] == "execution":
        from deriva_ml_cli.render import print_execution

        print_execution(found, curves, full=full)
    else:
        from deriva_ml_cli.render import print_record

        print_record(found, full=full)
