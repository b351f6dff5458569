"""Several threads share a piece of work, and are let go of soon."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import closing
from threading import Barrier, Event

import pytest

from deriva_ml_core._concurrency.thread_pool import map_unordered


def test_all_is_done_once() -> None:
    """Each item comes back once, with what came of it."""
    with closing(map_unordered(lambda number: number * number, range(100), 4, name="square")) as done:
        assert sorted(done) == [(number, number * number) for number in range(100)]


def test_at_once() -> None:
    """As many are in hand at once as was said."""
    met = Barrier(3, timeout=60)
    with closing(map_unordered(lambda _: met.wait(), range(6), 3, name="meet")) as done:
        assert len(list(done)) == 6


@pytest.mark.parametrize(("items", "workers"), [(1, 4), (5, 1), (0, 4)])
def test_without_threads(items: int, workers: int) -> None:
    """One worker's work, and one item's, is done where it is asked for."""
    with closing(map_unordered(lambda _: threading.get_ident(), range(items), workers, name="here")) as done:
        assert {ident for _, ident in done} <= {threading.get_ident()}


@pytest.mark.parametrize("given", [0, 1])
def test_a_system_that_gives_few_threads(monkeypatch: pytest.MonkeyPatch, given: int) -> None:
    """What several threads were to do is done by those that there are, or where it is asked for."""
    left, start = [None] * given, threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if not left:
            raise RuntimeError("can't start new thread")
        left.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with closing(map_unordered(lambda _: threading.get_ident(), range(6), 3, name="few")) as done:
        found = list(done)
    assert sorted(number for number, _ in found) == [0, 1, 2, 3, 4, 5]
    assert ({ident for _, ident in found} == {threading.get_ident()}) is (given == 0)


def test_what_comes_first_is_told_first() -> None:
    """A slow item holds up no other."""
    late = Event()
    told = []
    with closing(map_unordered(lambda number: number or late.wait(60), range(4), 2, name="late")) as done:
        for number, _ in done:
            told.append(number)
            if len(told) == 3:
                late.set()
    assert told[-1] == 0


def test_an_error_ends_the_work() -> None:
    """What a task raises is raised where the results are asked for, and no further item is begun."""
    begun = []
    stop = Event()

    def task(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise KeyError(number)
        stop.wait(60)

    with (
        pytest.raises(KeyError, match="1"),
        closing(map_unordered(task, range(50), 2, name="failing", stop=stop)) as done,
    ):
        list(done)
    assert sorted(begun) == [0, 1]


def test_left_early() -> None:
    """Who closes it before the end gets no further item begun, and tasks in hand are told to stop."""
    stop = Event()
    with closing(map_unordered(lambda number: number and stop.wait(60), range(50), 2, name="left", stop=stop)) as done:
        assert next(done)[0] == 0
    assert stop.is_set()
    assert list(done) == []


HANGING = """
import os, signal
from contextlib import closing
from threading import Barrier, Event
from deriva_ml_core._concurrency.thread_pool import map_unordered

met = Barrier(2, action=lambda: os.kill(os.getpid(), signal.SIGINT))

def hang(number):
    met.wait()
    Event().wait()

with closing(map_unordered(hang, range(2), 2, name="hanging")) as done:
    next(done)
"""


def test_a_task_that_hangs_holds_up_nothing() -> None:
    """Ctrl-C ends the work, and the process, though its tasks never return."""
    run = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=120)
    assert "KeyboardInterrupt" in run.stderr
    assert run.returncode != 0
