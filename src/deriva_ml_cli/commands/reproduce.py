"""``deriva-ml reproduce``: a run, done again."""

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
    into: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to; reproduce-<RID> by default.")] = None,
    repository: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A clone that has the commit, if none is found.")
    ] = None,
    inputs: Annotated[bool, typer.Option("--inputs/--no-inputs", help="Bring what went in.")] = True,
    run: Annotated[bool, typer.Option("--run", help="Run the command that ran then.")] = False,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Rebuild an execution's code, inputs and records.

    The recorded commit is checked out as a worktree, what was not committed is applied to it, inputs are downloaded,
    the environment is compared with this one, and the command that ran is shown. Nothing of the catalog is executed
    without --run. With it, this ends as that command does: with 0, or 1. `git worktree remove` takes the code away.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_json
    from deriva_ml_core.analysis.reproduce import reproduce_execution

    if run and as_json:
        raise typer.BadParameter("What runs writes to standard output itself: give --run or --json.")
    with open_client(host, catalog) as ml:
        found = reproduce_execution(
            ml.connection, rid, (into or Path(f"reproduce-{rid}")).expanduser(), repository, include_inputs=inputs
        )
    if as_json:
        print_json(_to_dict(rid, found))
    else:
        _print(rid, found)
    if run:
        _run_command(found)


def _to_dict(rid: str, reproduction: Reproduction) -> dict[str, Any]:
    names = ("folder", "code", "commit", "source", "patched", "left_out", "command", "place", "variables", "redacted")
    told = {name: getattr(reproduction, name) for name in (*names, "inputs", "records", "line")}
    return {"rid": rid, **told, "differing": [each.to_dict() for each in reproduction.differing]}


def _print(rid: str, reproduction: Reproduction) -> None:
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
        safe_text("Execution", "dim"), safe_text(rid, "bold"), safe_text(f"is rebuilt in {reproduction.folder}")
    )
    print_fields(
        {
            "code": f"{reproduction.commit[:12]} of {reproduction.source}, in {reproduction.code}",
            "uncommitted": "applied" if reproduction.patched else "nothing",
            "not kept": "; ".join(reproduction.left_out),
            "inputs": "; ".join(map(str, reproduction.inputs)) or "none",
            "records": format_count(len(reproduction.records), "file"),
            "secrets": ", ".join(reproduction.redacted),
        }
    )
    if reproduction.differing:
        print_title("Environment", safe_text(f"{format_count(len(reproduction.differing), 'difference')}", "dim"))
        columns = Column("", flexible=True, style="dim"), Column("Then", flexible=True, wrapped=True)
        rows = [
            (each.name, *(_format_value(value) for value in (each.left, each.right))) for each in reproduction.differing
        ]
        print_table([*columns, Column("Here", flexible=True, wrapped=True)], rows, indent=2)
    else:
        print_title("Environment", safe_text("as it was", "dim"))
    if reproduction.redacted:
        print_note("Secrets were never recorded: give them again.")
    print_title("Run it")
    line = reproduction.line or "What ran is not on record as a command: it was a notebook or an interactive session."
    create_console().print(safe_text(f"  {line}", "bold" if reproduction.line else ""), soft_wrap=True)


def _format_value(value: Any) -> str:
    return "-" if value is None else str(value)


def _run_command(reproduction: Reproduction) -> None:
    import os
    import subprocess
    import sys

    from deriva_ml_core.errors import NotReproducible

    if not reproduction.command:
        raise NotReproducible("What ran is not on record as a command, so it cannot be run.")
    if secret := [name for name in reproduction.redacted if name.startswith(("argument", "code"))]:
        raise NotReproducible(f"The command had a secret in {', '.join(secret)}: run it by hand, with the secret.")
    sys.stdout.flush()
    done = subprocess.run(  # noqa: S603
        reproduction.command, cwd=reproduction.place, env={**os.environ, **reproduction.variables}, check=False
    )
    if done.returncode:
        raise typer.Exit(1)
