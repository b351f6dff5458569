"""How a run ended: what the way out of its ``with`` says, and the signal that asked for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from types import FrameType
from typing import Any

from deriva_ml_core.definitions import RID, Status

__all__ = ["ExitCallbacks", "SigtermHandler", "format_catalog_duration", "final_status"]

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
            except BaseException as another:
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
            replace_default: Whether to watch also where nobody else does; otherwise SIGTERM goes on killing outright there.
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
