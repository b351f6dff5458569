"""``deriva-ml status``: the state of one execution, once or until it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from deriva_ml_cli.runs import Run
    from deriva_ml_core.client import DerivaML

__all__ = ["app"]


@command(
    "deriva-ml status 1-4A2C",
    "deriva-ml status 1-4A2C --watch && echo well done",
)
def app(
    rid: Rid,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Say each new state until the run has ended.")] = False,
    interval: Annotated[float, typer.Option(min=0.05, metavar="SECONDS", help="Between two looks.")] = 1.0,
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Say the state of an execution.

    It ends with 1 where the run has failed or was aborted. A run whose process was killed on this machine is written
    as Aborted. With --watch and --json there is one JSON value a line.
    """
    from deriva_ml_cli.opening import opened

    with opened(host, catalog) as ml:
        run = _seen(ml, rid)
        _say(run, as_json=as_json, compact=watch)
        while watch and not run.status.ended:
            time.sleep(interval)
            before, run = run, _seen(ml, rid)
            if (before.status, before.detail) != (run.status, run.detail):
                _say(run, as_json=as_json, compact=True)
    if run.status.ended and run.status != "Completed":
        raise typer.Exit(1)


def _seen(ml: DerivaML, rid: str) -> Run:
    """The execution as it is now; what nobody could tell the catalog any more is told it."""
    from deriva_ml_cli.runs import runs_of

    (run,) = runs_of(ml, [ml.lookup_execution(rid)])
    if run.status.ended and not _is_written(ml, rid):
        ml.restore_execution(rid)
        (run,) = runs_of(ml, [ml.lookup_execution(rid)])
    return run


def _is_written(ml: DerivaML, rid: str) -> bool:
    from deriva_ml_core.definitions import MLTable, Status

    row = ml.connection.require_row(MLTable.execution, rid)
    return Status(str(row["Status"] or Status.created)).ended


def _say(run: Run, *, as_json: bool, compact: bool) -> None:
    import json
    import sys

    from deriva_ml_cli.screen import console, plain_json, print_json, shown, shown_status
    from deriva_ml_cli.wording import duration

    if as_json and compact:
        sys.stdout.write(json.dumps(plain_json(run.as_json()), allow_nan=False) + "\n")
        sys.stdout.flush()
    elif as_json:
        print_json(run.as_json())
    else:
        took = shown(duration(run.seconds), "dim")
        console().print(shown(run.rid, "bold"), shown_status(run.status), *([took] if took else []), shown(run.detail))
