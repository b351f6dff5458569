"""Downloads of checkpoints of recorded executions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ChecksumMismatch, InvalidFileName, UnknownCheckpoint
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.training import fetch_checkpoint

BEST, LAST = ["Model_File", "Best_Checkpoint"], ["Model_File", "Last_Checkpoint"]


def upload_files(ml: DerivaML, exe: Execution, files: Mapping[str, list[str]]) -> RecordedExecution:
    """Upload files of these names and types, whose content is their name, and return the recorded execution."""
    with exe:
        for name, types in files.items():
            exe.asset_file_path("Model", name, asset_types=types).write_text(name)
    exe.upload_execution_outputs()
    return ml.lookup_execution(exe.execution_rid)


def tree(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_best_and_last_by_asset_type(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Best and last checkpoint are found by asset type, whatever their names."""
    recorded = upload_files(ml, exe, {"a.ckpt": ["Model_File"], "b.ckpt": BEST, "c.ckpt": LAST})
    assert fetch_checkpoint(recorded, tmp_path).read_text() == "b.ckpt"
    assert fetch_checkpoint(recorded, tmp_path, "last").read_text() == "c.ckpt"


def test_types_added_later(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Types added after the upload count: a training learns at its end which checkpoint is the best."""
    with exe:
        for name in ("a.ckpt", "b.ckpt"):
            exe.asset_file_path("Model", name, asset_types="Model_File").write_text(name)
        exe.upload_execution_outputs()
        exe.add_asset_types(exe.working_dir / "outputs/Model/a.ckpt", ["Best_Checkpoint"])
    assert fetch_checkpoint(ml.lookup_execution(exe.execution_rid), tmp_path).read_text() == "a.ckpt"


def test_newest_of_several(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Of several best checkpoints, and of several uploads of one name, the newest is downloaded."""
    with exe:
        for content in ("one", "two"):
            exe.asset_file_path("Model", "z-best.ckpt", asset_types=BEST).write_text(content)
            exe.upload_execution_outputs()
        assert fetch_checkpoint(exe, tmp_path, "z-best.ckpt").read_text() == "two"
        exe.asset_file_path("Model", "a-best.ckpt", asset_types=BEST).write_text("three")
        exe.upload_execution_outputs()
        assert fetch_checkpoint(exe, tmp_path).read_text() == "three"


def test_only_model_is_best_and_last(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """The only model of a run is both the best and the last."""
    recorded = upload_files(ml, exe, {"m.pt": ["Model_File"], "notes.txt": ["Model"]})
    assert fetch_checkpoint(recorded, tmp_path).read_text() == "m.pt"
    assert fetch_checkpoint(recorded, tmp_path, "last").read_text() == "m.pt"


@pytest.mark.parametrize("name", ["e3.ckpt", "checkpoint-100", "fit-2/e3.ckpt", "v1.0/e3.ckpt"])
@pytest.mark.parametrize("by_name", [True, False])
def test_checkpoint_folder(ml: DerivaML, exe: Execution, tmp_path: Path, name: str, by_name: bool) -> None:
    """A checkpoint folder is downloaded with all its files and no file of another checkpoint."""
    files = [".metadata", "__0_0.distcp", "optimizer/state.bin"]
    others = {f"{name}x/.metadata": ["Model_File"], "fit-2/e4.ckpt/.metadata": ["Model_File"]}
    recorded = upload_files(ml, exe, {**{f"{name}/{file}": BEST for file in files}, **others})
    folder = fetch_checkpoint(recorded, tmp_path / "folder", name if by_name else "best")
    assert folder.name == Path(name).name
    assert len(tree(tmp_path / "folder")) == len(files)
    assert tree(folder) == {file: f"{name}/{file}" for file in files}


def test_file_in_a_sub_folder(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A file name with folders does not make the folder a checkpoint."""
    recorded = upload_files(ml, exe, {"v1.0/a.ckpt": BEST, "v1.0/b.ckpt": LAST})
    assert fetch_checkpoint(recorded, tmp_path).read_text() == "v1.0/a.ckpt"
    assert tree(fetch_checkpoint(recorded, tmp_path, "v1.0/")).keys() == {"a.ckpt", "b.ckpt"}


def test_existing_files_are_not_downloaded_again(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Existing files stay; missing files of a folder are downloaded."""
    recorded = upload_files(ml, exe, {"e3.ckpt/a": BEST, "e3.ckpt/b": BEST})
    folder = fetch_checkpoint(recorded, tmp_path)
    inode = (folder / "a").stat().st_ino
    (folder / "b").unlink()
    assert fetch_checkpoint(recorded, tmp_path) == folder
    assert (folder / "a").stat().st_ino == inode
    assert (folder / "b").read_text() == "e3.ckpt/b"


def test_existing_files_with_other_bytes_are_replaced(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A file of the recorded length with other bytes is downloaded again."""
    recorded = upload_files(ml, exe, {"e3.ckpt/a": BEST, "e3.ckpt/b": BEST})
    folder = fetch_checkpoint(recorded, tmp_path)
    (folder / "a").write_text("e3.ckpt/X")
    assert fetch_checkpoint(recorded, tmp_path) == folder
    assert (folder / "a").read_text() == "e3.ckpt/a"


def test_error_lists_the_candidates(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Several models without a mark raise an error that lists their names."""
    recorded = upload_files(ml, exe, {"a.pt": ["Model_File"], "b.pt": ["Model_File"]})
    for which in ("best", "last", "c.pt", "a", ""):
        with pytest.raises(UnknownCheckpoint, match=r"Available: a\.pt, b\.pt; pass one of these names"):
            fetch_checkpoint(recorded, tmp_path, which)
    assert list(tmp_path.glob("Model")) == []


def test_error_for_staged_checkpoints(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """If nothing is uploaded yet, the error names the call that uploads."""
    with exe:
        exe.asset_file_path("Model", "m.pt", asset_types=BEST).write_text("m")
        with pytest.raises(UnknownCheckpoint, match="upload_execution_outputs"):
            fetch_checkpoint(exe, tmp_path)
    exe.upload_execution_outputs()


@pytest.mark.parametrize("name", ["../../evil.ckpt", "e3.ckpt/../../../evil", "/tmp/evil.ckpt"])
@pytest.mark.parametrize("which", ["a", "b"])
def test_recorded_name_cannot_leave_the_folder(
    ml: DerivaML, exe: Execution, tmp_path: Path, name: str, which: str
) -> None:
    """A file name in the catalog cannot write outside the target folder."""
    recorded = upload_files(ml, exe, {"e3.ckpt/a": BEST, "e3.ckpt/b": BEST})
    (row, *_) = ml.select_rows("Model", {"Filename": f"e3.ckpt/{which}"})
    ml.connection.catalog.update("Model", [{"RID": row["RID"], "Filename": name}])
    with pytest.raises(InvalidFileName):
        fetch_checkpoint(recorded, tmp_path / "here", name)
    with suppress(InvalidFileName):
        fetch_checkpoint(recorded, tmp_path / "here")
    assert list(tmp_path.rglob("evil*")) == []


def test_damaged_bytes_raise(ml: DerivaML, exe: Execution, tmp_path: Path, home: Path) -> None:
    """Bytes with a wrong checksum raise, and no file is upload_files."""
    recorded = upload_files(ml, exe, {"e3.ckpt/a": BEST, "e3.ckpt/b": BEST})
    objects = (file for file in (home / "local" / "objects").rglob("*") if file.is_file())
    (stored,) = (file for file in objects if file.read_bytes() == b"e3.ckpt/b")
    stored.chmod(0o644)
    stored.write_text("e3.ckpt/x")
    with pytest.raises(ChecksumMismatch):
        fetch_checkpoint(recorded, tmp_path / "here")
    assert "e3.ckpt/x" not in tree(tmp_path / "here").values()


def test_method_of_a_recorded_execution(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """`exe.fetch_checkpoint` returns best, last and named checkpoints from the cache, which is used again."""
    recorded = upload_files(ml, exe, {"a.ckpt": ["Model_File"], "b.ckpt": BEST, "c.ckpt": LAST})
    best = recorded.fetch_checkpoint()
    assert (best.name, best.read_text()) == ("b.ckpt", "b.ckpt")
    assert best.is_relative_to(ml.connection.folder / "cache" / "files" / "Model")
    assert recorded.fetch_checkpoint("last").name == "c.ckpt"
    assert exe.fetch_checkpoint("a.ckpt", tmp_path / "here").parents[2] == tmp_path / "here"
    inode = best.stat().st_ino
    assert recorded.fetch_checkpoint("best").stat().st_ino == inode
    with pytest.raises(UnknownCheckpoint, match="no checkpoint named 'd'"):
        recorded.fetch_checkpoint("d")


def test_method_with_a_folder(ml: DerivaML, exe: Execution) -> None:
    """A sharded checkpoint is returned as a folder; a damaged file in the cache is downloaded again."""
    files = {f"m.ckpt/{name}": BEST for name in ("0", "1")}
    folder = upload_files(ml, exe, files).fetch_checkpoint()
    assert tree(folder) == {"0": "m.ckpt/0", "1": "m.ckpt/1"}
    (folder / "1").chmod(0o600)
    (folder / "1").write_text("m.ckpt/9")
    assert tree(ml.lookup_execution(exe.execution_rid).fetch_checkpoint()) == {"0": "m.ckpt/0", "1": "m.ckpt/1"}
