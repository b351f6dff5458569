"""``deriva-ml baseline``: the execution that others are compared with."""

from __future__ import annotations

from typing import Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

__all__ = ["app"]


@command("deriva-ml baseline", "deriva-ml baseline 1-4A2C", "deriva-ml baseline 1-4A2C --name paper")
def app(
    rid: Annotated[
        str | None,
        typer.Argument(metavar="RID", help="The execution; without it, the baselines are listed."),
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="The name of the baseline, if there are several.")] = (
        "baseline"
    ),
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Set the execution that others are compared with.

    The execution gets the tag baseline, or baseline:NAME with --name, and the former baseline of that name loses it.
    `deriva-ml diff RID --baseline` compares with it.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import Column, create_console, print_json, print_note, print_table, safe_text

    with open_client(host, catalog) as ml:
        if rid is not None:
            ml.set_baseline(rid, name)
        baselines = ml.list_baselines()
    if as_json:
        print_json(baselines)
    elif rid is not None:
        suffix = "" if name == "baseline" else f" {name}"
        create_console().print(safe_text(rid, "bold"), safe_text(f"is the baseline{suffix}"), soft_wrap=True)
    elif baselines:
        print_table([Column("Name", flexible=True), Column("RID", style="bold")], list(baselines.items()))
    else:
        print_note("No execution is a baseline. Set one with: deriva-ml baseline RID")
