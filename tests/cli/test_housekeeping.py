"""``deriva-ml storage``, ``cleanup``, ``doctor``, ``init``, ``config``: the machine that runs happen on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.training import TrainingReporter

LOSSES = [{"loss": 1.0}]


def test_storage(ask, run) -> None:
    """Bytes are counted by table as they were recorded, and by folder as they lie there, each file once."""
    exe = run("A run", ["model.pt"])
    (model,) = [each for each in exe.list_assets("Output") if each.table == "Model"]
    found = ask("storage", "--json").json
    (table,) = [each for each in found["tables"] if each["table"] == "Model"]
    assert (table["files"], table["bytes"]) == (1, model.length)
    folders = {each["name"]: each for each in found["folders"]}
    assert folders["objects"]["bytes"] == sum({asset.md5: asset.length for asset in exe.list_assets()}.values())
    assert 0 < found["free"] <= found["disk"]
    assert "working folders" in ask("storage").out


def test_cleanup_deletes_what_is_kept_elsewhere(ask, ml: DerivaML, run, config: ExecutionConfiguration) -> None:
    """An ended run's folder and downloads go, and everything about the run can still be shown and brought."""
    exe = run("A run", ["model.pt"], LOSSES)
    dataset = ml.create_dataset("Models")
    dataset.download_dataset_bag()
    before = ask("show", exe.execution_rid, "--json").json
    may_go = ask("cleanup", "--dry-run", "--json").json
    assert [(each["kind"], each["name"][:6]) for each in may_go["may_go"]] == [
        ("working folder", exe.execution_rid),
        ("download", dataset.rid),
    ]
    assert exe.working_dir.is_dir()
    assert ask("cleanup", "--yes", "--json").json["freed"] > 0
    assert not exe.working_dir.exists()
    after = ask("show", exe.execution_rid, "--json").json
    assert {**after, "working_dir": None} == {**before, "working_dir": None}
    assert ask("verify", "--all").code == 0
    assert "nothing to delete" in ask("cleanup").out
    assert ml.restore_execution(exe.execution_rid).status == "Completed"


def test_cleanup_asks(ask, run) -> None:
    """Without --yes it asks, and a no deletes nothing."""
    exe = run("A run", ["model.pt"])
    assert ask("cleanup", answer="n\n").code == 0
    assert exe.working_dir.is_dir()
    assert ask("cleanup", answer="y\n").code == 0
    assert not exe.working_dir.exists()


def test_cleanup_keeps_what_is_nowhere_else(ask, ml: DerivaML, run, config: ExecutionConfiguration) -> None:
    """Folders with files that were not sent, never registered, or written since, stay, and it says why."""
    unsent, stranger, changed, running = (ml.create_execution(config) for _ in range(4))
    for exe in (unsent, stranger, changed):
        with exe:
            exe.asset_file_path("Model", "m.pt").write_text(exe.execution_rid)
            if exe is changed:
                original = exe.working_dir / "notes.txt"
                original.write_text("notes")
                exe.asset_file_path("Execution_Asset", original)
    for exe in (stranger, changed):
        exe.upload_execution_outputs()
    (stranger.working_dir / "mine.txt").write_text("never registered")
    (changed.working_dir / "notes.txt").write_text("written again")
    with running:
        found = ask("cleanup", "--yes", "--json").json
    reasons = {each["name"]: each["reason"] for each in found["stays"]}
    assert "deriva-ml upload" in reasons[unsent.execution_rid]
    assert "mine.txt" in reasons[stranger.execution_rid]
    assert "notes.txt" in reasons[changed.execution_rid]
    assert found["may_go"] == []
    assert all(exe.working_dir.is_dir() for exe in (unsent, stranger, changed, running))


def test_cleanup_waits(ask, run) -> None:
    """Runs that ended later than so many days ago are left alone."""
    run("A run", ["model.pt"])
    assert ask("cleanup", "--older-than", "1", "--dry-run", "--json").json["may_go"] == []


def test_a_status_that_is_not_kept(ask, run) -> None:
    """A journal that tells a status which its copy in the catalog does not is not deleted."""
    exe = run("A run", ["model.pt"])
    assert ask("cleanup", "--dry-run", "--json").json["stays"] == []
    exe.update_status(exe.status, "Said after the upload")
    (stays,) = ask("cleanup", "--dry-run", "--json").json["stays"]
    assert "last statuses" in stays["reason"]


def test_abandoned_halves_go(ask, ml: DerivaML, run) -> None:
    """Half of an object that a killed process left a day ago is deleted, a fresh one is not."""
    run()
    objects = ml.connection.folder / "objects"
    for name, age in (("draft-1-old", 2 * 86400), ("draft-1-new", 0)):
        (objects / name).write_text("half")
        past = (objects / name).stat().st_mtime - age
        os.utime(objects / name, (past, past))
    ask("cleanup", "--yes")
    assert [each.name for each in objects.glob("draft-*")] == ["draft-1-new"]


def test_leftovers_of_writes_go(ask, ml: DerivaML, run) -> None:
    """Temporary files that a killed process left a day ago are deleted, whatever version named them."""
    run("A run", ["model.pt"])
    folder = ml.connection.folder
    names = {f".{'a' * 32}.part", f".{'b' * 32}-part.ckpt", ".writing-training.json", ".0.json.4711"}
    fresh = f".{'c' * 32}.part"
    (folder / "rendezvous").mkdir()
    for name in (*names, fresh):
        (folder / "rendezvous" / name).write_text("half")
        if name != fresh:
            os.utime(folder / "rendezvous" / name, (0, 0))
    report = ask("cleanup", "--dry-run", "--json").json
    assert {each["name"] for each in report["may_go"] if each["kind"] == "partial file"} == names
    ask("cleanup", "--yes")
    assert [path.name for path in (folder / "rendezvous").iterdir()] == [fresh]


def test_a_leftover_keeps_no_working_folder(ask, run) -> None:
    """A temporary file in the working folder of an uploaded run does not keep that folder."""
    exe = run("A run", ["model.pt"])
    (exe.working_dir / ".writing-training.json").write_text("half")
    (exe.working_dir / f".{'a' * 32}.part").write_text("half")
    report = ask("cleanup", "--dry-run", "--json").json
    assert report["stays"] == []
    assert [each["kind"] for each in report["may_go"]] == ["working folder"]


def test_doctor_is_content(ask, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is in the way it ends with 0, and everything that it looks at is named."""
    monkeypatch.chdir(tmp_path)
    run()
    said = ask("doctor", "--json")
    verdicts = {each["name"]: each["verdict"] for each in said.json["findings"]}
    assert said.code == 0
    assert {"installation", "plugins", "git", "code", "notebooks", "catalog", "folder", "disk"} <= set(verdicts)
    assert verdicts["catalog"] == "good"
    assert "To do: git init" in ask("doctor").out


def test_doctor_finds_what_is_wrong(
    ask, ml: DerivaML, config: ExecutionConfiguration, home: Path, tmp_path: Path
) -> None:
    """Files that were never sent are worth knowing; a catalog that is none is in the way, and it ends with 1."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_text("m")
    (found,) = [each for each in ask("doctor", "--json").json["findings"] if each["name"] == "unsent files"]
    assert (found["verdict"], found["remedy"]) == ("doubtful", "deriva-ml upload")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "catalog.sqlite").write_text("no catalog at all, but some text to read")
    said = ask("doctor", "--json", "--host", f"file:{tmp_path / 'bad'}")
    assert said.code == 1
    assert [each["verdict"] for each in said.json["findings"] if each["name"] == "catalog"] == ["bad"]


@pytest.mark.skipif(shutil.which("git") is None, reason="it is about git repositories")
def test_doctor_looks_at_the_repository(ask, ml: DerivaML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository without a commit is told, with what to do."""
    subprocess.run(["git", "init", "-q", str(tmp_path / "repo")], check=True, timeout=60)
    monkeypatch.chdir(tmp_path / "repo")
    (code,) = [each for each in ask("doctor", "--json").json["findings"] if each["name"] == "code"]
    assert (code["verdict"], code["remedy"]) == ("doubtful", "git add and git commit")


def test_init(ask, tmp_path: Path) -> None:
    """A catalog is made where it is asked for, and made but once; on a server one needs the project's name."""
    host = f"file:{tmp_path / 'mine'}"
    for _ in range(2):
        assert ask("init", "--host", host, "--json").json["catalog"] == str(tmp_path / "mine")
    assert (tmp_path / "mine" / "catalog.sqlite").is_file()
    assert "The catalog is in" in ask("init", "--host", host).out
    assert ask("init", "--host", "example.org").code == 2
    assert ask("init", "--host", host, "--project", "x").code == 2


def test_config(ask, ml: DerivaML, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which catalog is used, where things lie, what is set, and which versions are installed."""
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", "https://user:hunter22@example.org/x.py")
    found = ask("config", "--json").json
    assert (found["catalog"], found["embedded"]) == (str(home / "local"), True)
    assert found["versions"]["deriva-ml-core"]
    assert "hunter22" not in str(found)
    assert found["variables"]["DERIVA_ML_HOME"] == str(home)
    assert str(home / "local") in ask("config", columns=200).out


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_they_fit(ask, exe: Execution, columns: int) -> None:
    """Every screen fits."""
    for words in (("storage",), ("cleanup", "--dry-run"), ("doctor",), ("config",)):
        out = ask(*words, columns=columns).out
        assert max(map(len, out.splitlines())) <= columns, words


def test_superseded_checkpoints_keep_nothing_back(ask, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A sent training of which better checkpoints took the places of others has nothing unsent, and may be cleaned."""
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, monitor="loss", curves=False)
        reporter.begin_fit(3)
        for epoch in (1, 2, 3):
            metrics = {"loss": 1.0 / epoch}
            reporter.save_checkpoint(epoch, ".pt", lambda path: path.write_text(path.name), metrics)
            reporter.end_epoch(epoch, metrics)
        reporter.end_fit()
    exe.upload_execution_outputs()
    assert ask("upload", "--json").json == {"executions": []}
    assert [each["name"] for each in ask("cleanup", "--dry-run", "--json").json["may_go"]] == [exe.execution_rid]


def test_a_folder_without_a_catalog(ask, tmp_path: Path) -> None:
    """A folder that was mistyped is told with what makes a catalog there, and stays as it is."""
    address = f"file:{tmp_path / 'mistyped'}"
    said = ask("list", "--host", address)
    assert (said.code, f"deriva-ml init --host {address}" in said.complaint) == (2, True)
    assert not (tmp_path / "mistyped").exists()
    assert ask("init", "--host", address).code == 0
    assert ask("list", "--host", address).code == 0
