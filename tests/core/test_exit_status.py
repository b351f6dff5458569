"""The final status of a run, exit callbacks, and SIGTERM."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.exit_status import final_status


@pytest.fixture(autouse=True)
def restore_handler() -> Iterator[None]:
    """Restore the SIGTERM handler after the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_exception_after_sigterm_is_in_the_reason() -> None:
    """An exception after SIGTERM is in the reason, such as a broken connection; the handler's SystemExit is not."""
    assert final_status(ValueError("no data"), terminated=True) == (Status.aborted, "SIGTERM, then ValueError: no data")
    assert final_status(SystemExit(143), terminated=True) == (Status.aborted, "SIGTERM")
    assert final_status(ValueError("no data"), terminated=False) == (Status.failed, "ValueError: no data")
    assert final_status(SystemExit(0), terminated=False) == (Status.completed, "")


def test_ignored_sigterm_does_not_abort(exe: Execution) -> None:
    """If the user ignores SIGTERM, a later exception fails the run."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with pytest.raises(ValueError, match="no data"), exe:
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("no data")
    assert (exe.status, exe.status_detail) == (Status.failed, "ValueError: no data")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_callbacks_run_in_reverse_order_before_the_end(exe: Execution) -> None:
    """Each callback runs once, while the status is Running, with the exception that ended the block."""
    calls: list[object] = []
    with exe:
        exe.add_exit_callback(lambda error: calls.append(("first", error, exe.status)))
        exe.add_exit_callback(lambda error: calls.append(("second", error, exe.status)))
    assert calls == [("second", None, Status.running), ("first", None, Status.running)]
    assert exe.status is Status.completed


def test_callback_gets_the_exception(exe: Execution) -> None:
    """The callback gets the exception that leaves the block; the exception propagates."""
    calls: list[object] = []
    failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), exe:
        exe.add_exit_callback(calls.append)
        raise failure
    assert calls == [failure]


def test_failing_callback_does_not_stop_the_end(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of a callback is logged; the other callbacks run and the run ends normally."""
    calls: list[object] = []
    with exe:
        exe.add_exit_callback(calls.append)
        exe.add_exit_callback(lambda error: 1 / 0)
    assert (calls, exe.status) == ([None], Status.completed)
    assert "ZeroDivisionError" in caplog.text


def test_interrupt_in_a_callback_does_not_stop_the_end(exe: Execution) -> None:
    """Ctrl-C in a callback ends only that callback; the others run, and the run ends as it would."""
    calls: list[object] = []

    def wait(_: BaseException | None) -> None:
        raise KeyboardInterrupt("the second")

    with pytest.raises(KeyboardInterrupt, match="the second"), exe:
        exe.add_exit_callback(calls.append)
        exe.add_exit_callback(wait)
        raise ValueError("no data")
    assert len(calls) == 1
    assert (exe.status, exe.status_detail) == (Status.failed, "ValueError: no data")
