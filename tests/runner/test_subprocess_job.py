"""The command that a sweep's job records runs that job alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from projects import Project

from deriva_ml import Status
from deriva_ml_core.execution import RecordedExecution


def model_md5(run: RecordedExecution) -> str:
    return next(asset.md5 for asset in run.list_assets("Output") if asset.table == "Model")


def test_reproduce_one_job_from_another_clone(project: Project, tmp_path: Path) -> None:
    """``deriva-ml reproduce --run`` repeats one job with uncommitted changes alone, and produces the same bytes."""
    function = project.root / "src" / "models" / "scripted.py"
    function.write_text(function.read_text().replace("{action} {rate}", "{action} at {rate}"))
    result = project.run("-m", "model_config.rate=0.5,0.25")
    assert result.code == 0, result.stderr
    job = project.sweep().list_nested_executions()[1]
    clone = tmp_path / "clone"
    project.git("clone", "-q", ".", str(clone))
    project.root.rename(tmp_path / "gone")
    command = [sys.executable, "-m", "deriva_ml_cli", "reproduce", job.execution_rid, "--into", "again", "--run"]
    done = subprocess.run(command, cwd=clone, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reproduced = project.newest()
    assert reproduced.execution_rid != job.execution_rid
    assert reproduced.status is Status.completed
    assert reproduced.list_parent_executions() == []
    assert model_md5(reproduced) == model_md5(job)
    assert reproduced.workflow_rid == job.workflow_rid
