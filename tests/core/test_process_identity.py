"""The identity of a process: a living one is never taken for a dead one, whatever happens to the clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import ExecutionState, ProcessAttached, Started, Stopped

linux_only = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="boot id and start ticks are Linux's")


def shift_clock(identity: ProcessIdentity, seconds: float) -> ProcessIdentity:
    """Return an identity as recorded before the clock was set forward by a number of seconds.

    The kernel derives both times from its uptime and the clock, so that both follow the clock.
    """
    shifted = {"boot": identity.boot - seconds, "started": identity.started - seconds}
    return identity.model_copy(update=shifted)


@linux_only
@pytest.mark.parametrize("seconds", [-3600, -10.5, 10.5, 3600])
def test_clock_step_leaves_a_process_alive(seconds: float) -> None:
    """A process is alive after the clock was set, by ten seconds or by an hour."""
    assert shift_clock(ProcessIdentity.current(), seconds).is_dead() is False


@linux_only
def test_process_with_a_reused_id_is_dead() -> None:
    """Another process with the id is told apart by its start ticks, also if it started within seconds."""
    current = ProcessIdentity.current()
    assert current.start_ticks is not None
    assert current.model_copy(update={"start_ticks": current.start_ticks - 1}).is_dead() is True


@linux_only
def test_process_before_a_reboot_is_dead() -> None:
    """A process of another boot is dead, although an equal process id and equal start ticks exist."""
    other_boot = "00000000-0000-0000-0000-000000000000"
    assert ProcessIdentity.current().model_copy(update={"boot_id": other_boot}).is_dead() is True


def test_ended_and_zombie_processes_are_dead() -> None:
    """A process is alive while it runs, and dead once it has ended, before and after its parent collects it."""
    code = (
        "from deriva_ml_core.journal.process_identity import ProcessIdentity; "
        "print(ProcessIdentity.current().model_dump_json(), flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        identity = ProcessIdentity.model_validate_json(child.stdout.readline())
        assert identity.is_dead() is False
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is a zombie
        assert identity.is_dead() is True
    assert identity.is_dead() is True


@pytest.mark.parametrize(("seconds", "is_dead"), [(5.0, False), (-5.0, False), (60.0, True), (-60.0, True)])
def test_identity_of_an_earlier_version(seconds: float, is_dead: bool) -> None:
    """An identity without boot id is judged by boot and start time, with a tolerance of ten seconds."""
    line = shift_clock(ProcessIdentity.current(), seconds).model_dump(exclude={"boot_id", "start_ticks"})
    assert ProcessIdentity.model_validate(line).is_dead() is is_dead


@pytest.mark.parametrize("part", ["boot", "started"])
def test_another_process_with_the_id_of_an_earlier_version(part: str) -> None:
    """Without boot id, a process of another boot, or one that started at another time, has the id by chance."""
    line = ProcessIdentity.current().model_dump(exclude={"boot_id", "start_ticks"})
    assert ProcessIdentity.model_validate(line | {part: line[part] - 60}).is_dead() is True


def test_identity_of_a_later_version() -> None:
    """Fields of a later version are ignored."""
    line = ProcessIdentity.current().model_dump() | {"from_the_future": 1}
    assert ProcessIdentity.model_validate(line).is_dead() is False


@linux_only
def test_running_execution_survives_a_clock_step(ml: DerivaML, exe: Execution) -> None:
    """A run whose clock was set is still Running for every reader, and takes further statuses."""
    with exe:
        journal = exe.working_dir / "journal.jsonl"
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        for line in lines:
            if line["event"] == "lease":
                line["lease"] |= {name: line["lease"][name] - 3600 for name in ("boot", "started")}
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert ml.lookup_execution(exe.execution_rid).status is Status.running
        assert ml.restore_execution(exe.execution_rid).status is Status.running
        exe.update_status(Status.running, "Epoch 2")
    assert exe.status is Status.completed


def test_duration_is_measured_by_the_monotonic_clock() -> None:
    """The duration of a run does not depend on the clock, which is set back by an hour during the run here."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    state = ExecutionState()
    Started(time=start, monotonic=100.0).apply(state)
    Stopped(time=start - timedelta(hours=1), monotonic=103.5).apply(state)
    assert state.run_time == timedelta(seconds=3.5)
    Started(time=start, monotonic=200.0).apply(state)
    Stopped(time=start + timedelta(hours=1), monotonic=201.0).apply(state)
    assert state.run_time == timedelta(seconds=4.5)


def test_duration_of_an_earlier_version() -> None:
    """Without readings of the monotonic clock the duration is the difference of the times, and never negative."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    state = ExecutionState()
    Started(time=start).apply(state)
    Stopped(time=start + timedelta(seconds=7)).apply(state)
    assert state.run_time == timedelta(seconds=7)
    Started(time=start).apply(state)
    Stopped(time=start - timedelta(hours=1)).apply(state)
    assert state.run_time == timedelta(seconds=7)


def test_readings_of_two_boots_are_not_compared() -> None:
    """If a run continues after a reboot or on another machine, its duration is the difference of the times."""
    start, process, state = datetime(2026, 1, 1, tzinfo=UTC), ProcessIdentity.current(), ExecutionState()
    ProcessAttached(lease=process.model_copy(update={"boot_id": "another"})).apply(state)
    Started(time=start, monotonic=100.0).apply(state)
    ProcessAttached(lease=process).apply(state)
    Started(time=start, monotonic=5000.0).apply(state)
    Stopped(time=start + timedelta(seconds=7), monotonic=5001.0).apply(state)
    assert state.run_time == timedelta(seconds=7)


@linux_only
def test_run_time_so_far_ignores_the_clock() -> None:
    """The run time of a running execution is that of the monotonic clock, also if the clock was set back."""
    import time

    state = ExecutionState()
    ProcessAttached(lease=ProcessIdentity.current()).apply(state)
    in_future = datetime.now(UTC) + timedelta(hours=1)
    Started(time=in_future, monotonic=time.monotonic() - 5).apply(state)
    assert timedelta(seconds=5) <= state.elapsed_run_time() < timedelta(minutes=10)


def test_run_time_of_a_run_is_in_row_and_journal(ml: DerivaML, exe: Execution) -> None:
    """Start and end of a run carry readings of the monotonic clock."""
    with exe:
        pass
    lines = [json.loads(line) for line in (exe.working_dir / "journal.jsonl").read_text().splitlines()]
    start, stop = (next(line for line in lines if line["event"] == event) for event in ("start", "stop"))
    seconds = stop["monotonic"] - start["monotonic"]
    (row,) = ml.select_rows("Execution", {"RID": exe.execution_rid})
    assert row["Duration"] == f"0.0H {seconds // 60:.1f}min {seconds % 60:.4f}sec"
