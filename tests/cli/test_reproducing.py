"""``deriva-ml reproduce``: a run of a real script in a real repository, done again somewhere else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.models import Asset

if shutil.which("git") is None:
    pytest.skip("a run is rebuilt by git, which is not here", allow_module_level=True)

REMOTE = "https://github.com/org/repo"

SCRIPT = """
import sys
from pathlib import Path

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from settings import SCALE

ml = DerivaML()
workflow = ml.create_workflow("Scaling", "Training")
config = ExecutionConfiguration(workflow=workflow, description="Scaled", parameters={"api_key": "hunter22"})
with ml.create_execution(config) as exe:
    exe.asset_file_path("Model", "model.txt").write_text(f"{SCALE} {sys.argv[1]} {Path('extra.txt').read_text()}")
exe.upload_execution_outputs()
"""

TRAINING = """
import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_lightning import DerivaMLCallback

from .settings import RATE


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Dropout(0.3), nn.Linear(32, 4))

    def training_step(self, batch):
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=RATE)


seed_everything(7)
ml = DerivaML()
with ml.create_execution(ExecutionConfiguration(workflow=ml.create_workflow("Training", "Training"))) as exe:
    data = TensorDataset(torch.randn(256, 16), torch.randint(4, (256,)))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    callbacks = [DerivaMLCallback(exe, curves=False)]
    trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=callbacks, enable_checkpointing=False, **quiet)
    trainer.fit(Net(), DataLoader(data, batch_size=32, shuffle=True))
exe.upload_execution_outputs()
"""


@dataclass(frozen=True)
class Project:
    """A repository with uncommitted changes, in which a script runs."""

    root: Path

    def git(self, *words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=self.root, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def run(self, *words: str) -> str:
        """Run a script here, and return the record id of its execution."""
        subprocess.run([sys.executable, *words], cwd=self.root, check=True, timeout=250, stderr=subprocess.DEVNULL)
        with DerivaML() as ml:
            return ml.find_executions(limit=1)[0].execution_rid


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    settings = tmp_path / "gitconfig"
    settings.write_text("[user]\n\tname = Test\n\temail = test@example.org\n[init]\n\tdefaultBranch = main\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    found = Project(tmp_path / "work" / "repo")
    found.root.mkdir(parents=True)
    found.git("init", "-q")
    found.git("remote", "add", "origin", f"{REMOTE}.git")
    (found.root / "run.py").write_text(SCRIPT)
    (found.root / "demo").mkdir()
    (found.root / "demo" / "train.py").write_text(TRAINING)
    (found.root / "demo" / "settings.py").write_text("RATE = 0.1\n")
    (found.root / "settings.py").write_text("SCALE = 1\n")
    found.git("add", ".")
    found.git("commit", "-qm", "First")
    (found.root / "settings.py").write_text("SCALE = 3  # not committed\n")
    (found.root / "demo" / "settings.py").write_text("RATE = 0.003  # not committed\n")
    (found.root / "extra.txt").write_text("not even added")
    return found


@pytest.fixture
def clone(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone, in which the terminal is."""
    folder = tmp_path / "elsewhere"
    project.git("clone", "-q", ".", str(folder))
    monkeypatch.chdir(folder)
    return folder


def model_of(ml: DerivaML, rid: str) -> Asset:
    return next(each for each in ml.lookup_execution(rid).list_assets("Output") if each.table == "Model")


def last_checkpoint(ml: DerivaML, rid: str) -> Asset:
    found = ml.lookup_execution(rid).list_assets("Output")
    return next(each for each in found if "Last_Checkpoint" in each.asset_types)


def test_a_dirty_run_is_done_again(ask, project: Project, clone: Path, tmp_path: Path) -> None:
    """From a fresh clone, what was not committed is applied, the command runs there, and the same bytes come out."""
    rid = project.run("run.py", "with an argument")
    shutil.rmtree(project.root)
    said = ask("reproduce", rid, "--into", str(tmp_path / "again"), "--run")
    assert said.code == 0, said.complaint
    with DerivaML() as ml:
        again = ml.find_executions(limit=1)[0]
        assert again.execution_rid != rid
        assert model_of(ml, again.execution_rid).md5 == model_of(ml, rid).md5
        assert ml.lookup_workflow(again.workflow_rid).rid == ml.lookup_execution(rid).workflow_rid
    assert (tmp_path / "again" / "code" / "extra.txt").read_text() == "not even added"


def test_weights_are_the_same_to_the_bit(ask, project: Project, clone: Path, tmp_path: Path) -> None:
    """A training with Lightning, begun as a module and not committed, gives the same weights, each bit of them."""
    torch = pytest.importorskip("torch", reason="it is about weights")
    pytest.importorskip("pytorch_lightning", reason="it is about a training with Lightning")
    rid = project.run("-m", "demo.train")
    shutil.rmtree(project.root)
    said = ask("reproduce", rid, "--into", str(tmp_path / "again"), "--run")
    assert said.code == 0, said.complaint
    assert "-m demo.train" in said.out
    with DerivaML() as ml:
        again = ml.find_executions(limit=1)[0].execution_rid
        assert again != rid
        checkpoints = {each: last_checkpoint(ml, each) for each in (rid, again)}
    for each, checkpoint in checkpoints.items():
        assert ask("download", checkpoint.rid, "--into", str(tmp_path / each)).code == 0
    then, now = (torch.load(tmp_path / each / Path(found.filename).name) for each, found in checkpoints.items())
    weights, same = then["state_dict"], now["state_dict"]
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_what_is_told(ask, project: Project, clone: Path, tmp_path: Path) -> None:
    """The commit, the command with folders as they are here, and the names of secrets are told; nothing is run."""
    rid = project.run("run.py", str(project.root / "settings.py"))
    into = tmp_path / "again"
    found = ask("reproduce", rid, "--into", str(into), "--json").json
    assert (found["commit"], found["patched"]) == (project.git("rev-parse", "HEAD").strip(), True)
    assert found["command"][1:] == ["run.py", str(into / "code" / "settings.py")]
    assert found["place"] == str(into / "code")
    assert found["redacted"] == ["setting parameters.api_key"]
    assert found["differing"] == []
    assert (into / "records" / "configuration.json").is_file()
    with DerivaML() as ml:
        assert len(ml.find_executions()) == 1


def test_another_environment_is_told(ask, project: Project, tmp_path: Path) -> None:
    """A package that had another version then is named with both."""
    rid = project.run("run.py", "x")
    with DerivaML() as ml:
        (snapshot,) = (ml.lookup_execution(rid).working_dir / "records").glob("environment_snapshot_*")
    snapshot.write_text(snapshot.read_text().replace('"pluggy": "', '"pluggy": "0.'))
    (found,) = ask("reproduce", rid, "--into", str(tmp_path / "a"), "--json").json["differing"]
    assert (found["name"], found["left"]) == ("pluggy", f"0.{found['right']}")
    assert "pluggy" in ask("reproduce", rid, "--into", str(tmp_path / "b")).out


def test_from_the_remote(ask, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody here has the commit it is cloned from the recorded remote."""
    rid = project.run("run.py", "x")
    project.git("clone", "-q", "--bare", ".", str(tmp_path / "server.git"))
    shutil.rmtree(project.root)
    monkeypatch.chdir(tmp_path)
    with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as settings:
        settings.write(f'[url "{(tmp_path / "server.git").as_uri()}"]\n\tinsteadOf = {REMOTE}\n')
    found = ask("reproduce", rid, "--into", "again", "--json").json
    assert found["source"] == REMOTE
    assert (tmp_path / "again" / "code" / "settings.py").read_text() == "SCALE = 3  # not committed\n"


def test_a_commit_that_nobody_has(ask, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is neither here nor at the remote is told, with what to do, and nothing is left behind."""
    rid = project.run("run.py", "x")
    shutil.rmtree(project.root)
    monkeypatch.chdir(tmp_path)
    with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as settings:
        settings.write(f'[url "{(tmp_path / "nowhere.git").as_uri()}"]\n\tinsteadOf = {REMOTE}\n')
    said = ask("reproduce", rid, "--into", "again")
    assert said.code == 1
    assert "--repository" in said.complaint
    assert not (tmp_path / "again").exists()


def test_a_folder_in_the_way(ask, project: Project, tmp_path: Path) -> None:
    """A folder that is there already is not touched."""
    rid = project.run("run.py", "x")
    (tmp_path / "again").mkdir()
    said = ask("reproduce", rid, "--into", str(tmp_path / "again"))
    assert (said.code, list((tmp_path / "again").iterdir())) == (1, [])
    assert "--into" in said.complaint


def test_again_where_it_was_deleted(ask, project: Project, tmp_path: Path) -> None:
    """A run can be rebuilt where it was rebuilt before, once that folder is deleted, though git still knows it."""
    rid = project.run("run.py", "x")
    for _ in range(2):
        assert ask("reproduce", rid, "--into", str(tmp_path / "again")).code == 0
        shutil.rmtree(tmp_path / "again")


def test_a_run_outside_of_git(ask, run, tmp_path: Path) -> None:
    """A run whose code was in no repository cannot be rebuilt, which is said."""
    said = ask("reproduce", run().execution_rid, "--into", str(tmp_path / "again"))
    assert said.code == 1
    assert "outside of any git repository" in said.complaint


def test_a_secret_on_the_command_line(ask, project: Project, tmp_path: Path) -> None:
    """A command that had a secret among its words is not run without it."""
    rid = project.run("run.py", "--password=hunter22")
    said = ask("reproduce", rid, "--into", str(tmp_path / "again"), "--run")
    assert said.code == 1
    assert "argument 1" in said.complaint
    assert "hunter22" not in said.out + said.complaint


def test_a_command_that_fails(ask, project: Project, tmp_path: Path) -> None:
    """A run that fails when it is done again ends with 1."""
    rid = project.run("run.py", "x")
    with DerivaML() as ml:
        (patch,) = (ml.lookup_execution(rid).working_dir / "records").glob("uncommitted.patch")
    patch.write_text(patch.read_text().replace("SCALE = 3", "SHAPE = 3"))
    assert ask("reproduce", rid, "--into", str(tmp_path / "again"), "--run").code == 1


def changed_snapshot(rid: str, **parts: Any) -> None:
    """Have the record of an execution's environment say something else."""
    with DerivaML() as ml:
        (file,) = (ml.lookup_execution(rid).working_dir / "records").glob("environment_snapshot_*")
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, **{name: {**(told[name] or {}), **part} for name, part in parts.items()}}))


BEGUN = (
    (["python", "-X", "dev", "run.py", "a"], ["run.py", "a"], ["{python}", "-X", "dev", "run.py", "a"]),
    (["python", "-m", "demo.train", "a"], ["{root}/demo/train.py", "a"], ["{python}", "-m", "demo.train", "a"]),
    (["python", "-c", "import run", "a"], ["-c", "a"], ["{python}", "-c", "import run", "a"]),
    (["python", "-c", "from multiprocessing"], ["run.py", "a"], ["{python}", "run.py", "a"]),
    (["python", "/else/bin/deriva-ml", "x=1"], ["/else/bin/deriva-ml", "x=1"], ["{here}/deriva-ml", "x=1"]),
    ([], ["/else/bin/deriva-ml-run-notebook", "{root}/n.ipynb"], ["{here}/deriva-ml-run-notebook", "{code}/n.ipynb"]),
    (["python"], [""], []),
)
"""The command line as a process got it, what Python tells of it, and what it is in a worktree."""


def test_how_it_was_begun(ask, project: Project, tmp_path: Path) -> None:
    """A module, a script with Python's own options, a line of code, or a command of this environment is begun again."""
    names = {"root": str(project.root), "here": str(Path(sys.executable).parent), "python": sys.executable}
    rid = project.run("run.py", "x")
    for number, (whole, argv, command) in enumerate(BEGUN):
        into = tmp_path / str(number)
        known = {**names, "code": str(into / "code")}
        words = {"orig_argv": [each.format(**known) for each in whole], "argv": [each.format(**known) for each in argv]}
        changed_snapshot(rid, environment=words)
        found = ask("reproduce", rid, "--into", str(into), "--json").json
        assert found["command"] == [each.format(**known) for each in command]


def test_a_run_in_a_container(ask, run, tmp_path: Path) -> None:
    """Of a run in a container it is told which image to run again, and with what."""
    rid = run().execution_rid
    image = {"kind": "container", "url": "ghcr.io/org/repo", "checksum": "sha256:" + "ab" * 32}
    changed_snapshot(rid, source=image, environment={"argv": ["train.py", "--lr", "1"]})
    said = ask("reproduce", rid, "--into", str(tmp_path / "again"))
    assert said.code == 1
    assert f"docker run ghcr.io/org/repo@sha256:{'ab' * 32}" in said.complaint
    assert "train.py --lr 1" in said.complaint
