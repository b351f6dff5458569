"""The background worker: ordered, bounded waits, restarted on demand."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from threading import Event

import pytest

from deriva_ml_core._concurrency.background_worker import BackgroundWorker, run_in_background
from waits import HANG


@pytest.fixture
def gate() -> Iterator[Event]:
    """An event that a task can wait for; it is set at the end of the test."""
    event = Event()
    yield event
    event.set()


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_tasks_run_in_order() -> None:
    """All submitted tasks have run in order when drain returns."""
    worker, done = BackgroundWorker("in order"), []
    for number in range(1000):
        worker.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert worker.drain(60)
    assert done == list(range(1000))


def test_no_thread_before_the_first_task() -> None:
    """A worker without tasks starts no thread."""
    worker = BackgroundWorker("unneeded")
    assert worker.drain(0)
    assert threads("unneeded") == []


def test_submit_does_not_wait(gate: Event) -> None:
    """submit returns while another task runs."""
    worker, done = BackgroundWorker("busy"), []
    worker.submit(gate.wait)
    worker.submit(lambda: done.append(1))
    assert done == []
    gate.set()
    assert worker.drain(60)
    assert done == [1]


def test_drain_timeout(gate: Event) -> None:
    """drain returns False when a task does not end within the timeout."""
    worker = BackgroundWorker("hanging")
    worker.submit(gate.wait)
    assert not worker.drain(0.01)


def test_failed_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
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


def test_drain_shortens_a_pause() -> None:
    """A pausing task does not delay a drain."""
    worker = BackgroundWorker("pausing")
    worker.submit(lambda: worker.pause(1e6))
    worker.submit(lambda: worker.pause(1e6, min_seconds=0.01))
    assert worker.drain(60)


def test_thread_ends_after_a_drain() -> None:
    """After a drain the thread ends; the next task starts another."""
    worker, done = BackgroundWorker("again"), []
    for number in range(3):
        worker.submit(lambda number=number: done.append(number))  # type: ignore[misc]
        assert worker.drain(60)
        for thread in threads("again"):
            thread.join(HANG)
        assert threads("again") == []
    assert done == [0, 1, 2]


def _in_child(worker: BackgroundWorker, results: multiprocessing.SimpleQueue[list[str]]) -> None:
    done: list[str] = []
    drained = worker.drain(0)
    worker.submit(lambda: done.append("child's"))
    results.put([str(drained), str(worker.drain(60)), *done])


def test_forked_child_has_its_own_tasks(gate: Event) -> None:
    """A forked child starts without its parent's tasks, and has its own thread."""
    worker = BackgroundWorker("forked")
    worker.submit(gate.wait)
    worker.submit(lambda: None)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.SimpleQueue[list[str]] = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(worker, results))
    child.start()
    assert results.get() == ["True", "True", "child's"]
    child.join(HANG)
    assert child.exitcode == 0


def test_run_in_background() -> None:
    """The future has the task's result or exception."""
    assert run_in_background("test", lambda: 42).result(HANG) == 42
    with pytest.raises(ZeroDivisionError):
        run_in_background("test", lambda: 1 // 0).result(HANG)


def test_refused_thread_is_started_by_the_next_task(
    refuse_threads: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """If the system once refuses to start the thread, submit does not raise, and the next submit starts it."""
    worker, done, ran = BackgroundWorker("refused"), [], Event()
    refuse_threads(2)
    for number in range(3):
        worker.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    worker.submit(ran.set)
    assert ran.wait(HANG)
    assert done == [0, 1, 2]
    assert caplog.text.count("Failed to start the thread refused; its tasks run later: can't start new thread") == 1


def test_drain_without_a_thread(refuse_threads: Callable[[int], None], caplog: pytest.LogCaptureFixture) -> None:
    """If the system starts no thread at all, drain runs the tasks in order, and logs those that fail."""
    worker, done = BackgroundWorker("never"), []
    refuse_threads(1_000)
    worker.submit(lambda: done.append(1))
    worker.submit(lambda: 1 / 0)
    worker.submit(lambda: done.append(2))
    assert done == []
    assert worker.drain(60)
    assert done == [1, 2]
    assert "ZeroDivisionError" in caplog.text


def test_run_in_background_without_a_thread(
    refuse_threads: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """If the system refuses the thread, the task runs before the future is returned, with its result or exception."""
    refuse_threads(2)
    assert run_in_background("refused", lambda: 42).result(0) == 42
    with pytest.raises(ZeroDivisionError):
        run_in_background("refused", lambda: 1 // 0).result(0)
    assert caplog.text.count("Failed to start the thread refused; its task runs at once: can't start new thread") == 2


def test_interrupt_of_a_task_without_a_thread(refuse_threads: Callable[[int], None]) -> None:
    """If a task runs in the calling thread, Ctrl-C ends it as any other code there."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    refuse_threads(1)
    with pytest.raises(KeyboardInterrupt):
        run_in_background("refused", interrupt)
