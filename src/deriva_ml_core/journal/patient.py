"""A journal that cannot be written for now, on a full disk say: what it refuses is written by the next call."""

from __future__ import annotations

import logging

from deriva_ml_core.forklock import ForkSafeRLock
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.story import Event, StatusSet
from deriva_ml_core.models import StatusUpdate

__all__ = ["BufferedJournal"]

log = logging.getLogger(__name__)


class BufferedJournal:
    """Writes a journal's lines in order, and never raises what would end a training.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._buffer: list[Event] = []
        self._is_failing = False
        """Whether the last line could not be written, which has been said."""
        self._lock = ForkSafeRLock()

    def append(self, *events: Event) -> list[Event]:
        """Write lines, those first that were refused before.

        Returns:
            What was written now.
        """
        written = []
        with self._lock:
            self._buffer += events
            try:
                while self._buffer:
                    self._journal.append(self._buffer[0])
                    written.append(self._buffer.pop(0))
                self._is_failing = False
            except OSError as error:
                if not self._is_failing:
                    log.warning("%s cannot be written yet, and is as soon as it can: %s", self._journal.path, error)
                self._is_failing = True
        return written

    @property
    def last_status(self) -> StatusUpdate | None:
        """The last status, whether or not it is written yet; None before the first."""
        waiting = [event.update for event in self._buffer if isinstance(event, StatusSet)]
        return next(reversed(waiting or self._journal.state.statuses), None)
