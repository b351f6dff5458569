"""What stands before a run that goes on: that no living process runs it already."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import ExecutionRunning
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import ExecutionState

__all__ = ["lock_for_resume", "check_not_running"]

log = logging.getLogger(__name__)


def check_not_running(state: ExecutionState, execution: RID) -> None:
    """Raise `ExecutionRunning` where the process that runs an execution lives; warn where nobody can know from here."""
    if state.process is None or state.start_time is None or state.status.is_terminal:
        return
    where = f"process {state.process.pid} on {state.process.host}"
    match state.process.is_dead():
        case False:
            raise ExecutionRunning(
                f"Execution {execution} is being run by {where}: wait for its end, or end that process, "
                "and resume again."
            )
        case None:
            log.warning(
                "Execution %s was being run by %s, and whether that lives cannot be known from here: it is taken over.",
                execution,
                where,
            )


@contextmanager
def lock_for_resume(journal: Journal, execution: RID) -> Iterator[None]:
    """Of several processes that go on with an execution at once, one does, and the others are told of it."""
    from filelock import FileLock

    with FileLock(f"{journal.path}.resume"):
        check_not_running(journal.state, execution)
        yield
