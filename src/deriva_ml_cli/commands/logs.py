"""``deriva-ml logs``: what a run printed."""

from __future__ import annotations

import sys

from deriva_ml_cli.command_options import CatalogNumber, Host, Rid, command

__all__ = ["app"]


@command("deriva-ml logs 1-4A2C", "deriva-ml logs 1-4A2C | tail")
def app(rid: Rid, host: Host = None, catalog: CatalogNumber = None) -> None:
    """Show what a run printed.

    A run keeps it if it was created with console=True, or run with --console. Of a run that is still running on this
    machine, the output so far is shown.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_note
    from deriva_ml_core._text import escape_control_characters

    with open_client(host, catalog) as ml:
        text = ml.lookup_execution(rid).read_console()
    if text is None:
        print_note(f"Execution {rid} has not recorded what it printed; console=True and --console record it.")
    else:
        sys.stdout.write(escape_control_characters(text))
