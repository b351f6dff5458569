"""``deriva-ml plugins``: the registered plugins."""

from __future__ import annotations

from deriva_ml_cli.command_options import AsJson, command

__all__ = ["app"]


@command("deriva-ml plugins", "DERIVA_ML_DISABLED_PLUGINS=jsonl deriva-ml plugins")
def app(as_json: AsJson = False) -> None:
    """List plugins and the hooks they implement.

    The order is that of registration: built-ins first, then installed plugins.
    """
    from dataclasses import asdict

    from deriva_ml_cli.terminal import Column, print_json, print_table
    from deriva_ml_core.plugins import list_plugins

    plugins = list_plugins()
    if as_json:
        print_json({"plugins": [asdict(plugin) for plugin in plugins]})
        return
    columns = Column("Plugin", style="bold"), Column("Distribution"), Column("Hooks", flexible=True, wrapped=True)
    rows = [(plugin.name, plugin.distribution or "built in", ", ".join(plugin.hooks)) for plugin in plugins]
    print_table(columns, rows)
