"""Objects that nothing names: which may be deleted, and that no upload loses one."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.deletion.objects import (
    delete_unused_objects,
    expire_deletions,
    find_expired_deletions,
    find_store_obstacle,
    find_unused_objects,
)
from deriva_ml_core.errors import MissingFiles, NotInTrash, StoreUnavailable, UploadFailed
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.schema import Column, Table


def days_later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def put_object(ml: DerivaML, content: bytes) -> Path:
    """Store an object without a row, as an interrupted upload does; return its file."""
    file = ml.connection.folder / "a file"
    file.write_bytes(content)
    options = UploadOptions()
    stored = ml.connection.store.put("Model", "m.pt", file, handover=TransferMode.move, options=options)
    return ml.connection.folder / "objects" / stored.md5[:2] / stored.md5


def unused(ml: DerivaML, days: float = 8) -> list[str]:
    return [each.md5 for each in find_unused_objects(ml.connection, days_later(days))]


def collect(ml: DerivaML, days: float = 8) -> tuple[list[str], list[str]]:
    time = days_later(days)
    deleted, kept = delete_unused_objects(ml.connection, find_unused_objects(ml.connection, time), time)
    return [each.md5 for each in deleted], [each.md5 for each in kept]


@pytest.fixture
def uploaded(ml: DerivaML, config: ExecutionConfiguration) -> Execution:
    """A finished, uploaded run with a model, whose working folder is gone."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "model.pt").write_text("weights")
    exe.upload_execution_outputs()
    shutil.rmtree(exe.working_dir)
    return exe


def test_object_without_a_row(ml: DerivaML, uploaded: Execution) -> None:
    """An object without a row is deleted after 7 days, and objects with rows stay."""
    path = put_object(ml, b"lost")
    md5 = hashlib.md5(b"lost", usedforsecurity=False).hexdigest()
    assert unused(ml, days=6.9) == []
    assert unused(ml, days=7.1) == [md5]
    assert path.exists()
    assert collect(ml) == ([md5], [])
    assert not path.exists()
    assert collect(ml) == ([], [])
    assert ml.verify().problems == ()


def test_age_is_the_time_in_the_store(ml: DerivaML, tmp_path: Path) -> None:
    """An object of an old file is as young as its storing."""
    path = put_object(ml, b"lost")
    os.utime(path, (0, 0))
    assert unused(ml, days=0) == []
    assert unused(ml, days=8) == [path.name]


def test_past_rows_keep_objects(ml: DerivaML, uploaded: Execution) -> None:
    """A row that was changed or deleted otherwise than with its run keeps its object for the snapshots."""
    (row,) = ml.select_rows("Model")
    ml.connection.catalog.delete("Model_Execution", {"Model": row["RID"]})
    ml.connection.catalog.delete("Model", {"RID": row["RID"]})
    assert ml.select_rows("Model") == []
    assert unused(ml) == []


def test_rows_of_any_table_keep_objects(ml: DerivaML, uploaded: Execution) -> None:
    """A digest in any column of any table keeps an object."""
    path = put_object(ml, b"noted")
    assert unused(ml) == [path.name]
    ml.create_table(Table("Note: mine", (Column("Where it is"),), schema="domain"))
    ml.insert_rows("Note: mine", [{"Where it is": f"see /hatrac/Model/{path.name}.m.pt:1"}])
    assert unused(ml) == []


def test_journals_keep_objects(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An object that a journal on this machine names is kept: its upload may be interrupted."""
    exe = ml.create_execution(config)
    path = put_object(ml, b"interrupted")
    with (exe.working_dir / "journal.jsonl").open("a") as journal:
        journal.write(f'{{"note": {{"md5": "{path.name}"}}}}')
    assert unused(ml) == []
    (ml.connection.folder / "pushed" / "x").mkdir(parents=True)
    other = put_object(ml, b"pushed")
    assert unused(ml) == [other.name]
    (ml.connection.folder / "pushed" / "x" / "ledger").write_text("#" * (2**20 - 10) + other.name)
    assert unused(ml) == []


def test_trash_keeps_objects(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The objects of a deleted run are kept for 30 days; then run and objects are given up, with the working folder."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "model.pt").write_text("weights")
        exe.asset_file_path("Model", "staged.pt").write_text("staged")
    exe.upload_execution_outputs()
    before = {path.name for path in (ml.connection.folder / "objects").glob("??/*")}
    ml.delete_execution(exe.execution_rid)
    assert (unused(ml, days=29), find_expired_deletions(ml.connection, days_later(29))) == ([], [])
    assert set(unused(ml, days=31)) == before
    time = days_later(31)
    assert expire_deletions(ml.connection, [exe.execution_rid], days_later(29)) == []
    assert expire_deletions(ml.connection, [exe.execution_rid, "1-ZZZZ"], time) == [exe.execution_rid]
    assert ml.list_deleted_executions() == []
    assert not (ml.connection.folder / "trash" / exe.execution_rid / "working").exists()
    with pytest.raises(NotInTrash, match="were kept for 30 days"):
        ml.restore_deleted_execution(exe.execution_rid)
    assert set(collect(ml, days=31)[0]) == before
    assert collect(ml, days=400) == ([], [])


def test_shared_object_of_an_expired_run(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An object that a remaining run has too stays."""
    runs = []
    for _ in range(2):
        with ml.create_execution(config) as exe:
            exe.asset_file_path("Model", f"{exe.execution_rid}.pt").write_text("same bytes")
        exe.upload_execution_outputs()
        shutil.rmtree(exe.working_dir)
        runs.append(exe)
    ml.delete_execution(runs[0].execution_rid)
    expire_deletions(ml.connection, [runs[0].execution_rid], days_later(31))
    collect(ml, days=31)
    assert ml.verify(runs[1].execution_rid).problems == ()


def test_store_that_is_not_owned_alone(ml: DerivaML, tmp_path: Path) -> None:
    """Next to a copy of the catalog, and if the folder of objects is a link, no object is deleted."""
    put_object(ml, b"lost")
    folder = ml.connection.folder
    assert find_store_obstacle(ml.connection) == ""
    backup = Path(shutil.copy(folder / "catalog.sqlite", folder / "yesterday.db"))
    assert "yesterday.db" in find_store_obstacle(ml.connection)
    assert unused(ml) == []
    backup.unlink()
    (folder / "objects").rename(tmp_path / "elsewhere")
    (folder / "objects").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in find_store_obstacle(ml.connection)
    assert unused(ml) == []


def test_equal_bytes_renew_an_object(ml: DerivaML) -> None:
    """Storing equal bytes again makes an object as young as a new one, so that it is kept until a row names it."""
    path = put_object(ml, b"again")
    first = path.stat()
    for _ in range(10_000):  # a file system counts time in steps of some milliseconds
        put_object(ml, b"again")
        if path.stat().st_ctime_ns > first.st_ctime_ns:
            break
    assert path.stat().st_ctime_ns > first.st_ctime_ns
    assert path.stat().st_mtime_ns == first.st_mtime_ns
    limit = (first.st_ctime + path.stat().st_ctime) / 2
    assert not ml.connection.store.delete_if_unused_since(path.name, limit)  # type: ignore[attr-defined]
    assert path.exists()


def test_listed_object_that_is_used_meanwhile(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An object that a row names by the time of the deletion is kept."""
    path = put_object(ml, b"weights")
    time = days_later(8)
    listed = find_unused_objects(ml.connection, time)
    assert [each.md5 for each in listed] == [path.name]
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "model.pt").write_bytes(b"weights")
    exe.upload_execution_outputs()
    deleted, kept = delete_unused_objects(ml.connection, listed, time)
    assert (deleted, [each.md5 for each in kept]) == ([], [path.name])
    assert ml.verify().problems == ()


def test_object_of_an_interrupted_upload_that_is_gone(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """If the object that an interrupted upload stored is gone, the next upload stores the file again, or names it."""
    with ml.create_execution(config) as exe:
        for name in ("here.pt", "gone.pt"):
            exe.asset_file_path("Model", name).write_text(name)
    catalog, insert = ml.connection.catalog, ml.connection.catalog.insert_missing

    def unavailable(*_: object) -> None:
        raise StoreUnavailable("no rows today")

    catalog.insert_missing = unavailable  # type: ignore[method-assign, assignment]
    with pytest.raises(UploadFailed):
        exe.upload_execution_outputs()
    catalog.insert_missing = insert  # type: ignore[method-assign]
    for path in (ml.connection.folder / "objects").glob("??/*"):
        if path.read_bytes() in (b"here.pt", b"gone.pt"):
            path.unlink()
    (exe.working_dir / "outputs" / "Model").mkdir(parents=True, exist_ok=True)
    (exe.working_dir / "outputs" / "Model" / "here.pt").write_text("here.pt")
    with pytest.raises(MissingFiles, match=r"gone\.pt"):
        exe.upload_execution_outputs()
    assert [row["Filename"] for row in ml.select_rows("Model")] == ["here.pt"]
    assert ml.verify().problems == ()


UPLOADS = """
    import sys
    from pathlib import Path
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import ExecutionConfiguration
    from deriva_ml_core.workflow import Workflow

    ml = DerivaML()
    workflow = Workflow(name="W", workflow_type="Training", url="https://example.org/w.py", checksum="c")
    for number in range(12):
        with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
            for name in range(8):
                exe.asset_file_path("Model", f"{number}-{name}.pt").write_text(f"bytes {name}")
        exe.upload_execution_outputs()
        print(number, flush=True)
"""


def test_uploads_of_another_process(ml: DerivaML) -> None:
    """While a process uploads files whose bytes are unused objects, these are deleted again and again; none is lost."""
    for name in range(8):
        put_object(ml, f"bytes {name}".encode())
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(UPLOADS)], stdout=-1, stderr=-1, text=True)
    rounds = 0
    while process.poll() is None:
        # objects are as old as they can be: a second after each use
        time = days_later(7) + timedelta(seconds=-1)
        delete_unused_objects(ml.connection, find_unused_objects(ml.connection, time), time)
        rounds += 1
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert (output.split()[-1], rounds > 0) == ("11", True)
    assert len(ml.select_rows("Model")) == 96
    assert ml.verify().problems == ()


def test_lock_of_an_object_in_use(ml: DerivaML) -> None:
    """An object that a process holds is not deleted."""
    import fcntl

    path = put_object(ml, b"held")
    store: Callable[[str, float], bool] = ml.connection.store.delete_if_unused_since  # type: ignore[attr-defined]
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not store(path.name, days_later(8).timestamp())
    assert path.exists()
    assert not store(path.name, 0)
    assert store(path.name, days_later(8).timestamp())
    assert not path.exists()
