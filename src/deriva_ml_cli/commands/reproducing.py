"""``deriva-ml reproduce``: a run, done again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from deriva_ml_cli.rebuilding import Rebuilt

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
    from deriva_ml_cli.opening import opened
    from deriva_ml_cli.rebuilding import rebuild_run
    from deriva_ml_cli.screen import print_json

    if run and as_json:
        raise typer.BadParameter("What runs writes to standard output itself: give --run or --json.")
    with opened(host, catalog) as ml:
        found = rebuild_run(ml, rid, (into or Path(f"reproduce-{rid}")).expanduser(), repository, inputs=inputs)
    if as_json:
        print_json(_told(rid, found))
    else:
        _print(rid, found)
    if run:
        _run(found)


def _told(rid: str, found: Rebuilt) -> dict[str, Any]:
    names = ("folder", "code", "commit", "source", "patched", "left_out", "command", "place", "variables", "redacted")
    told = {name: getattr(found, name) for name in (*names, "inputs", "records", "line")}
    return {"rid": rid, **told, "differing": [each.as_json() for each in found.differing]}


def _print(rid: str, found: Rebuilt) -> None:
    from deriva_ml_cli.screen import Column, console, print_facts, print_note, print_table, print_title, shown
    from deriva_ml_cli.wording import counted

    console().print(shown("Execution", "dim"), shown(rid, "bold"), shown(f"is rebuilt in {found.folder}"))
    print_facts(
        {
            "code": f"{found.commit[:12]} of {found.source}, in {found.code}",
            "uncommitted": "applied" if found.patched else "nothing",
            "not kept": "; ".join(found.left_out),
            "inputs": "; ".join(map(str, found.inputs)) or "none",
            "records": counted(len(found.records), "file"),
            "secrets": ", ".join(found.redacted),
        }
    )
    if found.differing:
        print_title("Environment", shown(f"{counted(len(found.differing), 'difference')}", "dim"))
        columns = Column("", flexible=True, style="dim"), Column("Then", flexible=True, folded=True)
        rows = [(each.name, *(_worded(value) for value in (each.left, each.right))) for each in found.differing]
        print_table([*columns, Column("Here", flexible=True, folded=True)], rows, indent=2)
    else:
        print_title("Environment", shown("as it was", "dim"))
    if found.redacted:
        print_note("Secrets were never recorded: give them again.")
    print_title("Run it")
    line = found.line or "What ran is not on record as a command: it was a notebook or an interactive session."
    console().print(shown(f"  {line}", "bold" if found.line else ""), soft_wrap=True)


def _worded(value: Any) -> str:
    return "-" if value is None else str(value)


def _run(found: Rebuilt) -> None:
    import os
    import subprocess
    import sys

    from deriva_ml_core.errors import NotReproducible

    if not found.command:
        raise NotReproducible("What ran is not on record as a command, so it cannot be run.")
    if secret := [name for name in found.redacted if name.startswith(("argument", "code"))]:
        raise NotReproducible(f"The command had a secret in {', '.join(secret)}: run it by hand, with the secret.")
    sys.stdout.flush()
    done = subprocess.run(found.command, cwd=found.place, env={**os.environ, **found.variables}, check=False)  # noqa: S603
    if done.returncode:
        raise typer.Exit(1)
