"""``deriva-ml ui``: the catalog as a web page on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from deriva_ml_cli.command_options import CatalogNumber, Host, command

__all__ = ["app"]


@command("deriva-ml ui", "deriva-ml ui --port 8300 --open", "deriva-ml ui --host file:~/runs")
def app(
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="The port; 0 for any free one.", show_default="the first free one from 8230"
        ),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show the catalog as a web page, until Ctrl-C.

    The page lists, shows and compares runs, datasets and workflows. It follows runs that train, and changes nothing. It
    is reached from this machine only, and asks for the token that this command prints; each start has a new one.

    From another machine, forward the same port: ssh -L 8230:127.0.0.1:8230 HOST. Needs the extra `ui`.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_core._lazy import require_extra

    with require_extra("ui", "The web page"):
        from deriva_ml_ui.web_server import open_port, serve

    def announce(address: str, token: str) -> None:
        typer.echo(f"The page is at {address}\nIts token is    {token}\nCtrl-C ends it.")
        if open_browser and typer.launch(address) != 0:
            typer.echo("warning: no browser could be started; open the address yourself.", err=True)

    with open_client(host, catalog) as ml:
        serve(ml, open_port(port), announce)
