"""A catalog file that was restored from a backup or copied: no RID is allocated a second time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from deriva_ml_core.backends.sql.identifiers import decode, encode
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import UnknownRID
from deriva_ml_core.execution import ExecutionConfiguration


def record_run(ml: DerivaML, config: ExecutionConfiguration, name: str) -> str:
    """Record a run with an output and a dataset; return its RID."""
    with ml.create_execution(config) as execution:
        execution.asset_file_path("Model", name).write_text(name)
        execution.create_dataset(name)
    execution.upload_execution_outputs()
    return execution.execution_rid


def list_rids(ml: DerivaML) -> set[str]:
    catalog = ml.connection.catalog
    return {row["RID"] for table in catalog.refresh().tables for row in catalog.select(table)}


def restore_file(folder: Path, backup: Path) -> None:
    """Replace the catalog's file as the page on backups says."""
    for name in ("catalog.sqlite-wal", "catalog.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    shutil.copyfile(backup, folder / "catalog.sqlite")


@pytest.mark.parametrize("has_watermark", [True, False])
def test_restored_file_allocates_no_rid_again(
    config: ExecutionConfiguration, home: Path, tmp_path: Path, has_watermark: bool
) -> None:
    """After the restore of an older file, new rows share no RID with the rows that the restore removed."""
    folder = home / "local"
    with DerivaML() as ml:
        record_run(ml, config, "before")
        before = list_rids(ml)
    shutil.copyfile(folder / "catalog.sqlite", tmp_path / "backup.sqlite")
    with DerivaML() as ml:
        lost = record_run(ml, config, "lost")
        removed = list_rids(ml) - before
    assert lost in removed
    restore_file(folder, tmp_path / "backup.sqlite")
    if not has_watermark:  # a catalog of an earlier version
        (folder / "catalog.rids").unlink()
    with DerivaML() as ml:
        assert list_rids(ml) == before
        new = record_run(ml, config, "after")
        assert new.startswith("3-00")
        assert not (list_rids(ml) - before) & removed
        record_run(ml, config, "later")
        assert max(list_rids(ml)) < "3-0100"


def test_copy_allocates_other_rids(config: ExecutionConfiguration, home: Path, tmp_path: Path) -> None:
    """A copied folder may be a restored backup, so its RIDs continue far behind those of the original."""
    with DerivaML() as ml:
        record_run(ml, config, "one")
    shutil.copytree(home / "local", tmp_path / "copy")
    with DerivaML(f"file:{tmp_path / 'copy'}") as copy:
        assert record_run(copy, config, "two").startswith("3-00")
    with DerivaML() as ml:
        assert record_run(ml, config, "three").startswith("1-00")


def copy_over(source: Path, target: Path, *, preserve: bool) -> None:
    """Copy a folder over another one, as ``cp -r`` and ``cp -a`` do: existing files keep their inodes."""
    for file in filter(Path.is_file, source.rglob("*")):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if copy.exists() and not os.access(copy, os.W_OK):  # an object, which never changes
            continue
        shutil.copyfile(file, copy)
        if preserve:
            os.utime(copy, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))


def age(watermark: Path, seconds: int) -> None:
    """Let a backup's file of the highest RID be older, in content and modification time."""
    number, inode, stamp = map(int, watermark.read_text().split())
    older = stamp - seconds * 10**9
    watermark.write_text(f"{number:020d} {inode:020d} {older:020d}\n")
    os.utime(watermark, ns=(older, older))


@pytest.mark.parametrize("preserve", [False, True], ids=["cp -r", "cp -a"])
def test_folder_copied_over_a_newer_one(
    config: ExecutionConfiguration, home: Path, tmp_path: Path, preserve: bool
) -> None:
    """A backup that was copied over the newer folder, file by file, allocates no RID a second time."""
    folder, backup = home / "local", tmp_path / "backup"
    with DerivaML() as ml:
        record_run(ml, config, "before")
    shutil.copytree(folder, backup, copy_function=shutil.copy2)
    age(backup / "catalog.rids", 3600)
    with DerivaML() as ml:
        record_run(ml, config, "lost")
    for name in ("catalog.sqlite-wal", "catalog.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    copy_over(backup, folder, preserve=preserve)
    with DerivaML() as ml:
        assert record_run(ml, config, "after").startswith("3-00")
        assert record_run(ml, config, "later").startswith("3-00")


def test_file_of_an_earlier_version(config: ExecutionConfiguration, home: Path) -> None:
    """A file without the time of its last write, as earlier versions wrote it, changes nothing."""
    with DerivaML() as ml:
        record_run(ml, config, "one")
    file = home / "local/catalog.rids"
    number, inode, _ = map(int, file.read_text().split())
    file.write_text(f"{number:020d} {inode:020d}\n")
    with DerivaML() as ml:
        assert record_run(ml, config, "two").startswith("1-00")
    assert len(file.read_text().split()) == 3


def test_moved_catalog_continues_its_numbers(config: ExecutionConfiguration, home: Path, tmp_path: Path) -> None:
    """A folder that is only renamed continues its RIDs, and so does one without the file of the highest RID."""
    with DerivaML() as ml:
        record_run(ml, config, "one")
    (home / "local").rename(tmp_path / "moved")
    with DerivaML(f"file:{tmp_path / 'moved'}") as moved:
        assert record_run(moved, config, "two").startswith("1-00")
    (tmp_path / "moved/catalog.rids").unlink()
    with DerivaML(f"file:{tmp_path / 'moved'}") as moved:
        assert record_run(moved, config, "three").startswith("1-00")


def test_rolled_back_rows_do_not_change_the_numbers(ml: DerivaML) -> None:
    """A refused insert is no sign of a restore."""
    catalog = ml.connection.catalog
    (first,) = catalog.reserve(1)
    with pytest.raises(UnknownRID, match="9-ZZZZ"):
        catalog.insert("Execution", [{"Workflow": "9-ZZZZ", "Status": "Created"}])
    (second,) = catalog.reserve(1)
    assert (first[:4], second[:4]) == ("1-00", "1-00")


def test_working_folder_of_a_lost_execution_is_not_used_again(
    config: ExecutionConfiguration, home: Path, tmp_path: Path
) -> None:
    """A new execution does not take a working folder that exists, for example of a row that a restore removed."""
    with DerivaML(working_dir=tmp_path / "work") as ml:
        number = decode(ml.connection.catalog.reserve(1)[0])
    for rid in map(encode, range(number, number + 10)):
        folder = tmp_path / "work/executions" / rid
        folder.mkdir(parents=True)
        (folder / "journal.jsonl").write_text("the journal of a lost execution\n")
    with DerivaML(working_dir=tmp_path / "work") as ml:
        execution = ml.create_execution(config)
    first = (execution.working_dir / "journal.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["rid"] == execution.execution_rid
    untouched = [path.read_text() for path in tmp_path.glob("work/executions/*/journal.jsonl")]
    assert untouched.count("the journal of a lost execution\n") == 10
