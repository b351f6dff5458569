"""How a run ended: what the way out of its ``with`` says, and the signal that asked for it."""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import JOURNAL_FILENAME, RankFailed

__all__ = [
    "ExitCallbacks",
    "SigtermHandler",
    "final_status",
    "format_catalog_duration",
    "report_failure",
    "resolve_final_status",
    "root_cause",
]

log = logging.getLogger(__name__)


class ExitCallbacks:
    """What is done when the ``with`` of a run is left, before its end is recorded.

    Args:
        execution: Whose.
    """

    def __init__(self, execution: RID) -> None:
        self._execution = execution
        self._started_at: float | None = None
        self.callbacks: list[Callable[[BaseException | None], object]] = []
        """Each is told what the ``with`` is left by, None where it ran to its end; the last is done first."""

    @property
    def elapsed(self) -> float:
        """How long the tasks have been at it; 0 where they are not."""
        return 0.0 if self._started_at is None else monotonic() - self._started_at

    def run(self, error: BaseException | None) -> BaseException | None:
        """Do the tasks once; what one raises is logged, and Ctrl-C, which ends only what was waited for, returned."""
        self._started_at = monotonic()
        impatience: BaseException | None = None
        while self.callbacks:
            try:
                self.callbacks.pop()(error)
            except Exception:
                log.warning("Something before the end of execution %s failed.", self._execution, exc_info=True)
            except BaseException as another:  # noqa: BLE001 - Ctrl-C while something is waited for
                impatience = another
        self._started_at = None
        return impatience


class SigtermHandler:
    """While it watches, SIGTERM leaves the ``with`` by SystemExit(143) instead of killing the process outright.

    A handler that the user has set is called as before; off the main thread nothing is watched.
    """

    def __init__(self) -> None:
        self.terminated = False
        self._previous_handler: Any = None
        self._is_installed = False
        self._is_deferring = self._is_pending = False

    def install(self, *, replace_default: bool = True) -> None:
        """Begin to watch.

        Args:
            replace_default: Whether to watch also where nobody else does; otherwise SIGTERM goes on killing outright
                there.
        """
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.getsignal(signal.SIGTERM)
            # None: a handler that was not set from Python, which cannot be put back
            if callable(self._previous_handler) or (replace_default and self._previous_handler is not None):
                signal.signal(signal.SIGTERM, self._handle_signal)
                self._is_installed = True

    def defer(self) -> None:
        """Let the next SIGTERM wait until `stop`: a launcher sends it while the end of a failed run is recorded."""
        self._is_deferring = True

    def uninstall(self) -> None:
        """Put back what was there, unless somebody has set another handler meanwhile; then what waited comes."""
        if self._is_installed and signal.getsignal(signal.SIGTERM) == self._handle_signal:
            signal.signal(signal.SIGTERM, self._previous_handler)
        self._is_installed = self._is_deferring = False
        if self._is_pending:
            self._is_pending = False
            os.kill(os.getpid(), signal.SIGTERM)

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_deferring and not self._is_pending:
            self._is_pending = True
            return
        if self._previous_handler == signal.SIG_IGN:
            return
        self.terminated = True
        if callable(self._previous_handler):
            self._previous_handler(number, frame)
        else:
            raise SystemExit(128 + number)


def final_status(error: BaseException | None, *, terminated: bool) -> tuple[Status, str]:
    """The state that a run ends in, and the error that it ends by.

    Args:
        error: What leaves the ``with``; None where it runs to its end.
        terminated: Whether SIGTERM came.

    Returns:
        Completed, also for SystemExit(0); Aborted for Ctrl-C, also as the SystemExit that a framework makes of it, and
        for SIGTERM; else Failed, with the exception's type and message, which stand beside SIGTERM too.
    """
    if error is None:
        return Status.completed, ""
    if _is_interrupt(error):
        return Status.aborted, "KeyboardInterrupt"
    if terminated:
        words = f", then {type(error).__name__}: {error}" if isinstance(error, Exception) else ""
        return Status.aborted, f"SIGTERM{words}"
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return Status.completed, ""
    return Status.failed, f"{type(error).__name__}: {error}"


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, KeyboardInterrupt):
        return True
    earlier = error.__cause__ or error.__context__
    return isinstance(error, SystemExit) and earlier is not None and _is_interrupt(earlier)


def format_catalog_duration(duration: timedelta) -> str:
    """A duration as catalogs write it: ``0.0H 1.0min 2.3456sec``."""
    minutes, seconds = divmod(duration.total_seconds(), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:.1f}H {minutes:.1f}min {seconds:.4f}sec"


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
