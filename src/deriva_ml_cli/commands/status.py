"""``deriva-ml status``: the status of an execution, once or until it ends."""

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
    "deriva-ml status 1-4A2C --watch && echo done",
    "deriva-ml status 1-4A2C --set completed --reason 'Only the clean-up failed'",
    "deriva-ml status 1-4A2C --best 1-5B3D --reason 'It has the best test score'",
)
def app(
    rid: Rid,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Print each new status until the run ends.")] = False,
    interval: Annotated[float, typer.Option(min=0.05, metavar="SECONDS", help="The time between two checks.")] = 1.0,
    new_status: Annotated[
        str | None,
        typer.Option("--set", metavar="STATUS", help="How the run really ended: completed, failed or aborted."),
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(metavar="CHECKPOINT", help="The checkpoint that really is the best: a RID, or a file's name."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why the record is wrong; with --set or --best.")] = "",
    as_json: AsJson = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Show the status of an execution.

    The exit code is 1 if the run failed or was aborted. If its process was killed on this machine, Aborted is written
    to the catalog. With --watch and --json there is one JSON value on a line.

    --set corrects the status of a run that has ended, and --best names another of its checkpoints as the best. What
    was recorded before, the reason, the user and the time stay on record.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_core.errors import ConfigurationError

    if reason and new_status is None and best is None:
        raise ConfigurationError("--reason belongs to a correction: give the status with --set, or use --best.")
    if new_status is not None and best is not None:
        raise ConfigurationError("--set and --best are two corrections: make them one after the other.")
    with open_client(host, catalog) as ml:
        if new_status is not None:
            ml.correct_status(rid, new_status, reason)
            _print(_load_execution(ml, rid), as_json=as_json, compact=False)
            return
        if best is not None:
            ml.correct_best_checkpoint(rid, best, reason)
            _print_best(ml, rid, as_json=as_json)
            return
        execution = _load_execution(ml, rid)
        _print(execution, as_json=as_json, compact=watch)
        while watch and not execution.status.is_terminal:
            time.sleep(interval)
            previous, execution = execution, _load_execution(ml, rid)
            if (previous.status, previous.status_detail) != (execution.status, execution.status_detail):
                _print(execution, as_json=as_json, compact=True)
    if execution.status.is_terminal and execution.status != "Completed":
        raise typer.Exit(1)


def _load_execution(ml: DerivaML, rid: str) -> ExecutionSummary:
    """Return the execution as it is now; if its process died, the catalog is updated first."""
    from deriva_ml_core.analysis.runs import summarize_execution

    execution = summarize_execution(ml.connection, ml.lookup_execution(rid))
    if execution.status.is_terminal and not _is_end_recorded(ml, rid):
        ml.restore_execution(rid)
        execution = summarize_execution(ml.connection, ml.lookup_execution(rid))
    return execution


def _is_end_recorded(ml: DerivaML, rid: str) -> bool:
    from deriva_ml_core.definitions import MLTable, status_from_row

    row = ml.connection.require_row(MLTable.execution, rid)
    status = status_from_row(str(row["Status"] or ""))
    return status is not None and status.is_terminal


def _print_best(ml: DerivaML, rid: str, *, as_json: bool) -> None:
    """Print the last correction of the best checkpoint."""
    from deriva_ml_cli.terminal import create_console, print_json, safe_text

    correction = ml.lookup_execution(rid).list_best_corrections()[-1]
    if as_json:
        print_json({"rid": rid, **correction.model_dump()})
    else:
        former = f"instead of {correction.previous}" if correction.previous else ""
        create_console().print(
            safe_text(rid, "bold"), "best checkpoint", safe_text(correction.checkpoint, "bold"), safe_text(former)
        )


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
        duration = safe_text(format_duration(execution.duration_seconds), "dim")
        create_console().print(
            safe_text(execution.rid, "bold"),
            status_text(execution.status),
            *([duration] if duration else []),
            safe_text(execution.status_detail),
        )
