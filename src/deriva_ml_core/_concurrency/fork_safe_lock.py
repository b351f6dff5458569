"""A lock that is free in a forked child, where the thread that held it does not exist."""

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
        """Acquire the lock.

        Args:
            timeout: Maximum seconds to wait; -1 for no limit.

        Returns:
            Whether the lock was acquired.
        """
        if self._pid != os.getpid():
            self._lock, self._pid = RLock(), os.getpid()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
