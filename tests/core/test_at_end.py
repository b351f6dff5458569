"""What is to be done when the ``with`` of an execution is left, however it is left."""

from __future__ import annotations

import pytest

from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution


def test_what_was_asked_for_last_is_done_first_and_before_the_end(exe: Execution) -> None:
    """Each task is told what ended the run, while that still runs; once."""
    seen: list[object] = []
    with exe:
        exe.add_exit_callback(lambda error: seen.append(("first", error, exe.status)))
        exe.add_exit_callback(lambda error: seen.append(("second", error, exe.status)))
    assert seen == [("second", None, Status.running), ("first", None, Status.running)]
    assert exe.status is Status.completed


def test_a_failure_is_told(exe: Execution) -> None:
    """The exception that leaves the ``with`` is what the task is given, and it goes on up."""
    seen: list[object] = []
    failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), exe:
        exe.add_exit_callback(seen.append)
        raise failure
    assert seen == [failure]


def test_a_task_that_fails_keeps_no_end_from_being_recorded(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """What a task raises is logged; those before it are done, and the run ends as it would."""
    seen: list[object] = []
    with exe:
        exe.add_exit_callback(seen.append)
        exe.add_exit_callback(lambda error: 1 / 0)
    assert (seen, exe.status) == ([None], Status.completed)
    assert "ZeroDivisionError" in caplog.text


def test_a_second_interrupt_keeps_no_end_from_being_recorded(exe: Execution) -> None:
    """Ctrl-C while a task waits ends that wait alone: the others are done, and the run ends as it would."""
    seen: list[object] = []

    def wait(_: BaseException | None) -> None:
        raise KeyboardInterrupt("the second")

    with pytest.raises(KeyboardInterrupt, match="the second"), exe:
        exe.add_exit_callback(seen.append)
        exe.add_exit_callback(wait)
        raise ValueError("no data")
    assert len(seen) == 1
    assert (exe.status, exe.status_detail) == (Status.failed, "ValueError: no data")
