"""``deriva-ml push``: an execution, copied to another catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deriva_ml_core.push import PushedRow, PushReport

__all__ = ["app"]

MAX_ROWS = 12
"""Rows of one table that are named one by one."""


@command(
    "deriva-ml push 1-4A2C --to server.org --to-catalog 1",
    "deriva-ml push 1-4A2C --to file:/data/shared --lineage",
    "deriva-ml push 1-4A2C --to server.org --to-catalog 1 --make-tables --json | jq .execution",
)
def app(
    rid: Annotated[str, typer.Argument(metavar="RID", help="An execution that has ended.")],
    to: Annotated[str, typer.Option("--to", metavar="HOST", help="Where to: a server's host name, or file:<folder>.")],
    to_catalog: Annotated[
        str | None, typer.Option("--to-catalog", metavar="ID", help="The catalog's number on that server.")
    ] = None,
    children: Annotated[
        bool, typer.Option("--with-children/--without-children", help="With the executions nested in it.")
    ] = True,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="With the executions that made its inputs, and so on.")
    ] = False,
    make_tables: Annotated[
        bool, typer.Option("--make-tables", help="Make the tables that lack there as they are here.")
    ] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Copy an execution to another catalog.

    Its workflow, datasets with their members, files and records go with it; each row gets a new record id there, and
    which is whose copy is told. What is there already is not copied again, and what was cut off goes on. --host and
    --catalog say where it is copied from.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        ml.lookup_execution(rid)  # before the other catalog is opened, which may make one
        with open_client(to, to_catalog, create_missing=True) as target:
            report = ml.push(
                rid,
                target,
                children=children,
                lineage=lineage,
                make_tables=make_tables,
                progress_callback=(lambda _: None) if as_json else None,
            )
    if as_json:
        print_json(_to_dict(report))
    else:
        _print(report)


def _to_dict(report: PushReport) -> dict[str, Any]:
    return {**report.model_dump(), "again": not report.new}


def _iter_table_rows(report: PushReport) -> Iterator[list[str]]:
    """A line for each row; one for all of a table that has too many."""
    from deriva_ml_core._text import format_count

    tables: dict[str, list[PushedRow]] = {}
    for row in report.rows:
        tables.setdefault(row.table, []).append(row)
    for table, rows in tables.items():
        if len(rows) > MAX_ROWS:
            old = sum(not row.new for row in rows)
            yield [table, format_count(len(rows), "row"), "(--json names each)", f"{old:,} were there" if old else ""]
        else:
            yield from ([table, row.source, row.target, "" if row.new else "was there"] for row in rows)


def _print(report: PushReport) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table, safe_text
    from deriva_ml_core._text import format_count, format_size

    titles = Column("Table", flexible=True), Column("From", style="dim"), Column("To", style="cyan"), Column("")
    print_table(titles, list(_iter_table_rows(report)))
    screen = create_console()
    for name, made in (("tables", report.tables), ("terms", report.terms)):
        if made:
            print_note(f"New {name} there: {', '.join(made)}.")
    for note in report.notes:
        screen.print(safe_text(note, "yellow"))
    if report.unsent:
        names = ", ".join(report.unsent[:5])
        told = f"{format_count(len(report.unsent), 'file')} not copied, since never uploaded: {names}"
        screen.print(safe_text(told, "yellow"))
    if report.new:
        rows, files = format_count(len(report.new), "row"), format_count(report.files, "file")
        sent = f"{rows} and {files} ({format_size(report.bytes)})"
        screen.print(safe_text(f"Copied {sent} to {report.target}", "green"), soft_wrap=True)
    else:
        screen.print(safe_text(f"All of it was there already: {report.target}", "green"), soft_wrap=True)
