"""Run a task for many items on several daemon threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import NoReturn, TypeVar

__all__ = ["map_unordered"]

T = TypeVar("T")
R = TypeVar("R")

STOP_TIMEOUT = 2.0
"""Maximum seconds to wait for running tasks when the iteration stops early."""


def map_unordered(
    task: Callable[[T], R], items: Sequence[T], workers: int, *, name: str, stop: Event | None = None
) -> Generator[tuple[T, R]]:
    """Run a task for each item, several at once, and yield each item with its result as soon as it is done.

    If one worker is enough, or the system refuses to start threads, everything runs in the calling thread. Close the
    iterator when you leave it early: ``with closing(map_unordered(...)) as results``.

    Args:
        task: The task. An exception that it raises is raised here, and ends the iteration.
        items: The arguments of the task.
        workers: Number of threads.
        name: Prefix of the threads' names.
        stop: Set when the iteration stops early. No further item is started, and a long task should check it.
    """
    if min(workers, len(items)) <= 1:
        yield from ((item, task(item)) for item in items)
        return
    # daemon threads, as a thread that waits for a network cannot be interrupted; those of an executor would delay the
    # exit of the process, and an executor accepts no work once the exit has begun
    done: SimpleQueue[tuple[T, Callable[[], R]]] = SimpleQueue()
    stop = stop or Event()
    pending: SimpleQueue[T] = SimpleQueue()
    for item in items:
        pending.put(item)
    threads = [
        Thread(target=_run_tasks, args=(task, pending, done, stop), name=f"{name}-{number}", daemon=True)
        for number in range(min(workers, len(items)))
    ]
    try:
        if not _start_threads(threads):
            yield from ((item, task(item)) for item in items)
            return
        for _ in items:
            item, result = done.get()
            yield item, result()
    except BaseException:  # including GeneratorExit of an early close
        stop.set()
        raise
    finally:
        deadline = time.monotonic() + STOP_TIMEOUT
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))


def _start_threads(threads: Sequence[Thread]) -> bool:
    """Start as many threads as the system allows; returns whether any started."""
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:  # a container's limit is reached, or the process is exiting
            return thread is not threads[0]
    return True


def _run_tasks(
    task: Callable[[T], R],
    pending: SimpleQueue[T],
    done: SimpleQueue[tuple[T, Callable[[], R]]],
    stop: Event,
) -> None:
    while not stop.is_set():
        try:
            item = pending.get_nowait()
        except Empty:
            return
        done.put((item, _capture_result(task, item, stop)))


def _capture_result(task: Callable[[T], R], item: T, stop: Event) -> Callable[[], R]:
    """Run a task; returns a function that returns its result or raises its exception."""
    try:
        result = task(item)
    except BaseException as error:  # noqa: BLE001 - raised again where the result is read
        stop.set()
        return _make_raiser(error)
    return lambda: result


def _make_raiser(error: BaseException) -> Callable[[], NoReturn]:
    def raise_error() -> NoReturn:
        raise error

    return raise_error
