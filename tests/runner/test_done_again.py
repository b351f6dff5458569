"""A run of ``deriva-ml-run`` done again: the command that its execution keeps is the one that does it alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from projects import SECONDS, Project

from deriva_ml import Status
from deriva_ml_core.execution import RecordedExecution


def model_of(run: RecordedExecution) -> str:
    return next(asset.md5 for asset in run.list_assets("Output") if asset.table == "Model")


def test_a_job_of_a_sweep_is_done_again_from_another_clone(project: Project, tmp_path: Path) -> None:
    """``deriva-ml reproduce --run`` of one job, dirty, runs that job and no other, and the same bytes come out."""
    function = project.root / "src" / "models" / "obedient.py"
    function.write_text(function.read_text().replace("{what} {rate}", "{what} at {rate}"))
    ran = project.run("-m", "model_config.rate=0.5,0.25")
    assert ran.code == 0, ran.complaint
    job = project.sweep().list_nested_executions()[1]
    clone = tmp_path / "clone"
    project.git("clone", "-q", ".", str(clone))
    project.root.rename(tmp_path / "gone")
    command = [sys.executable, "-m", "deriva_ml_cli", "reproduce", job.execution_rid, "--into", "again", "--run"]
    done = subprocess.run(command, cwd=clone, env=project.surroundings, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    again, *_ = project.executions()
    assert again.execution_rid != job.execution_rid
    assert again.status is Status.completed
    assert again.list_parent_executions() == []
    assert model_of(again) == model_of(job)
    assert again.workflow_rid == job.workflow_rid
