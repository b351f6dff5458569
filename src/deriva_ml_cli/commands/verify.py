"""``deriva-ml verify``: stored files against their recorded checksums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.verify import VerificationProgress, VerificationResult
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


@command("deriva-ml verify 1-4A2C", "deriva-ml verify --all", "deriva-ml verify --all --json | jq .problems")
def app(
    rid: Annotated[str | None, typer.Argument(metavar="RID", help="An execution, a dataset or an asset.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Verify the whole catalog.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Verify stored files against their recorded checksums.

    It reads every object in the store and compares length and MD5. With --all it also checks that every row that
    another row refers to exists. The exit code is 1 if there is any problem.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    if (rid is None) is not everything:
        raise typer.BadParameter("Give one RID, or --all.")
    with open_client(host, catalog) as ml:
        result = _verify_with_progress(ml, rid, quiet=as_json)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)
    if result.problems:
        raise typer.Exit(1)


def _verify_with_progress(ml: DerivaML, rid: str | None, *, quiet: bool) -> VerificationResult:
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from deriva_ml_cli.terminal import create_console
    from deriva_ml_core._text import format_size

    console = create_console(stderr=True)
    columns = TextColumn("{task.completed:,} objects, {task.fields[size]}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=None, size=format_size(0))

        def update_bar(progress: VerificationProgress) -> None:
            bar.update(task, completed=progress.objects, size=format_size(progress.bytes))

        return ml.verify(rid, progress_callback=update_bar)


def _print(result: VerificationResult) -> None:
    from deriva_ml_cli.terminal import create_console, safe_text
    from deriva_ml_core._text import format_count, format_size

    console = create_console()
    for problem in result.problems:
        row = f"{problem.table} {problem.rid} {problem.name}:"
        console.print(safe_text(row, "bold red"), safe_text(problem.problem))
    links = f", {format_count(result.links, 'link')}" if result.links else ""
    checked = f"{format_count(result.objects, 'object')}, {format_size(result.bytes)}{links}"
    if result.problems:
        console.print(safe_text(f"{format_count(len(result.problems), 'problem')} in {checked}.", "bold red"))
    else:
        console.print(safe_text(f"No problems in {checked}.", "green"))
