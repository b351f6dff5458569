"""Files that appear complete or not at all, and the leftovers of killed processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core._files.atomic import (
    atomic_path,
    copy_atomic,
    is_leftover,
    remove_leftovers,
    rename_for_deletion,
    temporary_folder,
    write_atomic,
)
from deriva_ml_core._files.locks import is_locked, lock_file


@pytest.mark.parametrize("durable", [False, True])
def test_write_replaces_the_file(tmp_path: Path, durable: bool) -> None:
    """The new content replaces the old, and no other file remains."""
    file = tmp_path / "größe.json"
    write_atomic(file, "old")
    write_atomic(file, "größe", durable=durable)
    assert file.read_text(encoding="utf-8") == "größe"
    assert list(tmp_path.iterdir()) == [file]


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    """If the writer raises, the old file stays and the temporary one is deleted, be it a file or a folder."""
    file = tmp_path / "a.txt"
    file.write_text("old")
    for is_folder in (False, True):
        with pytest.raises(RuntimeError, match="no"), atomic_path(file) as partial:
            if is_folder:
                partial.mkdir()
            (partial / "part" if is_folder else partial).write_text("half")
            raise RuntimeError("no")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_durable_write_syncs_content_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``durable`` each file of the new content and the folder that names it are synchronized; without, none."""
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_ino), fsync(descriptor)))
    write_atomic(tmp_path / "a", "x")
    assert synced == []
    write_atomic(tmp_path / "a", "x", durable=True)
    assert synced == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]
    synced.clear()
    with atomic_path(tmp_path / "crate", durable=True) as partial:
        (partial / "data").mkdir(parents=True)
        (partial / "data" / "b").write_text("x")
    new = [tmp_path / "crate", tmp_path / "crate/data", tmp_path / "crate/data/b", tmp_path]
    assert set(synced) == {path.stat().st_ino for path in new}


def test_suffix_is_kept_on_request(tmp_path: Path) -> None:
    """A writer that chooses the format by the suffix finds it on the temporary name."""
    with atomic_path(tmp_path / "model.weights.h5", keep_suffix=True) as partial:
        assert partial.name.endswith(".part.weights.h5")
        partial.touch()
    with atomic_path(tmp_path / "model.weights.h5") as partial:
        assert partial.suffix == ".part"
        partial.touch()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f".{'0' * 32}.part", True),
        (f".{'0' * 32}.part.ckpt", True),
        (f".{'0' * 32}-part", True),
        (f".{'0' * 32}-part.weights.h5", True),
        (".writing-training.json", True),
        (".writing-training_curves.png", True),
        (".000003.json.4711", True),
        (f"{'0' * 32}.part", False),
        (f".{'0' * 31}.part", False),
        (".writing-thesis.txt", False),
        (".config.json.1", False),
        ("model.part", False),
    ],
)
def test_leftover_names(name: str, expected: bool) -> None:
    """The temporary names of this and earlier versions are leftovers; similar names of a user's files are not."""
    assert is_leftover(name) is expected


def test_leftovers_are_removed_unless_locked(tmp_path: Path) -> None:
    """Leftovers go wherever they are, files and folders; a file that is being written, and other files, stay."""
    below = tmp_path / "a" / "b"
    (below / f".{'1' * 32}.part").mkdir(parents=True)
    (below / f".{'1' * 32}.part" / "x").touch()
    (below / f".{'2' * 32}.part.ckpt").touch()
    (below / "model.pt").touch()
    locked = below / f".{'3' * 32}.part"
    with locked.open("xb") as file:
        lock_file(file)
        remove_leftovers(tmp_path)
        assert {path.name for path in below.iterdir()} == {"model.pt", locked.name}
        assert is_locked(locked)
    remove_leftovers(tmp_path)
    assert [path.name for path in below.iterdir()] == ["model.pt"]


def test_lock_ends_with_the_process(tmp_path: Path) -> None:
    """A copy that a killed process began is removed."""
    part = tmp_path / f".{'4' * 32}.part"
    code = (
        "import sys, time; from deriva_ml_core._files.locks import lock_file; "
        f"file = open({str(part)!r}, 'xb'); lock_file(file); print(flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        remove_leftovers(tmp_path)
        assert part.exists()
        process.kill()
    remove_leftovers(tmp_path)
    assert not part.exists()


def test_copy_and_temporary_folder(tmp_path: Path) -> None:
    """A copy has the same bytes; a temporary folder and what is left in it are deleted."""
    (tmp_path / "a").write_bytes(b"\0" * 100_000)
    copy_atomic(tmp_path / "a", tmp_path / "b")
    with temporary_folder(tmp_path) as folder:
        assert is_leftover(folder.name)
        (folder / "sub").mkdir()
        (tmp_path / "b").rename(folder / "sub" / "b")
        assert (folder / "sub" / "b").stat().st_size == 100_000
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_rename_for_deletion(tmp_path: Path) -> None:
    """A file or folder leaves its name at once, under one that counts as a leftover."""
    (tmp_path / "old").mkdir()
    renamed = rename_for_deletion(tmp_path / "old")
    assert renamed is not None
    assert is_leftover(renamed.name)
    assert rename_for_deletion(tmp_path / "old") is None
