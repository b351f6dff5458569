"""The course of a run: each state brought to the journal, then to the plugins, then to the catalog's row."""

from __future__ import annotations

from collections.abc import Callable

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.errors import InvalidTransition
from deriva_ml_core.execution.row_sync import RowSync
from deriva_ml_core.journal.journal import BufferedJournal, Journal
from deriva_ml_core.journal.state import Event, StatusSet, utc_now
from deriva_ml_core.models import Progress, StatusUpdate

__all__ = ["StatusTracker"]


class StatusTracker:
    """The states of one execution.

    Args:
        execution: Whose states they are.
        journal: Where each state is written first.
        on_status: Told each state once it is in the journal.
        row_sync: What brings the catalog's row there.
    """

    def __init__(
        self, execution: RID, journal: Journal, on_status: Callable[[StatusUpdate], None], row_sync: RowSync
    ) -> None:
        self._row_sync = row_sync
        self._journal = BufferedJournal(journal)
        self._execution = execution
        self._on_status = on_status
        self._lock = ForkSafeRLock()

    @property
    def current(self) -> tuple[Status, str]:
        """The present state, and the words beside it."""
        last = self._journal.last_status
        return (last.status, last.error or last.message) if last else (Status.created, "")

    def record_created(self) -> None:
        """Tell the first state, which the catalog's row was made with."""
        self._write(StatusSet(update=StatusUpdate(status=Status.created, time=utc_now(), previous=Status.created)))

    def set(
        self,
        status: Status,
        message: str,
        *,
        progress: Progress | None = None,
        error: str = "",
        wait: bool = True,
        resumed: bool = False,
    ) -> None:
        """Go on to a state. Neither a full disk nor a catalog that cannot be reached raises; both are told later.

        Args:
            status: The state.
            message: What is happening, in words.
            progress: The same as numbers.
            error: What the run ended by.
            wait: Whether the row is written before this returns, if the catalog answers.
            resumed: Whether a run that has ended may go on.

        Raises:
            InvalidTransition: The run has ended, or the state would go back to Created.
        """
        from deriva_ml_core.redaction import redact_text  # many patterns to compile

        with self._lock:
            previous, _ = self.current
            if not previous.can_transition_to(status) and not (resumed and previous.is_terminal):
                raise InvalidTransition(
                    f"Execution {self._execution} is {previous} and cannot become {status}: "
                    f"{'a run that has ended does not go on' if previous.is_terminal else 'it was created before'}."
                )
            update = StatusUpdate(
                status=status,
                message=redact_text(message),
                time=utc_now(),
                previous=previous,
                error=redact_text(error) or None,
                progress=progress,
            )
            told = self._write(StatusSet(update=update))
        self._sync_row(
            told, wait=wait
        )  # without the lock: who does not wait for the catalog waits for nobody else's turn

    def append(self, *events: Event) -> None:
        """Write lines to the journal, with those that a full disk refused before; their states are told everywhere."""
        self._sync_row(self._write(*events), wait=False)

    def _write(self, *events: Event) -> bool:
        """Write lines; returns whether states were among what was written."""
        told = [event.update for event in self._journal.append(*events) if isinstance(event, StatusSet)]
        for update in told:
            self._on_status(update)
        return bool(told)

    def _sync_row(self, status_changed: bool, *, wait: bool) -> None:
        if status_changed and wait:
            self._row_sync.try_write()
        elif status_changed:
            self._row_sync.write_in_background()
