"""``deriva-ml reproduce``: runs of real scripts in real repositories, rebuilt in another folder."""

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
    pytest.skip("git is not installed", allow_module_level=True)

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
    """A repository with uncommitted changes and a script."""

    root: Path

    def git(self, *args: str) -> str:
        return subprocess.run(["git", *args], cwd=self.root, capture_output=True, text=True, check=True).stdout

    def run(self, *args: str) -> str:
        """Run a script in the repository, and return the RID of its execution."""
        subprocess.run([sys.executable, *args], cwd=self.root, check=True, stderr=subprocess.DEVNULL)
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
def in_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository of the run as the current one."""
    monkeypatch.chdir(project.root)


@pytest.fixture
def clone(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone as the current folder."""
    folder = tmp_path / "elsewhere"
    project.git("clone", "-q", ".", str(folder))
    monkeypatch.chdir(folder)
    return folder


def model_of(ml: DerivaML, rid: str) -> Asset:
    return next(each for each in ml.lookup_execution(rid).list_assets("Output") if each.table == "Model")


def last_checkpoint(ml: DerivaML, rid: str) -> Asset:
    found = ml.lookup_execution(rid).list_assets("Output")
    return next(each for each in found if "Last_Checkpoint" in each.asset_types)


def test_run_with_uncommitted_changes(cli, project: Project, clone: Path, tmp_path: Path) -> None:
    """In a fresh clone the uncommitted changes are applied and the command produces the same output."""
    rid = project.run("run.py", "with an argument")
    shutil.rmtree(project.root)
    result = cli("reproduce", rid, "--into", str(tmp_path / "again"), "--run")
    assert result.code == 0, result.stderr
    with DerivaML() as ml:
        again = ml.find_executions(limit=1)[0]
        assert again.execution_rid != rid
        assert model_of(ml, again.execution_rid).md5 == model_of(ml, rid).md5
        assert ml.lookup_workflow(again.workflow_rid).rid == ml.lookup_execution(rid).workflow_rid
    assert (tmp_path / "again" / "code" / "extra.txt").read_text() == "not even added"


def test_weights_are_bitwise_equal(cli, project: Project, clone: Path, tmp_path: Path) -> None:
    """A Lightning training that was started as a module, with uncommitted changes, gives bitwise equal weights."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
    rid = project.run("-m", "demo.train")
    shutil.rmtree(project.root)
    result = cli("reproduce", rid, "--into", str(tmp_path / "again"), "--run")
    assert result.code == 0, result.stderr
    assert "-m demo.train" in result.stdout
    with DerivaML() as ml:
        again = ml.find_executions(limit=1)[0].execution_rid
        assert again != rid
        checkpoints = {each: last_checkpoint(ml, each) for each in (rid, again)}
    for each, checkpoint in checkpoints.items():
        assert cli("download", checkpoint.rid, "--into", str(tmp_path / each)).code == 0
    then, now = (torch.load(tmp_path / each / Path(found.filename).name) for each, found in checkpoints.items())
    weights, same = then["state_dict"], now["state_dict"]
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_json_output(cli, project: Project, clone: Path, tmp_path: Path) -> None:
    """JSON has the commit, the command with local paths, and the names of secrets; nothing is run."""
    rid = project.run("run.py", str(project.root / "settings.py"))
    into = tmp_path / "again"
    found = cli("reproduce", rid, "--into", str(into), "--json").json
    assert (found["commit"], found["patched"]) == (project.git("rev-parse", "HEAD").strip(), True)
    assert found["command"][1:] == ["run.py", str(into / "code" / "settings.py")]
    assert found["place"] == str(into / "code")
    assert found["redacted"] == ["setting parameters.api_key"]
    assert found["differing"] == []
    assert (into / "records" / "configuration.json").is_file()
    with DerivaML() as ml:
        assert len(ml.find_executions()) == 1


def test_environment_differences(cli, project: Project, in_project: None, tmp_path: Path) -> None:
    """A package with another version is listed with both versions."""
    rid = project.run("run.py", "x")
    with DerivaML() as ml:
        (snapshot,) = (ml.lookup_execution(rid).working_dir / "records").glob("environment_snapshot_*")
    snapshot.write_text(snapshot.read_text().replace('"pluggy": "', '"pluggy": "0.'))
    (found,) = cli("reproduce", rid, "--into", str(tmp_path / "a"), "--json").json["differing"]
    assert (found["name"], found["left"]) == ("pluggy", f"0.{found['right']}")
    assert "pluggy" in cli("reproduce", rid, "--into", str(tmp_path / "b")).stdout


def test_from_the_remote(cli, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is in no local repository is cloned from the recorded remote."""
    rid = project.run("run.py", "x")
    project.git("clone", "-q", "--bare", ".", str(tmp_path / "server.git"))
    shutil.rmtree(project.root)
    monkeypatch.chdir(tmp_path)
    with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as settings:
        settings.write(f'[url "{(tmp_path / "server.git").as_uri()}"]\n\tinsteadOf = {REMOTE}\n')
    found = cli("reproduce", rid, "--into", "again", "--json").json
    assert found["source"] == REMOTE
    assert (tmp_path / "again" / "code" / "settings.py").read_text() == "SCALE = 3  # not committed\n"


def test_missing_commit(cli, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that exists neither locally nor at the remote names --repository and leaves no folder."""
    rid = project.run("run.py", "x")
    shutil.rmtree(project.root)
    monkeypatch.chdir(tmp_path)
    with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as settings:
        settings.write(f'[url "{(tmp_path / "nowhere.git").as_uri()}"]\n\tinsteadOf = {REMOTE}\n')
    result = cli("reproduce", rid, "--into", "again")
    assert result.code == 1
    assert "--repository" in result.stderr
    assert not (tmp_path / "again").exists()


def test_existing_folder(cli, project: Project, in_project: None, tmp_path: Path) -> None:
    """An existing folder is not changed."""
    rid = project.run("run.py", "x")
    (tmp_path / "again").mkdir()
    result = cli("reproduce", rid, "--into", str(tmp_path / "again"))
    assert (result.code, list((tmp_path / "again").iterdir())) == (1, [])
    assert "--into" in result.stderr


def test_deleted_folder_can_be_rebuilt(cli, project: Project, in_project: None, tmp_path: Path) -> None:
    """A run can be rebuilt in a deleted folder, although git still lists its worktree."""
    rid = project.run("run.py", "x")
    for _ in range(2):
        assert cli("reproduce", rid, "--into", str(tmp_path / "again")).code == 0
        shutil.rmtree(tmp_path / "again")


def test_deleted_current_folder(cli, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a deleted folder, a run is rebuilt at an absolute path only."""
    rid = project.run("run.py", "x")
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    assert "current folder was deleted" in cli("reproduce", rid).stderr
    root = str(project.root)
    assert cli("reproduce", rid, "--into", str(tmp_path / "again"), "--repository", root).code == 0


def test_run_outside_of_git(cli, run, tmp_path: Path) -> None:
    """A run outside of a repository is an error."""
    result = cli("reproduce", run().execution_rid, "--into", str(tmp_path / "again"))
    assert result.code == 1
    assert "outside of any git repository" in result.stderr


def test_secret_argument(cli, project: Project, in_project: None, tmp_path: Path) -> None:
    """A command with a redacted argument is not run."""
    rid = project.run("run.py", "--password=hunter22")
    result = cli("reproduce", rid, "--into", str(tmp_path / "again"), "--run")
    assert result.code == 1
    assert "argument 1" in result.stderr
    assert "hunter22" not in result.stdout + result.stderr


def test_failing_command(cli, project: Project, in_project: None, tmp_path: Path) -> None:
    """A command that fails exits with 1."""
    rid = project.run("run.py", "x")
    with DerivaML() as ml:
        (patch,) = (ml.lookup_execution(rid).working_dir / "records").glob("uncommitted.patch")
    patch.write_text(patch.read_text().replace("SCALE = 3", "SHAPE = 3"))
    assert cli("reproduce", rid, "--into", str(tmp_path / "again"), "--run").code == 1


def change_snapshot(rid: str, **parts: Any) -> None:
    """Replace parts of the environment snapshot of an execution."""
    with DerivaML() as ml:
        (file,) = (ml.lookup_execution(rid).working_dir / "records").glob("environment_snapshot_*")
    content = json.loads(file.read_text())
    file.write_text(
        json.dumps({**content, **{name: {**(content[name] or {}), **part} for name, part in parts.items()}})
    )


COMMAND_LINES = (
    (["python", "-X", "dev", "run.py", "a"], ["run.py", "a"], ["{python}", "-X", "dev", "run.py", "a"]),
    (["python", "-m", "demo.train", "a"], ["{root}/demo/train.py", "a"], ["{python}", "-m", "demo.train", "a"]),
    (["python", "-c", "import run", "a"], ["-c", "a"], ["{python}", "-c", "import run", "a"]),
    (["python", "-c", "from multiprocessing"], ["run.py", "a"], ["{python}", "run.py", "a"]),
    (["python", "/else/bin/deriva-ml", "x=1"], ["/else/bin/deriva-ml", "x=1"], ["{here}/deriva-ml", "x=1"]),
    ([], ["/else/bin/deriva-ml-run-notebook", "{root}/n.ipynb"], ["{here}/deriva-ml-run-notebook", "{code}/n.ipynb"]),
    (["python"], [""], []),
)
"""`sys.orig_argv`, `sys.argv`, and the command in the worktree."""


def test_command_line(cli, project: Project, in_project: None, tmp_path: Path) -> None:
    """Modules, scripts with options of Python, inline code and installed commands are restored."""
    names = {"root": str(project.root), "here": str(Path(sys.executable).parent), "python": sys.executable}
    rid = project.run("run.py", "x")
    for number, (whole, argv, command) in enumerate(COMMAND_LINES):
        into = tmp_path / str(number)
        values = {**names, "code": str(into / "code")}
        command_lines = {
            "orig_argv": [each.format(**values) for each in whole],
            "argv": [each.format(**values) for each in argv],
        }
        change_snapshot(rid, environment=command_lines)
        found = cli("reproduce", rid, "--into", str(into), "--json").json
        assert found["command"] == [each.format(**values) for each in command]


def test_container_run(cli, run, tmp_path: Path) -> None:
    """A run in a container is an error that names the image and the command."""
    rid = run().execution_rid
    image = {"kind": "container", "url": "ghcr.io/org/repo", "checksum": "sha256:" + "ab" * 32}
    change_snapshot(rid, source=image, environment={"argv": ["train.py", "--lr", "1"]})
    result = cli("reproduce", rid, "--into", str(tmp_path / "again"))
    assert result.code == 1
    assert f"docker run ghcr.io/org/repo@sha256:{'ab' * 32}" in result.stderr
    assert "train.py --lr 1" in result.stderr


def add_settings(text: str) -> None:
    """Add lines to the user's git settings."""
    with Path(os.environ["GIT_CONFIG_GLOBAL"]).open("a") as settings:
        settings.write(text)


def serve(project: Project, folder: Path) -> None:
    """Copy a repository to a bare one that answers for the recorded remote."""
    project.git("clone", "-q", "--bare", ".", str(folder))
    add_settings(f'[url "{folder.as_uri()}"]\n\tinsteadOf = {REMOTE}\n')


def write_program(file: Path, marker: Path) -> Path:
    """Write a program that copies its input to its output, and leaves a file if it is run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\necho run >> {marker}\ncat\n")
    file.chmod(0o755)
    return file


def set_programs(project: Project, program: Path) -> None:
    """Let git in the project's repository run a program as filter, hook and fsmonitor."""
    for setting in ("filter.evil.smudge", "filter.evil.clean", "core.fsmonitor"):
        project.git("config", setting, str(program))
    shutil.copy(program, project.root / ".git" / "hooks" / "post-checkout")
    shutil.copy(program, project.root / ".git" / "hooks" / "reference-transaction")


def commit_attributes(project: Project) -> None:
    (project.root / ".gitattributes").write_text("*.py filter=evil\n")
    project.git("add", ".gitattributes")
    project.git("commit", "-qm", "Attributes")


def test_repository_named_by_the_catalog_is_not_opened(
    cli, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that a snapshot names is not opened as a repository: its settings would run programs."""
    commit_attributes(project)
    rid = project.run("run.py", "x")
    marker = tmp_path / "marker"
    set_programs(project, write_program(tmp_path / "program", marker))
    add_settings(f'[url "{(tmp_path / "nowhere.git").as_uri()}"]\n\tinsteadOf = {REMOTE}\n')
    monkeypatch.chdir(tmp_path)
    result = cli("reproduce", rid, "--into", "again")
    assert (result.code, marker.exists()) == (1, False)
    assert "--repository" in result.stderr
    assert not (tmp_path / "again").exists()


def test_remote_that_is_a_path_is_not_cloned(
    cli, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recorded remote that is no web address is not opened."""
    rid = project.run("run.py", "x")
    monkeypatch.chdir(tmp_path)
    remotes = (str(project.root), project.root.as_uri(), f"ext::sh -c 'touch {tmp_path}/marker'", "--upload-pack=x")
    for remote in (*remotes, f"localhost:{project.root}"):
        change_snapshot(rid, repository={"remote": remote})
        result = cli("reproduce", rid, "--into", "again", columns=400)
        assert (result.code, "not a web address" in result.stderr) == (1, True), result.stderr
        assert not (tmp_path / "again").exists()
    assert not (tmp_path / "marker").exists()


def test_clone_runs_no_programs(cli, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone of the recorded remote runs no filters, hooks and fsmonitor of the user's settings, and says so."""
    commit_attributes(project)
    rid = project.run("run.py", "x")
    serve(project, tmp_path / "server.git")
    marker = tmp_path / "marker"
    program = write_program(tmp_path / "program", marker)
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        write_program(tmp_path / "template" / "hooks" / hook, marker)
    add_settings(
        f'[filter "evil"]\n\tsmudge = {program}\n\tclean = {program}\n\trequired = true\n'
        f'[filter "process"]\n\tprocess = {program}\n\trequired = true\n'
        f"[core]\n\tfsmonitor = {program}\n[init]\n\ttemplateDir = {tmp_path / 'template'}\n"
    )
    monkeypatch.chdir(tmp_path)
    found = cli("reproduce", rid, "--into", "again", "--json").json
    assert (found["source"], marker.exists()) == (REMOTE, False)
    assert (tmp_path / "again" / "code" / "settings.py").read_text() == "SCALE = 3  # not committed\n"
    assert not (tmp_path / "again" / "code" / ".git" / "hooks").exists()
    assert [note for note in found["left_out"] if "filter evil" in note]


def test_patch_runs_no_filters(cli, project: Project, tmp_path: Path, in_project: None) -> None:
    """The recorded changes run no filter of the current repository: their content comes from the catalog."""
    (project.root / ".gitattributes").write_text("extra.txt filter=evil\n")
    project.git("add", ".gitattributes")
    project.git("commit", "-qm", "Attributes")
    rid = project.run("run.py", "x")
    marker = tmp_path / "marker"
    set_programs(project, write_program(tmp_path / "program", marker))
    marker.unlink(missing_ok=True)
    found = cli("reproduce", rid, "--into", str(tmp_path / "again"), "--json").json
    assert (found["patched"], marker.exists()) == (True, False)
    assert (tmp_path / "again" / "code" / "extra.txt").read_text() == "not even added"


def test_filters_of_the_current_repository_are_run(cli, project: Project, tmp_path: Path, in_project: None) -> None:
    """The current repository is trusted: files that it stores in another form are checked out by its filter."""
    (project.root / ".gitattributes").write_text("note.txt filter=upper\n")
    (project.root / "note.txt").write_text("LARGE\n")
    project.git("config", "filter.upper.smudge", "tr A-Z a-z")
    project.git("config", "filter.upper.clean", "tr a-z A-Z")
    project.git("add", "note.txt", ".gitattributes")
    project.git("commit", "-qm", "Note")
    rid = project.run("run.py", "x")
    assert cli("reproduce", rid, "--into", str(tmp_path / "again")).code == 0
    assert (tmp_path / "again" / "code" / "note.txt").read_text() == "large\n"


def test_export_opens_no_path_of_the_catalog(
    cli, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export reads the code from paths in a local snapshot, never from paths in one that was downloaded."""
    commit_attributes(project)
    rid = project.run("run.py", "x")
    monkeypatch.chdir(tmp_path)
    assert cli("export", rid, "--into", "local").code == 0
    marker = tmp_path / "marker"
    set_programs(project, write_program(tmp_path / "program", marker))
    with DerivaML() as ml:
        shutil.rmtree(ml.lookup_execution(rid).working_dir)
    assert cli("export", rid, "--into", "downloaded").code == 0
    assert not marker.exists()
    assert [name.name for name in (tmp_path / "local").rglob("run.py")] == ["run.py"]
    assert list((tmp_path / "downloaded").rglob("run.py")) == []


def test_unpushed_commit_is_shown(cli, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """``show`` and ``doctor`` name a commit that no remote branch contains."""
    project.git("update-ref", "refs/remotes/origin/main", "HEAD")
    assert "not pushed" not in cli("show", project.run("run.py", "x")).stdout
    project.git("add", ".")
    project.git("commit", "-q", "-m", "more")
    rid = project.run("run.py", "x")
    head = project.git("rev-parse", "HEAD").strip()
    assert f"{head[:12]} on main, not pushed" in " ".join(cli("show", rid, columns=200).stdout.split())
    monkeypatch.chdir(project.root)
    (found,) = [each for each in cli("doctor", "--json").json["findings"] if each["name"] == "code"]
    assert found["verdict"] == "doubtful"
    assert found["said"].startswith(f"No remote branch contains commit {head[:12]} of {project.root}")
