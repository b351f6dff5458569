"""``deriva-ml delete``: delete an execution, or restore a deleted one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Yes, command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.connection import Connection
    from deriva_ml_core.deletion import DeletedExecution, Deletion

__all__ = ["app"]

MAX_ROWS = 20
"""Rows of a table that are listed without ``--full``."""


@command(
    "deriva-ml delete 1-4A2C --dry-run",
    "deriva-ml delete 1-4A2C",
    "deriva-ml delete --trash",
    "deriva-ml delete --restore 1-4A2C",
)
def app(
    rid: Annotated[str | None, typer.Argument(metavar="RID", help="The RID of an execution that has ended.")] = None,
    keep_outputs: Annotated[
        bool, typer.Option("--keep-outputs", help="Keep its output files; its metadata files are deleted.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    full: Annotated[bool, typer.Option("--full", help="List every row.")] = False,
    restore: Annotated[
        str | None, typer.Option("--restore", metavar="RID", help="Restore this deleted execution.")
    ] = None,
    trash: Annotated[bool, typer.Option("--trash", help="List the deleted executions that can be restored.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Delete an execution, or restore a deleted one.

    Its rows, details, links, metadata files and output files are deleted, and they are listed first. Nothing is deleted
    while a dataset with a present or past version, a value of a feature, or another run refers to it or its files.

    In an embedded catalog it can be restored for 30 days. On a server only rows are deleted, for good: the files stay
    in Hatrac, where a name is never given again.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json, print_note

    if (rid is not None) + (restore is not None) + trash != 1:
        raise typer.BadParameter("Give the RID of an execution, or --restore RID, or --trash.")
    if rid is not None and as_json and not (yes or dry_run):
        raise typer.BadParameter("--json cannot ask for confirmation: add --yes or --dry-run.")
    with open_client(host, catalog) as ml:
        if trash:
            _print_trash(ml.list_deleted_executions(), as_json=as_json)
        elif restore is not None:
            ml.restore_deleted_execution(restore)
            print_json({"restored": restore}) if as_json else print_note(f"Restored execution {restore}.")
        elif rid is not None:
            _delete(ml, rid, outputs=not keep_outputs, ask=not yes, dry_run=dry_run, full=full, as_json=as_json)


def _delete(ml: DerivaML, rid: str, *, outputs: bool, ask: bool, dry_run: bool, full: bool, as_json: bool) -> None:
    """List what a deletion deletes, ask, and delete exactly that."""
    from deriva_ml_cli.terminal import print_json

    deletion = ml.delete_execution(rid, outputs, dry_run=True)
    if not as_json:
        _print(deletion, full=full)
    if not dry_run:
        if ask:
            typer.confirm("Delete all of this?", abort=True)
        deletion = ml.delete_execution(rid, outputs, expected=deletion)
    if as_json:
        print_json(deletion.to_dict())
    elif deletion.is_done:
        _print_done(ml.connection, deletion)


def _print(deletion: Deletion, *, full: bool) -> None:
    """Print what a deletion deletes, table by table, and what becomes of the files."""
    from deriva_ml_cli.terminal import Column, create_console, print_note, print_table, print_title, safe_text
    from deriva_ml_core._text import format_count, format_size

    create_console().print(
        safe_text("Execution", "dim"), safe_text(deletion.execution, "bold"), safe_text(deletion.description)
    )
    for table in dict.fromkeys(row.table for row in deletion.rows):
        rows = [row for row in deletion.rows if row.table == table]
        print_title(table, safe_text(format_count(len(rows), "row"), "dim"))
        shown = rows if full else rows[:MAX_ROWS]
        columns = Column("RID", style="bold"), Column("", flexible=True)
        print_table(columns, [(row.rid, row.label) for row in shown], indent=2)
        if len(rows) > len(shown):
            print_note(f"  and {len(rows) - len(shown):,} more; --full lists them")
    print_title("In all")
    size = f"{format_count(len(deletion.rows), 'row')}, {format_count(deletion.files, 'file')} of "
    print_note(f"  {size}{format_size(deletion.bytes)}")
    if deletion.shared:
        print_note(f"  These outputs stay, since another run has them too: {', '.join(deletion.shared)}")
    if deletion.until is not None:
        print_note("  It can be restored for 30 days; its files and its working folder are kept for that time.")
    else:
        print_note(
            "  Only rows are deleted, and they cannot be restored. The files stay in the store: in Hatrac, a name is "
            "never given again."
        )
    if deletion.working_dir is not None:
        print_note(f"  The working folder {deletion.working_dir} stays.")


def _print_done(connection: Connection, deletion: Deletion) -> None:
    from deriva_ml_cli.terminal import print_note
    from deriva_ml_core._text import format_count

    print_note(f"Deleted {format_count(len(deletion.rows), 'row')}.")
    if deletion.until is not None:
        print_note(f"Until {deletion.until:%Y-%m-%d}: {connection.command('delete', '--restore', deletion.execution)}")


def _print_trash(deleted: Sequence[DeletedExecution], *, as_json: bool) -> None:
    from deriva_ml_cli.terminal import Column, print_json, print_note, print_table
    from deriva_ml_core._text import format_age

    if as_json:
        print_json({"deleted": [each.to_dict() for each in deleted]})
    elif deleted:
        columns = [
            Column("RID", style="bold"),
            Column("Deleted"),
            Column("Kept until"),
            Column("Rows", align_right=True),
            Column("Description", flexible=True),
        ]
        rows = [
            (each.execution, format_age(each.deleted), f"{each.until:%Y-%m-%d}", f"{each.rows:,}", each.description)
            for each in deleted
        ]
        print_table(columns, rows)
    else:
        print_note("The trash is empty.")
