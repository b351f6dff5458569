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
from deriva_ml_core.journal.story import JOURNAL_FILENAME, RankFailed

__all__ = ["resolve_final_status", "root_cause", "report_failure"]

log = logging.getLogger(__name__)

PEER_LOST_PATTERN = re.compile(
    r"^Dist\w*Error:|gloo|NCCL|Connection (closed|reset) by peer|Broken pipe|pair closure|Timed out waiting", re.I
)
"""How torch's backends say that another process is gone: its error classes, and the words of plain RuntimeErrors."""

FAILURE_TIMEOUT, POLL_INTERVAL = 2.0, 0.05
"""Seconds that rank zero waits for the word of a process that is gone, and seconds between two looks."""


def report_failure(folder: Path, rank: int, error: str) -> None:
    """Write into the journal of the execution that a process of it has failed, where the journal can be reached.

    Args:
        folder: The execution's working folder.
        rank: The process's rank.
        error: The exception's type and message.
    """
    from deriva_ml_core.redaction import redact_text

    path = folder / JOURNAL_FILENAME
    failure = RankFailed(rank=rank, host=platform.node(), error=redact_text(error))
    try:
        if path.is_file():
            Journal(path).append(failure)
    except OSError as reason:
        log.warning("The failure of rank %d could not be written to %s: %s", rank, path, reason)


def resolve_final_status(journal: Journal, status: Status, reason: str) -> tuple[Status, str]:
    """What a run ended by, with the failures of its other processes taken into account.

    Args:
        journal: Where they are written.
        status: What rank zero itself ended in.
        reason: What it ended by.

    Returns:
        Failed, by the first that failed of its own accord, where rank zero only noticed it or was ended for it; what
        rank zero did of its own accord stays, as does Ctrl-C.
    """
    noticed = status is Status.failed and PEER_LOST_PATTERN.search(reason) is not None
    failures = _wait_for_failures(journal) if noticed else journal.state.failures
    guilty = root_cause(failures)
    if status is Status.completed and failures:
        return Status.failed, guilty or _format_failure(failures[0])
    if guilty is None or reason == "KeyboardInterrupt":
        return status, reason
    if status is Status.failed and not noticed:
        return status, f"{reason} (and {guilty})"
    return Status.failed, guilty


def root_cause(failures: Sequence[RankFailed]) -> str | None:
    """The process that failed first of its own accord, such as ``rank 1: ValueError: no data``.

    Returns:
        None where all that failed only noticed that another was gone.
    """
    return next((_format_failure(failure) for failure in failures if not PEER_LOST_PATTERN.search(failure.error)), None)


def _format_failure(failure: RankFailed) -> str:
    return f"rank {failure.rank}: {failure.error}"


def _wait_for_failures(journal: Journal) -> list[RankFailed]:
    """The failures that are known, or become known shortly: a connection may break before its process has spoken."""
    end = time.monotonic() + FAILURE_TIMEOUT
    while not journal.state.failures and time.monotonic() < end:
        time.sleep(POLL_INTERVAL)
    return journal.state.failures
