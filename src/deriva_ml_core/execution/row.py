"""An execution's row and its metrics, brought to where its journal is: at once, or beside the run until they are."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLTable
from deriva_ml_core.errors import CatalogCorrupt, CatalogReadOnly, CatalogUnavailable, DerivaMLException
from deriva_ml_core.execution.ending import duration_text
from deriva_ml_core.execution.scoring import Scoring
from deriva_ml_core.forklock import ForkLock
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.story import Story
from deriva_ml_core.worker import Worker

__all__ = ["RowWriter"]

log = logging.getLogger(__name__)

PACE = 0.25
"""Seconds between two writes beside the run, so that short epochs do not each take time from the training."""

FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0
"""Seconds before a catalog that failed is asked again: twice as long each time, up to the second of these."""

FINAL = (CatalogCorrupt, CatalogReadOnly)
"""What another attempt cannot mend."""


class RowWriter:
    """Writes what the journal says when the writing begins, one write at a time: a row never goes back.

    Args:
        connection: Where the row is.
        journal: What it should say.
        execution: Whose row it is; a dry run has none.
        worker: What writes it beside the run.
    """

    def __init__(self, connection: Connection, journal: Journal, execution: RID, worker: Worker | None = None) -> None:
        self._connection = connection
        self._journal = journal
        self._execution = execution
        self._lock = ForkLock()
        self._worker = worker or Worker("deriva-ml-row")
        self._due = 0
        """The process that has asked for a write which has not begun; 0 where none has."""
        self._warned = False
        self._written: dict[str, Any] | None = None
        self._scoring = Scoring(connection, execution)
        self._is_scored = True
        """Whether the metrics are written; not where the catalog refused them."""

    def write(self) -> None:
        """Write the row now.

        Raises:
            DerivaMLException: The catalog refuses, or cannot be reached.
        """
        if self._execution == DRY_RUN_RID:
            return
        patience = self._connection.patience
        if not self._lock.acquire(patience):
            raise CatalogUnavailable(
                f"The catalog has not answered for {patience:g} seconds to a write of the row of execution "
                f"{self._execution}; the row is written when it does."
            )
        try:
            self._write()
        finally:
            self._lock.release()

    def try_write(self) -> None:
        """Write the row now if the catalog takes it at the first attempt, else beside the run."""
        try:
            self.write()
        except Exception as error:  # noqa: BLE001 - a training goes on, whatever a catalog does
            self._warn(error)
            self.write_beside()
        else:
            if self._is_scored and self._scoring.is_behind(self._journal.story):
                self.write_beside()

    def write_metrics(self) -> None:
        """Write the metrics now, as far as the catalog does not have them; one that refuses is warned about."""
        try:
            self._scoring.look()
            self._scoring.write(self._journal.story)
        except DerivaMLException as error:
            self._warn_of_metrics(error)

    def write_beside(self) -> None:
        """Have the row written beside the run, again and again until the catalog has it; it returns at once."""
        if self._execution != DRY_RUN_RID and self._due != os.getpid():
            self._due = os.getpid()
            self._worker.submit(self._bring)

    def warn_of_delay(self) -> None:
        """Say that the end of the run could not wait for the row."""
        log.warning(
            "After %g seconds the catalog has not taken all of execution %s: its journal has it, and "
            "DerivaML(%r).restore_execution(%r) brings it there.",
            self._connection.patience,
            self._execution,
            self._connection.address.hostname or "",
            self._execution,
        )

    def _bring(self) -> None:
        wait = FIRST_WAIT
        while True:
            self._due = 0  # before the journal is read: what comes later is due again
            begun = time.monotonic()
            try:
                with self._lock:
                    if self._row(self._journal.story) != self._written:
                        self._write()
                self._score()
            except Exception as error:  # noqa: BLE001 - a training goes on, whatever a catalog does
                self._warn(error)
                if isinstance(error, FINAL):
                    return
                self._due = os.getpid()  # what comes now is written by the next attempt
                self._worker.pause(wait, least=FIRST_WAIT)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                self._worker.pause(PACE - (time.monotonic() - begun))
                return

    def _write(self) -> None:
        """Write until the row is what the journal says: another process may have gone on meanwhile, and written too."""
        self._written = None
        while (row := self._row(self._journal.story)) is not None and row != self._written:
            self._connection.catalog.update(MLTable.execution, [row])
            self._written = row
        self._warned = False

    def _score(self) -> None:
        """Write the metrics; a catalog that refuses them has all else of the run."""
        if not self._is_scored:
            return
        try:
            self._scoring.write(self._journal.story)
        except CatalogUnavailable:
            raise
        except DerivaMLException as error:
            self._is_scored = False
            self._warn_of_metrics(error)

    def _warn_of_metrics(self, error: DerivaMLException) -> None:
        log.warning("The metrics of execution %s cannot be written to the catalog: %s", self._execution, error)

    def _row(self, story: Story) -> dict[str, Any] | None:
        if not story.statuses:
            return None
        last = story.statuses[-1]
        row: dict[str, Any] = {
            "RID": self._execution,
            "Status": last.status,
            "Status_Detail": last.error or last.message,
        }
        if story.start is not None:
            row["Duration"] = None if story.stop is None else duration_text(story.spent)
        return row

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            log.warning("The status of execution %s could not be written yet: %s", self._execution, error)
