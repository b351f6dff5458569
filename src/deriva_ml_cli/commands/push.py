"""``deriva-ml push``: copy an execution to another catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deriva_ml_core.push import PushedRow, PushReport

__all__ = ["app"]

MAX_ROWS = 12
"""Rows of one table that are listed one by one."""


@command(
    "deriva-ml push 1-4A2C --to server.org --to-catalog 1",
    "deriva-ml push 1-4A2C --to file:/data/shared --lineage",
    "deriva-ml push 1-4A2C --to file:shared --make-tables --json | jq .execution",
)
def app(
    rid: Annotated[str, typer.Argument(metavar="RID", help="A finished execution.")],
    to: Annotated[
        str, typer.Option("--to", metavar="HOST", help="The target: a server's host name, or file:<folder>.")
    ],
    to_catalog: Annotated[
        str | None, typer.Option("--to-catalog", metavar="ID", help="The number of the catalog on that server.")
    ] = None,
    children: Annotated[
        bool, typer.Option("--with-children/--without-children", help="Copy nested executions too.")
    ] = True,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Copy the executions that produced its inputs too, recursively.")
    ] = False,
    make_tables: Annotated[bool, typer.Option("--make-tables", help="Create tables that the target lacks.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Copy an execution to another catalog.

    Its workflow, datasets with their members, and files are copied too. Each row gets a new RID in the target; the
    output maps old to new RIDs. Rows that exist in the target are not copied again, and an interrupted push can be
    repeated. --host and --catalog name the source.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    with open_client(host, catalog) as ml:
        ml.lookup_execution(rid)  # before the target is opened, which can create a catalog
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
    """Yield a line for each row, or one for a table with more than `MAX_ROWS` rows."""
    from deriva_ml_core._text import format_count

    tables: dict[str, list[PushedRow]] = {}
    for row in report.rows:
        tables.setdefault(row.table, []).append(row)
    for table, rows in tables.items():
        if len(rows) > MAX_ROWS:
            existing = sum(not row.new for row in rows)
            yield [
                table,
                format_count(len(rows), "row"),
                "(--json lists them)",
                f"{existing:,} existed" if existing else "",
            ]
        else:
            yield from ([table, row.source, row.target, "" if row.new else "existed"] for row in rows)


def _print(report: PushReport) -> None:
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table, safe_text
    from deriva_ml_core._text import format_count, format_size

    columns = Column("Table", flexible=True), Column("From", style="dim"), Column("To", style="cyan"), Column("")
    print_table(columns, list(_iter_table_rows(report)))
    console = create_console()
    for kind, created in (("tables", report.tables), ("terms", report.terms)):
        if created:
            print_note(f"New {kind} in the target: {', '.join(created)}.")
    for note in report.notes:
        console.print(safe_text(note, "yellow"))
    if report.unsent:
        names = ", ".join(report.unsent[:5])
        note = f"{format_count(len(report.unsent), 'file')} not copied, because not uploaded: {names}"
        console.print(safe_text(note, "yellow"))
    if report.new:
        rows, files = format_count(len(report.new), "row"), format_count(report.files, "file")
        copied = f"{rows} and {files} ({format_size(report.bytes)})"
        console.print(safe_text(f"Copied {copied} to {report.target}", "green"), soft_wrap=True)
    else:
        console.print(
            safe_text(f"Nothing to copy; the target has everything: {report.target}", "green"), soft_wrap=True
        )
