"""Sweeps: the execution of a sweep contains those of its jobs, however a job or the sweep ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from projects import Project

from deriva_ml import Status
from deriva_ml_core.execution import Execution, RecordedExecution
from deriva_ml_core.runner.sweep import JobReport, Sweep, SweepInfo, _track_status, summarize_reports, write_report

SECRET = "correct-horse-battery"


def get_job(sweep: RecordedExecution, number: int) -> RecordedExecution:
    return sweep.list_nested_executions()[number]


def read_record(run: RecordedExecution, name: str) -> str:
    return (run.working_dir / "records" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("launcher", "batch"), [("basic", "1"), ("joblib", "null")])
def test_killed_job_affects_no_other(project: Project, launcher: str, batch: str) -> None:
    """With either launcher, SIGKILL and sys.exit end only their own job, and outputs of a failed job are uploaded."""
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    # batches of one also test that the next batch starts after a failed one
    overrides = (f"hydra/launcher={launcher}", f"hydra.sweeper.max_batch_size={batch}")
    result = project.run("-m", *overrides, "model_config.action=kill,learn,exit")
    assert result.code == 1
    sweep = project.sweep()
    jobs = sweep.list_nested_executions()
    completed, failed, aborted = Status.completed, Status.failed, Status.aborted
    assert [job.status for job in jobs] == [aborted, completed, failed]
    assert sweep.status is Status.failed
    assert sweep.status_detail.startswith("3 of 3 jobs ended: 1 completed, 1 failed, 1 aborted. ")
    assert sweep.status_detail in result.stdout.replace("\n", "")
    uploaded = [[asset.filename for asset in job.list_assets("Output") if asset.table == "Model"] for job in jobs]
    assert uploaded == [[], ["model.txt"], ["model.txt"]]


def test_records_of_sweep_and_job(project: Project) -> None:
    """Both record Hydra's files and choices; a job records its own command, and the sweep a list of its jobs."""
    result = project.run("--multirun", "--config-dir", "src/configs", "model_config.rate=0.5,1", "hydra.verbose=false")
    assert result.code == 0, result.stderr
    sweep = project.sweep()
    job = get_job(sweep, 1)
    for run, arguments in ((sweep, ["--multirun", "model_config.rate=0.5,1"]), (job, ["model_config.rate=1"])):
        (snapshot,) = (run.working_dir / "records").glob("environment_snapshot_*.json")
        argv = json.loads(snapshot.read_text())["environment"]["argv"]
        assert Path(argv[0]).name == "deriva-ml-run"
        assert [argument for argument in argv if argument.startswith(("--multirun", "model_config"))] == arguments
        assert argv[argv.index("--config-dir") + 1] == "src/configs"
        types = {asset.filename: asset.asset_types for asset in run.list_assets("Output")}
        assert types["hydra.yaml"] == types["overrides.yaml"] == ("Hydra_Config",)
    configuration = json.loads(read_record(job, "configuration.json"))["parameters"]
    assert configuration["config_choices"]["model_config"] == "default_model"
    assert configuration["model_config"]["rate"] == 1
    assert "rate: 1.0\n" in read_record(job, "config.yaml")
    (asset,) = [asset for asset in sweep.list_assets("Output") if asset.filename == "jobs.json"]
    path = project.run_cli("download", asset.rid, "--into", str(project.root.parent), "--json")["path"]
    reports = json.loads(Path(path).read_text())
    assert [report["number"] for report in reports] == [0, 1]
    report = reports[1]
    assert (report["execution"], report["status"], report["returned"]) == (job.execution_rid, "Completed", 2)


def test_working_folder_of_an_uploaded_sweep_can_be_deleted(project: Project) -> None:
    """``deriva-ml cleanup`` deletes the working folders of a sweep and its jobs, also of a failed job."""
    assert project.run("-m", "model_config.action=learn,fail").code == 1
    rids = sorted(execution.execution_rid for execution in project.executions())
    found = project.run_cli("cleanup", "--dry-run", "--json")
    assert [each["name"] for each in found["may_go"] if each["kind"] == "working folder"] == rids
    assert len(rids) == 3


def test_sweep_over_secrets_next_to_a_queue_module(project: Project) -> None:
    """No file contains the swept secrets, and a queue.py in the folder does not shadow Python's module in a job."""
    (project.root / "queue.py").write_text("raise RuntimeError('this is not the standard library')")
    result = project.run("-m", f"model_config.token={SECRET}-1,{SECRET}-2")
    assert result.code == 0, result.stderr
    files = [file for file in project.home.rglob("*") if file.is_file()]
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


def test_sweep_over_all_configs_of_a_group(project: Project) -> None:
    """Hydra's glob creates one job per config, and the sweep knows their number."""
    (project.root / "src/configs/experiment").mkdir()
    for name in ("a", "b"):
        text = f"# @package _global_\nmodel_config:\n  rate: 0.{len(name)}\n"
        (project.root / f"src/configs/experiment/{name}.yaml").write_text(text)
    result = project.run("-m", "+experiment=glob(*)")
    assert result.code == 0, result.stderr
    assert "2 of 2 jobs ended: 2 completed" in result.stdout


def test_dry_run_of_a_sweep_records_nothing(project: Project) -> None:
    """A dry run of a sweep calls the model function and creates no execution."""
    result = project.run("-m", "dry_run=true", "model_config.action=learn")
    assert result.code == 0, result.stderr
    assert "1 of 1 jobs ended: 1 completed" in result.stdout
    assert project.executions() == []


@pytest.fixture
def waiting(project: Project, tmp_path: Path) -> Project:
    """A project whose job writes its RID to a file and waits for another file."""
    return replace(project, environ={"WAITING": str(tmp_path / "waiting")})


def start_sweep(project: Project, output: Path | None = None) -> tuple[subprocess.Popen[bytes], Path]:
    """Start a sweep, and return it with the RID file of its first job once that job waits."""
    process = project.start("-m", "model_config.action=wait,last", output=output)
    rid_file = Path(project.environ["WAITING"])
    while not rid_file.exists() or not rid_file.read_text():
        assert process.poll() is None
        time.sleep(0.05)
    return process, rid_file


def test_sigterm_aborts_sweep_and_job(waiting: Project) -> None:
    """SIGTERM to the sweep's process aborts the sweep and its running job, and no further job starts."""
    process, _ = start_sweep(waiting)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    sweep = waiting.sweep()
    assert [job.status for job in sweep.list_nested_executions()] == [Status.aborted]
    assert sweep.status is Status.aborted
    assert sweep.status_detail == "1 of 2 jobs ended: 1 aborted; 1 pending; SIGTERM"


def test_ctrl_c_aborts_sweep_and_job(waiting: Project, tmp_path: Path) -> None:
    """Ctrl-C aborts the sweep and its job at once, and the command prints the state of the sweep."""
    process, _ = start_sweep(waiting, tmp_path / "output")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 130
    sweep = waiting.sweep()
    assert (sweep.status, get_job(sweep, 0).status) == (Status.aborted, Status.aborted)
    assert sweep.status_detail.endswith("KeyboardInterrupt")
    output = (tmp_path / "output").read_text()
    assert f"Sweep {sweep.execution_rid}: 1 of 2 jobs ended: 1 aborted; 1 pending." in output
    assert "Traceback" not in output


def test_killed_sweep_is_aborted_and_its_job_completes(waiting: Project) -> None:
    """After SIGKILL the sweep is Aborted because its process is gone; the running job completes and is recorded."""
    process, rid_file = start_sweep(waiting)
    (job,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    rid_file.with_name(f"{rid_file.name}.over").touch()
    psutil.wait_procs([job])
    sweep = waiting.sweep()
    assert sweep.status is Status.aborted
    assert "0 of 2 jobs" in sweep.status_detail
    assert get_job(sweep, 0).execution_rid == rid_file.read_text()
    assert [execution.status for execution in sweep.list_nested_executions()] == [Status.completed]


def test_sweep_without_a_thread(exe: Execution, tmp_path: Path, refuse_threads: Callable[[int], None]) -> None:
    """If the system refuses the thread that reads the reports, the jobs run and the end of the sweep is recorded."""
    sweep = Sweep(SweepInfo(parent=exe.execution_rid, catalog="local", folder=tmp_path), 1)
    with exe:
        refuse_threads(1)
        with contextmanager(_track_status)(exe, sweep):
            write_report(tmp_path, JobReport(number=0, status=Status.completed))
    assert (exe.status, exe.status_detail) == (Status.completed, "1 of 1 jobs ended: 1 completed")


def test_summary_of_reports() -> None:
    """The summary counts ended, running and pending jobs, and has no total if the number of jobs is unknown."""
    states = (Status.completed, Status.failed, Status.running)
    reports = [JobReport(number=number, status=status) for number, status in enumerate(states)]
    assert summarize_reports(reports, 5) == "2 of 5 jobs ended: 1 completed, 1 failed; 1 running, 2 pending"
    assert summarize_reports(reports[:1], None) == "1 jobs ended: 1 completed"
    assert summarize_reports([], 2) == "0 of 2 jobs ended; 2 pending"
