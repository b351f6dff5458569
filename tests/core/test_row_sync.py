"""The catalog row of an execution: written in the background, the latest status wins, and it never goes back."""

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
from faulty_catalog import make_faulty_client, raise_unavailable

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import CatalogReadOnly
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.testing import HookRecorder
from waits import HANG


@pytest.fixture
def gate() -> Iterator[Event]:
    """Event that the catalog waits for; set at the end of the test in any case."""
    event = Event()
    yield event
    event.set()


def read_row(ml: DerivaML, exe: Execution) -> dict[str, Any]:
    return ml.select_rows("Execution", {"RID": exe.execution_rid})[0]


def test_status_without_wait_calls_no_catalog(config: ExecutionConfiguration, gate: Event) -> None:
    """While the catalog is slow, statuses go to journal and plugins without a catalog call in this thread."""
    recorder = HookRecorder()
    ml, catalog = make_faulty_client(recorder)
    with ml.create_execution(config) as exe:
        catalog.before_update = gate.wait
        catalog.callers.clear()
        for epoch in range(50):
            exe.update_status(Status.running, f"Epoch {epoch}", wait=False)
        assert catalog.called_from(threading.get_ident()) == []
        assert exe.list_statuses()[-1].message == "Epoch 49"
        assert exe.status_detail == "Epoch 49"
        gate.set()
    messages = [getattr(each, "message", None) for each in recorder.payloads("status_changed")]
    assert messages == ["", "", *(f"Epoch {epoch}" for epoch in range(50)), ""]
    assert read_row(ml, exe)["Status"] == "Completed"


def test_only_the_last_waiting_status_is_written(config: ExecutionConfiguration, gate: Event) -> None:
    """A slow catalog gets the last status, not every one in between."""
    ml, catalog = make_faulty_client()
    with ml.create_execution(config) as exe:
        entered = Event()
        catalog.before_update = lambda: (entered.set(), gate.wait())
        catalog.details.clear()
        exe.update_status(Status.running, "first", wait=False)
        assert entered.wait(HANG)
        for epoch in range(50):
            exe.update_status(Status.running, f"Epoch {epoch}", wait=False)
        gate.set()
    assert catalog.details in (["first", ""], ["first", "Epoch 49", ""])


def test_row_is_written_during_the_run(config: ExecutionConfiguration) -> None:
    """The row is written without a further status or the end of the run, and another process reads it."""
    ml, catalog = make_faulty_client()
    with ml.create_execution(config) as exe:
        catalog.written.clear()
        exe.update_status(Status.running, "Epoch 3", wait=False)
        assert catalog.written.wait(HANG)
        code = (
            "import sys; from deriva_ml_core import DerivaML; "
            "print(DerivaML().select_rows('Execution', {'RID': sys.argv[1]})[0]['Status_Detail'])"
        )
        command = [sys.executable, "-c", code, exe.execution_rid]
        assert subprocess.run(command, capture_output=True, text=True).stdout == "Epoch 3\n"


def test_row_is_written_once_the_catalog_is_back(
    config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed write is retried until it succeeds, with one warning per outage."""
    ml, catalog = make_faulty_client()
    with ml.create_execution(config) as exe, caplog.at_level(logging.WARNING):
        catalog.written.clear()
        catalog.before_update = raise_unavailable
        for epoch in range(3):
            exe.update_status(Status.running, f"Epoch {epoch}", wait=epoch == 1)
        catalog.before_update = lambda: None
        assert catalog.written.wait(HANG)
        assert read_row(ml, exe)["Status_Detail"] == "Epoch 2"
        assert caplog.text.count("Failed to write the status") == 1
        catalog.before_update = raise_unavailable
        exe.update_status(Status.running, "Epoch 3", wait=False)
        catalog.before_update = lambda: None
    assert read_row(ml, exe)["Status"] == "Completed"


def test_retries_are_spaced(config: ExecutionConfiguration) -> None:
    """While the catalog is down, writes are retried with a delay; the end is bounded and the journal is complete."""
    ml, catalog = make_faulty_client(exit_timeout=1.0)
    with ml.create_execution(config) as exe:
        catalog.before_update = raise_unavailable
        catalog.attempts = 0
        for epoch in range(100):
            exe.update_status(Status.running, f"Epoch {epoch}", wait=False)
    assert 1 < catalog.attempts < 12
    catalog.before_update = lambda: None
    assert exe.status is Status.completed
    assert DerivaML().restore_execution(exe.execution_rid).status is Status.completed
    assert read_row(ml, exe)["Status"] == "Completed"
    assert read_row(ml, exe)["Duration"] is not None


def test_end_waits_at_most_for_the_exit_timeout(
    config: ExecutionConfiguration, gate: Event, caplog: pytest.LogCaptureFixture
) -> None:
    """If the catalog does not respond, the end logs a warning after the timeout and the journal has the end."""
    ml, catalog = make_faulty_client(exit_timeout=0.2)
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
from faulty_catalog import make_faulty_client
from deriva_ml_core import ExecutionConfiguration, Status, Workflow
ml, catalog = make_faulty_client(exit_timeout=0.5)
workflow = Workflow(name="Test", workflow_type="Training", url="https://example.org/train.py", checksum="c0ffee")
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    catalog.before_update = threading.Event().wait
    exe.update_status(Status.running, "Epoch 1", wait=False)
print(exe.status)
"""


def test_process_exits_although_the_catalog_hangs(home: Any) -> None:
    """A thread that waits for the catalog forever does not keep the process alive."""
    command = [sys.executable, "-c", HANGING, str(__file__.rpartition("/")[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "Completed\n"), done.stderr


def test_permanent_error_is_not_retried(config: ExecutionConfiguration) -> None:
    """An error that a retry cannot fix delays neither the run nor its end; later statuses try again."""
    ml, catalog = make_faulty_client(exit_timeout=1e6)

    def locked() -> None:
        raise CatalogReadOnly("Not for you.")

    with ml.create_execution(config) as exe:
        catalog.before_update = locked
        exe.update_status(Status.running, "Epoch 1", wait=False)
    assert exe.status is Status.completed


def test_row_never_goes_back(config: ExecutionConfiguration) -> None:
    """With several reporting threads, each write has a later status than the one before."""
    ml, catalog = make_faulty_client()
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


def test_writes_do_not_overlap(config: ExecutionConfiguration, gate: Event) -> None:
    """A thread that reports during another thread's write writes after it."""
    ml, catalog = make_faulty_client()
    with ml.create_execution(config) as exe:
        entered = Event()

        def block_first() -> None:
            if not entered.is_set():
                entered.set()
                gate.wait()

        catalog.before_update = block_first
        catalog.details.clear()
        exe.update_status(Status.running, "first", wait=False)
        assert entered.wait(HANG)
        second = threading.Thread(target=exe.update_status, args=(Status.running, "second"))
        second.start()
        second.join(0.5)  # long enough to go past, if it could
        gate.set()
        second.join()
        assert catalog.details[0] == "first"
        assert catalog.details[-1] == "second"


def test_late_write_is_corrected(config: ExecutionConfiguration) -> None:
    """If an older status reaches the row after a newer one of another process, the row is written again."""
    ml, catalog = make_faulty_client()
    with ml.create_execution(config) as exe:
        other = pickle.loads(pickle.dumps(exe))

        def write_newer() -> None:
            catalog.before_update = lambda: None
            other.update_status(Status.running, "newer")

        catalog.before_update = write_newer
        exe.update_status(Status.running, "older")
        assert read_row(ml, exe)["Status_Detail"] == "newer"


def _report(exe: Execution, who: str, drains: bool) -> None:
    for epoch in range(40):
        exe.update_status(Status.running, f"{who}: {epoch}", wait=not drains)
    exe._runtime.background.drain()


@pytest.mark.parametrize("drains", [False, True])
def test_two_processes_write_the_last_status(ml: DerivaML, exe: Execution, drains: bool) -> None:
    """After two processes reported at once, the row has the last status of the journal."""
    with exe:
        other = multiprocessing.get_context("fork").Process(target=_report, args=(exe, "child", drains))
        other.start()
        _report(exe, "parent", drains)
        other.join(HANG)
        assert other.exitcode == 0
        assert read_row(ml, exe)["Status_Detail"] == exe.list_statuses()[-1].message


def test_child_forked_during_a_write(config: ExecutionConfiguration, gate: Event) -> None:
    """A child forked during a write can write itself, and does not have the parent's tasks."""
    ml, catalog = make_faulty_client()
    with ml.create_execution(config) as exe:
        entered = Event()
        catalog.before_update = lambda: (entered.set(), gate.wait())
        exe.update_status(Status.running, "parent", wait=False)
        assert entered.wait(HANG)
        catalog.before_update = lambda: None
        child = multiprocessing.get_context("fork").Process(target=_report, args=(exe, "child", True))
        child.start()
        child.join(HANG)
        assert child.exitcode == 0
        assert read_row(ml, exe)["Status_Detail"] == "child: 39"
        gate.set()
    assert read_row(ml, exe)["Status"] == "Completed"


def test_unpickled_execution_writes_the_row(ml: DerivaML, exe: Execution) -> None:
    """A copy that crossed processes writes the row in the background."""
    with exe:
        again = pickle.loads(pickle.dumps(exe))
        again.update_status(Status.running, "from the copy", wait=False)
        again._runtime.background.drain()
        assert read_row(ml, exe)["Status_Detail"] == "from the copy"


def test_status_after_the_end(ml: DerivaML, exe: Execution) -> None:
    """A test after a fit adds a status to the journal and a message to the row; the run stays Completed."""
    with exe:
        pass
    duration = read_row(ml, exe)["Duration"]
    exe.update_status(Status.completed, "test: accuracy=0.9", wait=False)
    exe._runtime.background.drain()
    assert (read_row(ml, exe)["Status"], read_row(ml, exe)["Status_Detail"]) == (
        "Completed",
        "test: accuracy=0.9",
    )
    assert read_row(ml, exe)["Duration"] == duration
