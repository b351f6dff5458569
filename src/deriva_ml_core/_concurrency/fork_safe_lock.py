"""A lock that a forked child starts afresh, since the thread that held it then is not there."""

from __future__ import annotations

import os
from threading import RLock
from types import TracebackType

__all__ = ["ForkSafeRLock"]


class ForkSafeRLock:
    """A reentrant lock between the threads of one process."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._pid = os.getpid()

    def acquire(self, timeout: float = -1) -> bool:
        """Take the lock.

        Args:
            timeout: How long to wait for it; for ever by default.

        Returns:
            Whether it was taken.
        """
        if self._pid != os.getpid():
            self._lock, self._pid = RLock(), os.getpid()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Give it back."""
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
