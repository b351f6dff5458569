"""Ensures that a resumed execution is run by one process only."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from deriva_ml_core._files.locks import locked_folder
from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import ExecutionRunning
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import JOURNAL_FILENAME, ExecutionState

__all__ = ["RESUME_LOCK_NAME", "UPLOAD_LOCK_NAME", "check_not_running", "lock_for_resume"]

RESUME_LOCK_NAME = f"{JOURNAL_FILENAME}.resume"
"""Name of the lock file of a resume, in the working folder."""

UPLOAD_LOCK_NAME = f"{JOURNAL_FILENAME}.lock"
"""Name of the lock file of an upload."""

log = logging.getLogger(__name__)


def check_not_running(state: ExecutionState, execution: RID) -> None:
    """Raise `ExecutionRunning` if the process that runs the execution is alive; warn if that cannot be determined."""
    identity = state.process or state.process_elsewhere
    if identity is None or state.start_time is None or state.status.is_terminal:
        return
    process = f"process {identity.pid} on {identity.host}"
    # of a process that a downloaded journal names, only the text is used
    match state.process.is_dead() if state.process is not None else None:
        case False:
            raise ExecutionRunning(
                f"Execution {execution} is running in {process}: wait for its end, or end that process, "
                "and resume again."
            )
        case None:
            log.warning(
                "Execution %s was running in %s, which cannot be checked from this machine: it is taken over.",
                execution,
                process,
            )


@contextmanager
def lock_for_resume(journal: Journal, execution: RID) -> Iterator[None]:
    """Let one of several processes resume an execution; the others get `ExecutionRunning`."""
    journal.check_not_deleted()  # the lock would create the folder again
    with locked_folder(journal.path.with_name(RESUME_LOCK_NAME), f"resume execution {execution}"):
        journal.check_not_deleted()
        check_not_running(journal.state, execution)
        yield
