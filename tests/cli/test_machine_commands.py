"""``deriva-ml storage``, ``cleanup``, ``doctor``, ``init`` and ``config``."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_result import CommandResult
from filelock import FileLock

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import MissingFiles
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


READER = """
import sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

ml, dataset = DerivaML(), sys.argv[1]
if sys.argv[2] == "run":
    workflow = Workflow(name="Reading", workflow_type="Training", url="https://example.org/r.py", checksum="2" * 40)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        path = exe.download_dataset_bag(dataset).path
        print(path, flush=True)
        sys.stdin.read()
else:
    children = ml.lookup_dataset(dataset).download_dataset_bag().list_dataset_children()
    print(children[0].path, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("reader", ["run", "script"])
def test_cleanup_keeps_a_dataset_that_a_process_reads(cli, ml: DerivaML, home: Path, reader: str) -> None:
    """A downloaded dataset stays while a run, or a script without a run, uses it, and can be deleted afterwards."""
    dataset, child = ml.create_dataset("Read"), ml.create_dataset("Nested")
    dataset.add_dataset_members([child.dataset_rid])
    command = [sys.executable, "-c", READER, dataset.dataset_rid, reader]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        listed = cli("cleanup", "--dry-run", "--json").json
        assert [each["kind"] for each in listed["may_go"]] == []
        assert [(each["name"][:6], each["reason"]) for each in listed["stays"]] == [
            (dataset.dataset_rid, "a process reads it")
        ]
        assert cli("cleanup", "--yes").code == 0
        assert (path / "bagit.txt").is_file()
        process.stdin.close()
        assert process.wait() == 0
    assert cli("cleanup", "--yes").code == 0
    assert not path.exists()


def reason_to_keep(cli, rid: str) -> str:
    (reason,) = [each["reason"] for each in cli("cleanup", "--dry-run", "--json").json["stays"] if each["name"] == rid]
    return reason


def run_command_in(text: str, cli) -> CommandResult:
    """Run the command that a text names between backticks."""
    program, *words = shlex.split(re.search(r"`(.+)`", text)[1])
    assert program == "deriva-ml"
    return cli(*words)


@pytest.mark.parametrize("is_named", [True, False])
def test_run_without_outputs_is_cleaned(cli, ml: DerivaML, config: ExecutionConfiguration, is_named: bool) -> None:
    """A run without outputs is deleted after the upload of its journal, by the command that cleanup names."""
    with ml.create_execution(config) as exe:
        pass
    reason = reason_to_keep(cli, exe.execution_rid)
    assert reason == f"its journal is not uploaded: `deriva-ml upload {exe.execution_rid}`"
    result = run_command_in(reason, cli) if is_named else cli("upload")
    assert (result.code, exe.execution_rid in result.stdout) == (0, True)
    assert cli("upload", "--json").json == {"executions": []}
    assert cli("cleanup", "--yes").code == 0
    assert not exe.working_dir.exists()
    assert [each.status for each in ml.lookup_execution(exe.execution_rid).list_statuses()][-1] == "Completed"


def test_run_that_was_killed_after_its_upload_is_cleaned(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The journal is uploaded again if the run was recorded as Aborted after the upload of its files."""
    exe = ml.create_execution(config)
    if (child := os.fork()) == 0:
        exe.__enter__()
        exe.asset_file_path("Model", "m.pt").write_text("m")
        exe.upload_execution_outputs()
        os._exit(0)
    os.waitpid(child, 0)
    assert [each["rid"] for each in cli("upload", "--json").json["executions"]] == [exe.execution_rid]
    assert cli("cleanup", "--yes").code == 0
    assert not exe.working_dir.exists()
    assert [each.status for each in ml.lookup_execution(exe.execution_rid).list_statuses()][-1] == "Aborted"


def test_run_with_a_file_that_was_never_written(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Cleanup names the call that unregisters a file that was never written; an upload could not help."""
    with ml.create_execution(config) as exe:
        path = exe.asset_file_path("Model", "never.pt")
    call = f"DerivaML().restore_execution({exe.execution_rid!r}).forget({str(path)!r})"
    assert reason_to_keep(cli, exe.execution_rid) == f"never.pt was never written: write it, or {call}"
    exec(call, {"DerivaML": DerivaML})
    assert cli("upload").code == 0
    assert cli("cleanup", "--yes").code == 0
    assert not exe.working_dir.exists()


@contextmanager
def asked_for_confirmation() -> Iterator[subprocess.Popen[str]]:
    """Start ``deriva-ml cleanup``, and yield its process when it asks."""
    command = [sys.executable, "-u", "-m", "deriva_ml_cli", "cleanup"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None
        output = ""
        while not output.endswith("[y/N]: "):
            character = process.stdout.read(1)
            assert character, output
            output += character
        yield process


def test_cleanup_looks_again_before_it_deletes(cli, ml: DerivaML, run) -> None:
    """What came into use while it asked is kept and named; the rest is deleted."""
    resumed, staged, unused = run("Resumed", ["a.pt"]), run("Staged", ["b.pt"]), run("Unused", ["c.pt"])
    dataset = ml.create_dataset("Downloaded")
    dataset.download_dataset_bag()
    with asked_for_confirmation() as process, ml.resume_execution(resumed.execution_rid) as again:
        bag = again.download_dataset_bag(dataset.dataset_rid)
        ml.restore_execution(staged.execution_rid).asset_file_path("Model", "later.pt").write_text("later")
        output, _ = process.communicate("y\n")
        assert process.returncode == 0
        again.asset_file_path("Model", "new.pt").write_text("new")
    kept = dict(re.findall(r"^  (\S+) {2,}(.*?) *$", output, re.M))
    assert kept[resumed.execution_rid] == "its run is not finished"
    assert kept[staged.execution_rid].startswith("files are not uploaded")
    assert "a process reads it" in kept.values()
    assert (bag.path / "bagit.txt").is_file()
    assert not unused.working_dir.exists()
    assert [asset.filename for asset in again.upload_execution_outputs()["Model"]] == ["new.pt"]
    assert (staged.working_dir / "outputs/Model/later.pt").read_text() == "later"


def test_cleanup_keeps_a_folder_while_it_is_uploaded(cli, run) -> None:
    """The working folder of a run whose files another process uploads is kept."""
    exe = run("A run", ["model.pt"])
    with FileLock(exe.working_dir / "journal.jsonl.lock"):
        result = cli("cleanup", "--yes")
        assert exe.working_dir.is_dir()
    assert "another process works in it" in result.stdout
    assert cli("cleanup", "--yes").code == 0
    assert not exe.working_dir.exists()


def test_execution_whose_folder_was_cleaned(cli, ml: DerivaML, run) -> None:
    """An execution that is used after its folder was deleted says so, and makes no folder without a history."""
    exe = run("A run", ["model.pt"])
    again = ml.resume_execution(exe.execution_rid)
    assert cli("cleanup", "--yes").code == 0
    with pytest.raises(MissingFiles, match=r"journal\.jsonl was deleted.*restore_execution"):
        exe.asset_file_path("Model", "later.pt")
    with pytest.raises(MissingFiles, match=r"journal\.jsonl was deleted"), again:
        pass
    assert not (exe.working_dir / "journal.jsonl").exists()
    restored = ml.restore_execution(exe.execution_rid)
    restored.asset_file_path("Model", "later.pt").write_text("later")
    assert [asset.filename for asset in restored.upload_execution_outputs()["Model"]] == ["later.pt"]
    assert restored.status == "Completed"


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
    assert "journal is not uploaded" in stays["reason"]


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


def test_doctor_in_a_deleted_folder(cli, ml: DerivaML, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor checks everything but the code of the current folder, and says why."""
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    found = {each["name"]: each for each in cli("doctor", "--json").json["findings"]}
    assert found["code"] == {
        "name": "code",
        "verdict": "doubtful",
        "said": "The current folder was deleted.",
        "remedy": "change to the project's folder",
    }
    assert found["catalog"]["verdict"] == "good"


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
    subprocess.run(["git", "init", "-q", str(tmp_path / "repo")], check=True)
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
