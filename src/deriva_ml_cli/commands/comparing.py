"""``deriva-ml diff``: what differs between two executions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_cli.comparing import Difference

__all__ = ["app"]

Execution = Annotated[str, typer.Argument(metavar="RID", help="The record id of an execution.")]


@command("deriva-ml diff 1-4A2C 1-4B7E", "deriva-ml diff 1-4A2C 1-4B7E --json | jq '.differences[].name'")
def app(
    left: Execution,
    right: Execution,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show what differs between two executions.

    Code, configuration, inputs, environment, installed packages and metrics are compared; what is equal is counted.
    """
    from deriva_ml_cli.comparing import SECTIONS, differences, told
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.screen import print_json

    with opened(host, catalog) as ml:
        one, other = told(ml, left), told(ml, right)
    found = differences(one, other)
    equal = {
        section: len(one[section].keys() | other[section].keys()) - sum(each.section == section for each in found)
        for section in SECTIONS
    }
    if as_json:
        print_json({"left": left, "right": right, "differences": [each.as_json() for each in found], "equal": equal})
    else:
        _print(left, right, found, equal)


def _print(left: str, right: str, found: list[Difference], equal: dict[str, int]) -> None:
    from deriva_ml_cli.screen import Column, console, print_note, print_table, print_title, shown

    console().print(shown("Executions", "dim"), shown(left, "bold"), shown("and", "dim"), shown(right, "bold"))
    for section in equal:
        rows = [
            (each.name, shown(_worded(each.left), "red"), shown(_worded(each.right), "green"))
            for each in found
            if each.section == section
        ]
        if rows:
            print_title(section.capitalize(), shown(f"{equal[section]:,} equal" if equal[section] else "", "dim"))
            columns = Column("", flexible=True, style="dim"), Column(left, flexible=True, folded=True)
            print_table([*columns, Column(right, flexible=True, folded=True)], rows, indent=2)
    if not found:
        print_note("They do not differ.")


def _worded(value: Any) -> str:
    from deriva_ml_cli.wording import number

    if value is None:
        return "-"
    if isinstance(value, float):
        return number(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
