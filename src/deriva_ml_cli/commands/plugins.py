"""``deriva-ml plugins``: who is installed, and what they answer."""

from __future__ import annotations

from deriva_ml_cli.command_options import AsJson, command

__all__ = ["app"]


@command("deriva-ml plugins", "DERIVA_ML_DISABLED_PLUGINS=jsonl deriva-ml plugins")
def app(as_json: AsJson = False) -> None:
    """List plugins with the hooks that they answer.

    They are named in the order of their registration: built-ins first, then what is installed.
    """
    from dataclasses import asdict

    from deriva_ml_cli.terminal import Column, print_json, print_table
    from deriva_ml_core.plugins import list_plugins

    found = list_plugins()
    if as_json:
        print_json({"plugins": [asdict(each) for each in found]})
        return
    columns = Column("Plugin", style="bold"), Column("From"), Column("Hooks", flexible=True, wrapped=True)
    print_table(columns, [(each.name, each.distribution or "built in", ", ".join(each.hooks)) for each in found])
