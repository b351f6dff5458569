"""``deriva-ml push``: an execution, copied to another catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deriva_ml_core.pushing import PushedRow, PushReport

__all__ = ["app"]

MOST = 12
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
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.screen import print_json

    with opened(host, catalog) as ml:
        ml.lookup_execution(rid)  # before the other catalog is opened, which may make one
        with opened(to, to_catalog, new=True) as target:
            report = ml.push(
                rid,
                target,
                children=children,
                lineage=lineage,
                make_tables=make_tables,
                progress_callback=(lambda _: None) if as_json else None,
            )
    if as_json:
        print_json(_as_json(report))
    else:
        _print(report)


def _as_json(report: PushReport) -> dict[str, Any]:
    return {**report.model_dump(), "again": not report.new}


def _rows(report: PushReport) -> Iterator[list[str]]:
    """A line for each row; one for all of a table that has too many."""
    from deriva_ml_cli.wording import counted

    tables: dict[str, list[PushedRow]] = {}
    for row in report.rows:
        tables.setdefault(row.table, []).append(row)
    for table, rows in tables.items():
        if len(rows) > MOST:
            old = sum(not row.new for row in rows)
            yield [table, counted(len(rows), "row"), "(--json names each)", f"{old:,} were there" if old else ""]
        else:
            yield from ([table, row.source, row.target, "" if row.new else "was there"] for row in rows)


def _print(report: PushReport) -> None:
    from deriva_ml_cli.screen import Column, console, print_note, print_table, shown
    from deriva_ml_cli.wording import counted, size

    titles = Column("Table", flexible=True), Column("From", style="dim"), Column("To", style="cyan"), Column("")
    print_table(titles, list(_rows(report)))
    screen = console()
    for name, made in (("tables", report.tables), ("terms", report.terms)):
        if made:
            print_note(f"New {name} there: {', '.join(made)}.")
    for note in report.notes:
        screen.print(shown(note, "yellow"))
    if report.unsent:
        names = ", ".join(report.unsent[:5])
        told = f"{counted(len(report.unsent), 'file')} not copied, since never uploaded: {names}"
        screen.print(shown(told, "yellow"))
    if report.new:
        sent = f"{counted(len(report.new), 'row')} and {counted(report.files, 'file')} ({size(report.bytes)})"
        screen.print(shown(f"Copied {sent} to {report.target}", "green"), soft_wrap=True)
    else:
        screen.print(shown(f"All of it was there already: {report.target}", "green"), soft_wrap=True)
