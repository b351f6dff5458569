"""Files that nobody writes in place again, files that are sent one by one, and types that come late."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from hard_catalogs import hard

from deriva_ml_core.backend import Backend
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import CatalogUnavailable, InvalidFileName, MissingFiles, UnknownRID, UnknownTerm
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME
from deriva_ml_core.models import Address, Asset
from deriva_ml_core.plugins import hookimpl, load_plugins


def stored(ml: DerivaML, asset: Asset) -> Path:
    return Path(ml.connection.store.source(asset.url).removeprefix("file://"))


def write(exe: Execution, name: str, content: bytes = b"weights", *, sealed: bool = True) -> Path:
    path = exe.asset_file_path("Model", name, asset_types=["Model_File"])
    path.write_bytes(content)
    if sealed:
        exe.mark_immutable(path)
    return path


def objects(home: Path) -> int:
    return sum(path.is_file() for path in (home / "local" / "objects").rglob("*"))


# Sealed files


def test_a_sealed_file_is_shared_while_it_runs(ml: DerivaML, exe: Execution) -> None:
    """It and its object are one file: nothing is copied; it stays, and is taken away at the end like a copy."""
    with exe:
        path = write(exe, "m.pt")
        (asset,) = exe.upload_execution_outputs()["Model"]
        assert path.samefile(stored(ml, asset))
        assert path.read_bytes() == b"weights"
        assert exe.upload_execution_outputs() == {}
    assert not path.exists()
    ml.verify_asset(asset)


def test_a_sealed_file_is_shared_after_the_run(ml: DerivaML, exe: Execution) -> None:
    """Then too it is shared, and taken away unless that is not wanted."""
    with exe:
        kept, gone = write(exe, "kept.pt", b"kept"), write(exe, "gone.pt", b"gone")
    (first,) = exe.upload_execution_outputs(clean_folder=False, only=[kept])["Model"]
    assert kept.samefile(stored(ml, first))
    (second,) = exe.upload_execution_outputs(clean_folder=True)["Model"]
    assert not gone.exists()
    assert not kept.exists()
    for asset in (first, second):
        ml.verify_asset(asset)


def test_files_of_the_same_content_are_stored_once(ml: DerivaML, exe: Execution, home: Path) -> None:
    """Best and last, when they are one, are one object under two names."""
    before = objects(home)
    with exe:
        best, last = write(exe, "best.pt"), write(exe, "last.pt")
        sent = exe.upload_execution_outputs()["Model"]
        assert objects(home) == before + 1
        assert {each.filename for each in sent} == {"best.pt", "last.pt"}
        assert best.samefile(stored(ml, sent[0])) or last.samefile(stored(ml, sent[0]))


def test_what_becomes_of_the_path_leaves_the_object_whole(ml: DerivaML, exe: Execution) -> None:
    """A sealed file may be replaced or deleted once it is sent; what took its place is sent as another."""
    with exe:
        replaced, deleted = write(exe, "replaced.pt", b"1"), write(exe, "deleted.pt", b"2")
        sent = exe.upload_execution_outputs()["Model"]
        (replaced.parent / "new").write_bytes(b"third")
        (replaced.parent / "new").replace(replaced)
        deleted.unlink()
        (again,) = exe.upload_execution_outputs()["Model"]
        assert not replaced.samefile(stored(ml, again))
        for asset in (*sent, again):
            ml.verify_asset(asset)
        assert stored(ml, again).read_bytes() == b"third"


@pytest.mark.parametrize("ended", [False, True])
def test_a_sealed_file_that_changed_is_copied(ml: DerivaML, exe: Execution, ended: bool) -> None:
    """Against what was promised it is other than it was when it was sealed: its bytes of now are sent, as a copy."""
    with exe:
        path = write(exe, "m.pt")
        path.write_bytes(b"other weights")
        if not ended:
            (asset,) = exe.upload_execution_outputs()["Model"]
            assert not path.samefile(stored(ml, asset))
    if ended:
        (asset,) = exe.upload_execution_outputs(clean_folder=False)["Model"]
        assert not path.samefile(stored(ml, asset))
    assert stored(ml, asset).read_bytes() == b"other weights"


def test_a_sealed_file_that_is_open_for_writing_is_copied(ml: DerivaML, exe: Execution) -> None:
    """Who still has it open may write to it yet."""
    with exe:
        path = exe.asset_file_path("Model", "m.pt")
        with path.open("wb") as held:
            held.write(b"weights")
            held.flush()
            exe.mark_immutable(path)
            (asset,) = exe.upload_execution_outputs()["Model"]
        assert not path.samefile(stored(ml, asset))


def test_the_link_to_an_original_is_copied(ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Sealing the link to somebody's own file does not give that away."""
    (tmp_path / "own.pt").write_bytes(b"own")
    with exe:
        exe.mark_immutable(exe.asset_file_path("Model", tmp_path / "own.pt"))
        (asset,) = exe.upload_execution_outputs()["Model"]
    assert not (tmp_path / "own.pt").samefile(stored(ml, asset))
    assert (tmp_path / "own.pt").stat().st_mode & 0o200


def test_the_seal_holds_in_another_process(ml: DerivaML, exe: Execution) -> None:
    """A restored execution shares what the run had sealed."""
    with pytest.raises(RuntimeError), exe:
        path = write(exe, "m.pt")
        raise RuntimeError("no")
    (asset,) = DerivaML().restore_execution(exe.execution_rid).upload_execution_outputs(clean_folder=False)["Model"]
    assert path.samefile(stored(ml, asset))


def test_what_cannot_be_sealed_is_named(exe: Execution, tmp_path: Path) -> None:
    """Neither a file that is not staged nor one that is not written."""
    with exe:
        with pytest.raises(InvalidFileName, match="stray"):
            exe.mark_immutable(tmp_path / "stray.pt")
        path = exe.asset_file_path("Model", "unwritten.pt")
        with pytest.raises(MissingFiles, match=r"unwritten\.pt"):
            exe.mark_immutable(path)
        exe.forget(path)


def test_a_folder_is_sealed_typed_sent_and_forgotten_as_a_whole(ml: DerivaML, exe: Execution) -> None:
    """Of a checkpoint that is a folder each call takes the folder's path, and each file keeps its relative name."""
    with exe:
        files = [write(exe, f"{name}/shard{number}.bin", b"x", sealed=False) for name in "ab" for number in range(2)]
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


# Sending some


def test_only_what_is_named_is_sent(exe: Execution) -> None:
    """The others stay staged; what was sent already, or is not written yet, is no error."""
    with exe:
        paths = [write(exe, f"{name}.pt", name.encode()) for name in "abc"]
        unwritten = exe.asset_file_path("Model", "unwritten.pt")
        assert [each.filename for each in exe.upload_execution_outputs(only=paths[:1])["Model"]] == ["a.pt"]
        assert exe.upload_execution_outputs(only=[paths[0], unwritten]) == {}
        assert [each.filename for each in exe.staged_assets()] == ["b.pt", "c.pt", "unwritten.pt"]
        assert exe.upload_execution_outputs(only=[]) == {}
        exe.forget(unwritten)
    assert len(exe.upload_execution_outputs()["Model"]) == 2


def test_what_was_written_since_is_sent_again_where_it_is_named(exe: Execution) -> None:
    """A file that grew after its upload goes again by name; another one that grew waits."""
    with exe:
        paths = [write(exe, f"{name}.txt", b"1", sealed=False) for name in "ab"]
        exe.upload_execution_outputs()
        for path in paths:
            path.write_bytes(b"1 and more")
        assert [each.filename for each in exe.upload_execution_outputs(only=paths[:1])["Model"]] == ["a.txt"]
        assert [each.filename for each in exe.upload_execution_outputs()["Model"]] == ["b.txt"]


def test_a_name_that_was_never_registered_is_no_upload(exe: Execution, tmp_path: Path) -> None:
    """It is named, and nothing is sent."""
    with exe:
        path = write(exe, "a.pt")
        with pytest.raises(InvalidFileName, match="stray"):
            exe.upload_execution_outputs(only=[path, tmp_path / "stray.pt"])
        assert len(exe.staged_assets()) == 1


class WaitingStore:
    """A store that waits before each file of a run.

    Args:
        store: The store that does the work.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.entered, self.gate = Event(), Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, table: str, *given: Any, **named: Any) -> Any:
        if table == "Model":
            self.entered.set()
            self.gate.wait()
        return self._store.put(table, *given, **named)


class WaitingPlugin:
    """Puts the waiting store in the place of the real one."""

    store: Any = None

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Any:
        backend: Backend = yield
        self.store = WaitingStore(backend.store)
        return replace(backend, store=self.store)


def test_an_upload_that_outlives_the_run_rounds_off(config: ExecutionConfiguration) -> None:
    """The end does not wait for an upload that is under way; when that is done, the journal is kept and all tidy."""
    plugin, plugins = WaitingPlugin(), load_plugins({})
    plugins.register(plugin)
    exe = DerivaML(plugins=plugins).create_execution(config)
    with exe:
        path = write(exe, "m.pt")
        upload = Thread(target=exe.upload_execution_outputs)
        upload.start()
        assert plugin.store.entered.wait(60)
    assert exe.status is Status.completed
    plugin.store.gate.set()
    upload.join(60)
    assert JOURNAL_FILENAME in [each.filename for each in exe.list_assets("Output")]
    assert not path.exists()


# Types that come late


def types_of(ml: DerivaML, asset: Asset) -> set[str]:
    return set(ml.lookup_asset(asset.rid).asset_types)


def test_a_staged_file_gets_further_types(ml: DerivaML, exe: Execution) -> None:
    """They are listed, uploaded with it, and no hindrance to registering it again as before."""
    with exe:
        path = write(exe, "m.pt")
        for types in ("Best_Checkpoint", ["Best_Checkpoint", "Model_File", "Last_Checkpoint"]):
            exe.add_asset_types(path, types)
        assert write(exe, "m.pt", sealed=False) == path
        all_types = ("Model_File", "Best_Checkpoint", "Last_Checkpoint")
        assert [each.asset_types for each in exe.staged_assets()] == [all_types]
        (asset,) = exe.upload_execution_outputs()["Model"]
        assert set(asset.asset_types) == types_of(ml, asset) == set(all_types)


def test_an_uploaded_file_gets_further_types(ml: DerivaML, exe: Execution) -> None:
    """At once, while the run runs and after it, and as often as one likes."""
    with exe:
        path = write(exe, "m.pt")
        (asset,) = exe.upload_execution_outputs()["Model"]
        exe.add_asset_types(path, "Best_Checkpoint")
        assert types_of(ml, asset) == {"Model_File", "Best_Checkpoint"}
    for _ in range(2):
        exe.add_asset_types(path, ["Last_Checkpoint"])
    assert types_of(ml, asset) == {"Model_File", "Best_Checkpoint", "Last_Checkpoint"}


def test_an_unknown_type_is_named(exe: Execution, tmp_path: Path) -> None:
    """As is a file that nobody registered; nothing changes."""
    with exe:
        path = write(exe, "m.pt")
        with pytest.raises(UnknownTerm, match="Worst_Checkpoint"):
            exe.add_asset_types(path, ["Best_Checkpoint", "Worst_Checkpoint"])
        with pytest.raises(InvalidFileName, match="stray"):
            exe.add_asset_types(tmp_path / "stray.pt", "Best_Checkpoint")
        assert exe.staged_assets()[0].asset_types == ("Model_File",)


def test_types_that_the_catalog_did_not_get_are_made_good(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Where the catalog is down, or the process dies just then, the next upload links them, also a restored one's."""
    hard_ml, catalog = hard()
    with hard_ml.create_execution(config) as exe:
        path = write(exe, "m.pt")
        (asset,) = exe.upload_execution_outputs()["Model"]
        catalog.down = True
        with pytest.raises(CatalogUnavailable):
            exe.add_asset_types(path, "Best_Checkpoint")
        catalog.down = False
    assert types_of(ml, asset) == {"Model_File"}
    ml.restore_execution(exe.execution_rid).upload_execution_outputs()
    assert types_of(ml, asset) == {"Model_File", "Best_Checkpoint"}


def _type(exe: Execution, path: Path, types: Callable[[int], list[str]]) -> None:
    for number in range(20):
        exe.add_asset_types(path, types(number))


def test_types_added_while_a_file_is_sent_are_not_lost(ml: DerivaML, exe: Execution) -> None:
    """Another process adds types at the very time of the upload; each is linked in the end."""
    terms = [f"Kind_{number}" for number in range(20)]
    for term in terms:
        ml.add_term("Asset_Type", term, "A kind")
    with exe:
        path = write(exe, "m.pt")
        context = multiprocessing.get_context("fork")
        child = context.Process(target=_type, args=(exe, path, lambda number: [terms[number]]))
        child.start()
        (asset,) = exe.upload_execution_outputs()["Model"]
        child.join(120)
        assert child.exitcode == 0
        assert types_of(ml, asset) == {"Model_File", *terms}


# Inputs without a download


def test_an_input_is_recorded_without_its_bytes(ml: DerivaML, exe: Execution, config: ExecutionConfiguration) -> None:
    """It is linked as input once, and nothing is brought."""
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


def test_a_sealed_file_costs_no_room(ml: DerivaML, exe: Execution, home: Path) -> None:
    """The disk holds a checkpoint once, staged and stored."""
    with exe:
        path = write(exe, "big.pt", os.urandom(4 * 2**20))
        (asset,) = exe.upload_execution_outputs()["Model"]
        found = {(file.stat().st_ino, file.stat().st_size) for file in home.rglob("*") if file.is_file()}
        assert sum(size for _, size in found if size >= 2**20) == 4 * 2**20
        assert path.stat().st_nlink == 2
    assert stored(ml, asset).stat().st_nlink == 1
