"""A run in a process of its own that waits for lines on its standard input."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = """
import sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

workflow = Workflow(name="Waiting", workflow_type="Training", url="https://example.org/w.py", checksum="2" * 40)
ml = DerivaML()
with ml.create_execution(ExecutionConfiguration(workflow=workflow, description="Waits")) as exe:
    exe.asset_file_path("Model", "half.pt").write_text("half a model")
    print(exe.execution_rid, flush=True)
    for line in sys.stdin:
        exe.update_status(Status.running, line.strip())
        print("updated", flush=True)
"""


@contextmanager
def start_waiting_run(home: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a run that reports each line of its standard input as a status, and yield its RID and process."""
    command, environ = [sys.executable, "-c", PROGRAM], {**os.environ, "DERIVA_ML_HOME": str(home)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environ, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()
