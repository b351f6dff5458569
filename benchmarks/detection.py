"""What finding the running code costs, in processes of git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, compared
from benchmarks.measure import Trial, beside, seconds
from benchmarks.places import committed_script
from benchmarks.scale import Scale
from deriva_ml import Workflow
from deriva_ml_core.git import repository_state, uncommitted_patch


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time a Workflow's making, and what an execution asks of its repository, beside one process of git."""
    script = committed_script(folder / "repository", "print(1)\n")
    root = script.parent

    def one_git() -> float:
        command = ["git", "rev-parse", "HEAD"]
        return seconds(lambda: subprocess.run(command, cwd=root, check=True, capture_output=True))

    subjects: dict[str, Trial] = {
        "Workflow(…) of a committed script": lambda: seconds(
            lambda: Workflow(name="Benchmark", workflow_type="Training", script=script)
        ),
        "state and uncommitted changes of its repository": lambda: seconds(
            lambda: (repository_state(root), uncommitted_patch(root, os.environ))
        ),
    }
    for what, trial in subjects.items():
        yield compared(what, "one git rev-parse", beside(trial, one_git, scale.rounds))
