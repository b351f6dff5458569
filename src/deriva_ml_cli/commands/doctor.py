"""``deriva-ml doctor``: whether this machine is ready for runs."""

from __future__ import annotations

from pathlib import Path

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, command

__all__ = ["app"]


@command("deriva-ml doctor", "deriva-ml doctor --host file:/data/my-catalog")
def app(as_json: AsJson = False, host: Host = None, catalog: CatalogNumber = None) -> None:
    """Look at what runs stand on, and say what to do.

    That are installation, plugins, git, notebooks, catalog and disk. It ends with 1 where something stands in the way.
    """
    from deriva_ml_cli.checks import Verdict, examine
    from deriva_ml_cli.screen import Column, console, print_json, print_table, shown, speaks_unicode

    found = list(examine(host, catalog, Path.cwd()))
    if as_json:
        print_json({"findings": [each.as_json() for each in found]})
    else:
        signs = "✓!✗" if speaks_unicode(console()) else "+!x"
        looks = dict(zip(Verdict, zip(signs, ("green", "yellow", "bold red"), strict=True), strict=True))
        rows = []
        for each in found:
            said = shown(each.said)
            if each.remedy:
                said.append("\n").append_text(shown(f"To do: {each.remedy}", "bold"))
            rows.append((shown(*looks[each.verdict]), each.name, said))
        print_table([Column(""), Column("", style="bold"), Column("", flexible=True, folded=True)], rows)
    if any(each.verdict is Verdict.bad for each in found):
        raise typer.Exit(1)
