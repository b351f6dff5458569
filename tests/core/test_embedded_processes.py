"""Concurrent processes on one embedded catalog."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
from embedded_samples import run_in_child

from deriva_ml_core.backends.embedded import FolderStore, SqlCatalog, open_catalog
from deriva_ml_core.backends.embedded.database import Database
from deriva_ml_core.backends.sql.queries import CatalogDatabase
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import CatalogUnavailable
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.schema import Column, Table, asset_tables

SPAWN = multiprocessing.get_context("spawn")


def add_rows(folder: Path, number: int) -> list[str]:
    """Open the catalog, create the tables that every process creates, and insert 50 rows one by one."""
    catalog = open_catalog(folder)
    catalog.create_tables([Table("Shared", (Column("Number", "int4"), Column("Text")), (("Text",),))])
    catalog.create_tables(asset_tables("Slide"))
    catalog.insert_unless("Workflow", {"URL": "same"}, {"URL": "same", "Workflow_Type": "Training"})
    rids = catalog.reserve(50)
    for step, rid in enumerate(rids):
        rows = [{"RID": rid, "Number": number, "Text": f"{number} {step}"}, {"Text": f"{step}"}]
        catalog.insert("Shared", rows, skip_existing=True)
        catalog.update("Shared", [{"RID": rid, "Number": -number}])
    return rids


def test_concurrent_creation_and_writes(tmp_path: Path) -> None:
    """Eight processes that open a missing catalog create one, and it has the rows of all, once."""
    folder = tmp_path / "local"
    with ProcessPoolExecutor(8, mp_context=SPAWN) as processes:
        rids = [rid for added in processes.map(add_rows, [folder] * 8, range(1, 9)) for rid in added]
    catalog = open_catalog(folder)
    assert len(set(rids)) == 400
    assert sorted(row["Number"] for row in catalog.select("Shared", {"RID": rids})) == sorted([*range(-8, 0)] * 50)
    assert len(catalog.select("Shared")) == 450
    assert len(catalog.select("Workflow")) == 1
    assert len(catalog.select("Workflow_Type", {"Name": "Training"})) == 1


def put_files(folder: Path, files: list[Path]) -> list[str]:
    """Store files that other processes store too."""
    store = FolderStore(folder)
    urls = [
        store.put("Image", file.name, file, handover=TransferMode.copy, options=UploadOptions()).url for file in files
    ]
    store.sync()
    return urls


def test_concurrent_puts_of_same_bytes(tmp_path: Path) -> None:
    """If several processes store the same bytes, all succeed and there is one object."""
    files = [tmp_path / f"{number}" for number in range(20)]
    for file in files:
        file.write_bytes(file.name.encode() * 50_000)
    with ProcessPoolExecutor(4, mp_context=SPAWN) as processes:
        urls = list(processes.map(put_files, [tmp_path / "local"] * 4, [files] * 4))
    assert urls == [urls[0]] * 4
    objects = [path for path in (tmp_path / "local" / "objects").rglob("*") if path.is_file()]
    assert sorted(path.read_bytes() for path in objects) == sorted(file.read_bytes() for file in files)


def test_writer_timeout(tmp_path: Path) -> None:
    """A call waits for another writer. After the timeout it raises and has written nothing."""
    catalog = open_catalog(tmp_path)
    short_timeout = SqlCatalog(CatalogDatabase(Database(tmp_path / "catalog.sqlite", busy_timeout=0.05)))
    with catalog._source.database.write_transaction():
        assert len(short_timeout.select("Workflow_Type")) > 0
        with pytest.raises(CatalogUnavailable, match="Another process"):
            short_timeout.insert("Dataset", [{}])
    assert short_timeout.insert("Dataset", [{}]) == 1
    assert len(catalog.select("Dataset")) == 1


def test_fork_during_write(tmp_path: Path) -> None:
    """A fork while another thread writes leaves a working catalog in both processes."""
    catalog = open_catalog(tmp_path)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            catalog.insert("Dataset", [{"Description": "parent"}] * 50)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        messages = [
            run_in_child(lambda: catalog.insert("Dataset", [{"Description": "child"}]) and None) for _ in range(10)
        ]
    finally:
        stop.set()
        writer.join()
    assert messages == [""] * 10
    assert len(catalog.select("Dataset", {"Description": "child"})) == 10
    assert len(catalog.select("Dataset", {"Description": "parent"})) % 50 == 0


HOLD_WRITE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("writing", flush=True)
sys.stdin.read()
connection.execute("COMMIT")
"""


def test_fork_does_not_wait_for_another_process(tmp_path: Path) -> None:
    """A fork returns while another process writes and a thread waits for it; the thread then writes."""
    catalog = open_catalog(tmp_path)
    command = [sys.executable, "-c", HOLD_WRITE_LOCK, tmp_path / "catalog.sqlite"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        waiting = threading.Thread(target=lambda: catalog.insert("Dataset", [{"Description": "waited"}]))
        waiting.start()
        while not is_in_function(waiting, "_begin_write"):
            assert waiting.is_alive()
        for _ in range(3):
            assert run_in_child(lambda: catalog.select("Dataset") and None) == ""
        assert waiting.is_alive()
        assert catalog.select("Dataset", {"Description": "waited"}) == []
        other.stdin.close()
        waiting.join()
    assert len(catalog.select("Dataset", {"Description": "waited"})) == 1


def is_in_function(thread: threading.Thread, name: str) -> bool:
    """Whether a function of this name is on a thread's stack."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_name != name:
        frame = frame.f_back
    return frame is not None


def test_child_inherits_no_connection(tmp_path: Path) -> None:
    """A forked process has no open file of the catalog, because SQLite's locks do not survive a fork."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not show open files")
    catalog = open_catalog(tmp_path)
    catalog.select("Dataset")

    def check_open_files() -> None:
        opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        assert [name for name in opened if "catalog.sqlite" in name] == []

    assert run_in_child(check_open_files) == ""


def test_databases_share_fork_handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a catalog many times registers the fork handlers once, since Python cannot remove them."""
    registered = []
    register = os.register_at_fork

    def count(**handlers: Callable[[], None]) -> None:
        registered.append(handlers)
        register(**handlers)

    open_catalog(tmp_path)
    monkeypatch.setattr(os, "register_at_fork", count)
    catalogs = [open_catalog(tmp_path) for _ in range(20)]
    assert registered == []
    catalogs[0].insert("Dataset", [{"Description": "parent"}])
    assert run_in_child(lambda: catalogs[1].insert("Dataset", [{"Description": "child"}]) and None) == ""
    assert len(catalogs[2].select("Dataset")) == 2


@pytest.mark.parametrize("context", [SPAWN, multiprocessing.get_context("fork")], ids=["spawn", "fork"])
def test_child_writes_while_parent_closes(tmp_path: Path, context: BaseContext) -> None:
    """A child's writes are stored even if its parent closes the catalog meanwhile."""
    catalog = open_catalog(tmp_path)
    catalog.insert("Dataset", [{}])
    child = context.Process(target=add_rows, args=(tmp_path, 1))  # type: ignore[attr-defined]
    child.start()
    while child.is_alive():
        catalog.insert("Dataset", [{}])
        catalog.close()
    child.join()
    assert child.exitcode == 0
    assert len(open_catalog(tmp_path).select("Shared", {"Number": -1})) == 50
