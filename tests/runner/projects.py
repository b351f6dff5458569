"""Small projects, each a real Git repository, in which ``deriva-ml-run`` is called as a user calls it."""

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

from deriva_ml import DerivaML
from deriva_ml_core.execution import RecordedExecution

REMOTE = "git@github.com:org/digits.git"
COMMAND = Path(sysconfig.get_path("scripts")) / "deriva-ml-run"
EXAMPLE = Path(__file__).parents[2] / "examples" / "hydra_project"

SECONDS = 240

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@example.org")

MODEL = '''\
"""A model function that does what it is told."""

import os
import signal
import sys
import time
from pathlib import Path


def train(what: str = "learn", rate: float = 0.1, token: str = "", *, ml_instance, execution):
    execution.asset_file_path("Model", "model.txt").write_text(f"{what} {rate}")
    if what == "fail":
        raise ValueError("it was told to fail")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        sys.exit(3)
    if what == "wait":
        Path(os.environ["WAITING"]).write_text(execution.execution_rid)
        while not Path(os.environ["WAITING"] + ".over").exists():
            time.sleep(0.02)
    return rate * 2


def without(rate: float = 0.1):
    """One that cannot be given an execution."""
'''

CONFIGS = '''\
"""Configs of all groups, some of them wrong."""

from dataclasses import dataclass

from hydra_zen import builds, store
from models.obedient import train, without

from deriva_ml import DatasetSpec
from deriva_ml.execution import Workflow

model = store(group="model_config")
model(builds(train, populate_full_signature=True, zen_partial=True), name="default_model")
model(builds(without, populate_full_signature=True, zen_partial=True), name="without")
model(builds(train, ml_instance=None, execution=None), name="called")
model({"_target_": "models.nowhere.train", "_partial_": True}, name="nowhere")

workflow = store(group="workflow")
Conf = builds(Workflow, workflow_type="Training", populate_full_signature=True)
workflow(Conf(name="Obedience"), name="default_workflow")
workflow(Conf(name="Obedience", workflow_type="Nonsense"), name="nonsense")
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
class Ran:
    """What a command said, and the code that it ended with."""

    code: int
    out: str
    complaint: str


@dataclass(frozen=True)
class Project:
    """A project's folder, and the home of the catalog that its runs go to."""

    root: Path
    home: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def surroundings(self) -> dict[str, str]:
        """The environment variables of its runs."""
        return {**os.environ, "DERIVA_ML_HOME": str(self.home), "OMP_NUM_THREADS": "1", **self.environ}

    def run(self, *words: str) -> Ran:
        """Call ``deriva-ml-run`` in its folder."""
        done = subprocess.run(
            [COMMAND, *words], cwd=self.root, env=self.surroundings, capture_output=True, text=True, timeout=SECONDS
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, said: Path | None = None) -> subprocess.Popen[bytes]:
        """Begin ``deriva-ml-run`` as a shell on a terminal does: in a process group of its own."""
        with (said or Path(os.devnull)).open("wb") as out:
            return subprocess.Popen(
                [COMMAND, *words],
                cwd=self.root,
                env=self.surroundings,
                start_new_session=True,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def git(self, *words: str) -> str:
        """Run git in its folder."""
        done = subprocess.run(
            ["git", *IDENTITY, *words], cwd=self.root, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    def executions(self) -> list[RecordedExecution]:
        """Its executions, newest first."""
        return DerivaML(f"file:{self.home / 'local'}").find_executions()

    def newest(self) -> RecordedExecution:
        """The execution that was made last."""
        return self.executions()[0]

    def sweep(self) -> RecordedExecution:
        """The last execution of a sweep itself."""
        return next(each for each in self.executions() if "a sweep of" in each.description)


def make_project(folder: Path, source: Path | None = None) -> Project:
    """Make a repository of a project: a copy of one, or the one whose model function does what it is told."""
    root = folder / "project"
    if source:
        shutil.copytree(source, root, ignore=shutil.ignore_patterns("__pycache__", "outputs", "multirun"))
    else:
        for name, text in {"src/models/obedient.py": MODEL, "src/configs/all.py": CONFIGS}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        (root / ".gitignore").write_text("__pycache__/\n")
    project = Project(root, folder / "home")
    project.git("init", "-q", "-b", "main")
    project.git("remote", "add", "origin", REMOTE)
    project.git("add", ".")
    project.git("commit", "-qm", "First")
    return project


def in_one_process(project: Project, *lines: list[str]) -> list[Ran]:
    """Call the command several times in one process, each time with the words of one line."""
    program = (
        "import contextlib, io, json, sys\n"
        "from deriva_ml_core.runner.cli import main\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    sys.argv[:] = ['deriva-ml-run', *line]\n"
        "    out, complaint = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaint):\n"
        "        try:\n"
        "            code = main()\n"
        "        except SystemExit as end:\n"
        "            code = end.code\n"
        "    print(json.dumps([code, out.getvalue(), complaint.getvalue()]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(lines)],
        cwd=project.root,
        env=project.surroundings,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return [Ran(*json.loads(line)) for line in done.stdout.splitlines()]
