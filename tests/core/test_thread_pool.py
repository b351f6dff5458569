"""Running a task for many items on several threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from threading import Barrier, Event

import pytest

from deriva_ml_core._concurrency.thread_pool import map_unordered
from waits import HANG


def test_each_item_once() -> None:
    """Each item is yielded once, with its result."""
    with closing(map_unordered(lambda number: number * number, range(100), 4, name="square")) as results:
        assert sorted(results) == [(number, number * number) for number in range(100)]


def test_parallelism() -> None:
    """As many tasks run at once as there are workers."""
    met = Barrier(3, timeout=HANG)
    with closing(map_unordered(lambda _: met.wait(), range(6), 3, name="meet")) as results:
        assert len(list(results)) == 6


@pytest.mark.parametrize(("items", "workers"), [(1, 4), (5, 1), (0, 4)])
def test_without_threads(items: int, workers: int) -> None:
    """With one worker or one item, the task runs in the calling thread."""
    with closing(map_unordered(lambda _: threading.get_ident(), range(items), workers, name="inline")) as results:
        assert {ident for _, ident in results} <= {threading.get_ident()}


@pytest.mark.parametrize("available_threads", [0, 1])
def test_few_threads(monkeypatch: pytest.MonkeyPatch, available_threads: int) -> None:
    """If the system refuses threads, the others or the calling thread do the work."""
    available, start = [None] * available_threads, threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if not available:
            raise RuntimeError("can't start new thread")
        available.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with closing(map_unordered(lambda _: threading.get_ident(), range(6), 3, name="few")) as results:
        pairs = list(results)
    assert sorted(number for number, _ in pairs) == [0, 1, 2, 3, 4, 5]
    assert ({ident for _, ident in pairs} == {threading.get_ident()}) is (available_threads == 0)


def test_results_in_order_of_completion() -> None:
    """A slow item does not delay the others."""
    late = Event()
    numbers = []
    with closing(map_unordered(lambda number: number or late.wait(HANG), range(4), 2, name="late")) as results:
        for number, _ in results:
            numbers.append(number)
            if len(numbers) == 3:
                late.set()
    assert numbers[-1] == 0


def test_error_stops_the_iteration() -> None:
    """A task's exception is raised to the caller, and no further item is started."""
    started = []
    stop = Event()

    def task(number: int) -> None:
        started.append(number)
        if number == 1:
            raise KeyError(number)
        stop.wait(HANG)

    with (
        pytest.raises(KeyError, match="1"),
        closing(map_unordered(task, range(50), 2, name="failing", stop=stop)) as results,
    ):
        list(results)
    assert sorted(started) == [0, 1]


def test_early_close() -> None:
    """Closing the iterator starts no further item, and sets `stop` for running tasks."""
    stop = Event()
    with closing(
        map_unordered(lambda number: number and stop.wait(HANG), range(50), 2, name="left", stop=stop)
    ) as results:
        assert next(results)[0] == 0
    assert stop.is_set()
    assert list(results) == []


HANGING = """
import os, signal
from contextlib import closing
from threading import Barrier, Event
from deriva_ml_core._concurrency.thread_pool import map_unordered

met = Barrier(2, action=lambda: os.kill(os.getpid(), signal.SIGINT))

def hang(number):
    met.wait()
    Event().wait()

with closing(map_unordered(hang, range(2), 2, name="hanging")) as results:
    next(results)
"""


def test_hanging_task_does_not_block_exit() -> None:
    """Ctrl-C ends the process although its tasks never return."""
    run = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True)
    assert "KeyboardInterrupt" in run.stderr
    assert run.returncode != 0
