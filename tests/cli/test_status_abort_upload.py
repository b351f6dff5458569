"""``deriva-ml status``, ``abort`` and ``upload``: running and interrupted runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from waiting_run import start_waiting_run

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLTable
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from waits import HANG


def row_status(ml: DerivaML, rid: str) -> str:
    return ml.connection.catalog.select(MLTable.execution, {"RID": rid})[0]["Status"]


def test_status_exit_code(cli, ml: DerivaML, run, config: ExecutionConfiguration) -> None:
    """A completed run exits with 0; a failed one shows its error and exits with 1."""
    with pytest.raises(ValueError), ml.create_execution(config) as failed:
        raise ValueError("no data")
    good, bad = cli("status", run().execution_rid), cli("status", failed.execution_rid)
    assert (good.code, bad.code) == (0, 1)
    assert "Completed" in good.stdout
    assert "ValueError: no data" in bad.stdout


def test_status_records_killed_process(cli, ml: DerivaML, home: Path) -> None:
    """A run whose process was killed is shown and recorded as Aborted."""
    with start_waiting_run(home) as (rid, process):
        assert cli("status", rid).code == 0
        process.kill()
        process.wait()
    assert row_status(ml, rid) == "Running"
    result = cli("status", rid, "--json")
    assert (result.code, result.json["status"]) == (1, "Aborted")
    assert row_status(ml, rid) == "Aborted"


def test_watch(home: Path) -> None:
    """--watch prints each new status as one line of JSON and ends with the run."""
    with start_waiting_run(home) as (rid, process):
        command = [sys.executable, "-m", "deriva_ml_cli", "status", rid, "--watch", "--json", "--interval", "0.05"]
        with subprocess.Popen(command, env=dict(os.environ), stdout=subprocess.PIPE, text=True) as watching:
            first = json.loads(watching.stdout.readline())
            process.stdin.write("Epoch 1 is done\n")
            process.stdin.flush()
            second = json.loads(watching.stdout.readline())
            process.stdin.close()
            *_, last = [json.loads(line) for line in watching.stdout]
            assert watching.wait() == 0
    assert [each["status"] for each in (first, second, last)] == ["Running", "Running", "Completed"]
    assert second["status_detail"] == "Epoch 1 is done"


def test_abort_stops_the_process(cli, ml: DerivaML, home: Path) -> None:
    """The process of a run is stopped, and its staged files are kept."""
    with start_waiting_run(home) as (rid, process):
        result = cli("abort", rid, "--yes", "--wait", "100")
        assert (result.code, process.wait() != 0) == (0, True)
    assert row_status(ml, rid) == "Aborted"
    assert [asset.filename for asset in ml.restore_execution(rid).staged_assets()] == ["half.pt"]


def test_abort_asks_for_confirmation(cli, exe: Execution, ml: DerivaML) -> None:
    """Without --yes it asks; a no changes nothing, a yes aborts."""
    assert cli("abort", exe.execution_rid, answer="n\n").code == 1
    assert row_status(ml, exe.execution_rid) == "Created"
    assert cli("abort", exe.execution_rid, answer="y\n").code == 0
    assert row_status(ml, exe.execution_rid) == "Aborted"


def test_abort_finished_execution(cli, run) -> None:
    """A finished execution cannot be aborted."""
    result = cli("abort", run().execution_rid, "--yes")
    assert result.code == 1
    assert "is Completed already" in result.stderr


def test_abort_run_on_another_machine(cli, exe: Execution, ml: DerivaML) -> None:
    """A run on another machine is an error that names it; --only-record records Aborted."""
    with exe:
        path = exe.working_dir / "journal.jsonl"
        path.write_text(path.read_text().replace(f'"host":"{os.uname().nodename}"', '"host":"elsewhere"'))
        result = cli("abort", exe.execution_rid, "--yes")
        assert result.code == 1
        assert f"process {os.getpid()} on elsewhere" in result.stderr
        assert cli("abort", exe.execution_rid, "--yes", "--only-record").code == 0
    assert row_status(ml, exe.execution_rid) == "Aborted"


def test_upload_all(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The staged files of all runs are uploaded, none twice."""
    made = []
    for number in range(2):
        with ml.create_execution(config) as exe:
            exe.asset_file_path("Model", f"{number}.pt").write_text(f"model {number}")
        made.append(exe)
    found = cli("upload", "--json").json["executions"]
    assert [(each["rid"], [file["filename"] for file in each["sent"]]) for each in found] == [
        (exe.execution_rid, [f"{number}.pt"]) for number, exe in enumerate(made)
    ]
    assert cli("upload", "--json").json == {"executions": []}
    assert "Everything is uploaded" in cli("upload").stdout


def test_upload_skips_running_executions(cli, ml: DerivaML, home: Path) -> None:
    """A running execution is skipped; a killed one is uploaded and recorded as Aborted."""
    with start_waiting_run(home) as (rid, process):
        (found,) = cli("upload", "--json").json["executions"]
        assert (found["running"], found["sent"]) == (True, [])
        assert "still running" in cli("upload").stdout
        process.kill()
        process.wait()
    (found,) = cli("upload", "--json").json["executions"]
    assert (found["rid"], [file["filename"] for file in found["sent"]]) == (rid, ["half.pt"])
    assert row_status(ml, rid) == "Aborted"


def test_failed_upload(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An upload that fails is listed with its reason, the others are done, and the exit code is 1."""
    made = []
    for name in ("a.pt", "b.pt"):
        with ml.create_execution(config) as exe:
            path = exe.asset_file_path("Model", name)
            path.write_text(name)
        made.append(exe)
    path = made[0].asset_file_path("Model", "a.pt")
    path.unlink()
    path.mkdir()
    result = cli("upload", "--json")
    assert result.code == 1
    bad, good = result.json["executions"]
    assert "a.pt" in bad["error"]
    assert [file["filename"] for file in good["sent"]] == ["b.pt"]


def test_upload_goes_on_after_an_unknown_working_folder(
    cli, ml: DerivaML, config: ExecutionConfiguration, home: Path, tmp_path: Path
) -> None:
    """A working folder whose row a restored catalog lacks is named, and the files of all others are uploaded."""
    with ml.create_execution(config) as known:
        known.asset_file_path("Model", "known.pt").write_text("known")
    ml.close()
    shutil.copyfile(home / "local/catalog.sqlite", tmp_path / "backup.sqlite")
    with ml.create_execution(config) as lost:
        lost.asset_file_path("Model", "lost.pt").write_text("lost")
    ml.close()
    lost.working_dir.rename(lost.working_dir.with_name("0-LOST"))  # sorted first
    shutil.copyfile(tmp_path / "backup.sqlite", home / "local/catalog.sqlite")
    result = cli("upload", "--json")
    assert result.code == 1
    unknown, uploaded = result.json["executions"]
    assert unknown["rid"] == "0-LOST"
    assert "No row of" in unknown["error"]
    assert f"{home}/local/executions/0-LOST" in unknown["error"]
    assert (uploaded["rid"], [file["filename"] for file in uploaded["sent"]]) == (known.execution_rid, ["known.pt"])


def test_unknown_execution(cli, ml: DerivaML) -> None:
    """An unknown RID exits with 2."""
    for command in ("status", "abort", "upload"):
        assert cli(command, "9-ZZZZ").code == 2


def test_damaged_journal_line(cli, run) -> None:
    """A line of zero bytes, as a power cut leaves it, stops no command for any run."""
    rids = [run(f"Run {number}", [f"{number}.pt"]).execution_rid for number in range(2)]
    journal = run("Damaged", ["model.pt"]).working_dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines()
    number = next(n for n, line in enumerate(lines) if b'"staged"' in line and b"model.pt" in line)
    lines[number] = b"\0" * len(lines[number])
    journal.write_bytes(b"\n".join(lines) + b"\n")
    rid = journal.parent.name
    listed = [each["rid"] for each in cli("list", "--json").json["executions"]]
    assert sorted(listed) == sorted([*rids, rid])
    for args in (("status", rid), ("show", rid), ("upload",), ("upload", rid), ("cleanup", "--yes")):
        assert cli(*args).code == 0, args
    cli("doctor")  # its exit code depends on the machine; an exception would be raised here


def test_status_is_corrected(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """--set writes the right status with its reason, and show has the former one too."""
    with pytest.raises(ValueError), ml.create_execution(config) as failed:
        raise ValueError("no data")
    rid = failed.execution_rid
    result = cli("status", rid, "--set", "completed", "--reason", "Only the clean-up failed")
    assert result.code == 0, result.stderr
    assert row_status(ml, rid) == "Completed"
    shown = cli("show", rid, "--json").json
    failure, correction = shown["timeline"][-2:]
    assert (failure["status"], failure["message"]) == ("Failed", "ValueError: no data")
    assert correction["status"] == "Completed"
    assert correction["message"].startswith("Only the clean-up failed (corrected from Failed by ")
    assert correction["corrected_by"]


def test_best_checkpoint_is_corrected(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """--best names another checkpoint with its reason, and show has the former one too."""
    with ml.create_execution(config) as execution:
        for name, types in (("a.ckpt", ["Best_Checkpoint"]), ("b.ckpt", [])):
            execution.asset_file_path("Model", name, asset_types=["Model_File", *types]).write_text(name)
    execution.upload_execution_outputs()
    rid = execution.execution_rid
    assert cli("status", rid, "--best", "b.ckpt").code == 2
    assert cli("status", rid, "--best", "b.ckpt", "--set", "failed", "--reason", "why").code == 2
    result = cli("status", rid, "--best", "b.ckpt", "--reason", "It has the best test score")
    assert result.code == 0, result.stderr
    assert result.stdout.split() == [rid, "best", "checkpoint", "b.ckpt", "instead", "of", "a.ckpt"]
    shown = cli("show", rid, "--json").json
    (correction,) = shown["best_corrections"]
    assert (correction["checkpoint"], correction["previous"]) == ("b.ckpt", "a.ckpt")
    assert correction["reason"] == "It has the best test score"
    types = {asset["filename"]: sorted(asset["asset_types"]) for asset in shown["outputs"] if asset["table"] == "Model"}
    assert types == {"a.ckpt": ["Model_File"], "b.ckpt": ["Best_Checkpoint", "Model_File"]}
    assert "It has the best test score" in cli("show", rid).stdout
    again = cli("status", rid, "--best", "a.ckpt", "--reason", "It was right", "--json").json
    assert (again["checkpoint"], again["previous"]) == ("a.ckpt", "b.ckpt")


def test_correction_needs_status_and_reason(cli, ml: DerivaML, run) -> None:
    """--set without --reason, and --reason without --set, change nothing."""
    rid = run().execution_rid
    assert cli("status", rid, "--set", "failed").code == 2
    assert cli("status", rid, "--reason", "why").code == 2
    assert row_status(ml, rid) == "Completed"


def test_upload_after_broken_creation(cli, ml: DerivaML, home: Path) -> None:
    """The records of a run whose creation was killed are not uploaded; `upload` names the run and uploads them."""
    program = (
        "import os\n"
        "from deriva_ml_core.client import DerivaML\n"
        "from deriva_ml_core.execution import ExecutionConfiguration\n"
        "from deriva_ml_core.workflow import Workflow\n"
        "ml = DerivaML()\n"
        "workflow = Workflow(name='w', workflow_type='Training', url='https://example.org/w.py', checksum='0' * 40)\n"
        "def flush(file):\n"
        "    if '/objects/' in os.readlink(f'/proc/self/fd/{file}'): os.kill(os.getpid(), 9)\n"
        "os.fsync = flush\n"
        "ml.create_execution(ExecutionConfiguration(workflow=workflow))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=HANG).returncode == -9
    (killed,) = [row["RID"] for row in ml.select_rows("Execution")]
    checks = {check["name"]: check for check in cli("doctor", "--json").json["findings"]}
    assert killed in checks["unsent files"]["said"]
    (result,) = cli("upload", "--json").json["executions"]
    assert (result["rid"], result["records"], result["sent"], result["error"]) == (killed, 2, [], None)
    assert row_status(ml, killed) == "Aborted"
    assert "Everything is uploaded." in cli("upload").stdout
    names = {asset.filename.partition("_2")[0] for asset in ml.lookup_execution(killed).list_assets("Output")}
    assert names >= {"configuration.json", "environment_snapshot"}
    assert cli("verify", "--all").code == 0
