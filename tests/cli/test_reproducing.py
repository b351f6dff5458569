"""``deriva-ml reproduce``: a run of a real script in a real repository, done again somewhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

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
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from settings import SCALE

torch.manual_seed(7)
ml = DerivaML()
with ml.create_execution(ExecutionConfiguration(workflow=ml.create_workflow("Training", "Training"))) as exe:
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01 * SCALE)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(64, 16)).square().mean().backward()
        optimizer.step()
    torch.save(model.state_dict(), exe.asset_file_path("Model", "weights.pt"))
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
    (found.root / "train.py").write_text(TRAINING)
    (found.root / "settings.py").write_text("SCALE = 1\n")
    found.git("add", ".")
    found.git("commit", "-qm", "First")
    (found.root / "settings.py").write_text("SCALE = 3  # not committed\n")
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
    """A training on the CPU gives the same weights again, each bit of them."""
    torch = pytest.importorskip("torch", reason="it is about weights")
    rid = project.run("train.py")
    shutil.rmtree(project.root)
    assert ask("reproduce", rid, "--into", str(tmp_path / "again"), "--run").code == 0
    with DerivaML() as ml:
        rids = [rid, ml.find_executions(limit=1)[0].execution_rid]
    files = [tmp_path / name for name in ("then", "now")]
    for each, folder in zip(rids, files, strict=True):
        with DerivaML() as ml:
            asset = model_of(ml, each).rid
        assert ask("download", asset, "--into", str(folder)).code == 0
    then, now = (torch.load(folder / "weights.pt") for folder in files)
    assert rids[0] != rids[1]
    assert then.keys() == now.keys()
    assert all(torch.equal(then[name], now[name]) for name in then)


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
