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
    from deriva_ml_cli.checks import Severity, run_checks
    from deriva_ml_cli.screen import Column, can_print_unicode, create_console, print_json, print_table, safe_text

    found = list(run_checks(host, catalog, Path.cwd()))
    if as_json:
        print_json({"findings": [each.to_dict() for each in found]})
    else:
        signs = "✓!✗" if can_print_unicode(create_console()) else "+!x"
        looks = dict(zip(Severity, zip(signs, ("green", "yellow", "bold red"), strict=True), strict=True))
        rows = []
        for each in found:
            said = safe_text(each.said)
            if each.remedy:
                said.append("\n").append_text(safe_text(f"To do: {each.remedy}", "bold"))
            rows.append((safe_text(*looks[each.verdict]), each.name, said))
        print_table([Column(""), Column("", style="bold"), Column("", flexible=True, wrapped=True)], rows)
    if any(each.verdict is Severity.error for each in found):
        raise typer.Exit(1)
