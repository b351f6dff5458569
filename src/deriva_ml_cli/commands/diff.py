"""``deriva-ml diff``: the differences between two executions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.compare import Comparison

__all__ = ["app"]

ExecutionRid = Annotated[str, typer.Argument(metavar="RID", help="The RID of an execution.")]


@command("deriva-ml diff 1-4A2C 1-4B7E", "deriva-ml diff 1-4A2C 1-4B7E --json | jq '.differences[].name'")
def app(
    left: ExecutionRid,
    right: ExecutionRid,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show what differs between two executions.

    It compares outcome, code, configuration, inputs, environment, packages and metrics. Equal values are counted.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        comparison = ml.compare(left, right)
    if as_json:
        print_json(comparison.to_dict())
    else:
        _print(comparison)


def _print(comparison: Comparison) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table, print_title, safe_text

    create_console().print(
        safe_text("Executions", "dim"),
        safe_text(comparison.left, "bold"),
        safe_text("and", "dim"),
        safe_text(comparison.right, "bold"),
    )
    for section, equal_count in comparison.equal_counts.items():
        rows = [
            (each.name, safe_text(_format_value(each.left), "red"), safe_text(_format_value(each.right), "green"))
            for each in comparison.differences
            if each.section == section
        ]
        if rows:
            print_title(section.capitalize(), safe_text(f"{equal_count:,} equal" if equal_count else "", "dim"))
            columns = Column("", flexible=True, style="dim"), Column(comparison.left, flexible=True, wrapped=True)
            print_table([*columns, Column(comparison.right, flexible=True, wrapped=True)], rows, indent=2)
    if not comparison.differences:
        print_note("They do not differ.")


def _format_value(value: Any) -> str:
    from deriva_ml_core._text import format_number

    if value is None:
        return "-"
    if isinstance(value, float):
        return format_number(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
