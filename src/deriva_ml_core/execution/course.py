"""The course of a run: each state brought to the journal, then to the plugins, then to the catalog's row."""

from __future__ import annotations

import logging
from collections.abc import Callable

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLTable, Status
from deriva_ml_core.errors import InvalidTransition
from deriva_ml_core.execution.ending import duration_text
from deriva_ml_core.forklock import ForkLock
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.patient import PatientJournal
from deriva_ml_core.journal.story import Event, StatusSet, Story, now
from deriva_ml_core.models import Progress, StatusUpdate

__all__ = ["Course", "write_state"]

log = logging.getLogger(__name__)


class Course:
    """The states of one execution.

    Args:
        connection: Where its row is.
        journal: Where each state is written first.
        execution: Whose states they are; those of a dry run are in its journal only.
        tell: Told each state once it is in the journal.
    """

    def __init__(
        self, connection: Connection, journal: Journal, execution: RID, tell: Callable[[StatusUpdate], None]
    ) -> None:
        self._connection = connection
        self._story = journal
        self._journal = PatientJournal(journal)
        self._execution = execution
        self._tell = tell
        self._lock = ForkLock()

    @property
    def last(self) -> tuple[Status, str]:
        """The present state, and the words beside it."""
        last = self._journal.last_status
        return (last.status, last.error or last.message) if last else (Status.created, "")

    def set(self, status: Status, message: str, *, progress: Progress | None = None, error: str = "") -> None:
        """Go on to a state. Neither a full disk nor a catalog that cannot be reached raises; both are told later.

        Raises:
            InvalidTransition: The run has ended, or the state would go back to Created.
        """
        from deriva_ml_core.redaction import redact_text  # many patterns to compile

        with self._lock:
            previous, _ = self.last
            if not previous.may_become(status):
                raise InvalidTransition(
                    f"Execution {self._execution} is {previous} and cannot become {status}: "
                    f"{'a run that has ended does not go on' if previous.ended else 'it was created before'}."
                )
            update = StatusUpdate(
                status=status,
                message=redact_text(message),
                time=now(),
                previous=previous,
                error=redact_text(error) or None,
                progress=progress,
            )
            self.note(StatusSet(update=update))

    def note(self, *events: Event) -> None:
        """Write lines to the journal, with those that a full disk refused before; their states are told everywhere."""
        told = [event.update for event in self._journal.append(*events) if isinstance(event, StatusSet)]
        for update in told:
            self._tell(update)
        if told:
            self.write_row()

    def write_row(self) -> None:
        """Bring the catalog's row to where the journal is; what fails now is made good by the next call."""
        if self._execution == DRY_RUN_RID:
            return
        try:
            write_state(self._connection, self._execution, self._story.story)
        except Exception as error:  # noqa: BLE001 - a training goes on, whatever a catalog does
            log.warning("The status of execution %s could not be written yet: %s", self._execution, error)


def write_state(connection: Connection, execution: RID, story: Story) -> None:
    """Bring an execution's row to where its journal is."""
    if not story.statuses:
        return
    last = story.statuses[-1]
    row = {"RID": execution, "Status": last.status, "Status_Detail": last.error or last.message}
    if story.start is not None and story.stop is not None:
        row["Duration"] = duration_text(story.stop - story.start)
    connection.catalog.update(MLTable.execution, [row])
