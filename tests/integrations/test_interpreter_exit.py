"""A script that has trained and uploaded exits, every time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml import DerivaML, Status
from waits import HANG

SCRIPT = Path(__file__).with_name("interpreter_exit_program.py")


@pytest.mark.parametrize("runs", [3, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_no_run_hangs_at_exit(home: Path, tmp_path: Path, runs: int) -> None:
    """Each of many runs exits with 0, is completed, and has no staged files."""
    pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
    done = subprocess.run(
        [sys.executable, SCRIPT, str(runs), str(HANG)], cwd=tmp_path, capture_output=True, text=True, timeout=3500
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0] * runs
    executions = DerivaML().find_executions()
    assert [execution.status for execution in executions] == [Status.completed] * runs
    assert all(len([a for a in e.list_assets("Output") if a.table == "Model"]) == 1 for e in executions)
