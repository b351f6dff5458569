"""A run that goes on after its end: asked for by name, by one process at a time, with its time counted on."""

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


def row(ml: DerivaML, exe: Execution) -> dict[str, Any]:
    return ml.select_rows("Execution", {"RID": exe.execution_rid})[0]


def test_an_ended_run_goes_on(ml: DerivaML, exe: Execution) -> None:
    """It is running again, then completed; inputs, files and statuses of both times are there, and its first start."""
    with pytest.raises(RuntimeError), exe:
        exe.asset_file_path("Model", "first.pt").write_bytes(b"1")
        raise RuntimeError("preempted")
    start = exe.start_time
    again = DerivaML().resume_execution(exe.execution_rid)
    assert again.status is Status.failed
    with again:
        assert (again.status, row(ml, exe)["Status"]) == (Status.running, "Running")
        assert row(ml, exe)["Duration"] is None
        assert again.stop_time is None
        again.asset_file_path("Model", "second.pt").write_bytes(b"2")
        again.update_status(Status.running, "Epoch 4")
    assert (row(ml, exe)["Status"], row(ml, exe)["Status_Detail"]) == ("Completed", "")
    assert again.start_time == start
    assert {each.filename for each in again.upload_execution_outputs()["Model"]} == {"first.pt", "second.pt"}
    assert [update.status for update in again.list_statuses()] == [
        *(Status.created, Status.running, Status.failed),
        *(Status.running, Status.running, Status.completed),
    ]


def test_the_journal_says_that_it_went_on(exe: Execution) -> None:
    """A line of its own stands between the end and the second start."""
    with exe:
        pass
    with DerivaML().resume_execution(exe.execution_rid):
        pass
    lines = (exe.working_dir / JOURNAL_FILENAME).read_text().splitlines()
    words = ("resumed", "start", "stop")
    events = [word for line in lines for word in words if f'"event":"{word}"' in line]
    assert events == ["start", "stop", "resumed", "start", "stop"]


def test_the_duration_is_that_of_the_running(tmp_path: Any) -> None:
    """The time between an end and the next start does not count."""
    journal, begun = Journal(tmp_path / JOURNAL_FILENAME), utc_now()
    hours = [begun + timedelta(hours=count) for count in range(24)]
    journal.append(Started(time=hours[0]), Stopped(time=hours[1]))
    journal.append(Resumed(time=hours[20]), Started(time=hours[20]), Stopped(time=hours[23]))
    for story in (journal.state, load_state(journal.path)):
        assert (story.start_time, story.stop_time, story.run_time) == (hours[0], hours[23], timedelta(hours=4))


def test_only_resuming_lets_it_go_on(ml: DerivaML, exe: Execution) -> None:
    """A restored execution cannot be entered after its end, and a resumed one not twice."""
    with exe:
        pass
    with pytest.raises(InvalidTransition, match="resume_execution"), ml.restore_execution(exe.execution_rid):
        pass
    again = ml.resume_execution(exe.execution_rid)
    with again:
        pass
    with pytest.raises(InvalidTransition), again:
        pass


def test_resuming_what_never_ran(ml: DerivaML, exe: Execution) -> None:
    """It runs for the first time."""
    with ml.resume_execution(exe.execution_rid) as again:
        assert again.status is Status.running
    assert row(ml, exe)["Status"] == "Completed"


def test_an_unknown_execution_is_named(ml: DerivaML) -> None:
    """As everywhere."""
    with pytest.raises(UnknownRID, match="9-ZZZZ"):
        ml.resume_execution("9-ZZZZ")


def test_a_run_that_lives_is_not_taken_over(ml: DerivaML, exe: Execution) -> None:
    """Not from this process, and not from another; the error names host and process."""
    with exe:
        with pytest.raises(ExecutionRunning, match=f"process {os.getpid()} on "):
            ml.resume_execution(exe.execution_rid)
        code = "import sys; from deriva_ml_core import DerivaML; DerivaML().resume_execution(sys.argv[1])"
        command = [sys.executable, "-c", code, exe.execution_rid]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert "ExecutionRunning" in done.stderr
        assert f"process {os.getpid()} on " in done.stderr
    assert ml.resume_execution(exe.execution_rid).status is Status.completed


def _die(config: ExecutionConfiguration, sender: Pipe) -> None:
    exe = DerivaML().create_execution(config).__enter__()
    exe.update_status(Status.running, "epoch 3")
    exe.asset_file_path("Model", "epoch3.pt").write_bytes(b"3")
    sender.send(exe.execution_rid)
    os._exit(9)


def dead_run(config: ExecutionConfiguration) -> str:
    receiver, sender = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_die, args=(config, sender))
    child.start()
    rid: str = receiver.recv()
    child.join()
    return rid


def test_a_killed_run_goes_on(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A run whose process died without a word is taken over, with what it had staged."""
    rid = dead_run(config)
    with ml.resume_execution(rid) as exe:
        assert exe.status is Status.running
    assert [asset.filename for asset in exe.upload_execution_outputs()["Model"]] == ["epoch3.pt"]
    assert row(ml, exe)["Status"] == "Completed"


def _die_resumed(rid: str) -> None:
    DerivaML().resume_execution(rid).__enter__().update_status(Status.running, "epoch 7")
    os._exit(9)


def test_a_resumed_run_that_dies_is_aborted(ml: DerivaML, exe: Execution) -> None:
    """Its first end is not its last, though that stood in the row."""
    with exe:
        pass
    child = multiprocessing.get_context("fork").Process(target=_die_resumed, args=(exe.execution_rid,))
    child.start()
    child.join()
    ml.connection.catalog.update("Execution", [{"RID": exe.execution_rid, "Status": "Completed"}])  # as if it were late
    assert ml.restore_execution(exe.execution_rid).status is Status.aborted
    assert "epoch 7" in row(ml, exe)["Status_Detail"]


def test_a_run_on_another_machine_is_taken_over_with_a_warning(
    ml: DerivaML, config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether a process on another machine lives cannot be known; who resumes by name says that it does not."""
    rid = dead_run(config)
    path = ml.connection.working_folder(rid) / JOURNAL_FILENAME
    lease = load_state(path).process
    assert lease is not None
    path.write_text(path.read_text().replace(f'"host":"{lease.host}"', '"host":"far-away"'))
    with ml.resume_execution(rid) as exe:
        assert exe.status is Status.running
    assert "on far-away" in caplog.text
    assert row(ml, exe)["Status"] == "Completed"


def _resume(rid: str, ready: Any, results: Any) -> None:
    again = DerivaML().resume_execution(rid)
    ready.wait(60)
    try:
        with again:
            results.put("ran")
            ready.wait(60)  # until the others have tried
    except ExecutionRunning:
        results.put("refused")
        ready.wait(60)


def test_of_several_that_resume_at_once_one_runs(ml: DerivaML, exe: Execution) -> None:
    """The others are told that it is being run."""
    with exe:
        pass
    context = multiprocessing.get_context("fork")
    ready, results = context.Barrier(3), context.SimpleQueue()
    children = [context.Process(target=_resume, args=(exe.execution_rid, ready, results)) for _ in range(3)]
    for child in children:
        child.start()
    assert sorted(results.get() for _ in children) == ["ran", "refused", "refused"]
    for child in children:
        child.join(120)
    assert row(ml, exe)["Status"] == "Completed"


def test_a_story_forgets_that_it_was_resumed_at_its_end() -> None:
    """After the second end the row's word counts again."""
    story = ExecutionState()
    for event in (Resumed(), StatusSet(update=StatusUpdate(status=Status.completed, time=utc_now()))):
        event.apply(story)
    assert not story.is_resumed
