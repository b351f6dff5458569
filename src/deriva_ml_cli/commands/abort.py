"""``deriva-ml abort``: end a run."""

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
"""Seconds between two looks at a process that is to end."""


@command("deriva-ml abort 1-4A2C", "deriva-ml abort 1-4A2C --yes --kill")
def app(
    rid: Rid,
    yes: Yes = False,
    wait: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="For the process to end.")] = 60.0,
    kill: Annotated[bool, typer.Option("--kill", help="Kill a process that does not end in that time.")] = False,
    only_record: Annotated[
        bool, typer.Option("--only-record", help="Write Aborted of a run elsewhere, which nobody can end from here.")
    ] = False,
    host: Host = None,
    catalog: CatalogNumber = None,
) -> None:
    """End a run, and have it recorded as Aborted.

    Its process gets SIGTERM, so that it closes its files; what it registered stays staged and can be uploaded.
    """
    from deriva_ml_cli.command_options import open_client
    from deriva_ml_cli.terminal import print_note
    from deriva_ml_core.definitions import Status
    from deriva_ml_core.errors import InvalidTransition

    with open_client(host, catalog) as ml:
        found = ml.lookup_execution(rid)
        if (status := ml.restore_execution(rid).status if found.status.is_terminal else found.status).is_terminal:
            raise InvalidTransition(f"Execution {rid} has ended as {status}: there is nothing to abort.")
        if not yes:
            typer.confirm(f"Abort execution {rid}?", abort=True)
        if not only_record:
            _stop_process(ml, rid, wait, kill=kill)
        execution = ml.restore_execution(rid)
        if not execution.status.is_terminal:
            execution.update_status(Status.aborted, "Aborted by deriva-ml abort")
        print_note(f"Execution {rid} has ended as {execution.status}.")


def _stop_process(ml: DerivaML, rid: str, wait: float, *, kill: bool) -> None:
    """End the process that runs the execution, where there is one.

    Raises:
        ExecutionRunning: It runs elsewhere, or does not end.
    """
    from deriva_ml_core.errors import ExecutionRunning
    from deriva_ml_core.execution.recorded import load_local_state

    story = load_local_state(ml.connection, rid)
    lease = story.process if story else None
    if story is not None and (lease is None or story.start_time is None):
        return
    dead = lease.is_dead() if lease else None
    if lease is None or dead is None:
        where = f"process {lease.pid} on {lease.host}" if lease else "another machine"
        raise ExecutionRunning(
            f"Execution {rid} is run by {where}, which cannot be reached from here: abort it there, or only record it "
            "with --only-record."
        )
    if (
        dead
        or _signal_and_wait(lease, signal.SIGTERM, wait)
        or (kill and _signal_and_wait(lease, signal.SIGKILL, wait))
    ):
        return
    raise ExecutionRunning(
        f"Process {lease.pid}, which runs execution {rid}, did not end within {wait:g} s: wait longer with --wait, or "
        "kill it with --kill."
    )


def _signal_and_wait(process: ProcessIdentity, signal_number: signal.Signals, wait: float) -> bool:
    os.kill(process.pid, signal_number)
    end = time.monotonic() + wait
    while process.is_dead() is not True:
        if time.monotonic() > end:
            return False
        time.sleep(POLL_INTERVAL)
    return True
