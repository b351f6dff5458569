"""``deriva-ml mcp``: the catalog as read-only tools for agents."""

from __future__ import annotations

from deriva_ml_cli.command_options import CatalogNumber, Host, command

__all__ = ["app"]


@command("deriva-ml mcp", "deriva-ml mcp --host file:~/runs", "deriva-ml mcp --host server.example.org --catalog 7")
def app(host: Host = None, catalog: CatalogNumber = None) -> None:
    """Offer the catalog to an agent, as tools of the Model Context Protocol on standard input and output.

    The tools list, describe, compare, lineage, metrics, datasets and verify read the catalog and change nothing. An
    agent starts this command itself; configure it there as a server with this command line.

    Needs the extra `mcp`.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_core._lazy import require_extra

    with require_extra("mcp", "The server for agents"):
        from deriva_ml_mcp.tool_server import create_server

    with open_client(host, catalog) as ml:
        create_server(ml).run()
