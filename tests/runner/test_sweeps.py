"""Sweeps: one execution that the jobs' own are nested in, whatever becomes of a job, and of the sweep itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from projects import Project

from deriva_ml import Status
from deriva_ml_core.execution import RecordedExecution
from deriva_ml_core.runner.sweep import JobReport, summarize_reports

SECRET = "correct-horse-battery"
WAITING = 120
"""Seconds to wait for a process on a busy machine."""


def job_of(sweep: RecordedExecution, number: int) -> RecordedExecution:
    return sweep.list_nested_executions()[number]


def record(run: RecordedExecution, name: str) -> str:
    return (run.working_dir / "records" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("launcher", "batch"), [("basic", "1"), ("joblib", "null")])
def test_a_job_that_is_killed_or_leaves_the_interpreter_costs_no_other(
    project: Project, launcher: str, batch: str
) -> None:
    """SIGKILL and sys.exit each end their own job alone, with either launcher; what it made is sent where it can be."""
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    words = (f"hydra/launcher={launcher}", f"hydra.sweeper.max_batch_size={batch}")  # also after a batch that failed
    ran = project.run("-m", *words, "model_config.what=kill,learn,exit")
    assert ran.code == 1
    sweep = project.sweep()
    jobs = sweep.list_nested_executions()
    completed, failed, aborted = Status.completed, Status.failed, Status.aborted
    assert [job.status for job in jobs] == [aborted, completed, failed]
    assert sweep.status is Status.failed
    assert sweep.status_detail.startswith("3 of 3 jobs have ended: 1 completed, 1 failed, 1 aborted. ")
    assert sweep.status_detail in ran.out.replace("\n", "")
    sent = [[asset.filename for asset in job.list_assets("Output") if asset.table == "Model"] for job in jobs]
    assert sent == [[], ["model.txt"], ["model.txt"]]  # also what failed


def test_what_is_kept_of_a_sweep_and_of_a_job(project: Project) -> None:
    """Both keep hydra's files and choices; a job the command that does it alone, the sweep a list of its jobs."""
    ran = project.run("--multirun", "--config-dir", "src/configs", "model_config.rate=0.5,1", "hydra.verbose=false")
    assert ran.code == 0, ran.complaint
    sweep = project.sweep()
    job = job_of(sweep, 1)
    for run, words in ((sweep, ["--multirun", "model_config.rate=0.5,1"]), (job, ["model_config.rate=1"])):
        (snapshot,) = (run.working_dir / "records").glob("environment_snapshot_*.json")
        argv = json.loads(snapshot.read_text())["environment"]["argv"]
        assert Path(argv[0]).name == "deriva-ml-run"
        assert [word for word in argv if word.startswith(("--multirun", "model_config"))] == words
        assert argv[argv.index("--config-dir") + 1] == "src/configs"
        kinds = {each.filename: each.asset_types for each in run.list_assets("Output")}
        assert kinds["hydra.yaml"] == kinds["overrides.yaml"] == ("Hydra_Config",)
    configuration = json.loads(record(job, "configuration.json"))["parameters"]
    assert configuration["config_choices"]["model_config"] == "default_model"
    assert configuration["model_config"]["rate"] == 1
    assert "rate: 1.0\n" in record(job, "config.yaml")
    jobs = json.loads(next((sweep.working_dir / "jobs").glob("000001.json")).read_text())
    assert (jobs["execution"], jobs["status"], jobs["returned"]) == (job.execution_rid, "Completed", 2)
    assert "jobs.json" in {each.filename for each in sweep.list_assets("Output")}


def test_a_sweep_over_secrets_and_beside_a_file_of_pythons_name(project: Project) -> None:
    """No file in the home has the secrets that tell the jobs apart; a queue.py in the folder stops no job."""
    (project.root / "queue.py").write_text("raise RuntimeError('this is not the queue of Python')")
    ran = project.run("-m", f"model_config.token={SECRET}-1,{SECRET}-2")
    assert ran.code == 0, ran.complaint
    files = [file for file in project.home.rglob("*") if file.is_file()]
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


def test_a_sweep_over_all_configs_of_a_group(project: Project) -> None:
    """Hydra's glob names configs: each is a job, and how many there are is known."""
    (project.root / "src/configs/experiment").mkdir()
    for name in ("a", "b"):
        text = f"# @package _global_\nmodel_config:\n  rate: 0.{len(name)}\n"
        (project.root / f"src/configs/experiment/{name}.yaml").write_text(text)
    ran = project.run("-m", "+experiment=glob(*)")
    assert ran.code == 0, ran.complaint
    assert "2 of 2 jobs have ended: 2 completed" in ran.out


def test_a_dry_sweep_writes_nothing(project: Project) -> None:
    """The functions run, and there is no execution afterwards."""
    ran = project.run("-m", "dry_run=true", "model_config.what=learn")
    assert ran.code == 0, ran.complaint
    assert "1 of 1 jobs have ended: 1 completed" in ran.out
    assert project.executions() == []


@pytest.fixture
def waiting(project: Project, tmp_path: Path) -> Project:
    """A project whose job waits until a file is there, and says in another which execution it is."""
    return replace(project, environ={"WAITING": str(tmp_path / "waiting")})


def begun(project: Project, said: Path | None = None) -> tuple[subprocess.Popen[bytes], Path]:
    """A sweep whose first job waits, and the file where what it says is kept."""
    process = project.start("-m", "model_config.what=wait,last", said=said)
    told = Path(project.environ["WAITING"])
    end = time.monotonic() + WAITING
    while not told.exists() or not told.read_text():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    return process, told


def test_a_sweep_that_is_terminated_takes_its_job_along(waiting: Project) -> None:
    """SIGTERM to the sweep alone aborts it and the job that runs, and begins no other."""
    process, _ = begun(waiting)
    process.terminate()
    assert process.wait(WAITING) == 128 + signal.SIGTERM
    sweep = waiting.sweep()
    assert [job.status for job in sweep.list_nested_executions()] == [Status.aborted]
    assert sweep.status is Status.aborted
    assert sweep.status_detail == "1 of 2 jobs have ended: 1 aborted; 1 is left; SIGTERM"


def test_ctrl_c_aborts_a_sweep(waiting: Project, tmp_path: Path) -> None:
    """Ctrl-C reaches the sweep and its job at once; both are Aborted, and how the sweep stands is said."""
    process, _ = begun(waiting, tmp_path / "said")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(WAITING) == 130
    sweep = waiting.sweep()
    assert (sweep.status, job_of(sweep, 0).status) == (Status.aborted, Status.aborted)
    assert sweep.status_detail.endswith("KeyboardInterrupt")
    said = (tmp_path / "said").read_text()
    assert f"Sweep {sweep.execution_rid}: 1 of 2 jobs have ended: 1 aborted; 1 is left." in said
    assert "Traceback" not in said


def test_a_sweep_that_is_killed_is_found_aborted_and_its_job_goes_on(waiting: Project) -> None:
    """Without a process the sweep is Aborted by its lease; the job that ran completes and keeps its own record."""
    process, told = begun(waiting)
    (job,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait(WAITING)
    told.with_name(f"{told.name}.over").touch()
    psutil.wait_procs([job], timeout=WAITING)
    sweep = waiting.sweep()
    assert sweep.status is Status.aborted
    assert "0 of 2 jobs" in sweep.status_detail
    assert job_of(sweep, 0).execution_rid == told.read_text()
    assert [each.status for each in sweep.list_nested_executions()] == [Status.completed]


def test_how_a_sweep_stands_in_words() -> None:
    """Numbers of what ended, and how, of what runs, and of what is left; without a total where nobody knows one."""
    states = (Status.completed, Status.failed, Status.running)
    reports = [JobReport(number=number, status=status) for number, status in enumerate(states)]
    assert summarize_reports(reports, 5) == "2 of 5 jobs have ended: 1 completed, 1 failed; 1 is running, 2 are left"
    assert summarize_reports(reports[:1], None) == "1 jobs have ended: 1 completed"
    assert summarize_reports([], 2) == "0 of 2 jobs have ended; 2 are left"
