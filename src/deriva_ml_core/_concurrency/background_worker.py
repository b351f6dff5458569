"""A background thread for work that must not delay the run."""

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
"""Seconds that an idle thread waits for a task before it ends; a process may create thousands of executions."""

MIN_DRAIN_TIMEOUT = 0.1
"""Minimum seconds to drain; on a busy machine, a thread needs them to report that its work is done."""


class BackgroundWorker:
    """Runs tasks one after another on a daemon thread, which the first task starts.

    A forked child starts without tasks; its parent runs its own.

    Args:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = ForkSafeRLock()
        self._is_running = self._has_warned = False
        self._reset()

    def __reduce__(self) -> tuple[type[BackgroundWorker], tuple[str]]:
        return BackgroundWorker, (self._name,)  # in another process: a worker without tasks

    def submit(self, task: Callable[[], object]) -> None:
        """Queue a task and return at once.

        Args:
            task: The task. An exception that it raises is logged as a warning.
        """
        with self._lock:
            if self._pid != os.getpid():
                self._reset()
            self._tasks.put(task)
            self._start_thread()

    def drain(self, timeout: float) -> bool:
        """Wait until all tasks submitted so far are done.

        Args:
            timeout: Maximum seconds to wait.

        Returns:
            Whether they are done.
        """
        if self._pid != os.getpid():
            return True
        with self._lock:
            if not self._is_running and self._tasks.empty():
                return True
            has_thread = self._start_thread()
        if not has_thread:
            return self._run_here(time.monotonic() + timeout)
        marker, drain_requested = _DrainMarker(), self._drain_requested
        self.submit(marker)
        drain_requested.set()
        try:
            return marker.reached.wait(max(timeout, MIN_DRAIN_TIMEOUT))
        finally:
            drain_requested.clear()

    def pause(self, seconds: float, *, min_seconds: float = 0.0) -> None:
        """Sleep inside a task; a drain shortens the sleep.

        Args:
            seconds: How long to sleep.
            min_seconds: How long to sleep during a drain.
        """
        start = time.monotonic()
        self._drain_requested.wait(seconds)
        if (remaining := min(min_seconds, seconds) - (time.monotonic() - start)) > 0:
            time.sleep(remaining)

    def _start_thread(self) -> bool:
        """Start the thread unless it runs; return whether it runs.

        If the system refuses to start threads, the tasks wait for the next submit or drain.
        """
        if self._is_running:
            return True
        thread = Thread(target=self._run, args=(self._tasks,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # a container's limit is reached, or the process is exiting
            if not self._has_warned:
                log.warning("Failed to start the thread %s; its tasks run later: %s", self._name, error)
            self._has_warned = True
            return False
        self._is_running, self._has_warned = True, False
        return True

    def _run_here(self, deadline: float) -> bool:
        """Run the waiting tasks in the calling thread; return whether all have run."""
        self._drain_requested.set()
        try:
            while time.monotonic() < deadline:
                try:
                    task = self._tasks.get_nowait()
                except queue.Empty:
                    return True
                self._run_task(task)
            return self._tasks.empty()
        finally:
            self._drain_requested.clear()

    def _run_task(self, task: Callable[[], object]) -> None:
        try:
            task()
        except (Exception, SystemExit):
            log.warning("A background task of %s failed; the run continues.", self._name, exc_info=True)

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
            self._run_task(task)
            # after a drain there is usually nothing more to do
            idle = 0.0 if isinstance(task, _DrainMarker) else IDLE_TIMEOUT
            del task  # an idle thread must not keep objects alive


class _DrainMarker:
    """A task that signals that all tasks before it are done."""

    def __init__(self) -> None:
        self.reached = Event()

    def __call__(self) -> None:
        self.reached.set()


def run_in_background(name: str, task: Callable[[], T]) -> Future[T]:
    """Run a task on its own thread; the interpreter waits for it on exit.

    If the system refuses to start the thread, the task runs in the calling thread before this returns.
    """
    from concurrent.futures import ThreadPoolExecutor

    thread = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        future = thread.submit(task)
    except RuntimeError as error:  # a container's limit is reached, or the process is exiting
        log.warning("Failed to start the thread %s; its task runs at once: %s", name, error)
        return _run_in_calling_thread(task)
    thread.shutdown(wait=False)
    return future


def _run_in_calling_thread(task: Callable[[], T]) -> Future[T]:
    from concurrent.futures import Future

    future: Future[T] = Future()
    try:
        future.set_result(task())
    except Exception as error:  # noqa: BLE001 - raised again where the result is read
        future.set_exception(error)
    return future
