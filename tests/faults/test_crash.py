"""SIGKILL at every step of creation, staging and upload: afterwards all files are there once, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fail_points import MEMORY, first_of_each_kind, in_child
from filelock import FileLock

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.journal import Journal
from deriva_ml_core.schema import Column
from deriva_ml_core.workflow import Workflow

CHUNKS = 4

CONTENTS = {
    ("Model", "fold-1/new.pt"): (b"new",),
    ("Model", "best.pt"): (b"best",),
    ("Image", "copied.png"): (b"copied",),
    ("Image", "linked.png"): (b"linked",),
    ("Image", "renamed.png"): (b"to be renamed",),
    ("Scan", "angled.png"): (b"angled",),
    ("Execution_Metadata", "log.txt"): (b"one\n", b"one\ntwo\n"),
}
TYPES = {
    ("Model", "fold-1/new.pt"): ["Derived", "Model_File"],
    ("Model", "best.pt"): ["Best_Checkpoint", "Model_File"],
}
TABLES = sorted({table for table, _ in CONTENTS})

Made = set[tuple[str, str, str]]
"""Table, file name and MD5 of each output but the execution's own records."""

EXPECTED: Made = {
    (table, name, hashlib.md5(content).hexdigest())
    for (table, name), contents in CONTENTS.items()
    for content in contents
}


class World:
    """A catalog as it was made, and the copy of it in which a user's program is killed.

    Args:
        folder: Where both lie.
    """

    def __init__(self, folder: Path) -> None:
        self.made = folder / "made"
        self.copy = folder / "copy"
        self.originals = folder / "originals"
        self.originals.mkdir()
        for name, content in (("copied", b"copied"), ("linked", b"linked"), ("temp", b"to be renamed")):
            (self.originals / f"{name}.png").write_bytes(content)
        with DerivaML(f"file:{self.made}") as ml:
            ml.create_asset("Scan", columns=[Column("Angle", "float8")])
        self.workflow = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")

    def fresh(self) -> Path:
        """The copy, as the catalog was made."""
        shutil.rmtree(self.copy, ignore_errors=True)
        return Path(shutil.copytree(self.made, self.copy))

    def program(self, clean: bool) -> Callable[[DerivaML], None]:
        """The user's program: a whole run."""

        def work(ml: DerivaML) -> None:
            with self.create(ml) as exe:
                self.users_code(exe)
            exe.upload_execution_outputs(clean_folder=clean)

        return work

    def create(self, ml: DerivaML) -> Execution:
        return ml.create_execution(ExecutionConfiguration(workflow=self.workflow, description="To be killed"))

    def users_code(self, exe: Execution) -> None:
        """What the user does in a run; doing all of it again asks for the same."""
        write(exe, exe.asset_file_path("Model", "fold-1/new.pt", asset_types=["Derived", "Model_File"]), b"new")
        exe.asset_file_path("Image", self.originals / "copied.png", copy_file=True)
        log = exe.asset_file_path("Execution_Metadata", "log.txt")
        write(exe, log, b"one\n")
        exe.upload_execution_outputs(clean_folder=False)
        best = exe.asset_file_path("Model", "best.pt", asset_types=["Model_File"])
        write(exe, best, b"best")
        exe.seal(best)
        exe.upload_execution_outputs(clean_folder=False, only=[best])
        exe.add_asset_types(best, "Best_Checkpoint")
        exe.asset_file_path("Image", self.originals / "linked.png")
        exe.asset_file_path("Image", self.originals / "temp.png", rename_file="renamed.png")
        write(exe, exe.asset_file_path("Scan", "angled.png", Angle=1.5), b"angled")
        exe.update_status(exe.status, "half")
        write(exe, log, b"one\ntwo\n")


def write(exe: Execution, path: Path, content: bytes) -> None:
    """Write as a careful program does, so that a file is whole or not there."""
    draft = exe.working_dir / "draft"
    draft.write_bytes(content)
    draft.replace(path)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield World(Path(folder))


def upload_again(world: World, ml: DerivaML, rid: str, clean: bool) -> Execution:
    """Restore and upload: whatever the killed process had written is sent, and nobody holds a lock any more."""
    check_locks(world, rid)
    waiting = written(world, rid)
    exe = ml.restore_execution(rid)
    assert exe.status in (Status.created, Status.aborted, Status.completed)
    exe.upload_execution_outputs(clean_folder=clean)
    assert waiting <= set(made(ml, rid))
    return exe


def written(world: World, rid: str) -> Made:
    """What is registered and lies in the staging folder, and what is in the store already."""
    files = Journal(world.copy / "executions" / rid / "journal.jsonl").story.files.values()
    assets = [file.asset for file in files if not file.asset.record and file.asset.path.exists()]
    staged = {(asset.table, asset.filename, hashlib.md5(asset.path.read_bytes()).hexdigest()) for asset in assets}
    objects = {path.name for path in (world.copy / "objects").rglob("*")}
    return staged | {one for one in EXPECTED if one[2] in objects}


def made(ml: DerivaML, rid: str) -> Counter[tuple[str, str, str]]:
    """How often each output has a row with a link to the execution."""
    found: Counter[tuple[str, str, str]] = Counter()
    for table in TABLES:
        links = ml.select_rows(f"{table}_Execution", {"Execution": rid, "Asset_Role": "Output"})
        rows = {row["RID"]: row for row in ml.select_rows(table)}
        linked = [rows[link[table]] for link in links]
        found.update((table, row["Filename"], row["MD5"]) for row in linked if (table, row["Filename"]) in CONTENTS)
    return found


def check_locks(world: World, rid: str) -> None:
    """Nobody holds the journal or the catalog."""
    with FileLock(world.copy / "executions" / rid / "journal.jsonl.lock", timeout=0):
        pass
    with sqlite3.connect(world.copy / "catalog.sqlite", timeout=0) as catalog:
        catalog.execute("BEGIN IMMEDIATE")


def mend(world: World, clean: bool) -> None:
    """What the user does after a crash, and what must be there then."""
    with DerivaML(f"file:{world.copy}") as ml:
        found = ml.find_executions()
        exe = upload_again(world, ml, found[0].execution_rid, clean) if found else world.create(ml)
        if exe.status is Status.created:
            with exe:
                world.users_code(exe)
        else:
            world.users_code(exe)
        exe.upload_execution_outputs(clean_folder=clean)
        assert exe.upload_execution_outputs(clean_folder=clean) == {}
        check(world, ml, exe, clean)


def check(world: World, ml: DerivaML, exe: Execution, clean: bool) -> None:
    """All files once: a row, a role link, the type links, the right bytes; and nothing that was left over."""
    assert [each.execution_rid for each in ml.find_executions()] == [exe.execution_rid]
    assert made(ml, exe.execution_rid) == Counter(EXPECTED)
    assert exe.staged_assets() == []
    stored = set()
    for asset in exe.list_assets("Output"):
        ml.verify_asset(asset)
        stored.add(asset.md5)
        if (asset.table, asset.filename) in CONTENTS:
            assert sorted(asset.asset_types) == TYPES.get((asset.table, asset.filename), [asset.table])
            assert asset.metadata == ({"Angle": 1.5} if asset.table == "Scan" else {})
    assert "journal.jsonl" in [asset.filename for asset in exe.list_assets("Output")]
    check_objects(world, stored)
    assert list(exe.working_dir.rglob("*.part")) == []
    assert (exe.working_dir / "outputs").exists() is not clean
    check_locks(world, exe.execution_rid)


def check_objects(world: World, stored: set[str]) -> None:
    """Each object has a row, but for a copy of the journal which was cut short, and has grown since."""
    objects = {path.name: path for path in (world.copy / "objects").rglob("*") if path.is_file()}
    assert stored <= objects.keys()
    for name in objects.keys() - stored:
        content = objects[name].read_bytes()
        assert content.startswith(b'{"time":')
        assert hashlib.md5(content).hexdigest() == name


def kill(work: Callable[[DerivaML], None], folder: Path, point: int) -> None:
    """Kill a child before a step; by the journal's digest, which holds times, the store takes one step more or less."""
    taken = in_child(work, folder, point)
    assert taken is None or point > len(taken)


def kill_and_mend(world: World, points: Sequence[int], clean: bool) -> None:
    for point in points:
        kill(world.program(clean), world.fresh(), point)
        mend(world, clean)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_run_killed_at_a_step_of_each_kind(world: World, chunk: int) -> None:
    """Restoring, uploading and running the same code again gives what an undisturbed run gives."""
    steps = in_child(world.program(clean=True), world.fresh())
    assert steps is not None
    kill_and_mend(world, first_of_each_kind(steps)[chunk::CHUNKS], clean=True)


@pytest.mark.parametrize("clean", [True, False])
def test_an_undisturbed_run(world: World, clean: bool) -> None:
    """The child that nobody kills leaves the same, and doing all of it again adds nothing."""
    assert in_child(world.program(clean), world.fresh()) is not None
    with DerivaML(f"file:{world.copy}") as ml:
        assert set(made(ml, ml.find_executions()[0].execution_rid)) == EXPECTED
    mend(world, clean)


def test_a_run_that_keeps_its_folder_killed_at_some_steps(world: World) -> None:
    """With clean_folder=False too."""
    steps = in_child(world.program(clean=False), world.fresh())
    assert steps is not None
    kill_and_mend(world, first_of_each_kind(steps)[::9], clean=False)


def kill_twice(world: World, first: int, stride: int) -> None:
    """Kill the run, then kill the process that restores it, at one step after another."""
    kill(world.program(clean=True), world.fresh(), first)
    shutil.rmtree(world.copy.with_name("dead"), ignore_errors=True)
    dead = Path(shutil.copytree(world.copy, world.copy.with_name("dead"), symlinks=True))
    # the staged paths in the journal are absolute, so the same place is used again
    rid = DerivaML(f"file:{world.copy}").find_executions()[0].execution_rid

    def work(ml: DerivaML) -> None:
        ml.restore_execution(rid).upload_execution_outputs()

    def again() -> Path:
        shutil.rmtree(world.copy)
        return Path(shutil.copytree(dead, world.copy, symlinks=True))

    steps = in_child(work, again())
    assert steps is not None
    for second in first_of_each_kind(steps)[::stride]:
        kill(work, again(), second)
        mend(world, clean=True)


def test_killed_while_it_is_mended(world: World) -> None:
    """A second crash, in the upload after the first, is no worse than one."""
    steps = in_child(world.program(clean=True), world.fresh())
    assert steps is not None
    last_sync = len(steps) - steps[::-1].index("before sync")
    kill_twice(world, last_sync, stride=5)


@pytest.mark.long
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_run_killed_at_every_step(world: World, chunk: int, clean: bool) -> None:
    """The whole loop."""
    steps = in_child(world.program(clean), world.fresh())
    assert steps is not None
    kill_and_mend(world, range(chunk + 1, len(steps) + 1, CHUNKS), clean)


@pytest.mark.long
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_killed_while_it_is_mended_everywhere(world: World, chunk: int) -> None:
    """A second crash at a step of each kind, after a first one at every twentieth."""
    steps = in_child(world.program(clean=True), world.fresh())
    assert steps is not None
    begun = steps.index("after insert Execution") + 2
    for first in range(begun + 5 * chunk, len(steps), 5 * CHUNKS):
        kill_twice(world, first, stride=1)


def test_making_a_catalog_killed_at_every_step(world: World) -> None:
    """Whoever comes next finds a whole catalog or makes one, and takes away what was begun."""

    def nothing(_: DerivaML) -> None:
        """The client is made before the work."""

    def nowhere() -> Path:
        shutil.rmtree(world.copy, ignore_errors=True)
        return world.copy

    steps = in_child(nothing, nowhere())
    assert steps is not None
    for point in range(1, len(steps) + 1):
        kill(nothing, nowhere(), point)
        was_there = (world.copy / "catalog.sqlite").exists()
        with DerivaML(f"file:{world.copy}") as ml, world.create(ml) as exe:
            assert ml.lookup_execution(exe.execution_rid).status is Status.running
        if not was_there:
            assert list(world.copy.glob(".catalog-*")) == []


def killed_before(world: World, step: str) -> str:
    """The execution of a program that was killed before the first step of that name."""
    steps = in_child(world.program(clean=True), world.fresh())
    assert steps is not None
    assert in_child(world.program(clean=True), world.fresh(), steps.index(step) + 1) is None
    with DerivaML(f"file:{world.copy}") as ml:
        (found,) = ml.find_executions()
    return found.execution_rid


def test_a_creation_cut_short_is_aborted(world: World) -> None:
    """The next look says so; restoring writes it; nobody runs what was half made."""
    rid = killed_before(world, "before journal Created")
    ml = DerivaML(f"file:{world.copy}")
    (found,) = ml.find_executions(status=Status.aborted)
    assert "The creation ended without a word" in found.status_detail
    assert ml.restore_execution(rid).status is Status.aborted
    (row,) = ml.select_rows("Execution", {"RID": rid})
    assert row["Status"] == "Aborted"


def test_what_was_created_and_did_not_begin_can_still_run(world: World) -> None:
    """Its process may have ended: nothing was running that could have died."""
    rid = killed_before(world, "before journal Leased")
    ml = DerivaML(f"file:{world.copy}")
    assert ml.lookup_execution(rid).status is Status.created
    with ml.restore_execution(rid) as exe:
        assert ml.lookup_execution(rid).status is Status.running
    assert exe.status is Status.completed


def test_the_journal_is_kept_though_the_process_died_after_the_last_file(world: World) -> None:
    """The next upload has no file to send, and knows that no copy was kept of what was sent before."""
    steps = in_child(world.program(clean=True), world.fresh())
    assert steps is not None
    last_put = len(steps) - steps[::-1].index("before put Execution_Metadata")
    assert in_child(world.program(clean=True), world.fresh(), last_put) is None
    ml = DerivaML(f"file:{world.copy}")
    exe = ml.restore_execution(ml.find_executions()[0].execution_rid)

    def copies() -> int:
        return [asset.filename for asset in exe.list_assets()].count("journal.jsonl")

    before = copies()
    assert exe.upload_execution_outputs() == {}
    assert copies() == before + 1
    assert exe.upload_execution_outputs() == {}
    assert copies() == before + 1
