"""What stands before a run that goes on: that no living process runs it already."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import ExecutionRunning
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.story import Story

__all__ = ["one_at_a_time", "refuse_running"]

log = logging.getLogger(__name__)


def refuse_running(story: Story, execution: RID) -> None:
    """Raise `ExecutionRunning` where the process that runs an execution lives; warn where nobody can know from here."""
    if story.lease is None or story.start is None or story.status.ended:
        return
    where = f"process {story.lease.pid} on {story.lease.host}"
    match story.lease.is_dead():
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
def one_at_a_time(journal: Journal, execution: RID) -> Iterator[None]:
    """Of several processes that go on with an execution at once, one does, and the others are told of it."""
    from filelock import FileLock

    with FileLock(f"{journal.path}.resume"):
        refuse_running(journal.story, execution)
        yield
