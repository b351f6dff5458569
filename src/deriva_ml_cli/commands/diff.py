"""``deriva-ml diff``: what differs between two executions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.compare import Difference

__all__ = ["app"]

ExecutionRid = Annotated[str, typer.Argument(metavar="RID", help="The record id of an execution.")]


@command("deriva-ml diff 1-4A2C 1-4B7E", "deriva-ml diff 1-4A2C 1-4B7E --json | jq '.differences[].name'")
def app(
    left: ExecutionRid,
    right: ExecutionRid,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show what differs between two executions.

    Code, configuration, inputs, environment, installed packages and metrics are compared; what is equal is counted.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json
    from deriva_ml_core.analysis.compare import SECTIONS, collect_comparison, find_differences

    with open_client(host, catalog) as ml:
        one, other = collect_comparison(ml.connection, left), collect_comparison(ml.connection, right)
    found = find_differences(one, other)
    equal = {
        section: len(one[section].keys() | other[section].keys()) - sum(each.section == section for each in found)
        for section in SECTIONS
    }
    if as_json:
        print_json({"left": left, "right": right, "differences": [each.to_dict() for each in found], "equal": equal})
    else:
        _print(left, right, found, equal)


def _print(left: str, right: str, differences: list[Difference], equal: dict[str, int]) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table, print_title, safe_text

    create_console().print(
        safe_text("Executions", "dim"), safe_text(left, "bold"), safe_text("and", "dim"), safe_text(right, "bold")
    )
    for section in equal:
        rows = [
            (each.name, safe_text(_format_value(each.left), "red"), safe_text(_format_value(each.right), "green"))
            for each in differences
            if each.section == section
        ]
        if rows:
            print_title(section.capitalize(), safe_text(f"{equal[section]:,} equal" if equal[section] else "", "dim"))
            columns = Column("", flexible=True, style="dim"), Column(left, flexible=True, wrapped=True)
            print_table([*columns, Column(right, flexible=True, wrapped=True)], rows, indent=2)
    if not differences:
        print_note("They do not differ.")


def _format_value(value: Any) -> str:
    from deriva_ml_core._text import format_number

    if value is None:
        return "-"
    if isinstance(value, float):
        return format_number(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
