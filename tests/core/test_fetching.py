"""Checkpoints of recorded executions, brought back."""

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


def left(ml: DerivaML, exe: Execution, files: Mapping[str, list[str]]) -> RecordedExecution:
    """The execution as recorded, once it has uploaded files of these names and types, whose bytes are their names."""
    with exe:
        for name, types in files.items():
            exe.asset_file_path("Model", name, asset_types=types).write_text(name)
    exe.upload_execution_outputs()
    return ml.lookup_execution(exe.execution_rid)


def tree(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_best_and_last_are_told_by_their_types(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Whatever they are called."""
    recorded = left(ml, exe, {"a.ckpt": ["Model_File"], "b.ckpt": BEST, "c.ckpt": LAST})
    assert fetch_checkpoint(recorded, tmp_path).read_text() == "b.ckpt"
    assert fetch_checkpoint(recorded, tmp_path, "last").read_text() == "c.ckpt"


def test_types_that_were_added_later_count(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """As a training gives them, which learns at its end which was the best."""
    with exe:
        for name in ("a.ckpt", "b.ckpt"):
            exe.asset_file_path("Model", name, asset_types="Model_File").write_text(name)
        exe.upload_execution_outputs()
        exe.add_asset_types(exe.working_dir / "outputs/Model/a.ckpt", ["Best_Checkpoint"])
    assert fetch_checkpoint(ml.lookup_execution(exe.execution_rid), tmp_path).read_text() == "a.ckpt"


def test_the_newest_of_several_is_taken(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """The best of the second fit, and the bytes that were uploaded last under one name."""
    with exe:
        for content in ("one", "two"):
            exe.asset_file_path("Model", "z-best.ckpt", asset_types=BEST).write_text(content)
            exe.upload_execution_outputs()
        assert fetch_checkpoint(exe, tmp_path, "z-best.ckpt").read_text() == "two"
        exe.asset_file_path("Model", "a-best.ckpt", asset_types=BEST).write_text("three")
        exe.upload_execution_outputs()
        assert fetch_checkpoint(exe, tmp_path).read_text() == "three"


def test_an_only_model_is_best_and_last(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A run that kept one model has not told them apart."""
    recorded = left(ml, exe, {"m.pt": ["Model_File"], "notes.txt": ["Model"]})
    assert fetch_checkpoint(recorded, tmp_path).read_text() == "m.pt"
    assert fetch_checkpoint(recorded, tmp_path, "last").read_text() == "m.pt"


@pytest.mark.parametrize("name", ["e3.ckpt", "checkpoint-100", "fit-2/e3.ckpt", "v1.0/e3.ckpt"])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_folder_comes_back_as_the_same_tree(
    ml: DerivaML, exe: Execution, tmp_path: Path, name: str, by_name: bool
) -> None:
    """All of its files at their places, and no file of another checkpoint."""
    files = [".metadata", "__0_0.distcp", "optimizer/state.bin"]
    others = {f"{name}x/.metadata": ["Model_File"], "fit-2/e4.ckpt/.metadata": ["Model_File"]}
    recorded = left(ml, exe, {**{f"{name}/{file}": BEST for file in files}, **others})
    got = fetch_checkpoint(recorded, tmp_path / "got", name if by_name else "best")
    assert got.name == Path(name).name
    assert len(tree(tmp_path / "got")) == len(files)
    assert tree(got) == {file: f"{name}/{file}" for file in files}


def test_a_file_in_a_folder_is_a_file(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A name with folders makes no folder of checkpoints of it."""
    recorded = left(ml, exe, {"v1.0/a.ckpt": BEST, "v1.0/b.ckpt": LAST})
    assert fetch_checkpoint(recorded, tmp_path).read_text() == "v1.0/a.ckpt"
    assert tree(fetch_checkpoint(recorded, tmp_path, "v1.0/")).keys() == {"a.ckpt", "b.ckpt"}


def test_a_second_time_nothing_is_brought(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """What is there stays, file for file; what is missing of a folder is brought."""
    recorded = left(ml, exe, {"e3.ckpt/a": BEST, "e3.ckpt/b": BEST})
    got = fetch_checkpoint(recorded, tmp_path)
    kept = (got / "a").stat().st_ino
    (got / "b").unlink()
    assert fetch_checkpoint(recorded, tmp_path) == got
    assert (got / "a").stat().st_ino == kept
    assert (got / "b").read_text() == "e3.ckpt/b"


def test_an_error_names_what_there_is(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Two models, neither marked: the caller chooses."""
    recorded = left(ml, exe, {"a.pt": ["Model_File"], "b.pt": ["Model_File"]})
    for which in ("best", "last", "c.pt", "a", ""):
        with pytest.raises(UnknownCheckpoint, match=r"it has a\.pt, b\.pt; give one of these names"):
            fetch_checkpoint(recorded, tmp_path, which)
    assert list(tmp_path.glob("Model")) == []


def test_what_is_only_staged_is_said_to_be(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """An execution without uploads names the call that sends them."""
    with exe:
        exe.asset_file_path("Model", "m.pt", asset_types=BEST).write_text("m")
        with pytest.raises(UnknownCheckpoint, match="upload_execution_outputs"):
            fetch_checkpoint(exe, tmp_path)
    exe.upload_execution_outputs()


@pytest.mark.parametrize("name", ["../../evil.ckpt", "e3.ckpt/../../../evil", "/tmp/evil.ckpt"])
@pytest.mark.parametrize("which", ["a", "b"])
def test_a_recorded_name_does_not_climb_out(
    ml: DerivaML, exe: Execution, tmp_path: Path, name: str, which: str
) -> None:
    """Whoever may write to a catalog may not write to other people's folders."""
    recorded = left(ml, exe, {"e3.ckpt/a": BEST, "e3.ckpt/b": BEST})
    (row, *_) = ml.select_rows("Model", {"Filename": f"e3.ckpt/{which}"})
    ml.connection.catalog.update("Model", [{"RID": row["RID"], "Filename": name}])
    with pytest.raises(InvalidFileName):
        fetch_checkpoint(recorded, tmp_path / "here", name)
    with suppress(InvalidFileName):
        fetch_checkpoint(recorded, tmp_path / "here")
    assert list(tmp_path.rglob("evil*")) == []


def test_damaged_bytes_are_refused(ml: DerivaML, exe: Execution, tmp_path: Path, home: Path) -> None:
    """Nothing is left of them."""
    recorded = left(ml, exe, {"e3.ckpt/a": BEST, "e3.ckpt/b": BEST})
    objects = (file for file in (home / "local" / "objects").rglob("*") if file.is_file())
    (stored,) = (file for file in objects if file.read_bytes() == b"e3.ckpt/b")
    stored.chmod(0o644)
    stored.write_text("e3.ckpt/x")
    with pytest.raises(ChecksumMismatch):
        fetch_checkpoint(recorded, tmp_path / "here")
    assert "e3.ckpt/x" not in tree(tmp_path / "here").values()
