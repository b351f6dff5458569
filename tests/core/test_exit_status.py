"""The final status of a run, exit callbacks, and SIGTERM."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from faulty_catalog import make_faulty_client

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.exit_status import final_status
from deriva_ml_core.journal.journal import load_state


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


@pytest.mark.parametrize("order", ["last first", "first first"])
def test_handler_is_restored_after_overlapping_runs(ml: DerivaML, config: ExecutionConfiguration, order: str) -> None:
    """When all runs of a process have ended, SIGTERM does what it did before, in whatever order they end."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    runs = [ml.create_execution(config) for _ in range(3)]
    for run in runs:
        run.__enter__()
    for run in runs if order == "first first" else reversed(runs):
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        run.__exit__(None, None, None)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert [run.status for run in runs] == [Status.completed] * 3


def test_handler_of_an_ended_run_passes_on(exe: Execution) -> None:
    """A handler that a user's handler calls after the run has ended does what the handler before the run does."""
    calls: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: calls.append("before the run"))
    with exe:
        inner = signal.getsignal(signal.SIGTERM)
        assert callable(inner)
        signal.signal(signal.SIGTERM, lambda number, frame: (calls.append("outer"), inner(number, frame)))
    os.kill(os.getpid(), signal.SIGTERM)
    assert calls == ["outer", "before the run"]


def test_run_that_ends_in_another_thread(exe: Execution) -> None:
    """A run that ends in another thread is recorded, and SIGTERM then does what it did before."""
    calls: list[str] = []
    signal.signal(signal.SIGTERM, lambda *_: calls.append("before the run"))
    exe.__enter__()
    thread = threading.Thread(target=exe.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert exe.status is Status.completed
    os.kill(os.getpid(), signal.SIGTERM)
    assert calls == ["before the run"]


class TrialPruned(Exception):
    """The exception of Optuna, which is not installed here."""

    __module__ = "optuna.exceptions"


class PrunedByMedian(TrialPruned):
    """A subclass of a user."""


def test_pruned_trial_is_aborted(exe: Execution) -> None:
    """A trial that Optuna prunes is Aborted with the reason, since pruning is no failure; the exception propagates."""
    with pytest.raises(TrialPruned), exe:
        raise TrialPruned("Trial was pruned at epoch 3.")
    assert (exe.status, exe.status_detail) == (Status.aborted, "TrialPruned: Trial was pruned at epoch 3.")
    assert final_status(PrunedByMedian("at 4"), terminated=False) == (Status.aborted, "PrunedByMedian: at 4")


def test_other_exception_of_that_name_fails() -> None:
    """An exception of another package with the name TrialPruned is a failure."""
    other = type("TrialPruned", (Exception,), {"__module__": "trials"})
    assert final_status(other("early"), terminated=False) == (Status.failed, "TrialPruned: early")


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


@pytest.mark.parametrize("ending", ["block end", "exception", "exit", "interrupt"])
def test_forked_child_does_not_end_the_run(ml: DerivaML, exe: Execution, ending: str) -> None:
    """A forked child that leaves through the ``with`` leaves the run, its exit callbacks and its row alone."""
    calls: list[object] = []
    endings = {"exception": ValueError("in the child"), "exit": SystemExit(3), "interrupt": KeyboardInterrupt()}
    child = 1
    try:
        with exe:
            exe.add_exit_callback(calls.append)
            child = os.fork()
            if child == 0 and ending in endings:
                raise endings[ending]
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                assert exe.status is Status.running
                assert ml.lookup_execution(exe.execution_rid).status is Status.running
                exe.update_status(Status.running, "after the child")
    finally:
        if child == 0:
            os._exit(0 if calls == [] and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL else 1)
    assert (calls, exe.status) == ([None], Status.completed)
    assert [update.status for update in exe.list_statuses()] == [
        Status.created,
        Status.running,
        Status.running,
        Status.completed,
    ]


def test_forked_child_that_enters_ends_the_run(ml: DerivaML, exe: Execution) -> None:
    """A child that entered the execution itself ends it."""
    child = os.fork()
    if child == 0:
        with exe:
            pass
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ml.lookup_execution(exe.execution_rid).status is Status.completed


def full_disk(exe: Execution) -> Callable[[], None]:
    """Let every write to the execution's journal fail with ENOSPC, until the returned function is called."""
    descriptor = exe._runtime.journal._open()
    saved, full = os.dup(descriptor), os.open("/dev/full", os.O_RDWR)
    os.dup2(full, descriptor)
    os.close(full)

    def restore() -> None:
        os.dup2(saved, descriptor)
        os.close(saved)

    return restore


needs_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@needs_full_device
def test_end_is_retried_while_the_disk_is_full(ml: DerivaML, exe: Execution) -> None:
    """If the last write to the journal fails once, the end is written again: the run is Completed everywhere."""
    with exe:
        timer = threading.Timer(0.1, full_disk(exe))
        timer.start()
    timer.join()
    assert load_state(exe.working_dir / "journal.jsonl").status is Status.completed
    assert ml.select_rows("Execution", {"RID": exe.execution_rid})[0]["Status"] == "Completed"


@needs_full_device
@pytest.mark.parametrize("error", [None, ValueError("no data")])
def test_row_has_the_end_that_the_journal_lacks(ml: DerivaML, exe: Execution, error: ValueError | None) -> None:
    """If the journal stays full, the row has the last status, and every later look at the run shows it."""
    status, detail = (Status.failed, "ValueError: no data") if error else (Status.completed, "")
    child = os.fork()
    if child == 0:
        with suppress(ValueError), exe:
            full_disk(exe)
            if error:
                raise error
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert load_state(exe.working_dir / "journal.jsonl").status is Status.running
    (row,) = ml.select_rows("Execution", {"RID": exe.execution_rid})
    assert (row["Status"], row["Status_Detail"]) == (status, detail)
    assert row["Duration"] is not None
    recorded = ml.lookup_execution(exe.execution_rid)
    assert (recorded.status, recorded.status_detail) == (status, detail)
    assert ml.restore_execution(exe.execution_rid).status is status
    assert load_state(exe.working_dir / "journal.jsonl").status is status


@needs_full_device
def test_failed_creation_on_a_full_disk(config: ExecutionConfiguration) -> None:
    """If a creation fails and the journal cannot be written, the row is Failed with the reason."""
    ml, catalog = make_faulty_client()

    def fill_disk(table: str) -> None:
        if table != "Execution":
            (folder,) = (ml.connection.working_folder("1-AAAA").parent).glob("1-*")
            for link in Path("/proc/self/fd").iterdir():
                if os.path.realpath(link) == str(folder / "journal.jsonl"):
                    full = os.open("/dev/full", os.O_RDWR)
                    os.dup2(full, int(link.name))
                    os.close(full)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    catalog.before_insert = fill_disk
    with pytest.raises((OSError, DerivaMLException)):
        ml.create_execution(config)
    (row,) = ml.select_rows("Execution")
    assert row["Status"] == "Failed"
    assert row["Status_Detail"].startswith("Creation failed: ")


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "KeyboardInterrupt")])
def test_signal_while_the_run_starts(config: ExecutionConfiguration, number: int, reason: str) -> None:
    """SIGTERM or Ctrl-C while the start is recorded aborts the run, with its reason, and does not leave it Running."""
    ml, catalog = make_faulty_client()
    exe = ml.create_execution(config)

    def send_signal() -> None:
        catalog.before_update = lambda: None
        os.kill(os.getpid(), number)

    catalog.before_update = send_signal
    with pytest.raises((SystemExit, KeyboardInterrupt)), exe:
        pytest.fail("the block is not entered")
    assert (exe.status, exe.status_detail) == (Status.aborted, reason)
    assert ml.select_rows("Execution", {"RID": exe.execution_rid})[0]["Status"] == "Aborted"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
