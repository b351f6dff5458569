"""The states of an execution as its notebook goes: Running when that begins, ended as that ends."""

from __future__ import annotations

from datetime import datetime

from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.ending import ending
from deriva_ml_core.journal.lease import Lease
from deriva_ml_core.journal.story import Leased, Started, Stopped

__all__ = ["begin", "end"]


def begin(execution: Execution) -> None:
    """Have an execution run from now on; whoever runs the notebook brings it to its end."""
    execution.desk.course.note(Leased(lease=Lease.taken()), Started())
    execution.update_status(Status.running)


def end(execution: Execution, began: datetime, error: BaseException | None, *, terminated: bool) -> None:
    """Bring an execution to the end that its notebook came to.

    One that its own ``with`` has ended keeps that end, unless a later cell failed. One whose kernel was killed has not
    ended: this process ends it.

    Args:
        execution: The execution.
        began: When the notebook began, for one that was never entered.
        error: What ended the notebook before its last cell; None where it came there.
        terminated: Whether SIGTERM came.
    """
    status, reason = ending(error, terminated=terminated)
    course = execution.desk.course
    present, _ = course.last
    if present.ended and (status is Status.completed or present is Status.aborted):
        return
    if not present.ended:
        course.note(Leased(lease=Lease.taken()), Started(time=began), Stopped())
    course.set(status, reason, error=reason if status is not Status.completed else "", again=present.ended)
