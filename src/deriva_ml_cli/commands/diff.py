"""``deriva-ml diff``: the differences between executions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from deriva_ml_core.analysis.compare import Comparison, Difference

__all__ = ["app"]

MAX_COLUMNS = 3
"""Maximum number of executions that have a column each. Of more, the executions of each value are listed."""


STYLES = ("red", "green", "yellow")
"""Styles of the columns."""


@command(
    "deriva-ml diff 1-4A2C 1-4B7E",
    "deriva-ml diff 1-4A2C 1-4B7E 1-4C8A 1-4D0F",
    "deriva-ml diff 1-4A2C --baseline",
    "deriva-ml diff 1-4A2C 1-4B7E --json | jq '.differences[].name'",
)
def app(
    rids: Annotated[
        list[str],
        typer.Argument(
            metavar="RID RID...", help="The RIDs of two or more executions; with --baseline, of one or more."
        ),
    ],
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Compare with the baseline, which `deriva-ml baseline` sets.")
    ] = False,
    baseline_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare with the baseline of this name.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show the equal values too.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show what differs between executions.

    It compares outcome, code, configuration, inputs, environment, packages and metrics. Equal values are counted.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    is_compared = baseline or baseline_name is not None
    if len(rids) < 2 and not is_compared:
        raise typer.BadParameter("Name at least two executions, or one and --baseline.")
    with open_client(host, catalog) as ml:
        if is_compared:
            name = "baseline" if baseline_name is None else baseline_name
            rids = _add_baseline(ml.lookup_baseline(name).execution_rid, rids)
        comparison = ml.compare(*rids)
        baselines = set(ml.list_baselines().values())
    if as_json:
        print_json(comparison.to_dict(include_equal=show_all))
    else:
        _print(comparison, baselines, show_all=show_all)


def _add_baseline(baseline: str, rids: Sequence[str]) -> list[str]:
    """Return the baseline, followed by the other executions."""
    others = [rid for rid in rids if rid != baseline]
    if not others:
        raise typer.BadParameter(f"{baseline} is the baseline itself. Name another execution.")
    return [baseline, *others]


def _print(comparison: Comparison, baselines: Collection[str], *, show_all: bool) -> None:
    from deriva_ml_cli.terminal import create_console, print_fields, print_note, print_title, safe_text

    rids = comparison.executions
    names = [f"{rid} (baseline)" if rid in baselines else rid for rid in rids]
    create_console().print(
        safe_text("Executions", "dim"),
        safe_text(", ".join(names[:-1]), "bold"),
        safe_text("and", "dim"),
        safe_text(names[-1], "bold"),
    )
    for section, equal_count in comparison.equal_counts.items():
        differences = [each for each in comparison.differences if each.section == section]
        equal = comparison.equal_values[section] if show_all else {}
        if not differences and not equal:
            continue
        print_title(section.capitalize(), safe_text(f"{equal_count:,} equal" if equal_count else "", "dim"))
        if differences and len(rids) <= MAX_COLUMNS:
            _print_columns(rids, differences)
        elif differences:
            _print_groups(rids, differences)
        print_fields({name: _format_value(value) for name, value in equal.items()})
    if not comparison.differences:
        print_note("They do not differ.")


def _print_columns(rids: Sequence[str], differences: Sequence[Difference]) -> None:
    """Print one line for each difference, with one column for each execution."""
    from deriva_ml_cli.terminal import Column, print_table, safe_text

    rows = [
        (
            each.name,
            *(safe_text(_format_value(value), style) for value, style in zip(each.values, STYLES, strict=False)),
        )
        for each in differences
    ]
    columns = [Column(rid, flexible=True, wrapped=True) for rid in rids]
    print_table([Column("", flexible=True, style="dim"), *columns], rows, indent=2)


def _print_groups(rids: Sequence[str], differences: Sequence[Difference]) -> None:
    """Print one line for each value of a difference, with the executions that have it."""
    from deriva_ml_cli.terminal import Column, print_table

    rows = []
    for each in differences:
        by_value: dict[str, list[str]] = {}
        for rid, value in zip(rids, each.values, strict=True):
            by_value.setdefault(_format_value(value), []).append(rid)
        for number, (text, of_value) in enumerate(by_value.items()):
            rows.append((each.name if number == 0 else "", text, " ".join(of_value)))
    columns = [
        Column("", flexible=True, style="dim"),
        Column("value", flexible=True, wrapped=True),
        Column("executions", flexible=True, wrapped=True),
    ]
    print_table(columns, rows, indent=2)


def _format_value(value: Any) -> str:
    from deriva_ml_core._text import format_number

    if value is None:
        return "-"
    if isinstance(value, float):
        return format_number(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
