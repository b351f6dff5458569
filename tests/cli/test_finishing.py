"""``deriva-ml status``, ``abort`` and ``upload``: what becomes of runs that go on, and of those that broke off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from living import waiting_run

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.execution import Execution, ExecutionConfiguration


def row_status(ml: DerivaML, rid: str) -> str:
    return ml.connection.catalog.select(MLTable.execution, {"RID": rid})[0]["Status"]


def test_status_says_how_it_ended(ask, ml: DerivaML, run, config: ExecutionConfiguration) -> None:
    """A completed run's status is success; a failed one's is told with its error, and ends with 1."""
    with pytest.raises(ValueError), ml.create_execution(config) as failed:
        raise ValueError("no data")
    good, bad = ask("status", run().execution_rid), ask("status", failed.execution_rid)
    assert (good.code, bad.code) == (0, 1)
    assert "Completed" in good.out
    assert "ValueError: no data" in bad.out


def test_status_writes_what_a_killed_process_could_not(ask, ml: DerivaML, home: Path) -> None:
    """A run whose process was killed is said, and written, to be Aborted."""
    with waiting_run(home) as (rid, process):
        assert ask("status", rid).code == 0
        process.kill()
        process.wait(timeout=120)
    assert row_status(ml, rid) == "Running"
    said = ask("status", rid, "--json")
    assert (said.code, said.json["status"]) == (1, "Aborted")
    assert row_status(ml, rid) == "Aborted"


def test_watching_until_the_end(home: Path) -> None:
    """Watching says each new state, one JSON value a line, and ends when the run does, with what became of it."""
    with waiting_run(home) as (rid, process):
        command = [sys.executable, "-m", "deriva_ml_cli", "status", rid, "--watch", "--json", "--interval", "0.05"]
        with subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE, text=True) as watching:
            first = json.loads(watching.stdout.readline())
            process.stdin.write("Epoch 1 is done\n")
            process.stdin.flush()
            second = json.loads(watching.stdout.readline())
            process.stdin.close()
            *_, last = [json.loads(line) for line in watching.stdout]
            assert watching.wait(timeout=120) == 0
    assert [each["status"] for each in (first, second, last)] == ["Running", "Running", "Completed"]
    assert second["status_detail"] == "Epoch 1 is done"


def test_abort_ends_the_process(ask, ml: DerivaML, home: Path) -> None:
    """A running process is ended so that it can close its record; what it staged is still there."""
    with waiting_run(home) as (rid, process):
        said = ask("abort", rid, "--yes", "--wait", "100")
        assert (said.code, process.wait(timeout=120) != 0) == (0, True)
    assert row_status(ml, rid) == "Aborted"
    assert [asset.filename for asset in ml.restore_execution(rid).staged_assets()] == ["half.pt"]


def test_abort_asks(ask, exe: Execution, ml: DerivaML) -> None:
    """Without --yes it asks, and a no changes nothing; a yes aborts what never began to run."""
    assert ask("abort", exe.execution_rid, answer="n\n").code == 1
    assert row_status(ml, exe.execution_rid) == "Created"
    assert ask("abort", exe.execution_rid, answer="y\n").code == 0
    assert row_status(ml, exe.execution_rid) == "Aborted"


def test_what_has_ended_is_not_aborted(ask, run) -> None:
    """An execution that has ended stays as it ended."""
    said = ask("abort", run().execution_rid, "--yes")
    assert said.code == 1
    assert "has ended as Completed" in said.complaint


def test_a_run_elsewhere_is_not_touched(ask, exe: Execution, ml: DerivaML) -> None:
    """A run of another machine cannot be ended from here, which is said with where it runs; it can be recorded."""
    with exe:
        path = exe.working_dir / "journal.jsonl"
        path.write_text(path.read_text().replace(f'"host":"{os.uname().nodename}"', '"host":"elsewhere"'))
        said = ask("abort", exe.execution_rid, "--yes")
        assert said.code == 1
        assert f"process {os.getpid()} on elsewhere" in said.complaint
        assert ask("abort", exe.execution_rid, "--yes", "--only-record").code == 0
    assert row_status(ml, exe.execution_rid) == "Aborted"


def test_upload_sends_what_is_staged(ask, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """What runs have left is sent, whichever left it, and nothing twice."""
    made = []
    for number in range(2):
        with ml.create_execution(config) as exe:
            exe.asset_file_path("Model", f"{number}.pt").write_text(f"model {number}")
        made.append(exe)
    found = ask("upload", "--json").json["executions"]
    assert [(each["rid"], [file["filename"] for file in each["sent"]]) for each in found] == [
        (exe.execution_rid, [f"{number}.pt"]) for number, exe in enumerate(made)
    ]
    assert ask("upload", "--json").json == {"executions": []}
    assert "Everything is sent" in ask("upload").out


def test_upload_leaves_running_ones_alone(ask, ml: DerivaML, home: Path) -> None:
    """A run that goes on is left alone unless it is named, and one that was killed is sent and written as Aborted."""
    with waiting_run(home) as (rid, process):
        (found,) = ask("upload", "--json").json["executions"]
        assert (found["running"], found["sent"]) == (True, [])
        assert "still running" in ask("upload").out
        process.kill()
        process.wait(timeout=120)
    (found,) = ask("upload", "--json").json["executions"]
    assert (found["rid"], [file["filename"] for file in found["sent"]]) == (rid, ["half.pt"])
    assert row_status(ml, rid) == "Aborted"


def test_an_upload_that_fails(ask, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """What cannot be sent is named with the reason, the others are sent, and it ends with 1."""
    made = []
    for name in ("a.pt", "b.pt"):
        with ml.create_execution(config) as exe:
            path = exe.asset_file_path("Model", name)
            path.write_text(name)
        made.append(exe)
    path = made[0].asset_file_path("Model", "a.pt")
    path.unlink()
    path.mkdir()
    said = ask("upload", "--json")
    assert said.code == 1
    bad, good = said.json["executions"]
    assert "a.pt" in bad["error"]
    assert [file["filename"] for file in good["sent"]] == ["b.pt"]


def test_an_unknown_execution(ask, ml: DerivaML) -> None:
    """A record id of nothing is wrong use for each of the three."""
    for command in ("status", "abort", "upload"):
        assert ask(command, "9-ZZZZ").code == 2
