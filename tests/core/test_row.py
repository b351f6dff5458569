"""The catalog's row: written beside the run, latest wins, never backwards, whatever the catalog does."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
from hard_catalogs import hard, refuse

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import CatalogReadOnly
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.testing import HookRecorder


@pytest.fixture
def gate() -> Iterator[Event]:
    """What the catalog waits for; opened at the end of the test in any case."""
    event = Event()
    yield event
    event.set()


def row(ml: DerivaML, exe: Execution) -> dict[str, Any]:
    return ml.select_rows("Execution", {"RID": exe.execution_rid})[0]


def test_a_status_that_does_not_wait_calls_no_catalog(config: ExecutionConfiguration, gate: Event) -> None:
    """While the catalog takes its time, statuses go to journal and plugins and no call to it is made from here."""
    recorder = HookRecorder()
    ml, catalog = hard(recorder)
    with ml.create_execution(config) as exe:
        catalog.before_update = gate.wait
        catalog.callers.clear()
        for epoch in range(50):
            exe.update_status(Status.running, f"Epoch {epoch}", wait=False)
        assert catalog.called_from(threading.get_ident()) == []
        assert exe.list_statuses()[-1].message == "Epoch 49"
        assert exe.status_detail == "Epoch 49"
        gate.set()
    told = [getattr(each, "message", None) for each in recorder.payloads("status_changed")]
    assert told == ["", "", *(f"Epoch {epoch}" for epoch in range(50)), ""]
    assert row(ml, exe)["Status"] == "Completed"


def test_of_several_that_wait_the_latest_is_written(config: ExecutionConfiguration, gate: Event) -> None:
    """A catalog that comes late gets the last status, not each that it missed."""
    ml, catalog = hard()
    with ml.create_execution(config) as exe:
        entered = Event()
        catalog.before_update = lambda: (entered.set(), gate.wait())
        catalog.details.clear()
        exe.update_status(Status.running, "first", wait=False)
        assert entered.wait(60)
        for epoch in range(50):
            exe.update_status(Status.running, f"Epoch {epoch}", wait=False)
        gate.set()
    assert catalog.details in (["first", ""], ["first", "Epoch 49", ""])


def test_a_status_reaches_the_row_while_it_runs(config: ExecutionConfiguration) -> None:
    """Nobody needs to end the run, or to say another status, for the row to be written; another process reads it."""
    ml, catalog = hard()
    with ml.create_execution(config) as exe:
        catalog.written.clear()
        exe.update_status(Status.running, "Epoch 3", wait=False)
        assert catalog.written.wait(60)
        code = (
            "import sys; from deriva_ml_core import DerivaML; "
            "print(DerivaML().select_rows('Execution', {'RID': sys.argv[1]})[0]['Status_Detail'])"
        )
        command = [sys.executable, "-c", code, exe.execution_rid]
        assert subprocess.run(command, capture_output=True, text=True, timeout=120).stdout == "Epoch 3\n"


def test_a_catalog_that_was_down_is_caught_up(config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """It is asked again until it answers, without a further status; of the outage one warning tells."""
    ml, catalog = hard()
    with ml.create_execution(config) as exe, caplog.at_level(logging.WARNING):
        catalog.written.clear()
        catalog.before_update = refuse
        for epoch in range(3):
            exe.update_status(Status.running, f"Epoch {epoch}", wait=epoch == 1)
        catalog.before_update = lambda: None
        assert catalog.written.wait(60)
        assert row(ml, exe)["Status_Detail"] == "Epoch 2"
        assert caplog.text.count("Failed to write the status") == 1
        catalog.before_update = refuse
        exe.update_status(Status.running, "Epoch 3", wait=False)
        catalog.before_update = lambda: None
    assert row(ml, exe)["Status"] == "Completed"


def test_a_catalog_that_is_down_is_not_asked_all_the_time(config: ExecutionConfiguration) -> None:
    """While it is down it is asked now and then, also at the end, which is bounded; the journal keeps all."""
    ml, catalog = hard(patience=1.0)
    with ml.create_execution(config) as exe:
        catalog.before_update = refuse
        catalog.attempts = 0
        for epoch in range(100):
            exe.update_status(Status.running, f"Epoch {epoch}", wait=False)
    assert 1 < catalog.attempts < 12
    catalog.before_update = lambda: None
    assert exe.status is Status.completed
    assert DerivaML().restore_execution(exe.execution_rid).status is Status.completed
    assert row(ml, exe)["Status"] == "Completed"
    assert row(ml, exe)["Duration"] is not None


def test_a_catalog_that_never_answers_does_not_hold_up_the_end(
    config: ExecutionConfiguration, gate: Event, caplog: pytest.LogCaptureFixture
) -> None:
    """The end of the run waits as long as the patience lasts, says so, and the journal has the end."""
    ml, catalog = hard(patience=0.2)
    with caplog.at_level(logging.WARNING), ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
        exe.upload_execution_outputs()
        catalog.before_update = gate.wait
        exe.update_status(Status.running, "Epoch 1", wait=False)
    assert "After 0.2 seconds the catalog does not have the final state" in caplog.text
    assert f"restore_execution({exe.execution_rid!r})" in caplog.text
    assert exe.status is Status.completed


HANGING = """
import sys, threading
sys.path.insert(0, sys.argv[1])
from hard_catalogs import hard
from deriva_ml_core import ExecutionConfiguration, Status, Workflow
ml, catalog = hard(patience=0.5)
workflow = Workflow(name="Test", workflow_type="Training", url="https://example.org/train.py", checksum="c0ffee")
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    catalog.before_update = threading.Event().wait
    exe.update_status(Status.running, "Epoch 1", wait=False)
print(exe.status)
"""


def test_a_process_ends_though_its_catalog_hangs(home: Any) -> None:
    """A thread that waits for the catalog for ever does not keep the process."""
    command = [sys.executable, "-c", HANGING, str(__file__.rpartition("/")[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "Completed\n"), done.stderr


def test_a_catalog_that_may_not_be_written_is_not_asked_again(config: ExecutionConfiguration) -> None:
    """What cannot get better by itself holds up neither the run nor its end; later statuses try anew."""
    ml, catalog = hard(patience=1e6)

    def locked() -> None:
        raise CatalogReadOnly("Not for you.")

    with ml.create_execution(config) as exe:
        catalog.before_update = locked
        exe.update_status(Status.running, "Epoch 1", wait=False)
    assert exe.status is Status.completed


def test_a_row_never_goes_back(config: ExecutionConfiguration) -> None:
    """However many threads report, waiting or not, each write tells a later status than the one before."""
    ml, catalog = hard()
    with ml.create_execution(config) as exe:
        catalog.details.clear()

        def report(thread: int) -> None:
            for epoch in range(15):
                exe.update_status(Status.running, f"{thread}: {epoch}", wait=bool((thread + epoch) % 2))

        threads = [threading.Thread(target=report, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    order = {update.message: place for place, update in enumerate(exe.list_statuses()) if update.message}
    places = [order[detail] for detail in catalog.details if detail]
    assert places == sorted(places)
    assert catalog.details[-1] == ""


def test_a_write_waits_for_the_one_before(config: ExecutionConfiguration, gate: Event) -> None:
    """While one thread writes, another that reports writes after it, not past it."""
    ml, catalog = hard()
    with ml.create_execution(config) as exe:
        entered = Event()

        def hold_the_first() -> None:
            if not entered.is_set():
                entered.set()
                gate.wait()

        catalog.before_update = hold_the_first
        catalog.details.clear()
        exe.update_status(Status.running, "first", wait=False)
        assert entered.wait(60)
        second = threading.Thread(target=exe.update_status, args=(Status.running, "second"))
        second.start()
        second.join(0.5)  # long enough to go past, if it could
        gate.set()
        second.join()
        assert catalog.details[0] == "first"
        assert catalog.details[-1] == "second"


def test_a_write_that_comes_after_a_newer_one_is_made_good(config: ExecutionConfiguration) -> None:
    """Another process goes on, and writes that, just before an older status reaches the row: the newer one stays."""
    ml, catalog = hard()
    with ml.create_execution(config) as exe:
        other = pickle.loads(pickle.dumps(exe))

        def go_on() -> None:
            catalog.before_update = lambda: None
            other.update_status(Status.running, "newer")

        catalog.before_update = go_on
        exe.update_status(Status.running, "older")
        assert row(ml, exe)["Status_Detail"] == "newer"


def _report(exe: Execution, who: str, drains: bool) -> None:
    for epoch in range(40):
        exe.update_status(Status.running, f"{who}: {epoch}", wait=not drains)
    exe._runtime.background.drain()


@pytest.mark.parametrize("drains", [False, True])
def test_two_processes_leave_the_last_status_in_the_row(ml: DerivaML, exe: Execution, drains: bool) -> None:
    """Of two that report at once the row has, when both have, what the journal has last."""
    with exe:
        other = multiprocessing.get_context("fork").Process(target=_report, args=(exe, "child", drains))
        other.start()
        _report(exe, "parent", drains)
        other.join(120)
        assert other.exitcode == 0
        assert row(ml, exe)["Status_Detail"] == exe.list_statuses()[-1].message


def test_a_child_of_a_process_that_waits_writes_its_own(config: ExecutionConfiguration, gate: Event) -> None:
    """A fork while a write is under way leaves the child able to write, and without the parent's tasks."""
    ml, catalog = hard()
    with ml.create_execution(config) as exe:
        entered = Event()
        catalog.before_update = lambda: (entered.set(), gate.wait())
        exe.update_status(Status.running, "parent", wait=False)
        assert entered.wait(60)
        catalog.before_update = lambda: None
        child = multiprocessing.get_context("fork").Process(target=_report, args=(exe, "child", True))
        child.start()
        child.join(120)
        assert child.exitcode == 0
        assert row(ml, exe)["Status_Detail"] == "child: 39"
        gate.set()
    assert row(ml, exe)["Status"] == "Completed"


def test_an_unpickled_execution_reports_too(ml: DerivaML, exe: Execution) -> None:
    """A copy that crossed processes writes the row beside its run."""
    with exe:
        again = pickle.loads(pickle.dumps(exe))
        again.update_status(Status.running, "from the copy", wait=False)
        again._runtime.background.drain()
        assert row(ml, exe)["Status_Detail"] == "from the copy"


def test_a_status_after_the_end_leaves_the_state(ml: DerivaML, exe: Execution) -> None:
    """A test after a fit adds to the journal and to the row's words, and the run stays completed."""
    with exe:
        pass
    duration = row(ml, exe)["Duration"]
    exe.update_status(Status.completed, "test: accuracy=0.9", wait=False)
    exe._runtime.background.drain()
    assert (row(ml, exe)["Status"], row(ml, exe)["Status_Detail"]) == ("Completed", "test: accuracy=0.9")
    assert row(ml, exe)["Duration"] == duration
