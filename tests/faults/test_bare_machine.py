"""Machines that lack what is usually there: a folder for temporary files, or a home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from waits import HANG

NO_TEMPORARY_FOLDER = """
import tempfile
tempfile._candidate_tempdir_list = lambda: ["/proc"]  # as on a machine whose /tmp and other folders are read-only
try:
    tempfile.gettempdir()
except FileNotFoundError:
    pass
else:
    raise SystemExit("the program has a folder for temporary files")
"""

RUN = """
import shutil, sys
from pathlib import Path
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

ml = DerivaML()
workflow = Workflow(name="Bare", workflow_type="Training", script=Path(sys.argv[1]))
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    exe.asset_file_path("Model", "m.pt").write_text("weights")
exe.upload_execution_outputs()
shutil.rmtree(exe.working_dir)
restored = ml.restore_execution(exe.execution_rid)
assert restored.status == "Completed"
assert [update.status for update in restored.list_statuses()][-1] == "Completed"
print(exe.execution_rid)
"""

GIT = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]


def test_run_without_a_folder_for_temporary_files(tmp_path: Path) -> None:
    """A run is recorded with its uncommitted changes, uploaded, restored and shown."""
    script = tmp_path / "project/train.py"
    script.parent.mkdir()
    script.write_text("print(1)\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "One"]):
        subprocess.run([*GIT, *command], cwd=script.parent, check=True)
    script.write_text("print(2)\n")
    program = [sys.executable, "-W", "ignore", "-c", NO_TEMPORARY_FOLDER + RUN, str(script)]
    rid = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True, timeout=HANG).stdout.strip()
    show = NO_TEMPORARY_FOLDER + "from deriva_ml_cli.app import app; app()"
    done = subprocess.run([sys.executable, "-c", show, "show", rid], capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert "Bare" in done.stdout
    with DerivaML() as ml:
        outputs = {asset.filename: asset for asset in ml.lookup_execution(rid).list_assets("Output")}
        patch = outputs["uncommitted.patch"].md5
        assert b"+print(2)" in (ml.connection.folder / "objects" / patch[:2] / patch).read_bytes()
        assert [path.name for path in ml.connection.folder.iterdir() if path.name.startswith(".")] == [".gitignore"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that the system does not know")
def test_user_without_a_home_folder(tmp_path: Path) -> None:
    """A user without HOME and without an entry in the system's list is told to set DERIVA_ML_HOME."""
    program = """
import os, sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ConfigurationError
DerivaML(f"file:{sys.argv[1]}").close()  # imports what another user may not be able to import
for name in ("HOME", "USER", "LOGNAME", "DERIVA_ML_HOME"):
    os.environ.pop(name, None)
os.setgroups([])
os.setgid(54321)
os.setuid(54321)
for call in (DerivaML, lambda: DerivaML("file:~/runs")):
    try:
        call()
    except ConfigurationError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=HANG)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("The folder ~/.deriva-ml is not known: HOME is not set")
    assert lines[1].startswith("The folder ~/runs is not known: HOME is not set")
    assert all("Set DERIVA_ML_HOME" in line for line in lines)
