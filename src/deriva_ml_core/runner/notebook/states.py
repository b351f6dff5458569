"""The states of an execution as its notebook goes: Running when that begins, ended as that ends."""

from __future__ import annotations

from datetime import datetime

from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.ending import final_status
from deriva_ml_core.journal.lease import ProcessIdentity
from deriva_ml_core.journal.story import ProcessAttached, Started, Stopped

__all__ = ["start_execution", "finish_execution"]


def start_execution(execution: Execution) -> None:
    """Have an execution run from now on; whoever runs the notebook brings it to its end."""
    execution._runtime.status_tracker.append(ProcessAttached(lease=ProcessIdentity.current()), Started())
    execution.update_status(Status.running)


def finish_execution(
    execution: Execution, started_at: datetime, error: BaseException | None, *, terminated: bool
) -> None:
    """Bring an execution to the end that its notebook came to.

    One that its own ``with`` has ended keeps that end, unless a later cell failed. One whose kernel was killed has not
    ended: this process ends it.

    Args:
        execution: The execution.
        started_at: When the notebook began, for one that was never entered.
        error: What ended the notebook before its last cell; None where it came there.
        terminated: Whether SIGTERM came.
    """
    status, reason = final_status(error, terminated=terminated)
    course = execution._runtime.status_tracker
    present, _ = course.current
    if present.is_terminal and (status is Status.completed or present is Status.aborted):
        return
    if not present.is_terminal:
        course.append(ProcessAttached(lease=ProcessIdentity.current()), Started(time=started_at), Stopped())
    course.set(status, reason, error=reason if status is not Status.completed else "", resumed=present.is_terminal)
