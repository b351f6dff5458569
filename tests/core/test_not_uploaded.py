"""What a program says if it ends with files that are staged and not uploaded."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML

PROGRAM = """
import os, sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

workflow = Workflow(name="Forgets", workflow_type="Training", url="https://example.org/f.py", checksum="4" * 40)
ml = DerivaML(*sys.argv[2:])
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    for name in ("a.txt", "b.txt"):
        exe.asset_file_path("Model", name).write_text(name)
if "uploads" in sys.argv[1]:
    exe.upload_execution_outputs()
if "restores" in sys.argv[1]:
    ml.restore_execution(exe.execution_rid).upload_execution_outputs(wait=False)
if "forks" in sys.argv[1]:
    if os.fork() == 0:
        sys.exit()
    os.wait()
print(exe.execution_rid)
"""


def run_program(mode: str, *address: str) -> tuple[str, str]:
    """Run the program; return the RID and what it wrote to standard error."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode, *address], capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("is_default", [True, False])
def test_completed_run_says_what_it_did_not_upload(tmp_path: Path, is_default: bool) -> None:
    """A program that ends after a completed run says how many files are not uploaded, and its command uploads them."""
    address = () if is_default else (f"file:{tmp_path}/my runs",)
    rid, said = run_program("forgets", *address)
    assert f"Execution {rid} ended with 2 staged files that are not uploaded." in said
    command = shlex.split(re.search("`(deriva-ml upload .+)`", said)[1])
    subprocess.run([sys.executable, "-m", "deriva_ml_cli", *command[1:]], check=True, capture_output=True)
    with DerivaML(*address) as ml:
        assert [a.filename for a in ml.lookup_execution(rid).list_assets("Output") if a.table == "Model"] == [
            "a.txt",
            "b.txt",
        ]


@pytest.mark.parametrize("mode", ["uploads", "restores"])
def test_uploaded_run_says_nothing(mode: str) -> None:
    """A program that uploads after its run, also through another object, says nothing."""
    _, said = run_program(mode)
    assert "uploaded" not in said


def test_forked_child_says_nothing() -> None:
    """Only the process of the run speaks, once."""
    _, said = run_program("forks")
    assert said.count("not uploaded") == 1
