"""``deriva-ml storage``, ``cleanup``, ``doctor``, ``init`` and ``config``."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.training import TrainingReporter

LOSSES = [{"loss": 1.0}]


def test_storage(cli, run) -> None:
    """Sizes are summed by table, and by folder with each file counted once."""
    exe = run("A run", ["model.pt"])
    (model,) = [each for each in exe.list_assets("Output") if each.table == "Model"]
    found = cli("storage", "--json").json
    (table,) = [each for each in found["tables"] if each["table"] == "Model"]
    assert (table["files"], table["bytes"]) == (1, model.length)
    folders = {each["name"]: each for each in found["folders"]}
    assert folders["objects"]["bytes"] == sum({asset.md5: asset.length for asset in exe.list_assets()}.values())
    assert 0 < found["free"] <= found["disk"]
    assert "working folders" in cli("storage").stdout


def test_cleanup_deletes_uploaded_folders(cli, ml: DerivaML, run, config: ExecutionConfiguration) -> None:
    """Uploaded working folders and downloads are deleted, and the run can still be shown and restored."""
    exe = run("A run", ["model.pt"], LOSSES)
    dataset = ml.create_dataset("Models")
    dataset.download_dataset_bag()
    before = cli("show", exe.execution_rid, "--json").json
    may_go = cli("cleanup", "--dry-run", "--json").json
    assert [(each["kind"], each["name"][:6]) for each in may_go["may_go"]] == [
        ("working folder", exe.execution_rid),
        ("download", dataset.rid),
    ]
    assert exe.working_dir.is_dir()
    assert cli("cleanup", "--yes", "--json").json["freed"] > 0
    assert not exe.working_dir.exists()
    after = cli("show", exe.execution_rid, "--json").json
    assert {**after, "working_dir": None} == {**before, "working_dir": None}
    assert cli("verify", "--all").code == 0
    assert "nothing to delete" in cli("cleanup").stdout
    assert ml.restore_execution(exe.execution_rid).status == "Completed"


def test_cleanup_asks_for_confirmation(cli, run) -> None:
    """Without --yes it asks, and nothing is deleted after a no."""
    exe = run("A run", ["model.pt"])
    assert cli("cleanup", answer="n\n").code == 0
    assert exe.working_dir.is_dir()
    assert cli("cleanup", answer="y\n").code == 0
    assert not exe.working_dir.exists()


def test_cleanup_keeps_unsaved_files(cli, ml: DerivaML, run, config: ExecutionConfiguration) -> None:
    """Folders with unsent, unregistered or changed files are kept, with the reason."""
    unsent, unregistered, changed, running = (ml.create_execution(config) for _ in range(4))
    for exe in (unsent, unregistered, changed):
        with exe:
            exe.asset_file_path("Model", "m.pt").write_text(exe.execution_rid)
            if exe is changed:
                original = exe.working_dir / "notes.txt"
                original.write_text("notes")
                exe.asset_file_path("Execution_Asset", original)
    for exe in (unregistered, changed):
        exe.upload_execution_outputs()
    (unregistered.working_dir / "mine.txt").write_text("never registered")
    (changed.working_dir / "notes.txt").write_text("written again")
    with running:
        found = cli("cleanup", "--yes", "--json").json
    reasons = {each["name"]: each["reason"] for each in found["stays"]}
    assert "deriva-ml upload" in reasons[unsent.execution_rid]
    assert "mine.txt" in reasons[unregistered.execution_rid]
    assert "notes.txt" in reasons[changed.execution_rid]
    assert found["may_go"] == []
    assert all(exe.working_dir.is_dir() for exe in (unsent, unregistered, changed, running))


def test_cleanup_older_than(cli, run) -> None:
    """--older-than keeps the folders of newer runs."""
    run("A run", ["model.pt"])
    assert cli("cleanup", "--older-than", "1", "--dry-run", "--json").json["may_go"] == []


def test_cleanup_keeps_journal_with_new_status(cli, run) -> None:
    """A journal with a status that its uploaded copy lacks is kept."""
    exe = run("A run", ["model.pt"])
    assert cli("cleanup", "--dry-run", "--json").json["stays"] == []
    exe.update_status(exe.status, "CommandResult after the upload")
    (stays,) = cli("cleanup", "--dry-run", "--json").json["stays"]
    assert "journal has not been uploaded" in stays["reason"]


def test_cleanup_deletes_old_incomplete_objects(cli, ml: DerivaML, run) -> None:
    """An incomplete object is deleted after a day, a new one is kept."""
    run()
    objects = ml.connection.folder / "objects"
    for name, age in (("draft-1-old", 2 * 86400), ("draft-1-new", 0)):
        (objects / name).write_text("half")
        past = (objects / name).stat().st_mtime - age
        os.utime(objects / name, (past, past))
    cli("cleanup", "--yes")
    assert [each.name for each in objects.glob("draft-*")] == ["draft-1-new"]


def test_cleanup_deletes_old_temporary_files(cli, ml: DerivaML, run) -> None:
    """Temporary files of killed processes are deleted after a day, also those of earlier versions."""
    run("A run", ["model.pt"])
    folder = ml.connection.folder
    names = {f".{'a' * 32}.part", f".{'b' * 32}-part.ckpt", ".writing-training.json", ".0.json.4711"}
    fresh = f".{'c' * 32}.part"
    (folder / "rendezvous").mkdir()
    for name in (*names, fresh):
        (folder / "rendezvous" / name).write_text("half")
        if name != fresh:
            os.utime(folder / "rendezvous" / name, (0, 0))
    report = cli("cleanup", "--dry-run", "--json").json
    assert {each["name"] for each in report["may_go"] if each["kind"] == "partial file"} == names
    cli("cleanup", "--yes")
    assert [path.name for path in (folder / "rendezvous").iterdir()] == [fresh]


def test_cleanup_ignores_temporary_files_in_working_folders(cli, run) -> None:
    """A temporary file in the working folder of an uploaded run does not keep that folder."""
    exe = run("A run", ["model.pt"])
    (exe.working_dir / ".writing-training.json").write_text("half")
    (exe.working_dir / f".{'a' * 32}.part").write_text("half")
    report = cli("cleanup", "--dry-run", "--json").json
    assert report["stays"] == []
    assert [each["kind"] for each in report["may_go"]] == ["working folder"]


def test_doctor_without_problems(cli, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without problems it exits with 0 and lists every check."""
    monkeypatch.chdir(tmp_path)
    run()
    result = cli("doctor", "--json")
    verdicts = {each["name"]: each["verdict"] for each in result.json["findings"]}
    assert result.code == 0
    assert {"installation", "plugins", "git", "code", "notebooks", "catalog", "folder", "disk"} <= set(verdicts)
    assert verdicts["catalog"] == "good"
    assert "Fix: git init" in cli("doctor").stdout


def test_doctor_with_problems(cli, ml: DerivaML, config: ExecutionConfiguration, home: Path, tmp_path: Path) -> None:
    """Unsent files are a warning; a damaged catalog is an error and exits with 1."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_text("m")
    (found,) = [each for each in cli("doctor", "--json").json["findings"] if each["name"] == "unsent files"]
    assert (found["verdict"], found["remedy"]) == ("doubtful", "deriva-ml upload")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "catalog.sqlite").write_text("no catalog at all, but some text to read")
    result = cli("doctor", "--json", "--host", f"file:{tmp_path / 'bad'}")
    assert result.code == 1
    assert [each["verdict"] for each in result.json["findings"] if each["name"] == "catalog"] == ["bad"]


def test_doctor_tightens_permissions(cli, home: Path, tmp_path: Path) -> None:
    """A folder that other users can read is a warning, and the command that it names makes the folder private."""
    address = f"file:{tmp_path / 'my catalog'}"
    assert cli("init", "--host", address).code == 0
    folder = tmp_path / "my catalog"

    def check(*args: str) -> dict[str, str]:
        (found,) = [each for each in cli(*args, "--json").json["findings"] if each["name"] == "permissions"]
        return found

    assert (check("doctor", "--host", address)["verdict"], folder.stat().st_mode & 0o777) == ("good", 0o700)
    folder.chmod(0o755)
    found = check("doctor", "--host", address)
    assert found["verdict"] == "doubtful"
    assert str(folder) in found["said"]
    assert folder.stat().st_mode & 0o777 == 0o755
    command = shlex.split(found["remedy"])
    assert command == ["deriva-ml", "doctor", "--host", address, "--tighten"]
    assert check(*command[1:])["verdict"] == "good"
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_doctor_checks_the_repository(cli, ml: DerivaML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository without a commit is a warning with a fix."""
    subprocess.run(["git", "init", "-q", str(tmp_path / "repo")], check=True, timeout=60)
    monkeypatch.chdir(tmp_path / "repo")
    (code,) = [each for each in cli("doctor", "--json").json["findings"] if each["name"] == "code"]
    assert (code["verdict"], code["remedy"]) == ("doubtful", "git add and git commit")


def test_init(cli, tmp_path: Path) -> None:
    """A catalog is created once in the given folder; a server needs --project."""
    host = f"file:{tmp_path / 'mine'}"
    for _ in range(2):
        assert cli("init", "--host", host, "--json").json["catalog"] == str(tmp_path / "mine")
    assert (tmp_path / "mine" / "catalog.sqlite").is_file()
    assert "The catalog is in" in cli("init", "--host", host).stdout
    assert cli("init", "--host", "example.org").code == 2
    assert cli("init", "--host", host, "--project", "x").code == 2


@pytest.mark.parametrize("command", ["init", "list", "doctor"])
@pytest.mark.parametrize("host", ["https://ada:s3cret@x.org", "ada:s3cret@x.org", "postgresql://ada:s3cret@x.org/a"])
def test_host_with_login(cli, command: str, host: str) -> None:
    """A login in --host is refused, and is not shown."""
    result = cli(command, "--host", host)
    assert result.code in (1, 2)
    assert "[redacted: login]@x.org" in " ".join((result.stdout + result.stderr).split())
    assert "s3cret" not in result.stdout + result.stderr


def test_config(cli, ml: DerivaML, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog, folders, settings and versions are shown, without secrets."""
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", "https://user:hunter22@example.org/x.py")
    found = cli("config", "--json").json
    assert (found["catalog"], found["embedded"]) == (str(home / "local"), True)
    assert found["versions"]["deriva-ml-core"]
    assert "hunter22" not in str(found)
    assert found["variables"]["DERIVA_ML_HOME"] == str(home)
    assert str(home / "local") in cli("config", columns=200).stdout


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_fits_the_terminal(cli, exe: Execution, columns: int) -> None:
    """No line is longer than the terminal is wide."""
    for args in (("storage",), ("cleanup", "--dry-run"), ("doctor",), ("config",)):
        out = cli(*args, columns=columns).stdout
        assert max(map(len, out.splitlines())) <= columns, args


def test_cleanup_after_superseded_checkpoints(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An uploaded training with superseded checkpoints has no unsent files and can be deleted."""
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, monitor="loss", curves=False)
        reporter.begin_fit(3)
        for epoch in (1, 2, 3):
            metrics = {"loss": 1.0 / epoch}
            reporter.save_checkpoint(epoch, ".pt", lambda path: path.write_text(path.name), metrics)
            reporter.end_epoch(epoch, metrics)
        reporter.end_fit()
    exe.upload_execution_outputs()
    assert cli("upload", "--json").json == {"executions": []}
    assert [each["name"] for each in cli("cleanup", "--dry-run", "--json").json["may_go"]] == [exe.execution_rid]


def test_folder_without_catalog(cli, tmp_path: Path) -> None:
    """A folder without a catalog is not created, and the error names `deriva-ml init`."""
    address = f"file:{tmp_path / 'mistyped'}"
    result = cli("list", "--host", address)
    assert (result.code, f"deriva-ml init --host {address}" in result.stderr) == (2, True)
    assert not (tmp_path / "mistyped").exists()
    assert cli("init", "--host", address).code == 0
    assert cli("list", "--host", address).code == 0
