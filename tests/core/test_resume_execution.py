"""Resumed runs: only by name, by one process at a time, with their run times added."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from datetime import timedelta
from multiprocessing.connection import Connection as Pipe
from typing import Any

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ExecutionRunning, InvalidTransition, UnknownRID
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME
from deriva_ml_core.journal.journal import Journal, load_state
from deriva_ml_core.journal.state import ExecutionState, Resumed, Started, StatusSet, Stopped, utc_now
from deriva_ml_core.models import StatusUpdate
from waits import HANG


def read_row(ml: DerivaML, exe: Execution) -> dict[str, Any]:
    return ml.select_rows("Execution", {"RID": exe.execution_rid})[0]


def test_ended_run_is_resumed(ml: DerivaML, exe: Execution) -> None:
    """The run is Running, then Completed; inputs, files and statuses of both parts and the first start are there."""
    with pytest.raises(RuntimeError), exe:
        exe.asset_file_path("Model", "first.pt").write_bytes(b"1")
        raise RuntimeError("preempted")
    start = exe.start_time
    again = DerivaML().resume_execution(exe.execution_rid)
    assert again.status is Status.failed
    with again:
        assert (again.status, read_row(ml, exe)["Status"]) == (Status.running, "Running")
        assert read_row(ml, exe)["Duration"] is None
        assert again.stop_time is None
        again.asset_file_path("Model", "second.pt").write_bytes(b"2")
        again.update_status(Status.running, "Epoch 4")
    assert (read_row(ml, exe)["Status"], read_row(ml, exe)["Status_Detail"]) == ("Completed", "")
    assert again.start_time == start
    assert {each.filename for each in again.upload_execution_outputs()["Model"]} == {"first.pt", "second.pt"}
    assert [update.status for update in again.list_statuses()] == [
        *(Status.created, Status.running, Status.failed),
        *(Status.running, Status.running, Status.completed),
    ]


def test_resume_is_in_the_journal(exe: Execution) -> None:
    """The journal has a resumed event between the end and the second start."""
    with exe:
        pass
    with DerivaML().resume_execution(exe.execution_rid):
        pass
    lines = (exe.working_dir / JOURNAL_FILENAME).read_text().splitlines()
    kinds = ("resumed", "start", "stop")
    events = [kind for line in lines for kind in kinds if f'"event":"{kind}"' in line]
    assert events == ["start", "stop", "resumed", "start", "stop"]


def test_duration_excludes_the_pause(tmp_path: Any) -> None:
    """The time between the end and the next start is not counted."""
    journal, start = Journal(tmp_path / JOURNAL_FILENAME), utc_now()
    hours = [start + timedelta(hours=count) for count in range(24)]
    journal.append(Started(time=hours[0]), Stopped(time=hours[1]))
    journal.append(Resumed(time=hours[20]), Started(time=hours[20]), Stopped(time=hours[23]))
    for state in (journal.state, load_state(journal.path)):
        assert (state.start_time, state.stop_time, state.run_time) == (hours[0], hours[23], timedelta(hours=4))


def test_entering_an_ended_run_raises(ml: DerivaML, exe: Execution) -> None:
    """A restored execution cannot be entered after its end, and a resumed one cannot be entered twice."""
    with exe:
        pass
    with pytest.raises(InvalidTransition, match="resume_execution"), ml.restore_execution(exe.execution_rid):
        pass
    again = ml.resume_execution(exe.execution_rid)
    with again:
        pass
    with pytest.raises(InvalidTransition), again:
        pass


def test_resume_of_a_new_execution(ml: DerivaML, exe: Execution) -> None:
    """An execution that never ran runs for the first time."""
    with ml.resume_execution(exe.execution_rid) as again:
        assert again.status is Status.running
    assert read_row(ml, exe)["Status"] == "Completed"


def test_resume_of_an_unknown_rid(ml: DerivaML) -> None:
    """The error names the RID."""
    with pytest.raises(UnknownRID, match="9-ZZZZ"):
        ml.resume_execution("9-ZZZZ")


def test_resume_of_a_living_run_raises(ml: DerivaML, exe: Execution) -> None:
    """The error names host and process, in this process and in another."""
    with exe:
        with pytest.raises(ExecutionRunning, match=f"process {os.getpid()} on "):
            ml.resume_execution(exe.execution_rid)
        code = "import sys; from deriva_ml_core import DerivaML; DerivaML().resume_execution(sys.argv[1])"
        command = [sys.executable, "-c", code, exe.execution_rid]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "ExecutionRunning" in done.stderr
        assert f"process {os.getpid()} on " in done.stderr
    assert ml.resume_execution(exe.execution_rid).status is Status.completed


def _die(config: ExecutionConfiguration, sender: Pipe) -> None:
    exe = DerivaML().create_execution(config).__enter__()
    exe.update_status(Status.running, "epoch 3")
    exe.asset_file_path("Model", "epoch3.pt").write_bytes(b"3")
    sender.send(exe.execution_rid)
    os._exit(9)


def kill_run(config: ExecutionConfiguration) -> str:
    receiver, sender = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_die, args=(config, sender))
    child.start()
    rid: str = receiver.recv()
    child.join()
    return rid


def test_killed_run_is_resumed(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A run whose process was killed is resumed with its staged files."""
    rid = kill_run(config)
    with ml.resume_execution(rid) as exe:
        assert exe.status is Status.running
    assert [asset.filename for asset in exe.upload_execution_outputs()["Model"]] == ["epoch3.pt"]
    assert read_row(ml, exe)["Status"] == "Completed"


def _die_resumed(rid: str) -> None:
    DerivaML().resume_execution(rid).__enter__().update_status(Status.running, "epoch 7")
    os._exit(9)


def test_killed_resumed_run_is_aborted(ml: DerivaML, exe: Execution) -> None:
    """A resumed run that dies is aborted, although its row still has the first end."""
    with exe:
        pass
    child = multiprocessing.get_context("fork").Process(target=_die_resumed, args=(exe.execution_rid,))
    child.start()
    child.join()
    ml.connection.catalog.update("Execution", [{"RID": exe.execution_rid, "Status": "Completed"}])  # as if it were late
    assert ml.restore_execution(exe.execution_rid).status is Status.aborted
    assert "epoch 7" in read_row(ml, exe)["Status_Detail"]


def test_resume_of_a_run_on_another_machine_warns(
    ml: DerivaML, config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether a process on another machine is alive is unknown, so resuming it logs a warning."""
    rid = kill_run(config)
    path = ml.connection.working_folder(rid) / JOURNAL_FILENAME
    process = load_state(path).process
    assert process is not None
    path.write_text(path.read_text().replace(f'"host":"{process.host}"', '"host":"far-away"'))
    with ml.resume_execution(rid) as exe:
        assert exe.status is Status.running
    assert "on far-away" in caplog.text
    assert read_row(ml, exe)["Status"] == "Completed"


def _resume(rid: str, ready: Any, results: Any) -> None:
    again = DerivaML().resume_execution(rid)
    ready.wait(HANG)
    try:
        with again:
            results.put("ran")
            ready.wait(HANG)  # until the others have tried
    except ExecutionRunning:
        results.put("refused")
        ready.wait(HANG)


def test_one_of_several_resumes_runs(ml: DerivaML, exe: Execution) -> None:
    """Of several processes that resume at once, one runs and the others raise."""
    with exe:
        pass
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(3), context.SimpleQueue()
    children = [context.Process(target=_resume, args=(exe.execution_rid, ready, results)) for _ in range(3)]
    for child in children:
        child.start()
    assert sorted(results.get() for _ in children) == ["ran", "refused", "refused"]
    for child in children:
        child.join(HANG)
    assert read_row(ml, exe)["Status"] == "Completed"


def test_terminal_status_clears_resumed() -> None:
    """After the second end the row's status counts again."""
    state = ExecutionState()
    for event in (Resumed(), StatusSet(update=StatusUpdate(status=Status.completed, time=utc_now()))):
        event.apply(state)
    assert not state.is_resumed
