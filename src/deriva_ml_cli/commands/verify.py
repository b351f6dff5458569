"""``deriva-ml verify``: whether what is stored is what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.verify import VerificationResult
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


@command("deriva-ml verify 1-4A2C", "deriva-ml verify --all", "deriva-ml verify --all --json | jq .problems")
def app(
    rid: Annotated[str | None, typer.Argument(metavar="RID", help="An execution, a dataset or an asset.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole catalog.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Read stored files again and compare them with what was recorded.

    Every object is read where it lies, and its length and MD5 are compared; with --all also every row that another
    row names is looked up. It ends with 1 where anything is wrong.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    if (rid is None) is not everything:
        raise typer.BadParameter("Give one record id, or --all.")
    with open_client(host, catalog) as ml:
        checked = _run_verification(ml, rid, quiet=as_json)
    if as_json:
        print_json(checked.to_dict())
    else:
        _print(checked)
    if checked.problems:
        raise typer.Exit(1)


def _run_verification(ml: DerivaML, rid: str | None, *, quiet: bool) -> VerificationResult:
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from deriva_ml_cli.terminal import create_console
    from deriva_ml_core.analysis.verify import VerificationResult, verify_catalog, verify_record

    screen = create_console(stderr=True)
    columns = TextColumn("{task.completed:,} objects, {task.fields[bytes]:,} bytes"), TimeElapsedColumn()
    with Progress(*columns, console=screen, transient=True, disable=quiet or not screen.is_terminal) as bar:
        task = bar.add_task("", total=None, bytes=0)
        checked = VerificationResult(lambda _: bar.update(task, completed=checked.objects, bytes=checked.bytes))
        if rid is None:
            verify_catalog(ml.connection, checked)
        else:
            verify_record(ml.connection, rid, checked)
    return checked


def _print(result: VerificationResult) -> None:
    from deriva_ml_cli.terminal import create_console, safe_text
    from deriva_ml_core._text import format_count, format_size

    screen = create_console()
    for each in result.problems:
        screen.print(safe_text(f"{each.table} {each.rid} {each.name}:", "bold red"), safe_text(each.problem))
    links = f", {format_count(result.links, 'link')}" if result.links else ""
    looked = f"{format_count(result.objects, 'object')}, {format_size(result.bytes)}{links}"
    if result.problems:
        screen.print(safe_text(f"{format_count(len(result.problems), 'problem')} in {looked}.", "bold red"))
    else:
        screen.print(safe_text(f"All is as it was recorded: {looked}.", "green"))
