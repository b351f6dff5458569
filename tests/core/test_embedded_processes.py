"""Several processes on one embedded catalog at once."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest
from embedded_samples import in_child

from deriva_ml_core.backends.embedded import EmbeddedCatalog, FolderStore, open_catalog
from deriva_ml_core.backends.embedded.database import Database
from deriva_ml_core.backends.sql.queries import CatalogFile
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import CatalogUnavailable
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.schema import Column, Table, asset_tables

SPAWN = multiprocessing.get_context("spawn")


def add_rows(folder: Path, number: int) -> list[str]:
    """Open the catalog, make the tables that all make, and add 50 rows one by one."""
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


def test_eight_processes_make_one_catalog_and_write(tmp_path: Path) -> None:
    """Eight processes that open a catalog that is not there yet make one, and all that each writes is in it, once."""
    folder = tmp_path / "local"
    with ProcessPoolExecutor(8, mp_context=SPAWN) as processes:
        rids = [rid for given in processes.map(add_rows, [folder] * 8, range(1, 9)) for rid in given]
    catalog = open_catalog(folder)
    assert len(set(rids)) == 400
    assert sorted(row["Number"] for row in catalog.select("Shared", {"RID": rids})) == sorted([*range(-8, 0)] * 50)
    assert len(catalog.select("Shared")) == 450
    assert len(catalog.select("Workflow")) == 1
    assert len(catalog.select("Workflow_Type", {"Name": "Training"})) == 1


def put_all(folder: Path, files: list[Path]) -> list[str]:
    """Store the files, each of which others store too."""
    store = FolderStore(folder)
    urls = [
        store.put("Image", file.name, file, handover=TransferMode.copy, options=UploadOptions()).url for file in files
    ]
    store.sync()
    return urls


def test_processes_store_the_same_bytes(tmp_path: Path) -> None:
    """Processes that store the same bytes at once all succeed, and the object is there once."""
    files = [tmp_path / f"{number}" for number in range(20)]
    for file in files:
        file.write_bytes(file.name.encode() * 50_000)
    with ProcessPoolExecutor(4, mp_context=SPAWN) as processes:
        urls = list(processes.map(put_all, [tmp_path / "local"] * 4, [files] * 4))
    assert urls == [urls[0]] * 4
    objects = [path for path in (tmp_path / "local" / "objects").rglob("*") if path.is_file()]
    assert sorted(path.read_bytes() for path in objects) == sorted(file.read_bytes() for file in files)


def test_a_long_writer_is_waited_for(tmp_path: Path) -> None:
    """A call waits for another's writing to end; beyond the timeout it says so and has written nothing."""
    catalog = open_catalog(tmp_path)
    impatient = EmbeddedCatalog(CatalogFile(Database(tmp_path / "catalog.sqlite", busy_timeout=0.05), tmp_path))
    with catalog._file.database.write_transaction():
        assert len(impatient.select("Workflow_Type")) > 0
        with pytest.raises(CatalogUnavailable, match="Another process"):
            impatient.insert("Dataset", [{}])
    assert impatient.insert("Dataset", [{}]) == 1
    assert len(catalog.select("Dataset")) == 1


def test_a_fork_waits_for_writing(tmp_path: Path) -> None:
    """A fork while another thread writes leaves both processes with a sound catalog of their own."""
    catalog = open_catalog(tmp_path)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            catalog.insert("Dataset", [{"Description": "parent"}] * 50)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        said = [in_child(lambda: catalog.insert("Dataset", [{"Description": "child"}]) and None) for _ in range(10)]
    finally:
        stop.set()
        writer.join()
    assert said == [""] * 10
    assert len(catalog.select("Dataset", {"Description": "child"})) == 10
    assert len(catalog.select("Dataset", {"Description": "parent"})) % 50 == 0


def test_no_connection_crosses_a_fork(tmp_path: Path) -> None:
    """A forked process begins with no file of the catalog open, since SQLite's locks do not cross a fork."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not show open files")
    catalog = open_catalog(tmp_path)
    catalog.select("Dataset")

    def look() -> None:
        opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        assert [name for name in opened if "catalog.sqlite" in name] == []

    assert in_child(look) == ""


@pytest.mark.parametrize("context", [SPAWN, multiprocessing.get_context("fork")], ids=["spawn", "fork"])
def test_a_child_outlives_its_parents_connection(tmp_path: Path, context: BaseContext) -> None:
    """What a child writes stays, whatever its parent closes meanwhile."""
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
