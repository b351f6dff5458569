"""Writes each status of a run to the journal, then to the plugins, then to the catalog row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock
from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.errors import InvalidTransition
from deriva_ml_core.execution.row_sync import RowSync
from deriva_ml_core.journal.journal import BufferedJournal
from deriva_ml_core.journal.state import Event, ExecutionState, ParametersSet, StatusSet, utc_now
from deriva_ml_core.models import Progress, StatusUpdate
from deriva_ml_core.parameter_values import MAX_NAME_LENGTH, MAX_PARAMETERS, limit_parameters

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["StatusTracker"]

log = logging.getLogger(__name__)

JOURNAL_RETRY_SECONDS = 2.0
"""Maximum seconds for which the end of a run retries to write the journal, for example on a full disk."""

MAX_LISTED_NAMES = 10
"""Maximum number of parameters that a warning names."""


class StatusTracker:
    """The statuses of one execution.

    Args:
        execution: RID of the execution.
        journal: Journal that each status is written to first. If it cannot be written, it buffers the status, and the
            row is written nevertheless.
        on_status: Called with each status once it is in the journal.
        row_sync: Writes the catalog row.
    """

    def __init__(
        self, execution: RID, journal: BufferedJournal, on_status: Callable[[StatusUpdate], None], row_sync: RowSync
    ) -> None:
        self._row_sync = row_sync
        self._journal = journal
        self._execution = execution
        self._on_status = on_status
        self._lock = ForkSafeRLock()

    @property
    def current(self) -> tuple[Status, str]:
        """The current status and its message."""
        last = self._journal.last_status
        return (last.status, last.error or last.message) if last else (Status.created, "")

    def load_state(self) -> ExecutionState:
        """Return the state of all events, also of those that a full disk has rejected so far."""
        return self._journal.state

    def list_all(self) -> list[StatusUpdate]:
        """Return all statuses in order, also those that a full disk has rejected so far."""
        return self._journal.list_statuses()

    def record_created(self) -> None:
        """Record the first status, with which the catalog row was inserted."""
        update = StatusUpdate(status=Status.created, time=utc_now(), previous=Status.created)
        self._publish(self._journal.append(StatusSet(update=update)))

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
        """Set the status. A full disk or an unreachable catalog does not raise; the status is written later.

        Args:
            status: The new status.
            message: What the run is doing, as text.
            progress: The same as numbers.
            error: The error that ended the run.
            wait: Whether to write the catalog row before returning, if the catalog responds.
            resumed: Whether a run that has ended may continue.

        Raises:
            InvalidTransition: The run has ended, or the status would go back to Created.
        """
        from deriva_ml_core.redaction import redact_text  # many patterns to compile

        with self._lock:
            previous, _ = self.current
            if not previous.can_transition_to(status) and not (resumed and previous.is_terminal):
                raise InvalidTransition(
                    f"Execution {self._execution} cannot change from {previous} to {status}: "
                    f"{'the run has ended' if previous.is_terminal else 'it is already created'}."
                )
            update = StatusUpdate(
                status=status,
                message=redact_text(message),
                time=utc_now(),
                previous=previous,
                error=redact_text(error) or None,
                progress=progress,
            )
            self._publish(self._journal.append(StatusSet(update=update)))
        # outside the lock: a call with wait=False must not wait for another thread's catalog request
        if wait:
            self._row_sync.try_write()
        else:
            self._row_sync.write_in_background(is_final=status.is_terminal)

    def correct(self, status: Status, reason: str, user: str) -> None:
        """Set another terminal status of a run that has ended, and write the row.

        The message, which is in the row too, says why, who, and what stood before; the journal keeps both statuses.

        Args:
            status: The terminal status.
            reason: Why the recorded one is wrong.
            user: Who corrects it.

        Raises:
            InvalidTransition: The status is already the current one.
            DerivaMLException: The catalog rejects the row.
        """
        from deriva_ml_core.redaction import redact_text  # many patterns to compile

        with self._lock:
            previous, _ = self.current
            if previous is status:
                raise InvalidTransition(f"Execution {self._execution} is already {status}.")
            update = StatusUpdate(
                status=status,
                message=f"{redact_text(reason)} (corrected from {previous} by {user})",
                time=utc_now(),
                previous=previous,
                corrected_by=user,
            )
            self._publish(self._journal.append(StatusSet(update=update)))
        self._row_sync.write()

    def append(self, *events: Event) -> None:
        """Write events to the journal, after those that are still buffered; publish the statuses among them."""
        if self._publish(self._journal.append(*events)):
            self._row_sync.write_in_background()

    def record_parameters(self, parameters: Mapping[str, JsonValue]) -> None:
        """Write parameters to the journal now, and to the catalog with a row write in the background.

        A name that already has this value is left out. Another value is written to the journal, and a warning names it.

        Args:
            parameters: Values by name, flattened and redacted.
        """
        with self._lock:
            known = self._journal.state.parameters
            selected, left_out = limit_parameters(parameters, known)
            changed = sorted(name for name in selected.keys() & known.keys() if selected[name] != known[name])
            selected = {name: value for name, value in selected.items() if name not in known or name in changed}
            if selected:
                self.append(ParametersSet(parameters=selected))
        if changed:
            log.warning(
                "Execution %s has other values of the parameters %s. The first ones stay recorded.",
                self._execution,
                _join_names(changed),
            )
        if left_out:
            log.warning(
                "The parameters %s of execution %s are not recorded: an execution has at most %d, with names of up to "
                "%d characters.",
                _join_names(left_out),
                self._execution,
                MAX_PARAMETERS,
                MAX_NAME_LENGTH,
            )
        if selected:
            self._row_sync.write_in_background()

    def flush(self, timeout: float = JOURNAL_RETRY_SECONDS) -> bool:
        """Write the events that are still buffered, with retries; publish the statuses among them.

        Args:
            timeout: Maximum seconds to retry.

        Returns:
            Whether there were statuses among them.
        """
        return self._publish(self._journal.flush(timeout))

    def _publish(self, written: Iterable[Event]) -> bool:
        """Call `on_status` with the statuses among written events; return whether there were any."""
        updates = [event.update for event in written if isinstance(event, StatusSet)]
        for update in updates:
            self._on_status(update)
        return bool(updates)


def _join_names(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:MAX_LISTED_NAMES]))
    return shown if len(names) <= MAX_LISTED_NAMES else f"{shown} and {len(names) - MAX_LISTED_NAMES} more"
