"""Several threads that share one piece of work, and are let go of soon when it is wanted no more."""

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
"""Seconds that who stops early waits for what is in hand, to have it whole; it is not waited for any longer."""


def map_unordered(
    task: Callable[[T], R], items: Sequence[T], workers: int, *, name: str, stop: Event | None = None
) -> Generator[tuple[T, R]]:
    """Do a task for each item, several at once, and give each with what came of it as soon as it is done.

    Where one worker is enough, or the system gives no thread, all is done here. Close the iterator when it is left
    early: ``with closing(map_unordered(...)) as done``.

    Args:
        task: What to do. What it raises is raised here, and ends the work.
        items: For what.
        workers: How many at once.
        name: What to call the threads.
        stop: Set when nobody waits any more: no other item is begun, and a long task should look at it on its way.
    """
    if min(workers, len(items)) <= 1:
        yield from ((item, task(item)) for item in items)
        return
    # daemons, since nobody can interrupt a thread that waits for a network; an executor's would hold up the exit of
    # the process, and take no more work once that has begun
    done: SimpleQueue[tuple[T, Callable[[], R]]] = SimpleQueue()
    stop = stop or Event()
    waiting: SimpleQueue[T] = SimpleQueue()
    for item in items:
        waiting.put(item)
    threads = [
        Thread(target=_run_tasks, args=(task, waiting, done, stop), name=f"{name}-{number}", daemon=True)
        for number in range(min(workers, len(items)))
    ]
    try:
        if not _start_threads(threads):
            yield from ((item, task(item)) for item in items)
            return
        for _ in items:
            item, result = done.get()
            yield item, result()
    except BaseException:  # also where it is closed before its end
        stop.set()
        raise
    finally:
        until = time.monotonic() + STOP_TIMEOUT
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - time.monotonic()))


def _start_threads(threads: Sequence[Thread]) -> bool:
    """Start threads, as many as the system gives; returns whether that is any."""
    for thread in threads:
        try:
            thread.start()
        except RuntimeError:  # a container's limit is reached, or the process is ending
            return thread is not threads[0]
    return True


def _run_tasks(
    task: Callable[[T], R],
    waiting: SimpleQueue[T],
    done: SimpleQueue[tuple[T, Callable[[], R]]],
    stop: Event,
) -> None:
    while not stop.is_set():
        try:
            item = waiting.get_nowait()
        except Empty:
            return
        done.put((item, _capture_result(task, item, stop)))


def _capture_result(task: Callable[[T], R], item: T, stop: Event) -> Callable[[], R]:
    """What gives a task's result again, or raises again what it raised."""
    try:
        result = task(item)
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
        stop.set()
        return _make_raiser(error)
    return lambda: result


def _make_raiser(error: BaseException) -> Callable[[], NoReturn]:
    def again() -> NoReturn:
        raise error

    return again
