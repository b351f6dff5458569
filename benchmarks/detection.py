"""Time to detect the source of a workflow, compared with one process of Git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import committed_script
from benchmarks.scale import Scale
from benchmarks.timing import Trial, compare, time_call
from deriva_ml import Workflow
from deriva_ml_core.git import repository_state, uncommitted_patch


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Compare the creation of a Workflow, and the queries of an execution to its repository, with one Git process."""
    script = committed_script(folder / "repository", "print(1)\n")
    root = script.parent

    def run_git() -> float:
        command = ["git", "rev-parse", "HEAD"]
        return time_call(lambda: subprocess.run(command, cwd=root, check=True, capture_output=True))

    subjects: dict[str, Trial] = {
        "create a Workflow of a committed script": lambda: time_call(
            lambda: Workflow(name="Benchmark", workflow_type="Training", script=script)
        ),
        "read the state and uncommitted changes of its repository": lambda: time_call(
            lambda: (repository_state(root), uncommitted_patch(root, os.environ))
        ),
    }
    for what, trial in subjects.items():
        yield comparison_figure(what, "one git rev-parse", compare(trial, run_git, scale.rounds))
