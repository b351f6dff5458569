"""A catalog's folder that was moved or copied: staged files move with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration


@pytest.fixture
def staged(ml: DerivaML, config: ExecutionConfiguration, tmp_path: Path) -> Execution:
    """A completed run with a new file, a link to a file in its working folder, and a link to a file elsewhere."""
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("elsewhere")
    with ml.create_execution(config) as execution:
        execution.asset_file_path("Model", "sub/new.txt").write_text("new")
        inside = execution.working_dir / "inside.txt"
        inside.write_text("inside")
        execution.asset_file_path("Execution_Asset", inside)
        execution.asset_file_path("Execution_Asset", elsewhere)
    ml.close()
    return execution


def read_staged(execution: Execution, folder: Path) -> dict[str, tuple[str, str | None]]:
    journal = folder / "executions" / execution.execution_rid / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    assets = [event["asset"] for event in events if event["event"] == "staged"]
    return {asset["filename"]: (asset["path"], asset.get("original")) for asset in assets}


def upload(folder: Path, execution: Execution) -> dict[str, bytes]:
    """Upload the staged files of an execution; return the content of its outputs by file name."""
    with DerivaML(f"file:{folder}") as ml:
        restored = ml.restore_execution(execution.execution_rid)
        restored.upload_execution_outputs()
        assert restored.status is Status.completed
        outputs = [asset for asset in restored.list_assets("Output") if asset.table != "Execution_Metadata"]
        return {asset.filename: (folder / "objects" / asset.md5[:2] / asset.md5).read_bytes() for asset in outputs}


def test_journal_names_files_relative_to_the_working_folder(staged: Execution, home: Path, tmp_path: Path) -> None:
    """A path in the working folder is stored relative to it; any other path is absolute."""
    written = read_staged(staged, home / "local")
    assert written["configuration.json"] == ("records/configuration.json", "records/configuration.json")
    assert written["sub/new.txt"] == ("outputs/Model/sub/new.txt", None)
    assert written["inside.txt"] == ("outputs/Execution_Asset/inside.txt", "inside.txt")
    assert written["elsewhere.txt"] == ("outputs/Execution_Asset/elsewhere.txt", f"{tmp_path}/elsewhere.txt")
    assert (staged.working_dir / "outputs/Execution_Asset/inside.txt").readlink() == Path("../../inside.txt")


def test_staged_files_of_a_moved_catalog_are_uploaded(staged: Execution, home: Path, tmp_path: Path) -> None:
    """After a move of the catalog's folder, every staged file is found and uploaded once."""
    (home / "local").rename(tmp_path / "moved")
    expected = {"sub/new.txt": b"new", "inside.txt": b"inside", "elsewhere.txt": b"elsewhere"}
    assert upload(tmp_path / "moved", staged) == expected
    assert upload(tmp_path / "moved", staged) == expected
    assert not (home / "local").exists()


def test_copy_of_a_catalog_uploads_its_own_files(staged: Execution, home: Path, tmp_path: Path) -> None:
    """The upload of a copied catalog, such as a backup, leaves the files of the original in place."""
    shutil.copytree(home / "local", tmp_path / "backup", symlinks=True)
    (tmp_path / "backup/executions" / staged.execution_rid / "inside.txt").write_text("inside the copy")
    assert upload(tmp_path / "backup", staged)["inside.txt"] == b"inside the copy"
    assert staged.working_dir.joinpath("outputs/Model/sub/new.txt").read_text() == "new"
    assert upload(home / "local", staged)["inside.txt"] == b"inside"


def test_file_in_the_working_folder_by_another_spelling(ml: DerivaML, exe: Execution, home: Path) -> None:
    """A file of the working folder is known as such if its path goes through a link to the catalog's folder."""
    (home / "link").symlink_to("local")
    (exe.working_dir / "inside.txt").write_text("inside")
    exe.asset_file_path("Model", home / "link/executions" / exe.execution_rid / "inside.txt")
    assert read_staged(exe, home / "local")["inside.txt"] == ("outputs/Model/inside.txt", "inside.txt")
