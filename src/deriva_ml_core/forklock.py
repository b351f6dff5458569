"""A lock that a forked child starts afresh, since the thread that held it then is not there."""

from __future__ import annotations

import os
from threading import RLock
from types import TracebackType

__all__ = ["ForkLock"]


class ForkLock:
    """A reentrant lock between the threads of one process."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._pid = os.getpid()

    def __enter__(self) -> None:
        if self._pid != os.getpid():
            self._lock, self._pid = RLock(), os.getpid()
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
