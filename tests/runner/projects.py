"""Small projects in real Git repositories, and helpers that run ``deriva-ml-run`` in them as a user does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deriva_ml import DerivaML
from deriva_ml_core.execution import RecordedExecution

REMOTE = "git@github.com:org/digits.git"
COMMAND = Path(sysconfig.get_path("scripts")) / "deriva-ml-run"
EXAMPLE = Path(__file__).parents[2] / "examples" / "hydra_project"

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org")

MODEL = '''\
"""A model function whose behaviour a parameter selects."""

import os
import signal
import sys
import time
from pathlib import Path


def train(action: str = "learn", rate: float = 0.1, token: str = "", *, ml_instance, execution):
    execution.asset_file_path("Model", "model.txt").write_text(f"{action} {rate}")
    if action == "fail":
        raise ValueError("the test asked for a failure")
    if action == "print":
        print("learning")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "exit":
        sys.exit(3)
    if action == "wait":
        Path(os.environ["WAITING"]).write_text(execution.execution_rid)
        while not Path(os.environ["WAITING"] + ".over").exists():
            time.sleep(0.02)
    return rate * 2


def without(rate: float = 0.1):
    """A function that does not accept an execution."""
'''

CONFIGS = '''\
"""Configs for all groups, some of them invalid."""

from dataclasses import dataclass

from hydra_zen import builds, store
from models.scripted import train, without

from deriva_ml import DatasetSpec
from deriva_ml.execution import Workflow

model = store(group="model_config")
model(builds(train, populate_full_signature=True, zen_partial=True), name="default_model")
model(builds(without, populate_full_signature=True, zen_partial=True), name="without")
model(builds(train, ml_instance=None, execution=None), name="called")
model({"_target_": "models.nowhere.train", "_partial_": True}, name="nowhere")

workflow = store(group="workflow")
Conf = builds(Workflow, workflow_type="Training", populate_full_signature=True)
workflow(Conf(name="Scripted"), name="default_workflow")
workflow(Conf(name="Scripted", workflow_type="Nonsense"), name="nonsense")
workflow(Conf, name="nameless")


@dataclass
class Rates:
    rate: float = 0.1


store(Rates, group="typed", name="rates")

datasets = store(group="datasets")
datasets([builds(DatasetSpec, rid="1-ABC", populate_full_signature=True)], name="unknown")
datasets([builds(DatasetSpec, rid="1-ABC", version="first")], name="unversioned")

'''


@dataclass(frozen=True)
class Result:
    """The exit code and the output of a command."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Project:
    """A project's folder, and the DERIVA_ML_HOME of its runs."""

    root: Path
    home: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of its runs."""
        return {**os.environ, "DERIVA_ML_HOME": str(self.home), "OMP_NUM_THREADS": "1", **self.environ}

    def run(self, *arguments: str) -> Result:
        """Run ``deriva-ml-run`` in the project's folder."""
        done = subprocess.run(
            [COMMAND, *arguments], cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, output: Path | None = None) -> subprocess.Popen[bytes]:
        """Start ``deriva-ml-run`` in its own process group, as a shell on a terminal does."""
        with (output or Path(os.devnull)).open("wb") as out:
            return subprocess.Popen(
                [COMMAND, *arguments],
                cwd=self.root,
                env=self.environment,
                start_new_session=True,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def run_cli(self, *arguments: str) -> Any:
        """Run ``deriva-ml`` with the project's catalog, and return the JSON that it prints."""
        command = [sys.executable, "-m", "deriva_ml_cli", *arguments]
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    def git(self, *arguments: str) -> str:
        """Run git in the project's folder and return its output."""
        done = subprocess.run(["git", *IDENTITY, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def executions(self) -> list[RecordedExecution]:
        """Return the project's executions, newest first."""
        return DerivaML(f"file:{self.home / 'local'}").find_executions()

    def newest(self) -> RecordedExecution:
        """Return the newest execution."""
        return self.executions()[0]

    def sweep(self) -> RecordedExecution:
        """Return the newest execution that records a sweep."""
        return next(execution for execution in self.executions() if "a sweep of" in execution.description)


def make_project(folder: Path, source: Path | None = None) -> Project:
    """Create a project's repository: a copy of `source`, or a project with the model function above."""
    root = folder / "project"
    if source:
        shutil.copytree(source, root, ignore=shutil.ignore_patterns("__pycache__", "outputs", "multirun"))
    else:
        for name, text in {"src/models/scripted.py": MODEL, "src/configs/all.py": CONFIGS}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        (root / ".gitignore").write_text("__pycache__/\n")
    project = Project(root, folder / "home")
    project.git("init", "-q", "-b", "main")
    project.git("remote", "add", "origin", REMOTE)
    project.git("add", ".")
    project.git("commit", "-qm", "First")
    return project


def run_in_one_process(project: Project, *lines: list[str]) -> list[Result]:
    """Run the command several times in one process, each time with the arguments of one line."""
    program = (
        "import contextlib, io, json, sys\n"
        "from deriva_ml_core.runner.cli import main\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv[:] = ['deriva-ml-run', *line]\n"
        "    out, stderr = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(stderr):\n"
        "        try:\n"
        "            code = main()\n"
        "        except SystemExit as end:\n"
        "            code = end.code\n"
        "    print(json.dumps([code, out.getvalue(), stderr.getvalue()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(lines)],
        cwd=project.root,
        env=project.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [Result(*json.loads(line)) for line in done.stdout.splitlines()]
