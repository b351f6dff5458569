"""``DerivaML.reproduce``; the tests of the command run real scripts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recorded_runs import Runs

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import FileConflict, NotReproducible

SCRIPT = """
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration

ml = DerivaML()
workflow = ml.create_workflow("Scaling", "Training")
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    exe.asset_file_path("Model", "model.txt").write_text("weights")
exe.upload_execution_outputs()
print(exe.execution_rid)
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_reproduce(ml: DerivaML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is rebuilt in a folder, and its command runs there."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "run.py").write_text(SCRIPT)
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    for args in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "First")):
        subprocess.run(["git", *args], cwd=repository, check=True)
    process = subprocess.run(
        [sys.executable, "run.py"],
        cwd=repository,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    rid = process.stdout.strip()
    monkeypatch.chdir(tmp_path)
    reproduction = ml.reproduce(rid, repository=repository)
    folder = Path(f"reproduce-{rid}")
    assert (reproduction.rid, reproduction.folder, reproduction.code_dir) == (rid, folder, folder / "code")
    assert (reproduction.command, reproduction.run_dir) == ((sys.executable, "run.py"), (folder / "code").absolute())
    assert (reproduction.is_patched, reproduction.inputs, reproduction.environment_differences) == (False, (), ())
    assert folder / "records" / "configuration.json" in reproduction.records
    assert reproduction.run() == 0
    assert len(ml.find_executions()) == 2
    with pytest.raises(FileConflict):
        ml.reproduce(rid)
    again = ml.reproduce(rid, "again", repository=repository, run=True)
    assert (reproduction.exit_code, again.exit_code) == (None, 0)
    assert len(ml.find_executions()) == 3


def test_reproduce_run_outside_of_git(ml: DerivaML, runs: Runs, tmp_path: Path) -> None:
    """A run without a commit cannot be rebuilt, and no folder is created."""
    with pytest.raises(NotReproducible, match="outside of any git repository"):
        ml.reproduce(runs.first, tmp_path / "again")
    assert not (tmp_path / "again").exists()
