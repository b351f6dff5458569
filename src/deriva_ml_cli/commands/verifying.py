"""``deriva-ml verify``: whether what is stored is what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, command

if TYPE_CHECKING:
    from deriva_ml_cli.verifying import Checked
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
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.screen import print_json

    if (rid is None) is not everything:
        raise typer.BadParameter("Give one record id, or --all.")
    with opened(host, catalog) as ml:
        checked = _checked(ml, rid, quiet=as_json)
    if as_json:
        print_json(checked.as_json())
    else:
        _print(checked)
    if checked.problems:
        raise typer.Exit(1)


def _checked(ml: DerivaML, rid: str | None, *, quiet: bool) -> Checked:
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    from deriva_ml_cli.screen import console
    from deriva_ml_cli.verifying import Checked, verify_all, verify_one

    screen = console(complaints=True)
    columns = TextColumn("{task.completed:,} objects, {task.fields[bytes]:,} bytes"), TimeElapsedColumn()
    with Progress(*columns, console=screen, transient=True, disable=quiet or not screen.is_terminal) as bar:
        task = bar.add_task("", total=None, bytes=0)
        checked = Checked(lambda _: bar.update(task, completed=checked.objects, bytes=checked.bytes))
        if rid is None:
            verify_all(ml, checked)
        else:
            verify_one(ml, rid, checked)
    return checked


def _print(checked: Checked) -> None:
    from deriva_ml_cli.screen import console, shown
    from deriva_ml_cli.wording import counted, size

    screen = console()
    for each in checked.problems:
        screen.print(shown(f"{each.table} {each.rid} {each.name}:", "bold red"), shown(each.problem))
    links = f", {counted(checked.links, 'link')}" if checked.links else ""
    looked = f"{counted(checked.objects, 'object')}, {size(checked.bytes)}{links}"
    if checked.problems:
        screen.print(shown(f"{counted(len(checked.problems), 'problem')} in {looked}.", "bold red"))
    else:
        screen.print(shown(f"All is as it was recorded: {looked}.", "green"))
