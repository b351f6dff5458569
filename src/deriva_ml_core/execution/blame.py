"""Which process of a training brought it down: rank zero is often only the first to notice."""

from __future__ import annotations

import logging
import platform
import re
import time
from collections.abc import Sequence
from pathlib import Path

from deriva_ml_core.definitions import Status
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.story import JOURNAL, RankFailed

__all__ = ["blamed", "found_guilty", "report_failure"]

log = logging.getLogger(__name__)

NOTICED = re.compile(
    r"^Dist\w*Error:|gloo|NCCL|Connection (closed|reset) by peer|Broken pipe|pair closure|Timed out waiting", re.I
)
"""How torch's backends say that another process is gone: its error classes, and the words of plain RuntimeErrors."""

PATIENCE, PAUSE = 2.0, 0.05
"""Seconds that rank zero waits for the word of a process that is gone, and seconds between two looks."""


def report_failure(folder: Path, rank: int, error: str) -> None:
    """Write into the journal of the execution that a process of it has failed, where the journal can be reached.

    Args:
        folder: The execution's working folder.
        rank: The process's rank.
        error: The exception's type and message.
    """
    from deriva_ml_core.redaction import redact_text

    path = folder / JOURNAL
    failure = RankFailed(rank=rank, host=platform.node(), error=redact_text(error))
    try:
        if path.is_file():
            Journal(path).append(failure)
    except OSError as reason:
        log.warning("The failure of rank %d could not be written to %s: %s", rank, path, reason)


def blamed(journal: Journal, status: Status, reason: str) -> tuple[Status, str]:
    """What a run ended by, with the failures of its other processes taken into account.

    Args:
        journal: Where they are written.
        status: What rank zero itself ended in.
        reason: What it ended by.

    Returns:
        Failed, by the first that failed on its own account. What rank zero did on its own account stays, as do Ctrl-C
        and an end without other failures.
    """
    noticed = status is Status.failed and NOTICED.search(reason) is not None
    failures = _awaited(journal) if noticed else journal.story.failures
    if not failures or reason == "KeyboardInterrupt":
        return status, reason
    if status is Status.failed and not noticed:
        also = "" if NOTICED.search(_guilty(failures).error) else f" (and {found_guilty(failures)})"
        return status, f"{reason}{also}"
    return Status.failed, found_guilty(failures)


def found_guilty(failures: Sequence[RankFailed]) -> str:
    """The words for the process that failed first of its own accord, such as ``rank 1: ValueError: no data``."""
    guilty = _guilty(failures)
    return f"rank {guilty.rank}: {guilty.error}"


def _guilty(failures: Sequence[RankFailed]) -> RankFailed:
    return next((failure for failure in failures if not NOTICED.search(failure.error)), failures[0])


def _awaited(journal: Journal) -> list[RankFailed]:
    """The failures that are known, or become known shortly: a connection may break before its process has spoken."""
    end = time.monotonic() + PATIENCE
    while not journal.story.failures and time.monotonic() < end:
        time.sleep(PAUSE)
    return journal.story.failures
