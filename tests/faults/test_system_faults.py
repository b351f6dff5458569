"""System faults around a run: each is reported, does not stop the training, and loses no data."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from system_faults import fill_disk, mount_small_disk, run_as_nobody

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import (
    CatalogCorrupt,
    CatalogReadOnly,
    CatalogTooNew,
    CatalogUnavailable,
    ChecksumMismatch,
    DerivaMLException,
    DiskFull,
    UnknownAddress,
    UploadFailed,
)
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import Asset
from deriva_ml_core.plugins import load_plugins
from deriva_ml_core.runner.hydra_files import upload_hydra_files
from waits import HANG


def stored_path(home: Path, asset: Asset) -> Path:
    return home / "local" / "objects" / asset.md5[:2] / asset.md5


# Addresses and catalogs


@pytest.mark.parametrize("host", ["gopher://example.org", "s3://bucket/catalog", "file://elsewhere/folder", "file:"])
def test_unknown_address(host: str, home: Path) -> None:
    """An unknown scheme is named in the error, and nothing is created."""
    with pytest.raises(UnknownAddress, match=host):
        DerivaML(host)
    assert not home.exists()


def test_server_without_the_built_in_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the built-in backends, the error names the addresses that they serve."""
    with pytest.raises(UnknownAddress, match="for an embedded catalog"):
        DerivaML("www.example.org", "1", plugins=load_plugins({"DERIVA_ML_DISABLED_PLUGINS": "connect"}))


def test_corrupt_catalog(home: Path) -> None:
    """A file that is no catalog raises an error with a remedy and is not changed."""
    catalog = home / "local" / "catalog.sqlite"
    catalog.parent.mkdir(parents=True)
    catalog.write_bytes(b"not a catalog at all" * 1000)
    with pytest.raises(CatalogCorrupt, match=r"catalog\.sqlite.*recover"):
        DerivaML()
    assert catalog.read_bytes() == b"not a catalog at all" * 1000


def test_catalog_of_a_newer_version(ml: DerivaML, home: Path) -> None:
    """A catalog of a later version is rejected and not damaged."""
    ml.close()
    with sqlite3.connect(home / "local" / "catalog.sqlite") as catalog:
        catalog.execute("PRAGMA user_version = 4711")
    with pytest.raises(CatalogTooNew, match="4711"):
        DerivaML()


def test_catalog_deleted_during_a_run(
    config: ExecutionConfiguration, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The training continues with a warning; the upload raises; once the catalog is back, all is recorded."""
    folder, safe = home / "local", home / "safe"
    with DerivaML(exit_timeout=3).create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
        safe.mkdir()
        for file in folder.glob("catalog.sqlite*"):
            file.rename(safe / file.name)
        exe.update_status(Status.running, "in the dark")
    assert "Failed to write the status" in caplog.text
    with pytest.raises(CatalogUnavailable, match="Check that it exists"):
        exe.upload_execution_outputs()
    assert not (folder / "catalog.sqlite").exists()
    for file in safe.iterdir():
        file.rename(folder / file.name)
    exe.upload_execution_outputs()
    found = DerivaML().lookup_execution(exe.execution_rid)
    assert found.status is Status.completed
    assert [asset.filename for asset in found.list_assets() if asset.table == "Model"] == ["m.pt"]
    assert [update.message for update in found.list_statuses()][2] == "in the dark"


# Permissions


@pytest.fixture
def folder(ml: DerivaML, home: Path, tmp_path: Path, config: ExecutionConfiguration) -> Iterator[Path]:
    """The catalog's folder, writable for every user except where a test closes it."""
    # another user may not be able to import from this one's home, so all that a run imports is imported now
    elsewhere = DerivaML(f"file:{tmp_path}/elsewhere")
    with elsewhere.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
    elsewhere.restore_execution(exe.execution_rid).upload_execution_outputs()
    ml.close()
    folder = home / "local"
    for part in ("objects", "executions"):
        (folder / part).mkdir()
    for path in (home, folder, *folder.iterdir()):
        path.chmod(0o777 if path.is_dir() else 0o666)
    yield folder
    for path in (home, folder, *folder.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)


def make_read_only(path: Path) -> None:
    path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture
def readable(folder: Path, config: ExecutionConfiguration) -> Iterator[str]:
    """A catalog that other users can only read; yields the RID of its run."""
    with DerivaML() as ml:
        with ml.create_execution(config) as exe:
            exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
        exe.upload_execution_outputs()
        cli("list", "--json")  # imports what another user may not be able to import
        cli("show", exe.execution_rid, "--json")
    for path in (*folder.rglob("*"), folder):
        make_read_only(path)
    yield exe.execution_rid
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def cli(*arguments: str) -> Any:
    """Call ``deriva-ml`` in this process; return its JSON."""
    from typer.testing import CliRunner

    from deriva_ml_cli.app import app

    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


@pytest.mark.parametrize("are_journals_readable", [True, False])
def test_read_only_catalog(
    readable: str, home: Path, config: ExecutionConfiguration, are_journals_readable: bool
) -> None:
    """A catalog that may only be read is listed and shown, and a write says what to do."""
    if not are_journals_readable:
        (home / "local/executions" / readable).chmod(0o700)

    def read() -> None:
        assert [each["rid"] for each in cli("list", "--json")["executions"]] == [readable]
        assert cli("show", readable, "--json")["status"] == "Completed"
        with DerivaML() as client:
            found = client.lookup_execution(readable)
            assert [update.status for update in found.list_statuses()][-1] is Status.completed
            assert [asset.filename for asset in found.list_assets("Output") if asset.table == "Model"] == ["m.pt"]
            with pytest.raises(CatalogReadOnly, match=r"catalog\.sqlite cannot be written.*for this user"):
                client.create_execution(config)

    run_as_nobody(read)


WRITER = """
import sys, time
from pathlib import Path
from deriva_ml_core.client import DerivaML

folder = Path(sys.argv[1])
with DerivaML() as ml:
    ml.create_dataset("Written before")
    (folder / "open").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    ml.create_dataset("Written meanwhile")
(folder / "done").touch()
"""


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.usefixtures("readable")
def test_read_only_catalog_while_its_owner_writes(home: Path, is_open: bool) -> None:
    """A reader sees what the owner writes meanwhile, whether the owner has the catalog open or opens it later."""
    signals = home.parent / "signals"
    signals.mkdir()
    signals.chmod(0o777)
    writer = [sys.executable, "-c", WRITER if is_open else LATE_WRITER, str(signals)]

    with subprocess.Popen(writer) as process:
        while is_open and not (signals / "open").exists():
            assert process.poll() is None
            time.sleep(0.01)

        def read() -> None:
            with DerivaML() as client:
                catalog = client.connection.catalog
                before = ["Written before"] if is_open else []
                assert [row["Description"] for row in catalog.select("Dataset")] == before
                (signals / "go").touch()
                while not (signals / "done").exists():
                    assert Path(f"/proc/{process.pid}").exists()
                    time.sleep(0.01)
                assert [row["Description"] for row in catalog.select("Dataset")] == [*before, "Written meanwhile"]

        run_as_nobody(read)
        assert process.wait(timeout=HANG) == 0


LATE_WRITER = """
import sys, time
from pathlib import Path

folder = Path(sys.argv[1])
while not (folder / "go").exists():
    time.sleep(0.01)
from deriva_ml_core.client import DerivaML
with DerivaML() as ml:
    ml.create_dataset("Written meanwhile")
(folder / "done").touch()
"""


def test_closed_folder(folder: Path) -> None:
    """A user who may not enter the catalog's folder gets an error that names it and says whom to ask."""
    folder.chmod(0o700)

    def open_catalog() -> None:
        with pytest.raises(CatalogUnavailable, match=r"local/catalog\.sqlite cannot be reached by this user.*owner"):
            DerivaML()

    run_as_nobody(open_catalog)


def test_read_only_store(folder: Path, config: ExecutionConfiguration) -> None:
    """The creation fails, and its row has the reason."""
    make_read_only(folder / "objects")

    def open_catalog() -> None:
        client = DerivaML()
        with pytest.raises(UploadFailed, match="writable for this user"):
            client.create_execution(config)
        (found,) = client.find_executions()
        assert (found.status, "objects" in found.status_detail) == (Status.failed, True)
        assert client.restore_execution(found.execution_rid).status is Status.failed

    run_as_nobody(open_catalog)


def test_read_only_executions_folder(folder: Path, config: ExecutionConfiguration) -> None:
    """The creation raises an error that names the folder, and leaves no row."""
    make_read_only(folder / "executions")

    def open_catalog() -> None:
        client = DerivaML()
        with pytest.raises(CatalogReadOnly, match="executions"):
            client.create_execution(config)
        assert client.find_executions() == []

    run_as_nobody(open_catalog)


# Disk space


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 4 MiB with the catalog on it."""
    with mount_small_disk(tmp_path / "disk", 4 * 2**20) as folder:
        monkeypatch.setenv("DERIVA_ML_HOME", str(folder / "home"))
        DerivaML().close()
        yield folder


def test_full_disk_does_not_stop_the_run(
    disk: Path, config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """Statuses log a warning while the disk is full, and are written by the next events."""
    ml = DerivaML()
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
        with fill_disk(disk):
            for number in range(50):
                exe.update_status(Status.running, f"Epoch {number}")
        exe.update_status(Status.running, "space again")
        found = ml.lookup_execution(exe.execution_rid)
        messages = [update.message for update in found.list_statuses()]
        assert messages == ["", "", *(f"Epoch {number}" for number in range(50)), "space again"]
        assert found.status_detail == "space again"
    assert "Failed to write" in caplog.text


def test_full_disk_at_the_end(disk: Path, config: ExecutionConfiguration) -> None:
    """The run completes; its end is recorded with the next upload."""
    ml = DerivaML(exit_timeout=3)
    exe = ml.create_execution(config)
    with fill_disk(disk):
        with exe:
            pass
        assert exe.status is Status.completed
    exe.upload_execution_outputs()
    found = DerivaML().lookup_execution(exe.execution_rid)
    assert found.status is Status.completed
    assert found.stop_time is not None


@pytest.mark.parametrize("in_run", [True, False])
def test_upload_on_a_full_disk(disk: Path, config: ExecutionConfiguration, in_run: bool) -> None:
    """The upload raises and every file stays staged; with space the same call uploads them."""
    ml = DerivaML()
    content = os.urandom(300_000)
    exe = ml.create_execution(config)
    with exe:
        for name in "abc":
            exe.asset_file_path("Model", name).write_bytes(content + name.encode())
        if in_run:
            check_upload_fails(exe, disk)
            exe.upload_execution_outputs()
    if not in_run:
        check_upload_fails(exe, disk, clean_folder=False)
        exe.upload_execution_outputs(clean_folder=False)
    found = [asset for asset in exe.list_assets("Output") if asset.table == "Model"]
    assert [asset.md5 for asset in found] == [hashlib.md5(content + name.encode()).hexdigest() for name in "abc"]
    for asset in found:
        ml.verify_asset(asset)


def check_upload_fails(exe: Execution, disk: Path, clean_folder: bool | None = None) -> None:
    with fill_disk(disk), pytest.raises(DerivaMLException):
        exe.upload_execution_outputs(clean_folder=clean_folder, max_retries=0)
    assert [asset.filename for asset in exe.staged_assets()] == ["a", "b", "c"]
    assert list((disk / "home" / "local" / "objects").glob("draft-*")) == []


def test_registration_on_a_full_disk(disk: Path, config: ExecutionConfiguration) -> None:
    """Registering raises a DerivaMLException and registers nothing; with space it works."""
    with DerivaML().create_execution(config) as exe:
        full = r"Cannot (register|write) .+: the disk of .+ is full"
        with fill_disk(disk), pytest.raises(DerivaMLException, match=full):
            for number in range(10_000):  # the journal's last block has room for some
                exe.asset_file_path("Model", f"{number}.pt")
        registered = len(exe.staged_assets())
        assert exe.asset_file_path("Model", f"{registered}.pt").parent.is_dir()
        assert len(exe.staged_assets()) == registered + 1


def test_creation_on_an_almost_full_disk(disk: Path, config: ExecutionConfiguration) -> None:
    """Wherever the space ends, the creation raises an error of this package, and a later one works."""
    ml = DerivaML()
    ml.create_execution(config)
    raised: dict[str, str] = {}
    for pages in range(64):
        with fill_disk(disk):
            filler = disk / "filler"
            os.truncate(filler, filler.stat().st_size - 4096 * pages)
            try:
                ml.create_execution(config)
            except DerivaMLException as error:
                raised[type(error).__name__] = str(error)
                continue
        break
    assert "DiskFull" in raised
    assert all("disk" in message for message in raised.values()), raised
    assert ml.create_execution(config).status is Status.created


@pytest.mark.parametrize("read_only", ["records", "inputs"])
def test_read_only_folder_in_a_working_folder(folder: Path, config: ExecutionConfiguration, read_only: str) -> None:
    """A record or an input that cannot be written gives an error of this package that says what to do."""
    with DerivaML() as ml:
        exe = ml.create_execution(config)
        asset = next(asset for asset in exe.list_assets("Output") if asset.filename == "configuration.json")
    (exe.working_dir / read_only).mkdir(exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    make_read_only(exe.working_dir / read_only)

    def write() -> None:
        with DerivaML() as ml:
            restored = ml.restore_execution(exe.execution_rid)
            with pytest.raises(CatalogReadOnly, match=f"{read_only}.*Permission denied.*writable for this user"):
                if read_only == "records":
                    upload_hydra_files(restored, {"config.yaml": "a: 1"})
                else:
                    restored.download_asset(asset)

    run_as_nobody(write)


def fill_last_block(journal: Path) -> None:
    """Add empty lines to a journal up to the end of its last block, so that a full disk has no room for a line."""
    with journal.open("ab") as file:
        file.write(b"\n" * (4096 - file.tell() % 4096))


CALLS: dict[str, Callable[[Execution, Path], object]] = {
    "forget": lambda exe, path: exe.forget(path),
    "mark_immutable": lambda exe, path: exe.mark_immutable(path),
    "add_asset_types": lambda exe, path: exe.add_asset_types(path, "Best_Checkpoint"),
    "drop_asset_types": lambda exe, path: exe.drop_asset_types(path, "Last_Checkpoint"),
    "upload": lambda exe, path: exe.upload_execution_outputs(only=[path]),
}


@pytest.mark.parametrize("name", CALLS)
def test_journal_on_a_full_disk(disk: Path, config: ExecutionConfiguration, name: str) -> None:
    """A call that cannot write to the journal says that the disk is full; with space the same call works."""
    with DerivaML().create_execution(config) as exe:
        path = exe.asset_file_path("Model", "m.pt", ["Model"])
        path.write_bytes(b"m")
        exe.add_asset_types(path, "Last_Checkpoint")
        fill_last_block(exe.working_dir / "journal.jsonl")
        with fill_disk(disk), pytest.raises(DerivaMLException, match=r"the disk .+ is full.*Free some space"):
            CALLS[name](exe, path)
        CALLS[name](exe, path)


def test_killed_run_on_a_full_disk(disk: Path, config: ExecutionConfiguration) -> None:
    """That a run was killed is recorded once there is space; before, the error says that the disk is full."""
    ml = DerivaML()
    exe = ml.create_execution(config)
    if (child := os.fork()) == 0:
        exe.__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    fill_last_block(exe.working_dir / "journal.jsonl")
    with fill_disk(disk), pytest.raises(DiskFull, match=r"Cannot write .+journal\.jsonl: the disk .+ is full"):
        DerivaML().restore_execution(exe.execution_rid)
    assert DerivaML().restore_execution(exe.execution_rid).status is Status.aborted


@pytest.mark.parametrize("name", ["journal.jsonl", "journal.jsonl.lock"])
def test_unreadable_journal_or_lock(
    ml: DerivaML, config: ExecutionConfiguration, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal or lock of another user that cannot be opened gives an error that says what to do."""
    monkeypatch.setenv("DERIVA_ML_HOME", str(folder))
    ml = DerivaML()
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
    exe.upload_execution_outputs()
    ml.close()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    exe.working_dir.joinpath(name).chmod(0)

    def restore_and_upload() -> None:
        with pytest.raises(CatalogReadOnly, match=rf"{name}.*Permission denied.*Make .+ writable for this user"):
            DerivaML().restore_execution(exe.execution_rid).upload_execution_outputs()

    run_as_nobody(restore_and_upload)


# Damaged and changed files


def flip_first_bit(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def make_dataset(ml: DerivaML, config: ExecutionConfiguration) -> tuple[Asset, str]:
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Image", "x.png").write_bytes(b"the pixels")
    (asset,) = exe.upload_execution_outputs()["Image"]
    ml.add_dataset_element_type("Image")
    dataset = ml.create_dataset("d")
    dataset.add_dataset_members([asset.rid])
    return asset, dataset.rid


def test_damaged_object_raises_at_download(ml: DerivaML, config: ExecutionConfiguration, home: Path) -> None:
    """A damaged object is neither downloaded nor put into a bag; the error names it each time."""
    asset, dataset = make_dataset(ml, config)
    flip_first_bit(stored_path(home, asset))
    with ml.create_execution(config) as exe:
        for _ in range(2):
            with pytest.raises(ChecksumMismatch, match=r"x\.png"):
                exe.download_asset(asset)
            with pytest.raises(ChecksumMismatch, match=r"x\.png"):
                exe.download_dataset_bag(dataset)
        with pytest.raises(ChecksumMismatch, match=r"x\.png"):
            ml.verify_asset(asset)
        assert not [path for path in exe.working_dir.rglob("x.png") if path.is_file()]


def test_staged_path_written_after_its_upload(ml: DerivaML, exe: Execution, home: Path) -> None:
    """Writing to the path again creates another file; the object does not change."""
    with exe:
        path = exe.asset_file_path("Model", "m.pt")
        path.write_bytes(b"first")
    (asset,) = exe.upload_execution_outputs()["Model"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"second")
    assert stored_path(home, asset).read_bytes() == b"first"
    ml.verify_asset(asset)


def test_open_file_is_not_moved(ml: DerivaML, exe: Execution, home: Path) -> None:
    """A log handler that is still open writes to its own file; the next upload adds a new row for it."""
    handler = None
    log = logging.getLogger("still open")
    with exe:
        handler = logging.FileHandler(exe.asset_file_path("Execution_Metadata", "log.txt"))
        log.addHandler(handler)
        log.warning("one")
    try:
        (first,) = exe.upload_execution_outputs()["Execution_Metadata"]
        log.warning("two")
        (second,) = exe.upload_execution_outputs()["Execution_Metadata"]
    finally:
        log.removeHandler(handler)
        handler.close()
    assert stored_path(home, first).read_bytes() == b"one\n"
    assert stored_path(home, second).read_bytes() == b"one\ntwo\n"
    assert exe.upload_execution_outputs() == {}
    assert not (exe.working_dir / "outputs").exists()


# Ctrl-C

INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

signal.signal(signal.SIGINT, signal.default_int_handler)
workflow = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")
exe = DerivaML().create_execution(ExecutionConfiguration(workflow=workflow))
print(exe.execution_rid, flush=True)

def ready(progress=None):
    if progress is None or progress.files_done == 3:
        print("ready", flush=True)
        sys.stdin.readline()  # the interrupt arrives here

with exe:
    for number in range(6):
        exe.asset_file_path("Model", f"{number}.pt").write_text(str(number))
    if sys.argv[1] == "training":
        ready()
exe.upload_execution_outputs(progress_callback=ready)
"""


@pytest.mark.parametrize("where", ["training", "upload"])
def test_ctrl_c(ml: DerivaML, where: str) -> None:
    """Ctrl-C in the block aborts the run, in the upload leaves it completed; every file is recorded once."""
    command = [sys.executable, "-c", INTERRUPTED, where]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout is not None
        rid = child.stdout.readline().strip()
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate()
    assert child.returncode == -signal.SIGINT
    assert "\nKeyboardInterrupt\n" in errors
    assert errors.count("staged files that are not uploaded") == 1
    exe = ml.restore_execution(rid)
    assert exe.status is (Status.aborted if where == "training" else Status.completed)
    assert exe.stop_time is not None
    exe.upload_execution_outputs()
    names = sorted(asset.filename for asset in exe.list_assets("Output") if asset.table == "Model")
    assert names == [f"{number}.pt" for number in range(6)]
    assert len(ml.select_rows("Model_Execution")) == len(ml.select_rows("Model")) == 6
    assert exe.staged_assets() == []
