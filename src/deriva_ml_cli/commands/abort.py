"""``deriva-ml abort``: stop a run."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

from deriva_ml_cli.command_options import CatalogNumber, Host, Rid, Yes, command

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.journal.process_identity import ProcessIdentity

__all__ = ["app"]

POLL_INTERVAL = 0.1
"""Seconds between two checks whether a signalled process has stopped."""


@command("deriva-ml abort 1-4A2C", "deriva-ml abort 1-4A2C --yes --kill")
def app(
    rid: Rid,
    yes: Yes = False,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the process to stop.")
    ] = 60.0,
    kill: Annotated[bool, typer.Option("--kill", help="Kill the process if it does not stop in that time.")] = False,
    only_record: Annotated[
        bool, typer.Option("--only-record", help="Only record Aborted; for a run on a machine that is gone.")
    ] = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """Stop a run and record it as Aborted.

    Its process receives SIGTERM, so it can close its files. Staged files are kept and can be uploaded.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_note
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.errors import InvalidTransition

    with open_client(host, catalog) as ml:
        recorded = ml.lookup_execution(rid)
        status = ml.restore_execution(rid).status if recorded.status.is_terminal else recorded.status
        if status.is_terminal:
            raise InvalidTransition(f"Execution {rid} is {status} already; only running executions can be aborted.")
        if not yes:
            typer.confirm(f"Abort execution {rid}?", abort=True)
        if not only_record:
            _stop_process(ml, rid, wait, kill=kill)
        execution = ml.restore_execution(rid)
        if not execution.status.is_terminal:
            execution.update_status(Status.aborted, "Aborted by deriva-ml abort")
        print_note(f"Execution {rid} is {execution.status}.")


def _stop_process(ml: DerivaML, rid: str, wait: float, *, kill: bool) -> None:
    """Stop the process that runs the execution, if there is one.

    Raises:
        ExecutionRunning: It runs on another machine, or does not stop.
    """
    from deriva_ml_core.errors import ExecutionRunning
    from deriva_ml_core.execution.recorded import load_local_state

    state = load_local_state(ml.connection, rid)
    process = state.process if state else None
    elsewhere = state.process_elsewhere if state else None
    if state is not None and elsewhere is None and (process is None or state.start_time is None):
        return
    is_dead = process.is_dead() if process else None
    if process is None or is_dead is None:
        named = process or elsewhere
        where = f"process {named.pid} on {named.host}" if named else "another machine"
        raise ExecutionRunning(
            f"Execution {rid} is run by {where}, which is not reachable from here: abort it there, or only record it "
            "with --only-record."
        )
    if (
        is_dead
        or _signal_and_wait(process, signal.SIGTERM, wait)
        or (kill and _signal_and_wait(process, signal.SIGKILL, wait))
    ):
        return
    raise ExecutionRunning(
        f"Process {process.pid}, which runs execution {rid}, did not stop within {wait:g} s: wait longer with --wait, "
        "or kill it with --kill."
    )


def _signal_and_wait(process: ProcessIdentity, signal_number: signal.Signals, wait: float) -> bool:
    """Send a signal, and return whether the process stopped within the given seconds."""
    os.kill(process.pid, signal_number)
    deadline = time.monotonic() + wait
    while process.is_dead() is not True:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL)
    return True
