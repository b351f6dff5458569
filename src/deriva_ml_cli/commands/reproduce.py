"""``deriva-ml reproduce``: a run, rebuilt in a folder and optionally run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.reproduce import Reproduction

__all__ = ["app"]


@command(
    "deriva-ml reproduce 1-4A2C",
    "deriva-ml reproduce 1-4A2C --into again --repository ~/clones/project --run",
)
def app(
    rid: Rid,
    into: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder to create; reproduce-<RID> by default.")
    ] = None,
    repository: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A clone that has the commit; by default the current one."),
    ] = None,
    inputs: Annotated[bool, typer.Option("--inputs/--no-inputs", help="Download the inputs.")] = True,
    run: Annotated[bool, typer.Option("--run", help="Run the recorded command.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Rebuild a run: its code, inputs and metadata files.

    The recorded commit is checked out as a worktree of --repository or of the current repository, else as a clone of
    the recorded remote without hooks and filters. The uncommitted changes are applied to it. The inputs are downloaded,
    the environment is compared with this one, and the recorded command is shown.

    Nothing is run unless you pass --run; then the exit code is 1 if the command fails. `git worktree remove` deletes
    the code.
    """
    import sys

    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json

    if run and as_json:
        raise typer.BadParameter("With --run the command writes to standard output: use --run or --json.")
    with open_client(host, catalog) as ml:
        reproduction = ml.reproduce(rid, into, repository=repository, download_inputs=inputs)
    if as_json:
        print_json(reproduction.to_dict())
    else:
        _print(reproduction)
    sys.stdout.flush()
    if run and reproduction.run() != 0:
        raise typer.Exit(1)


def _print(reproduction: Reproduction) -> None:
    from deriva_ml_cli.terminal import (
        Column,
        create_console,
        print_fields,
        print_note,
        print_table,
        print_title,
        safe_text,
    )
    from deriva_ml_core._text import format_count

    create_console().print(
        safe_text("Execution", "dim"),
        safe_text(reproduction.rid, "bold"),
        safe_text(f"is rebuilt in {reproduction.folder}"),
    )
    print_fields(
        {
            "code": f"{reproduction.commit[:12]} of {reproduction.source}, in {reproduction.code_dir}",
            "uncommitted": "applied" if reproduction.is_patched else "nothing",
            "not recorded": "; ".join(reproduction.missing_changes),
            "inputs": "; ".join(map(str, reproduction.inputs)) or "none",
            "records": format_count(len(reproduction.records), "file"),
            "secrets": ", ".join(reproduction.redacted),
        }
    )
    differences = reproduction.environment_differences
    if differences:
        print_title("Environment", safe_text(f"{format_count(len(differences), 'difference')}", "dim"))
        columns = Column("", flexible=True, style="dim"), Column("Recorded", flexible=True, wrapped=True)
        rows = [(each.name, _format_value(each.left), _format_value(each.right)) for each in differences]
        print_table([*columns, Column("Here", flexible=True, wrapped=True)], rows, indent=2)
    else:
        print_title("Environment", safe_text("unchanged", "dim"))
    if reproduction.redacted:
        print_note("Secrets are never recorded; set them before you run the command.")
    print_title("Run it")
    line = reproduction.shell_command or "No command is recorded: the run was a notebook or an interactive session."
    create_console().print(safe_text(f"  {line}", "bold" if reproduction.command else ""), soft_wrap=True)


def _format_value(value: Any) -> str:
    return "-" if value is None else str(value)
