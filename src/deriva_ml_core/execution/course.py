"""The course of a run: each state brought to the journal, then to the plugins, then to the catalog's row."""

from __future__ import annotations

from collections.abc import Callable

from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.errors import InvalidTransition
from deriva_ml_core.execution.row import RowWriter
from deriva_ml_core.forklock import ForkLock
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.patient import PatientJournal
from deriva_ml_core.journal.story import Event, StatusSet, now
from deriva_ml_core.models import Progress, StatusUpdate

__all__ = ["Course"]


class Course:
    """The states of one execution.

    Args:
        execution: Whose states they are.
        journal: Where each state is written first.
        tell: Told each state once it is in the journal.
        row: What brings the catalog's row there.
    """

    def __init__(self, execution: RID, journal: Journal, tell: Callable[[StatusUpdate], None], row: RowWriter) -> None:
        self._row = row
        self._journal = PatientJournal(journal)
        self._execution = execution
        self._tell = tell
        self._lock = ForkLock()

    @property
    def last(self) -> tuple[Status, str]:
        """The present state, and the words beside it."""
        last = self._journal.last_status
        return (last.status, last.error or last.message) if last else (Status.created, "")

    def begin(self) -> None:
        """Tell the first state, which the catalog's row was made with."""
        self._write(StatusSet(update=StatusUpdate(status=Status.created, time=now(), previous=Status.created)))

    def set(
        self,
        status: Status,
        message: str,
        *,
        progress: Progress | None = None,
        error: str = "",
        wait: bool = True,
        again: bool = False,
    ) -> None:
        """Go on to a state. Neither a full disk nor a catalog that cannot be reached raises; both are told later.

        Args:
            status: The state.
            message: What is happening, in words.
            progress: The same as numbers.
            error: What the run ended by.
            wait: Whether the row is written before this returns, if the catalog answers.
            again: Whether a run that has ended may go on.

        Raises:
            InvalidTransition: The run has ended, or the state would go back to Created.
        """
        from deriva_ml_core.redaction import redact_text  # many patterns to compile

        with self._lock:
            previous, _ = self.last
            if not previous.may_become(status) and not (again and previous.ended):
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
            told = self._write(StatusSet(update=update))
        self._bring(told, wait=wait)  # without the lock: who does not wait for the catalog waits for nobody else's turn

    def note(self, *events: Event) -> None:
        """Write lines to the journal, with those that a full disk refused before; their states are told everywhere."""
        self._bring(self._write(*events), wait=False)

    def _write(self, *events: Event) -> bool:
        """Write lines; returns whether states were among what was written."""
        told = [event.update for event in self._journal.append(*events) if isinstance(event, StatusSet)]
        for update in told:
            self._tell(update)
        return bool(told)

    def _bring(self, told: bool, *, wait: bool) -> None:
        if told and wait:
            self._row.try_write()
        elif told:
            self._row.write_beside()
