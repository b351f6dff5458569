"""Standard streams that are no files: the shell closed them, or a program replaced them. A run is not affected."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow
from pseudo_terminal import run_in_terminal

RUN = """
import sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration

class Tee:
    def __init__(self, error=None):
        self.error = error
    def write(self, text):
        if self.error:
            raise self.error
        return len(text)
    def flush(self):
        pass

class LostTerminal(Tee):
    encoding = "utf-8"
    def isatty(self):
        return True
    def fileno(self):
        return 2

class Strange(Tee):
    def isatty(self):
        raise ValueError("strange")

def replace(stream):
    if sys.argv[1] == "closed":
        sys.stdout.close(), sys.stderr.close()
    elif stream is not None or sys.argv[1] == "none":
        sys.stdout = sys.stderr = stream

replace({"tee": Tee(), "failing": Tee(OSError("gone")), "lost terminal": LostTerminal(OSError("gone")),
         "strange": Strange(ValueError("strange"))}.get(sys.argv[1]))
ml = DerivaML()
workflow = ml.create_workflow("Test", "Training")  # warns that the file is in no repository
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    for number in range(60):
        exe.asset_file_path("Execution_Asset", f"{number}.txt").write_text(str(number))
exe.upload_execution_outputs()
"""


@pytest.mark.parametrize("kind", ["tee", "none", "closed", "failing", "lost terminal", "strange"])
def test_run_with_a_replaced_stream(tmp_path: Path, ml: DerivaML, kind: str) -> None:
    """A run completes and is uploaded whatever standard output and standard error are."""
    script = tmp_path / "train.py"
    script.write_text(RUN)
    done = subprocess.run([sys.executable, str(script), kind], env={**os.environ}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = ml.find_executions()
    assert found.status == "Completed"
    assert len([each for each in found.list_assets() if each.table == "Execution_Asset"]) == 60


@pytest.mark.parametrize("command", ["list", "list --json", "list --csv", "doctor", "show {rid}", "nonsense"])
def test_command_with_closed_streams(ml: DerivaML, workflow: Workflow, tmp_path: Path, command: str) -> None:
    """A command with closed standard streams ends with the status that it has otherwise."""
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        pass
    line = f"{sys.executable} -m deriva_ml_cli {command.format(rid=exe.execution_rid)}"
    statuses = [
        subprocess.run(["sh", "-c", f"{line}{closed}"], cwd=tmp_path, capture_output=True).returncode
        for closed in ("", " >&- 2>&-")
    ]
    assert statuses[0] == statuses[1]
    assert (statuses[0] == 0) == (command != "nonsense")


@pytest.mark.parametrize(("quiet", "shows_bar"), [("", True), ("0", True), ("1", False), ("yes", False)])
def test_quiet_progress_bar(tmp_path: Path, quiet: str, shows_bar: bool) -> None:
    """A terminal shows the progress of an upload, unless DERIVA_ML_QUIET is set."""
    script = tmp_path / "train.py"
    script.write_text(RUN)
    code, text = run_in_terminal([sys.executable, script, "own"], cwd=tmp_path, env={"DERIVA_ML_QUIET": quiet})
    assert code == 0, text
    assert ("Uploading 60 files" in text) == shows_bar, text
