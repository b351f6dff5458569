"""Immutable files, partial uploads, types added later, and inputs without a download."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from faulty_catalog import make_faulty_client, raise_unavailable

from deriva_ml_core.backend import Backend
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import CatalogUnavailable, InvalidFileName, MissingFiles, UnknownRID, UnknownTerm
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME
from deriva_ml_core.models import Address, Asset
from deriva_ml_core.plugins import hookimpl, load_plugins
from waits import HANG


def stored_path(ml: DerivaML, asset: Asset) -> Path:
    return Path(ml.connection.store.source(asset.url).removeprefix("file://"))


def write(exe: Execution, name: str, content: bytes = b"weights", *, immutable: bool = True) -> Path:
    path = exe.asset_file_path("Model", name, asset_types=["Model_File"])
    path.write_bytes(content)
    if immutable:
        exe.mark_immutable(path)
    return path


def count_objects(home: Path) -> int:
    return sum(path.is_file() for path in (home / "local" / "objects").rglob("*"))


# Immutable files


def test_immutable_file_is_linked_during_the_run(ml: DerivaML, exe: Execution) -> None:
    """The staged file and its object are one file during the run; the end removes the staged name like a copy."""
    with exe:
        path = write(exe, "m.pt")
        (asset,) = exe.upload_execution_outputs()["Model"]
        assert path.samefile(stored_path(ml, asset))
        assert path.read_bytes() == b"weights"
        assert exe.upload_execution_outputs() == {}
    assert not path.exists()
    ml.verify_asset(asset)


def test_immutable_file_is_linked_after_the_run(ml: DerivaML, exe: Execution) -> None:
    """After the run it is linked as well, and removed unless clean_folder is false."""
    with exe:
        kept, gone = write(exe, "kept.pt", b"kept"), write(exe, "gone.pt", b"gone")
    (first,) = exe.upload_execution_outputs(clean_folder=False, only=[kept])["Model"]
    assert kept.samefile(stored_path(ml, first))
    (second,) = exe.upload_execution_outputs(clean_folder=True)["Model"]
    assert not gone.exists()
    assert not kept.exists()
    for asset in (first, second):
        ml.verify_asset(asset)


@pytest.mark.parametrize("during_the_run", [True, False])
def test_kept_file_stays_in_place(ml: DerivaML, exe: Execution, during_the_run: bool) -> None:
    """A kept file is stored as a copy of its own and stays; a later version of it is uploaded and stays too."""
    with exe:
        path = exe.asset_file_path("Model", "kept.bin")
        path.write_bytes(b"first")
        exe.keep_in_place(path)
        moved = exe.asset_file_path("Model", "moved.bin")
        moved.write_bytes(b"moved")
        if during_the_run:
            exe.upload_execution_outputs()
    exe.upload_execution_outputs(clean_folder=True)
    assert (path.read_bytes(), path.stat().st_nlink) == (b"first", 1)
    path.write_bytes(b"second version")
    restored = ml.restore_execution(exe.execution_rid)
    restored.upload_execution_outputs(clean_folder=True)
    assert path.read_bytes() == b"second version"
    assert not moved.exists()
    assert sorted(asset.length for asset in exe.list_assets("Output") if asset.table == "Model") == [5, 5, 14]
    with pytest.raises(InvalidFileName, match="not staged"):
        exe.keep_in_place(path.parent / "other.bin")


def test_equal_files_are_stored_once(ml: DerivaML, exe: Execution, home: Path) -> None:
    """Best and last checkpoint with equal content are one object under two names."""
    before = count_objects(home)
    with exe:
        best, last = write(exe, "best.pt"), write(exe, "last.pt")
        sent = exe.upload_execution_outputs()["Model"]
        assert count_objects(home) == before + 1
        assert {each.filename for each in sent} == {"best.pt", "last.pt"}
        assert best.samefile(stored_path(ml, sent[0])) or last.samefile(stored_path(ml, sent[0]))


def test_object_survives_changes_of_the_path(ml: DerivaML, exe: Execution) -> None:
    """An uploaded file can be replaced or deleted; a replacement is uploaded as another asset."""
    with exe:
        replaced, deleted = write(exe, "replaced.pt", b"1"), write(exe, "deleted.pt", b"2")
        sent = exe.upload_execution_outputs()["Model"]
        (replaced.parent / "new").write_bytes(b"third")
        (replaced.parent / "new").replace(replaced)
        deleted.unlink()
        (again,) = exe.upload_execution_outputs()["Model"]
        assert not replaced.samefile(stored_path(ml, again))
        for asset in (*sent, again):
            ml.verify_asset(asset)
        assert stored_path(ml, again).read_bytes() == b"third"


@pytest.mark.parametrize("ended", [False, True])
def test_changed_immutable_file_is_copied(ml: DerivaML, exe: Execution, ended: bool) -> None:
    """A file that was changed after it was marked as immutable is uploaded as a copy of its current bytes."""
    with exe:
        path = write(exe, "m.pt")
        path.write_bytes(b"other weights")
        if not ended:
            (asset,) = exe.upload_execution_outputs()["Model"]
            assert not path.samefile(stored_path(ml, asset))
    if ended:
        (asset,) = exe.upload_execution_outputs(clean_folder=False)["Model"]
        assert not path.samefile(stored_path(ml, asset))
    assert stored_path(ml, asset).read_bytes() == b"other weights"


def test_immutable_file_open_for_writing_is_copied(ml: DerivaML, exe: Execution) -> None:
    """A file that is still open for writing is copied, since it may change."""
    with exe:
        path = exe.asset_file_path("Model", "m.pt")
        with path.open("wb") as held:
            held.write(b"weights")
            held.flush()
            exe.mark_immutable(path)
            (asset,) = exe.upload_execution_outputs()["Model"]
        assert not path.samefile(stored_path(ml, asset))


def test_immutable_link_to_an_original_is_copied(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Marking a link to a user's file as immutable does not share the user's file."""
    (tmp_path / "own.pt").write_bytes(b"own")
    with exe:
        exe.mark_immutable(exe.asset_file_path("Model", tmp_path / "own.pt"))
        (asset,) = exe.upload_execution_outputs()["Model"]
    assert not (tmp_path / "own.pt").samefile(stored_path(ml, asset))
    assert (tmp_path / "own.pt").stat().st_mode & 0o200


def test_restored_execution_links_immutable_files(ml: DerivaML, exe: Execution) -> None:
    """A restored execution links files that the run marked as immutable."""
    with pytest.raises(RuntimeError), exe:
        path = write(exe, "m.pt")
        raise RuntimeError("no")
    (asset,) = DerivaML().restore_execution(exe.execution_rid).upload_execution_outputs(clean_folder=False)["Model"]
    assert path.samefile(stored_path(ml, asset))


def test_mark_immutable_raises(exe: Execution, tmp_path: Path) -> None:
    """A file that is not staged, or not written, raises an error that names it."""
    with exe:
        with pytest.raises(InvalidFileName, match="stray"):
            exe.mark_immutable(tmp_path / "stray.pt")
        path = exe.asset_file_path("Model", "unwritten.pt")
        with pytest.raises(MissingFiles, match=r"unwritten\.pt"):
            exe.mark_immutable(path)
        exe.forget(path)


def test_folder_paths(ml: DerivaML, exe: Execution) -> None:
    """Each call takes the path of a checkpoint folder; each file keeps its relative name."""
    with exe:
        files = [write(exe, f"{name}/shard{number}.bin", b"x", immutable=False) for name in "ab" for number in range(2)]
        first, second = files[0].parent, files[2].parent
        exe.mark_immutable(first)
        exe.add_asset_types(first, "Best_Checkpoint")
        sent = exe.upload_execution_outputs(only=[first])["Model"]
        assert [each.filename for each in sent] == ["a/shard0.bin", "a/shard1.bin"]
        assert all("Best_Checkpoint" in ml.lookup_asset(each.rid).asset_types for each in sent)
        exe.mark_immutable(second)
        exe.forget(second)
        assert exe.staged_assets() == []
        assert [path.exists() for path in files] == [True] * 4


# Partial uploads


def test_upload_of_selected_files(exe: Execution) -> None:
    """Other files stay staged; files that are uploaded or not written yet are no error."""
    with exe:
        paths = [write(exe, f"{name}.pt", name.encode()) for name in "abc"]
        unwritten = exe.asset_file_path("Model", "unwritten.pt")
        assert [each.filename for each in exe.upload_execution_outputs(only=paths[:1])["Model"]] == ["a.pt"]
        assert exe.upload_execution_outputs(only=[paths[0], unwritten]) == {}
        assert [each.filename for each in exe.staged_assets()] == ["b.pt", "c.pt", "unwritten.pt"]
        assert exe.upload_execution_outputs(only=[]) == {}
        exe.forget(unwritten)
    assert len(exe.upload_execution_outputs()["Model"]) == 2


def test_changed_file_is_uploaded_again_when_selected(exe: Execution) -> None:
    """A file that grew after its upload is uploaded again when selected; another one stays staged."""
    with exe:
        paths = [write(exe, f"{name}.txt", b"1", immutable=False) for name in "ab"]
        exe.upload_execution_outputs()
        for path in paths:
            path.write_bytes(b"1 and more")
        assert [each.filename for each in exe.upload_execution_outputs(only=paths[:1])["Model"]] == ["a.txt"]
        assert [each.filename for each in exe.upload_execution_outputs()["Model"]] == ["b.txt"]


def test_upload_of_an_unregistered_file_raises(exe: Execution, tmp_path: Path) -> None:
    """The error names the file, and nothing is uploaded."""
    with exe:
        path = write(exe, "a.pt")
        with pytest.raises(InvalidFileName, match="stray"):
            exe.upload_execution_outputs(only=[path, tmp_path / "stray.pt"])
        assert len(exe.staged_assets()) == 1


class WaitingStore:
    """A store that waits before each file of the table Model.

    Args:
        store: The wrapped store.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.entered, self.gate = Event(), Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, table: str, *args: Any, **kwargs: Any) -> Any:
        if table == "Model":
            self.entered.set()
            self.gate.wait()
        return self._store.put(table, *args, **kwargs)


class WaitingPlugin:
    """Wraps the store of each backend in a `WaitingStore`."""

    store: Any = None

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Any:
        backend: Backend = yield
        self.store = WaitingStore(backend.store)
        return replace(backend, store=self.store)


def test_upload_that_outlasts_the_run(config: ExecutionConfiguration) -> None:
    """The end does not wait for an upload in progress, which uploads the journal and cleans up when it is done."""
    plugin, plugins = WaitingPlugin(), load_plugins({})
    plugins.register(plugin)
    exe = DerivaML(plugins=plugins).create_execution(config)
    with exe:
        path = write(exe, "m.pt")
        upload = Thread(target=exe.upload_execution_outputs)
        upload.start()
        assert plugin.store.entered.wait(HANG)
    assert exe.status is Status.completed
    plugin.store.gate.set()
    upload.join(HANG)
    assert JOURNAL_FILENAME in [each.filename for each in exe.list_assets("Output")]
    assert not path.exists()


class WrittenStore(WaitingStore):
    """A store after whose reading of a file the program writes it."""

    def put(self, table: str, filename: str, file: Path, **kwargs: Any) -> Any:
        stored = self._store.put(table, filename, file, **kwargs)
        if stored.length == len(b"weights"):
            file.write_bytes(b"other weights")
        return stored


class WritingPlugin:
    """Wraps the store of each backend in a `WrittenStore`."""

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Any:
        backend: Backend = yield
        return replace(backend, store=WrittenStore(backend.store))


def test_file_written_while_it_is_stored(config: ExecutionConfiguration) -> None:
    """The upload after the one that read the old bytes stores the new ones."""
    plugins = load_plugins({})
    plugins.register(WritingPlugin())
    with DerivaML(plugins=plugins).create_execution(config) as exe:
        write(exe, "m.pt", immutable=False)
        (first,) = exe.upload_execution_outputs()["Model"]
        (second,) = exe.upload_execution_outputs()["Model"]
    assert (first.length, second.length) == (7, 13)


def test_open_file_stays_after_the_run(exe: Execution) -> None:
    """A file that the program still has open is not removed, so that what it writes later is uploaded too."""
    with exe:
        path = exe.asset_file_path("Model", "log.txt")
        log = path.open("ab", buffering=0)
        log.write(b"one\n")
        exe.upload_execution_outputs()
    assert path.read_bytes() == b"one\n"
    log.write(b"two\n")
    log.close()
    (asset,) = exe.upload_execution_outputs()["Model"]
    assert asset.length == 8
    assert not path.exists()


def test_file_that_is_registered_again_stays(exe: Execution) -> None:
    """An upload of other files does not remove a file that was uploaded and registered again."""
    with exe:
        path, other = write(exe, "a.pt", immutable=False), write(exe, "b.pt", b"b", immutable=False)
        exe.upload_execution_outputs(clean_folder=False)
    exe.asset_file_path("Model", "a.pt")
    exe.upload_execution_outputs(only=[other])
    assert not other.exists()
    assert path.read_bytes() == b"weights"
    exe.upload_execution_outputs()
    assert not path.exists()


# Types added later


def types_of(ml: DerivaML, asset: Asset) -> set[str]:
    return set(ml.lookup_asset(asset.rid).asset_types)


def test_types_of_a_staged_file(ml: DerivaML, exe: Execution) -> None:
    """Added types are listed and uploaded, and the file can be registered again as before."""
    with exe:
        path = write(exe, "m.pt")
        for types in ("Best_Checkpoint", ["Best_Checkpoint", "Model_File", "Last_Checkpoint"]):
            exe.add_asset_types(path, types)
        assert write(exe, "m.pt", immutable=False) == path
        all_types = ("Model_File", "Best_Checkpoint", "Last_Checkpoint")
        assert [each.asset_types for each in exe.staged_assets()] == [all_types]
        (asset,) = exe.upload_execution_outputs()["Model"]
        assert set(asset.asset_types) == types_of(ml, asset) == set(all_types)


def test_types_of_an_uploaded_file(ml: DerivaML, exe: Execution) -> None:
    """Types are linked at once, during the run and after it, and repeatedly."""
    with exe:
        path = write(exe, "m.pt")
        (asset,) = exe.upload_execution_outputs()["Model"]
        exe.add_asset_types(path, "Best_Checkpoint")
        assert types_of(ml, asset) == {"Model_File", "Best_Checkpoint"}
    for _ in range(2):
        exe.add_asset_types(path, ["Last_Checkpoint"])
    assert types_of(ml, asset) == {"Model_File", "Best_Checkpoint", "Last_Checkpoint"}


def test_unknown_type_raises(exe: Execution, tmp_path: Path) -> None:
    """An unknown type and an unregistered file are named, and nothing changes."""
    with exe:
        path = write(exe, "m.pt")
        with pytest.raises(UnknownTerm, match="Worst_Checkpoint"):
            exe.add_asset_types(path, ["Best_Checkpoint", "Worst_Checkpoint"])
        with pytest.raises(InvalidFileName, match="stray"):
            exe.add_asset_types(tmp_path / "stray.pt", "Best_Checkpoint")
        assert exe.staged_assets()[0].asset_types == ("Model_File",)


def test_missing_types_are_linked_by_the_next_upload(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """If the catalog is down, the next upload links the types, also after a restore."""
    faulty_ml, catalog = make_faulty_client()
    with faulty_ml.create_execution(config) as exe:
        path = write(exe, "m.pt")
        (asset,) = exe.upload_execution_outputs()["Model"]
        catalog.down = True
        with pytest.raises(CatalogUnavailable):
            exe.add_asset_types(path, "Best_Checkpoint")
        catalog.down = False
    assert types_of(ml, asset) == {"Model_File"}
    ml.restore_execution(exe.execution_rid).upload_execution_outputs()
    assert types_of(ml, asset) == {"Model_File", "Best_Checkpoint"}


@pytest.mark.parametrize("table", ["Execution_Metadata_Execution", "Execution_Metadata_Asset_Type"])
def test_interrupted_row_of_the_journal_is_completed(ml: DerivaML, config: ExecutionConfiguration, table: str) -> None:
    """If the catalog fails at the link or the type of a journal's row, no row is left; the next upload adds all."""
    faulty_ml, catalog = make_faulty_client()
    with faulty_ml.create_execution(config) as exe:
        write(exe, "m.pt")
        exe.upload_execution_outputs()
        catalog.before_insert = lambda name: raise_unavailable() if name == table else None
    assert ml.select_rows("Execution_Metadata", {"Filename": JOURNAL_FILENAME}) == []
    catalog.before_insert = lambda name: None
    exe.upload_execution_outputs()
    (row,) = ml.select_rows("Execution_Metadata", {"Filename": JOURNAL_FILENAME})
    (journal,) = [asset for asset in exe.list_assets("Output") if asset.filename == JOURNAL_FILENAME]
    assert (journal.rid, journal.asset_types) == (row["RID"], ("Execution_Metadata",))


def _type(exe: Execution, path: Path, types: Callable[[int], list[str]]) -> None:
    for number in range(20):
        exe.add_asset_types(path, types(number))


def test_types_added_during_an_upload(ml: DerivaML, exe: Execution) -> None:
    """Types that another process adds during the upload are all linked in the end."""
    terms = [f"Kind_{number}" for number in range(20)]
    for term in terms:
        ml.add_term("Asset_Type", term, "A kind")
    with exe:
        path = write(exe, "m.pt")
        context = multiprocessing.get_context("fork")
        child = context.Process(target=_type, args=(exe, path, lambda number: [terms[number]]))
        child.start()
        (asset,) = exe.upload_execution_outputs()["Model"]
        child.join(HANG)
        assert child.exitcode == 0
        assert types_of(ml, asset) == {"Model_File", *terms}


# Inputs without a download


def test_record_input(ml: DerivaML, exe: Execution, config: ExecutionConfiguration) -> None:
    """The asset is linked as an input once, and nothing is downloaded."""
    with exe:
        write(exe, "m.pt")
    (asset,) = exe.upload_execution_outputs()["Model"]
    with ml.create_execution(config) as following:
        following.record_input(asset)
        following.record_input(asset.rid)
        assert [each.rid for each in following.list_assets("Input")] == [asset.rid]
        assert following.info.assets == (asset.rid,)
        assert not (following.working_dir / "inputs").exists()
        with pytest.raises(UnknownRID, match="9-ZZZZ"):
            following.record_input("9-ZZZZ")
    with ml.create_execution(config, dry_run=True) as dry:
        dry.record_input(asset)
    assert len(ml.select_rows("Model_Execution", {"Asset_Role": "Input"})) == 1


def test_immutable_file_uses_no_extra_space(ml: DerivaML, exe: Execution, home: Path) -> None:
    """The disk holds a checkpoint once, staged and stored_path."""
    with exe:
        path = write(exe, "big.pt", os.urandom(4 * 2**20))
        (asset,) = exe.upload_execution_outputs()["Model"]
        found = {(file.stat().st_ino, file.stat().st_size) for file in home.rglob("*") if file.is_file()}
        assert sum(size for _, size in found if size >= 2**21) == 4 * 2**20
        assert path.stat().st_nlink == 2
    assert stored_path(ml, asset).stat().st_nlink == 1
