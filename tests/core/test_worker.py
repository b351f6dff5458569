"""The thread beside the run: in order, never waited for beyond a bound, begun anew where it is needed."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Iterator
from threading import Event

import pytest

from deriva_ml_core._concurrency.background_worker import BackgroundWorker, run_in_background


@pytest.fixture
def gate() -> Iterator[Event]:
    """What a task may wait for; opened at the end of the test in any case."""
    event = Event()
    yield event
    event.set()


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_tasks_are_done_in_order() -> None:
    """All that was submitted is done, each after the one before it, when a drain returns."""
    worker, done = BackgroundWorker("in order"), []
    for number in range(1000):
        worker.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert worker.drain(60)
    assert done == list(range(1000))


def test_there_is_no_thread_before_the_first_task() -> None:
    """A worker that nobody needs costs no thread, and nothing to wait for."""
    worker = BackgroundWorker("unneeded")
    assert worker.drain(0)
    assert threads("unneeded") == []


def test_submitting_returns_while_a_task_is_under_way(gate: Event) -> None:
    """However long a task takes, submitting does not wait for it."""
    worker, done = BackgroundWorker("busy"), []
    worker.submit(gate.wait)
    worker.submit(lambda: done.append(1))
    assert done == []
    gate.set()
    assert worker.drain(60)
    assert done == [1]


def test_a_drain_is_bounded(gate: Event) -> None:
    """A task that does not end is waited for as long as was said, and what it says then is that it is not done."""
    worker = BackgroundWorker("hanging")
    worker.submit(gate.wait)
    assert not worker.drain(0.01)


def test_a_task_that_fails_is_logged_and_the_next_is_done(caplog: pytest.LogCaptureFixture) -> None:
    """Neither an exception nor SystemExit ends the thread."""
    worker, done = BackgroundWorker("failing"), []

    def fail() -> None:
        raise ValueError("no such thing")

    def leave() -> None:
        raise SystemExit(3)

    with caplog.at_level(logging.WARNING):
        for task in (fail, leave, lambda: done.append(1)):
            worker.submit(task)
        assert worker.drain(60)
    assert done == [1]
    assert caplog.text.count("A background task of failing failed") == 2
    assert "no such thing" in caplog.text


def test_a_pause_is_cut_short_by_a_drain() -> None:
    """A task that lets time pass does not hold up the end."""
    worker = BackgroundWorker("pausing")
    worker.submit(lambda: worker.pause(1e6))
    worker.submit(lambda: worker.pause(1e6, min_seconds=0.01))
    assert worker.drain(60)


def test_the_thread_ends_and_begins_anew() -> None:
    """After a drain the thread goes, so that thousands of runs leave none; the next task begins another."""
    worker, done = BackgroundWorker("again"), []
    for number in range(3):
        worker.submit(lambda number=number: done.append(number))  # type: ignore[misc]
        assert worker.drain(60)
        for thread in threads("again"):
            thread.join(60)
        assert threads("again") == []
    assert done == [0, 1, 2]


def _in_child(worker: BackgroundWorker, results: multiprocessing.SimpleQueue[list[str]]) -> None:
    done: list[str] = []
    drained = worker.drain(0)
    worker.submit(lambda: done.append("child's"))
    results.put([str(drained), str(worker.drain(60)), *done])


def test_a_forked_child_has_its_own_tasks(gate: Event) -> None:
    """A child of a process whose worker is busy begins with none of its tasks, and has a thread of its own."""
    worker = BackgroundWorker("forked")
    worker.submit(gate.wait)
    worker.submit(lambda: None)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.SimpleQueue[list[str]] = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(worker, results))
    child.start()
    assert results.get() == ["True", "True", "child's"]
    child.join(60)
    assert child.exitcode == 0


def test_what_is_done_in_the_background_has_a_result() -> None:
    """It is a future's, as is what was raised."""
    assert run_in_background("test", lambda: 42).result(60) == 42
    with pytest.raises(ZeroDivisionError):
        run_in_background("test", lambda: 1 // 0).result(60)
