"""Determines the final status of a run: from its exception, SIGTERM, failures of other ranks, or its dead process."""

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

from deriva_ml_core._text import describe_error
from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import JOURNAL_FILENAME, ExecutionState, RankFailed

__all__ = [
    "ExitCallbacks",
    "SigtermHandler",
    "effective_status",
    "final_status",
    "format_catalog_duration",
    "report_failure",
    "resolve_final_status",
    "root_cause",
]

log = logging.getLogger(__name__)

PRUNED_EXCEPTION = ("optuna.exceptions", "TrialPruned")
"""Module and name of the exception with which a program ends a trial of Optuna, see optuna.TrialPruned."""


class ExitCallbacks:
    """Callbacks that run when the ``with`` block of an execution is left, before its end is recorded.

    Args:
        execution: RID of the execution.
    """

    def __init__(self, execution: RID) -> None:
        self._execution = execution
        self._started_at: float | None = None
        self.callbacks: list[Callable[[BaseException | None], object]] = []
        """Functions of the exception that leaves the block, None if it ran to its end; the last one runs first."""

    @property
    def elapsed(self) -> float:
        """Seconds since the callbacks started; 0 while they do not run."""
        return 0.0 if self._started_at is None else monotonic() - self._started_at

    def run(self, error: BaseException | None) -> BaseException | None:
        """Run the callbacks once and log their exceptions.

        Returns:
            The last Ctrl-C (or other exception that is no `Exception`) raised meanwhile: it ends only the callback that
            waits, not the remaining ones.
        """
        self._started_at = monotonic()
        interrupt: BaseException | None = None
        while self.callbacks:
            try:
                self.callbacks.pop()(error)
            except Exception:
                log.warning("An exit callback of execution %s failed.", self._execution, exc_info=True)
            except BaseException as raised:  # noqa: BLE001 - Ctrl-C while a callback waits
                interrupt = raised
        self._started_at = None
        return interrupt


class SigtermHandler:
    """While installed, turns SIGTERM into SystemExit(143), which leaves the ``with`` block.

    A handler that the user has set is still called. Outside the main thread nothing is installed.
    """

    def __init__(self) -> None:
        self.terminated = False
        self._previous_handler: Any = None
        self._is_installed = False
        self._is_deferring = self._is_pending = False

    def install(self, *, replace_default: bool = True) -> None:
        """Install the handler.

        Args:
            replace_default: Whether to replace the default action too; otherwise SIGTERM without a handler still kills
                the process.
        """
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.getsignal(signal.SIGTERM)
            # None: a handler that was not set from Python and cannot be restored
            if callable(self._previous_handler) or (replace_default and self._previous_handler is not None):
                signal.signal(signal.SIGTERM, self._handle_signal)
                self._is_installed = True

    def defer(self) -> None:
        """Hold the next SIGTERM back until `uninstall`: launchers send it while the end of a failed run is recorded."""
        self._is_deferring = True

    def uninstall(self) -> None:
        """Restore the previous handler unless another was set meanwhile, then raise a deferred SIGTERM.

        A handler that cannot be removed, because another was set on top of it or in another thread than the main one,
        does what the previous one does. It is removed with the one on top of it.
        """
        was_installed, self._is_installed, self._is_deferring = self._is_installed, False, False
        is_main_thread = threading.current_thread() is threading.main_thread()
        if was_installed and is_main_thread and signal.getsignal(signal.SIGTERM) == self._handle_signal:
            signal.signal(signal.SIGTERM, self._find_previous_handler())
        if self._is_pending:
            self._is_pending = False
            os.kill(os.getpid(), signal.SIGTERM)

    def _find_previous_handler(self) -> Any:
        """Return the handler to restore: the previous one, without those of runs that have ended."""
        handler = self._previous_handler
        while isinstance(owner := getattr(handler, "__self__", None), SigtermHandler) and not owner._is_installed:
            handler = owner._previous_handler
        return handler

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._is_installed:
            self._pass_on(number, frame)
            return
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

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Do what the previous handler does, since the run of this one has ended."""
        handler = self._find_previous_handler()
        if callable(handler):
            handler(number, frame)
        elif handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def final_status(error: BaseException | None, *, terminated: bool) -> tuple[Status, str]:
    """Return the final status of a run and its error text.

    Args:
        error: The exception that leaves the ``with`` block; None if the block ran to its end.
        terminated: Whether SIGTERM was received.

    Returns:
        Completed, also for SystemExit(0). Aborted for Ctrl-C, also if a framework converts it to SystemExit, for
        SIGTERM, and for ``optuna.TrialPruned``, which ends a trial that is not promising. Otherwise Failed. The text
        holds the exception's type and message, for SIGTERM as well.
    """
    if error is None:
        return Status.completed, ""
    if _is_interrupt(error):
        return Status.aborted, "KeyboardInterrupt"
    if terminated:
        suffix = f", then {describe_error(error)}" if isinstance(error, Exception) else ""
        return Status.aborted, f"SIGTERM{suffix}"
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return Status.completed, ""
    return Status.aborted if _is_pruned(error) else Status.failed, describe_error(error)


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, KeyboardInterrupt):
        return True
    earlier = error.__cause__ or error.__context__
    return isinstance(error, SystemExit) and earlier is not None and _is_interrupt(earlier)


def _is_pruned(error: BaseException) -> bool:
    """Whether an exception is Optuna's TrialPruned or a subclass; Optuna need not be installed."""
    return any((kind.__module__, kind.__name__) == PRUNED_EXCEPTION for kind in type(error).__mro__)


def format_catalog_duration(duration: timedelta) -> str:
    """Format a duration as in the column Duration: ``0.0H 1.0min 2.3456sec``."""
    minutes, seconds = divmod(duration.total_seconds(), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:.1f}H {minutes:.1f}min {seconds:.4f}sec"


PEER_LOST_PATTERN = re.compile(
    r"^Dist\w*Error:|gloo|NCCL|Connection (closed|reset) by peer|Broken pipe|pair closure|Timed out waiting", re.I
)
"""Errors of torch's backends for a lost peer: its error classes, and the messages of plain RuntimeErrors."""

FAILURE_TIMEOUT, POLL_INTERVAL = 2.0, 0.05
"""Seconds that rank 0 waits for the failure report of a lost process, and seconds between two polls."""


def report_failure(folder: Path, rank: int, error: str) -> None:
    """Write the failure of a rank to the execution's journal, if the journal can be reached.

    Args:
        folder: The execution's working folder.
        rank: Rank of the failed process.
        error: The exception's type and message.
    """
    from deriva_ml_core.redaction import redact_text

    path = folder / JOURNAL_FILENAME
    failure = RankFailed(rank=rank, host=platform.node(), error=redact_text(error))
    try:
        if path.is_file():
            Journal(path).append(failure)
    except DerivaMLException as reason:
        log.warning("Failed to write the failure of rank %d to %s: %s", rank, path, reason)


def resolve_final_status(journal: Journal, status: Status, reason: str) -> tuple[Status, str]:
    """Return the final status and reason of a distributed run, given the failures of all ranks.

    Args:
        journal: The journal that the ranks report failures to.
        status: Final status of rank 0 by itself.
        reason: Reason of rank 0 by itself.

    Returns:
        Failed with the root cause, if rank 0 only lost its peer or was terminated because of it. An error of rank 0
        itself stays, and so does Ctrl-C.
    """
    lost_peer = status is Status.failed and PEER_LOST_PATTERN.search(reason) is not None
    failures = _wait_for_failures(journal) if lost_peer else journal.state.failures
    cause = root_cause(failures)
    if status is Status.completed and failures:
        return Status.failed, cause or _format_failure(failures[0])
    if cause is None or reason == "KeyboardInterrupt":
        return status, reason
    if status is Status.failed and not lost_peer:
        return status, f"{reason} (and {cause})"
    return Status.failed, cause


def root_cause(failures: Sequence[RankFailed]) -> str | None:
    """Find the rank whose failure caused a distributed run to fail.

    Returns:
        Rank and error, such as ``rank 1: ValueError: no data``; None if all ranks failed only because they lost a peer.
    """
    return next((_format_failure(failure) for failure in failures if not PEER_LOST_PATTERN.search(failure.error)), None)


def _format_failure(failure: RankFailed) -> str:
    return f"rank {failure.rank}: {failure.error}"


def _wait_for_failures(journal: Journal) -> list[RankFailed]:
    """Return the reported failures; wait shortly for the first, since a connection can break before the report."""
    deadline = time.monotonic() + FAILURE_TIMEOUT
    while not journal.state.failures and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
    return journal.state.failures


def effective_status(state: ExecutionState | None) -> tuple[Status, str] | None:
    """Return the last status and message of a journal; Aborted or Failed if its process has died.

    Returns:
        None if the journal has no status of its own: there is no journal, the execution is just being created, or all
        statuses were downloaded from the catalog, whose row may be newer.
    """
    if state is None or (state.is_restored and not state.has_local_statuses):
        return None
    if _has_dead_process(state):
        assert state.process is not None
        if (cause := root_cause(state.failures)) is not None:
            return Status.failed, cause
        what = "run" if state.is_created else "creation"
        last_message = f"; last message: {state.statuses[-1].message or state.status}" if state.statuses else ""
        process = f"process {state.process.pid} on {state.process.host}"
        return Status.aborted, f"The {what} ended without reporting a status ({process}){last_message}"
    if not state.statuses:
        return None
    last = state.statuses[-1]
    return last.status, last.error or last.message


def _has_dead_process(state: ExecutionState) -> bool:
    """Whether the process that ran the execution, or was creating it, has ended.

    An execution that was created and has not started may still be run by another process.
    """
    if state.status.is_terminal or state.process is None:
        return False
    is_not_started = state.is_created and state.start_time is None and state.status is Status.created
    return not is_not_started and state.process.is_dead() is True
