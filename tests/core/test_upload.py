"""Uploading: each file once, with its row and links, even after errors and crashes."""

from __future__ import annotations

import hashlib
import io
import logging
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from deriva_ml_core.backend import Backend, ObjectStore
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status, TransferMode
from deriva_ml_core.errors import CatalogUnavailable, MissingFiles, StoreUnavailable, UploadFailed
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import list_journal_copies
from deriva_ml_core.journal import Journal
from deriva_ml_core.models import Address, StoredObject, UploadOptions, UploadProgress
from deriva_ml_core.plugins import hookimpl, load_plugins
from deriva_ml_core.schema import Column
from waits import HANG


def output_rows(ml: DerivaML, table: str, exe: Execution) -> list[dict[str, Any]]:
    """Return the rows of an asset table that are outputs of an execution, without its own records."""
    links = ml.select_rows(f"{table}_Execution", {"Execution": exe.execution_rid, "Asset_Role": "Output"})
    found = ml.select_rows(table, {"RID": [link[table] for link in links]})
    own = ("configuration.json", "journal.jsonl", "uncommitted.patch")
    return [row for row in found if row["Filename"] not in own and "environment_snapshot" not in row["Filename"]]


def content(ml: DerivaML, row: dict[str, Any], tmp_path: Path) -> bytes:
    target = tmp_path / "got" / row["RID"]
    target.parent.mkdir(exist_ok=True)
    ml.connection.store.get(row["URL"], target, length=row["Length"], md5=row["MD5"], options=UploadOptions())
    return target.read_bytes()


def test_outputs_get_rows_and_links(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A file gets a row with length and MD5, an Output link and type links; the result lists it by table."""
    with exe:
        exe.asset_file_path("Model", "m.pt", asset_types=["Model", "Model_File"]).write_bytes(b"weights")
        exe.asset_file_path("Execution_Metadata", "metrics.json").write_bytes(b"{}")
    sent = exe.upload_execution_outputs()
    assert {table: [asset.filename for asset in assets] for table, assets in sent.items()} == {
        "Model": ["m.pt"],
        "Execution_Metadata": ["metrics.json"],
    }
    (row,) = output_rows(ml, "Model", exe)
    assert row["RID"] == sent["Model"][0].rid
    assert (row["Filename"], row["Length"], row["MD5"]) == ("m.pt", 7, hashlib.md5(b"weights").hexdigest())
    assert row["URL"].startswith(f"/hatrac/Model/{row['MD5']}.m.pt:")
    types = ml.select_rows("Model_Asset_Type", {"Model": row["RID"]})
    assert sorted(link["Asset_Type"] for link in types) == ["Model", "Model_File"]
    assert content(ml, row, tmp_path) == b"weights"
    assert exe.staged_assets() == []
    assert exe.upload_execution_outputs() == {}


def test_new_file_is_moved_after_the_run(exe: Execution, home: Path) -> None:
    """The inode itself becomes the object; nothing is copied, and the staging folder is deleted."""
    with exe:
        path = exe.asset_file_path("Model", "m.pt")
        path.write_bytes(b"weights")
        inode = path.stat().st_ino
    exe.upload_execution_outputs()
    assert not path.exists()
    assert inode in {file.stat().st_ino for file in (home / "local" / "objects").rglob("*")}
    assert not (exe.working_dir / "outputs").exists()


def test_upload_during_the_run_copies(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A file uploaded during the run is copied, so that later writes do not change the object."""
    with exe:
        path = exe.asset_file_path("Model", "m.pt")
        path.write_bytes(b"first")
        exe.upload_execution_outputs()
        with path.open("r+b") as file:
            file.write(b"again")
    assert content(ml, output_rows(ml, "Model", exe)[0], tmp_path) == b"first"


def test_clean_folder_false_copies(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """With clean_folder=False or clean_execution_dir=False, the file is copied and stays."""
    with exe:
        path = exe.asset_file_path("Model", "m.pt")
        path.write_bytes(b"first")
    exe.upload_execution_outputs(clean_folder=False)
    assert path.read_bytes() == b"first"
    with path.open("r+b") as file:
        file.write(b"again")
    assert content(ml, output_rows(ml, "Model", exe)[0], tmp_path) == b"first"
    again = DerivaML(clean_execution_dir=False).restore_execution(exe.execution_rid)
    assert len(again.upload_execution_outputs()["Model"]) == 1
    assert path.read_bytes() == b"again"


def test_file_changed_after_upload_is_sent_again(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A log that grows after an upload during the run gets a new row; the old row stays."""
    with exe:
        path = exe.asset_file_path("Execution_Metadata", "log.txt")
        path.write_text("one\n")
        exe.upload_execution_outputs()
        with path.open("a") as file:
            file.write("two\n")
    sent = exe.upload_execution_outputs()
    assert [asset.filename for asset in sent["Execution_Metadata"]] == ["log.txt"]
    texts = sorted(content(ml, row, tmp_path) for row in output_rows(ml, "Execution_Metadata", exe))
    assert texts == [b"one\n", b"one\ntwo\n"]
    assert not path.exists()


def test_same_name_with_new_bytes_is_a_new_row(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A name that is registered again after its file was moved gets a second row."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"one")
    exe.upload_execution_outputs()
    exe.asset_file_path("Model", "m.pt").write_bytes(b"two")
    exe.upload_execution_outputs()
    assert sorted(content(ml, row, tmp_path) for row in output_rows(ml, "Model", exe)) == [b"one", b"two"]


@pytest.mark.parametrize("copy", [True, False])
def test_original_is_unchanged(ml: DerivaML, exe: Execution, tmp_path: Path, copy: bool) -> None:
    """A user's file is neither moved nor written, and shares no inode with the object."""
    original = tmp_path / "x.png"
    original.write_bytes(b"png")
    inode = original.stat().st_ino
    with exe:
        exe.asset_file_path("Image", original, copy_file=copy)
    exe.upload_execution_outputs()
    assert original.stat().st_ino == inode
    assert original.stat().st_nlink == 1
    original.write_bytes(b"changed")
    assert content(ml, output_rows(ml, "Image", exe)[0], tmp_path) == b"png"


def test_bytes_at_upload_time_are_stored(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """A file that changes after staging is stored as it is at the upload, with that MD5."""
    original = tmp_path / "x.png"
    original.write_bytes(b"before")
    with exe:
        exe.asset_file_path("Image", original)
        original.write_bytes(b"afterwards")
    exe.upload_execution_outputs()
    (row,) = output_rows(ml, "Image", exe)
    assert row["MD5"] == hashlib.md5(b"afterwards").hexdigest()
    assert content(ml, row, tmp_path) == b"afterwards"


def test_missing_file_is_reported_after_the_others_are_sent(ml: DerivaML, exe: Execution) -> None:
    """After a completed run, a missing file is an error; forget() resolves it."""
    with exe:
        path = exe.asset_file_path("Model", "never.pt")
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    with pytest.raises(MissingFiles, match=r"never\.pt"):
        exe.upload_execution_outputs()
    assert [row["Filename"] for row in output_rows(ml, "Model", exe)] == ["m.pt"]
    exe.forget(path)
    assert exe.upload_execution_outputs() == {}


def test_missing_file_of_a_failed_run_warns(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """Partial results are uploaded, and the missing file is named in a warning."""
    with pytest.raises(ValueError, match="no"), exe:
        exe.asset_file_path("Model", "never.pt")
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
        raise ValueError("no")
    assert list(exe.upload_execution_outputs()) == ["Model"]
    assert "never.pt" in caplog.text


def test_missing_file_during_the_run_is_ignored(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """An upload during the run does not report a registered file that is not written yet."""
    with exe:
        path = exe.asset_file_path("Model", "later.pt")
        assert exe.upload_execution_outputs() == {}
        path.write_bytes(b"x")
    assert caplog.text == ""
    assert list(exe.upload_execution_outputs()) == ["Model"]


def test_equal_files_share_a_row(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Two executions with the same file link to the same row, both as Output."""
    made = []
    for _ in range(2):
        with ml.create_execution(config) as exe:
            exe.asset_file_path("Model", "m.pt").write_bytes(b"same")
        made.append(exe.upload_execution_outputs()["Model"][0].rid)
    assert made[0] == made[1]
    assert len(ml.select_rows("Model_Execution", {"Model": made[0]})) == 2


def test_conflicting_metadata(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The error names the column and both values; the other files are sent."""
    ml.create_asset("Scan", columns=[Column("Angle", "float8")])
    for angle in (1.0, 1.0, 2.0):
        with ml.create_execution(config) as exe:
            exe.asset_file_path("Scan", "a.png", Angle=angle).write_bytes(b"same")
            exe.asset_file_path("Scan", "b.png").write_bytes(b"other")
        if angle == 1.0:
            exe.upload_execution_outputs()
    with pytest.raises(UploadFailed, match=r"Angle is 1\.0 there and 2\.0 here"):
        exe.upload_execution_outputs()
    assert [asset.filename for asset in exe.staged_assets()] == ["a.png"]
    assert [row["Filename"] for row in output_rows(ml, "Scan", exe)] == ["b.png"]


def test_refused_row_does_not_block_others(ml: DerivaML, exe: Execution) -> None:
    """A file with an invalid metadata value stays staged; the others are sent."""
    from deriva_ml_core.schema import ForeignKey

    ml.create_vocabulary("Organ")
    ml.create_asset("Scan", columns=[Column("Organ")], foreign_keys=[ForeignKey("Organ", "Organ", "Name")])
    ml.add_term("Organ", "Heart", "pumps")
    with exe:
        for name, organ in (("a", "Heart"), ("b", "Spleen"), ("c", "Heart")):
            exe.asset_file_path("Scan", name, Organ=organ).write_text(name)
    with pytest.raises(UploadFailed, match="Spleen"):
        exe.upload_execution_outputs()
    assert [row["Filename"] for row in output_rows(ml, "Scan", exe)] == ["a", "c"]
    ml.add_term("Organ", "Spleen", "filters")
    assert [asset.filename for asset in exe.upload_execution_outputs()["Scan"]] == ["b"]


def test_unchanged_input_stays_input(
    ml: DerivaML, config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """An input that is registered as output stays an input, with a warning."""
    with ml.create_execution(config) as maker:
        maker.asset_file_path("Image", "x.png").write_bytes(b"x")
    (asset,) = maker.upload_execution_outputs()["Image"]
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Image", exe.download_asset(asset))
    with caplog.at_level(logging.WARNING):
        exe.upload_execution_outputs()
    assert [(each.rid, each.role) for each in exe.list_assets() if each.table == "Image"] == [(asset.rid, "Input")]
    assert "stays recorded as input" in caplog.text


def count_journal_copies(exe: Execution) -> int:
    return sum(asset.filename == "journal.jsonl" for asset in exe.list_assets("Output"))


def test_journal_is_uploaded(exe: Execution) -> None:
    """The first upload after the end sends the journal; a later one that sent a file replaces that copy."""
    with exe:
        exe.asset_file_path("Model", "a.pt").write_bytes(b"a")
    assert count_journal_copies(exe) == 0
    for _ in range(2):
        exe.upload_execution_outputs()
        assert count_journal_copies(exe) == 1
    ((_, before),) = journal_rows(exe)
    exe.asset_file_path("Model", "b.pt").write_bytes(b"b")
    exe.upload_execution_outputs()
    ((_, after),) = journal_rows(exe)
    assert after > before


@pytest.mark.parametrize("clean", [True, False])
def test_exit_completes_uploads_of_the_run(ml: DerivaML, exe: Execution, clean: bool) -> None:
    """After a run that uploaded all its files, the exit uploads the journal and deletes moved files."""
    with exe:
        path = exe.asset_file_path("Model", "a.pt")
        path.write_bytes(b"a")
        exe.upload_execution_outputs(clean_folder=clean)
        later = exe.asset_file_path("Model", "b.pt")
        later.write_bytes(b"b")
        assert path.exists()
        assert count_journal_copies(exe) == 0
    assert path.exists() is not clean
    assert later.exists()
    ((_, before),) = journal_rows(exe)
    assert list(exe.upload_execution_outputs()) == ["Model"]
    ((_, after),) = journal_rows(exe)
    assert after > before


def test_background_upload(exe: Execution) -> None:
    """wait=False returns a future of the result."""
    with exe:
        exe.asset_file_path("Model", "a.pt").write_bytes(b"a")
    future = exe.upload_execution_outputs(wait=False)
    assert list(future.result(HANG)) == ["Model"]


def test_progress_callback(exe: Execution) -> None:
    """The callback gets files and bytes before the first file and after each."""
    reports: list[UploadProgress] = []
    with exe:
        for name in "abc":
            exe.asset_file_path("Model", name).write_bytes(b"12345")
    exe.upload_execution_outputs(progress_callback=reports.append)
    assert [(each.files_done, each.files, each.bytes_done, each.bytes) for each in reports] == [
        (0, 3, 0, 15),
        (1, 3, 5, 15),
        (2, 3, 10, 15),
        (3, 3, 15, 15),
    ]


def test_progress_bar_only_on_a_terminal(exe: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows a bar for a long upload; a log shows nothing."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    written = {}
    for kind, stream in (("log", io.StringIO()), ("terminal", Terminal())):
        for number in range(60):
            exe.asset_file_path("Model", f"{kind}{number}").write_bytes(b"x")
        monkeypatch.setattr(sys, "stderr", stream)
        exe.upload_execution_outputs()
        monkeypatch.undo()
        written[kind] = stream.getvalue()
    assert written["log"] == ""
    assert "60 files" in written["terminal"]


def _upload(rid: str) -> None:
    DerivaML().restore_execution(rid).upload_execution_outputs()


def test_concurrent_uploads(ml: DerivaML, exe: Execution) -> None:
    """Three processes that upload at once send each file once."""
    with exe:
        for number in range(30):
            exe.asset_file_path("Model", f"{number}.pt").write_bytes(os.urandom(1000))
    others = [multiprocessing.get_context("fork").Process(target=_upload, args=(exe.execution_rid,)) for _ in range(2)]
    for other in others:
        other.start()
    exe.upload_execution_outputs()
    for other in others:
        other.join(HANG)
        assert other.exitcode == 0
    assert len(output_rows(ml, "Model", exe)) == 30
    assert len(ml.select_rows("Model_Asset_Type")) == 30


class FlakyStore:
    """A store whose first uploads fail; other calls go to a real store."""

    def __init__(self, store: ObjectStore, failures: int, error: type[Exception] = StoreUnavailable) -> None:
        self._store = store
        self.failures = failures
        self.error = error
        self.options: list[UploadOptions] = []
        self.resumed: list[JsonValue] = []
        self.times: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(
        self,
        table: str,
        filename: str,
        file: Path,
        *,
        handover: TransferMode,
        options: UploadOptions,
        resume: JsonValue | None = None,
        note: Callable[[JsonValue], None] = lambda _: None,
    ) -> StoredObject:
        if table == "Execution_Metadata":
            return self._store.put(table, filename, file, handover=handover, options=options, resume=resume, note=note)
        self.options.append(options)
        self.resumed.append(resume)
        self.times.append(time.monotonic())
        if self.failures > 0:
            self.failures -= 1
            note({"sent": len(self.options)})
            raise self.error("not now")
        return self._store.put(table, filename, file, handover=handover, options=options, note=note)


class FlakyPlugin:
    """Replaces the store by a flaky one."""

    def __init__(self, failures: int, error: type[Exception] = StoreUnavailable) -> None:
        self.failures = failures
        self.error = error
        self.store: Any = None

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Any:
        backend: Backend = yield
        self.store = FlakyStore(backend.store, self.failures, self.error)
        return replace(backend, store=self.store)


def flaky_client(failures: int, error: type[Exception] = StoreUnavailable) -> tuple[DerivaML, FlakyPlugin]:
    manager = load_plugins({})
    plugin = FlakyPlugin(failures, error)
    manager.register(plugin, "flaky")
    return DerivaML(plugins=manager), plugin


@pytest.mark.parametrize("error", [StoreUnavailable, ConnectionResetError, TimeoutError])
def test_transient_errors_are_retried(config: ExecutionConfiguration, error: type[Exception]) -> None:
    """The store is retried up to max_retries times, with its last progress note and the given options."""
    ml, plugin = flaky_client(2, error)
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    exe.upload_execution_outputs(timeout=(1, 2), chunk_size=3, max_retries=2, retry_delay=0)
    assert len(plugin.store.options) == 3
    assert plugin.store.options[0].timeout == (1, 2)
    assert plugin.store.options[0].chunk_size == 3
    assert plugin.store.resumed == [None, {"sent": 1}, {"sent": 2}]


def test_persistent_errors_end_the_upload(config: ExecutionConfiguration) -> None:
    """After max_retries the upload raises; all files stay staged, and the next upload resumes."""
    ml, plugin = flaky_client(4)
    with ml.create_execution(config) as exe:
        for name in "ab":
            exe.asset_file_path("Model", name).write_text(name)
    with pytest.raises(UploadFailed, match="2 files"):
        exe.upload_execution_outputs(max_retries=1, retry_delay=0)
    assert len(plugin.store.options) == 2
    assert len(exe.staged_assets()) == 2
    with pytest.raises(UploadFailed):
        exe.upload_execution_outputs(max_retries=1, retry_delay=0)
    assert plugin.store.resumed[2] == {"sent": 2}
    assert len(exe.upload_execution_outputs()["Model"]) == 2


def test_retry_delay(config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """Each retry waits at least retry_delay, doubled each time, and logs nothing."""
    ml, plugin = flaky_client(3)
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    caplog.clear()
    exe.upload_execution_outputs(max_retries=3, retry_delay=0.04)
    first, second, third, fourth = plugin.store.times
    assert second - first >= 0.04
    assert third - second >= 0.08
    assert fourth - third >= 0.16
    assert caplog.records == []


class WatchedStore:
    """A store that calls a function before each `sync`; other calls go to a real store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.before_sync: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def sync(self) -> None:
        self.before_sync()
        self._store.sync()


class WatchedPlugin:
    """Replaces the store by a watched one, and calls a function before rows are inserted."""

    def __init__(self) -> None:
        self.store: Any = None
        self.before_insert: Callable[[], object] = lambda: None

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Any:
        backend: Backend = yield
        self.store = WatchedStore(backend.store)
        insert_missing = backend.catalog.insert_missing

        def watched_insert(*arguments: Any) -> Any:
            self.before_insert()
            return insert_missing(*arguments)

        backend.catalog.insert_missing = watched_insert  # type: ignore[method-assign]
        return replace(backend, store=self.store)


@pytest.fixture
def watched(config: ExecutionConfiguration) -> tuple[WatchedPlugin, Execution]:
    """Return an execution that has ended, and the plugin that watches its store and catalog."""
    manager, plugin = load_plugins({}), WatchedPlugin()
    manager.register(plugin, "watched")
    exe = DerivaML(plugins=manager).create_execution(config)
    with exe:
        exe.asset_file_path("Model", "a.pt").write_bytes(b"a")
        exe.asset_file_path("Model", "b.pt").write_bytes(b"b")
    return plugin, exe


def stored_names(exe: Execution) -> list[str]:
    """Return the names of the models that the journal records as stored."""
    files = Journal(exe.working_dir / "journal.jsonl").state.files.values()
    return [file.asset.filename for file in files if file.asset.table == "Model" and file.stored is not None]


def test_stored_is_recorded_after_the_sync(watched: tuple[WatchedPlugin, Execution]) -> None:
    """The objects are on disk before the journal records them as stored, and both before their rows are written."""
    plugin, exe = watched
    steps: list[tuple[str, list[str]]] = []
    plugin.store.before_sync = lambda: steps.append(("sync", stored_names(exe)))
    plugin.before_insert = lambda: steps.append(("rows", stored_names(exe)))
    exe.upload_execution_outputs()
    assert steps[:2] == [("sync", []), ("rows", ["a.pt", "b.pt"])]


def fail_sync() -> None:
    raise StoreUnavailable("the disk failed")


def test_failed_sync_records_nothing(watched: tuple[WatchedPlugin, Execution]) -> None:
    """If the objects cannot be flushed, the journal and the catalog do not have them; the next upload does."""
    plugin, exe = watched
    plugin.store.before_sync = fail_sync
    with pytest.raises(UploadFailed, match=r"2 files.*the disk failed"):
        exe.upload_execution_outputs(max_retries=0)
    assert stored_names(exe) == []
    assert [asset for asset in exe.list_assets("Output") if asset.table == "Model"] == []
    plugin.store.before_sync = lambda: None
    assert [asset.filename for asset in exe.upload_execution_outputs()["Model"]] == ["a.pt", "b.pt"]


def test_file_rewritten_after_it_was_stored(
    ml: DerivaML, watched: tuple[WatchedPlugin, Execution], tmp_path: Path
) -> None:
    """A file written again before its row exists is stored again, also if the flush of its new bytes fails first."""
    plugin, exe = watched
    path = next(asset.path for asset in exe.staged_assets() if asset.filename == "a.pt")

    def refuse() -> None:
        raise CatalogUnavailable("no rows now")

    plugin.before_insert = refuse
    with pytest.raises(UploadFailed):
        exe.upload_execution_outputs()
    assert (stored_names(exe), path.exists()) == (["a.pt", "b.pt"], False)
    path.write_bytes(b"new bytes")
    plugin.before_insert = lambda: None
    plugin.store.before_sync = fail_sync
    with pytest.raises(UploadFailed):
        exe.upload_execution_outputs()
    assert (stored_names(exe), path.exists()) == (["b.pt"], False)
    plugin.store.before_sync = lambda: None
    exe.upload_execution_outputs()
    contents = {row["Filename"]: content(ml, row, tmp_path) for row in output_rows(ml, "Model", exe)}
    assert contents == {"a.pt": b"new bytes", "b.pt": b"b"}


def test_unreadable_file_does_not_block_others(exe: Execution, tmp_path: Path) -> None:
    """The error names the unreadable file; the others are sent."""
    folder = tmp_path / "x"
    folder.mkdir()
    original = folder / "y.png"
    original.write_bytes(b"x")
    with exe:
        exe.asset_file_path("Image", original)
        exe.asset_file_path("Image", "z.png").write_bytes(b"z")
        original.unlink()
        original.mkdir()
    with pytest.raises(UploadFailed, match=r"y\.png"):
        exe.upload_execution_outputs()
    assert [asset.filename for asset in exe.staged_assets()] == ["y.png"]


def test_upload_does_not_change_the_status(exe: Execution) -> None:
    """An upload before, during or after the run leaves the status unchanged."""
    exe.upload_execution_outputs()
    assert exe.status is Status.created
    with exe:
        exe.upload_execution_outputs()
        assert exe.status is Status.running
    exe.upload_execution_outputs()
    assert exe.status is Status.completed


def journal_rows(execution: Execution) -> list[tuple[str, int]]:
    """Return RID and length of each copy of the journal in the catalog."""
    return [(asset.rid, asset.length) for asset in execution.list_assets() if asset.filename == "journal.jsonl"]


def test_journal_has_one_row(ml: DerivaML, exe: Execution) -> None:
    """Uploads after the end replace the copy of the journal: its row keeps the RID, and a snapshot has the old one."""
    with exe:
        exe.asset_file_path("Model", "first.pt").write_text("first")
    exe.upload_execution_outputs()
    ((rid, length),) = journal_rows(exe)
    before = ml.connection.catalog.snapshot()
    for name in ("second.pt", "third.pt"):
        exe.asset_file_path("Model", name).write_text(name)
        exe.upload_execution_outputs()
    ((same, longer),) = journal_rows(exe)
    assert (same, longer > length) == (rid, True)
    (old,) = ml.connection.catalog.at(before).select("Execution_Metadata", {"RID": rid})
    assert old["Length"] == length


def test_newest_journal_is_the_one_written_last(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Of the journals of two machines, the one that was replaced last is read, although its row is the older one."""
    with exe:
        exe.asset_file_path("Model", "first.pt").write_text("first")
    exe.upload_execution_outputs()
    ((rid, _),) = journal_rows(exe)
    folder, here = exe.working_dir, tmp_path / "here"
    folder.rename(here)
    elsewhere = ml.restore_execution(exe.execution_rid)
    elsewhere.asset_file_path("Model", "second.pt").write_text("second")
    elsewhere.upload_execution_outputs()
    assert len(journal_rows(exe)) == 2
    shutil.rmtree(folder)
    here.rename(folder)
    again = ml.restore_execution(exe.execution_rid)
    again.asset_file_path("Model", "third.pt").write_text("third")
    again.upload_execution_outputs()
    newest, _ = next(list_journal_copies(ml.connection, exe.execution_rid))
    assert newest == rid
