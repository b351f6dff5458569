"""Time to detect the source of a workflow, compared with one process of Git, and secrets, with one search."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import committed_script
from benchmarks.scale import Scale
from benchmarks.timing import Trial, compare, time_call
from deriva_ml import Workflow
from deriva_ml_core.git import repository_state, uncommitted_patch
from deriva_ml_core.redaction import has_secret, redact


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
    yield from _measure_redaction(scale)


def _measure_redaction(scale: Scale) -> Iterator[Figure]:
    """Compare the search for secrets in a patch and in settings with a plain search and with JSON."""
    line = "+    loss = model(batch, max_tokens=512, key='label')  # a forward pass of the tokenizer\n"
    patch = line * (scale.patch_bytes // len(line))
    words = re.compile("(?i)secret|passwd")
    names = ("max_tokens", "tokenizer", "pass_through", "rate")
    settings = {f"layer_{number}.{name}": number for number in range(scale.parameters // len(names)) for name in names}
    yield comparison_figure(
        "search a patch for secrets",
        "one regular expression",
        compare(
            lambda: time_call(lambda: has_secret(patch, "train.py")),
            lambda: time_call(lambda: words.search(patch)),
            scale.heavy_rounds,
        ),
    )
    yield comparison_figure(
        "redact the parameters of a run",
        "json.dumps",
        compare(
            lambda: time_call(lambda: redact(settings)), lambda: time_call(lambda: json.dumps(settings)), scale.rounds
        ),
    )
