"""``deriva-ml status``: the state of one execution, once or until it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import AsJson, CatalogNumber, Host, Rid, command

if TYPE_CHECKING:
    from deriva_ml_core.analysis.runs import ExecutionSummary
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
    from deriva_ml_cli.command_options import open_client

    with open_client(host, catalog) as ml:
        run = _load_execution(ml, rid)
        _print(run, as_json=as_json, compact=watch)
        while watch and not run.status.is_terminal:
            time.sleep(interval)
            before, run = run, _load_execution(ml, rid)
            if (before.status, before.status_detail) != (run.status, run.status_detail):
                _print(run, as_json=as_json, compact=True)
    if run.status.is_terminal and run.status != "Completed":
        raise typer.Exit(1)


def _load_execution(ml: DerivaML, rid: str) -> ExecutionSummary:
    """The execution as it is now; what nobody could tell the catalog any more is told it."""
    from deriva_ml_core.analysis.runs import summarize_executions

    (run,) = summarize_executions(ml.connection, [ml.lookup_execution(rid)])
    if run.status.is_terminal and not _is_end_recorded(ml, rid):
        ml.restore_execution(rid)
        (run,) = summarize_executions(ml.connection, [ml.lookup_execution(rid)])
    return run


def _is_end_recorded(ml: DerivaML, rid: str) -> bool:
    from deriva_ml_core.definitions import MLTable, status_from_row

    row = ml.connection.require_row(MLTable.execution, rid)
    status = status_from_row(str(row["Status"] or ""))
    return status is not None and status.is_terminal


def _print(execution: ExecutionSummary, *, as_json: bool, compact: bool) -> None:
    import json
    import sys

    from deriva_ml_cli.terminal import create_console, print_json, safe_text, status_text, to_json_value
    from deriva_ml_core._text import format_duration

    if as_json and compact:
        sys.stdout.write(json.dumps(to_json_value(execution.to_dict()), allow_nan=False) + "\n")
        sys.stdout.flush()
    elif as_json:
        print_json(execution.to_dict())
    else:
        took = safe_text(format_duration(execution.duration_seconds), "dim")
        create_console().print(
            safe_text(execution.rid, "bold"),
            status_text(execution.status),
            *([took] if took else []),
            safe_text(execution.status_detail),
        )
