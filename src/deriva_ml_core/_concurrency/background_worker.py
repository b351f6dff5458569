"""One thread beside the run, for what the run must not wait for."""

from __future__ import annotations

import logging
import os
import queue
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import TYPE_CHECKING, TypeVar

from deriva_ml_core._concurrency.fork_safe_lock import ForkSafeRLock

__all__ = ["BackgroundWorker", "run_in_background"]

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

log = logging.getLogger(__name__)

IDLE_TIMEOUT = 5.0
"""How long a thread waits for another task before it ends; a process may make thousands of executions."""

MIN_DRAIN_TIMEOUT = 0.1
"""What is done already needs this long, on a busy machine, to say so."""


class BackgroundWorker:
    """Does tasks one after the other, on a daemon thread that is begun by the first of them.

    A forked child begins with no tasks: those of its parent are the parent's.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = ForkSafeRLock()
        self._is_running = False
        self._reset()

    def __reduce__(self) -> tuple[type[BackgroundWorker], tuple[str]]:
        return BackgroundWorker, (self._name,)  # in another process, one with no tasks

    def submit(self, task: Callable[[], object]) -> None:
        """Have a task done; it returns at once.

        Args:
            task: What it raises is logged as a warning.
        """
        with self._lock:
            if self._pid != os.getpid():
                self._reset()
            self._tasks.put(task)
            if not self._is_running:
                self._is_running = True
                Thread(target=self._run, args=(self._tasks,), name=self._name, daemon=True).start()

    def drain(self, timeout: float) -> bool:
        """Wait until all that was submitted before is done.

        Args:
            timeout: How long at most.

        Returns:
            Whether it is.
        """
        if self._pid != os.getpid() or not self._is_running:
            return True
        done, hurry = _DrainMarker(), self._drain_requested
        self.submit(done)
        hurry.set()
        try:
            return done.reached.wait(max(timeout, MIN_DRAIN_TIMEOUT))
        finally:
            hurry.clear()

    def pause(self, seconds: float, *, min_seconds: float = 0.0) -> None:
        """Let time pass inside a task.

        Args:
            seconds: How long.
            min_seconds: How long while somebody drains, who should not wait for the rest.
        """
        begun = time.monotonic()
        self._drain_requested.wait(seconds)
        if (left := min(min_seconds, seconds) - (time.monotonic() - begun)) > 0:
            time.sleep(left)

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._tasks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._drain_requested = Event()
        self._is_running = False

    def _run(self, tasks: queue.SimpleQueue[Callable[[], object]]) -> None:
        idle = IDLE_TIMEOUT
        while True:
            try:
                task = tasks.get(timeout=idle)
            except queue.Empty:
                with self._lock:
                    if tasks.empty():
                        self._is_running = False
                        return
                continue
            try:
                task()
            except (Exception, SystemExit):
                log.warning("What %s was to do failed; the run goes on.", self._name, exc_info=True)
            # whoever waited for the end has nothing more to do, most of the time
            idle = 0.0 if isinstance(task, _DrainMarker) else IDLE_TIMEOUT
            del task  # a thread at rest keeps nothing alive


class _DrainMarker:
    """The task that says that all before it is done."""

    def __init__(self) -> None:
        self.reached = Event()

    def __call__(self) -> None:
        self.reached.set()


def run_in_background(name: str, task: Callable[[], T]) -> Future[T]:
    """Do something on a thread of its own, which the end of the process waits for."""
    from concurrent.futures import ThreadPoolExecutor

    thread = ThreadPoolExecutor(1, thread_name_prefix=name)
    future = thread.submit(task)
    thread.shutdown(wait=False)
    return future
