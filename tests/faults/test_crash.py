"""SIGKILL at every step of creation, staging and upload: afterwards all files are there once, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fail_points import first_of_each_kind, in_child
from worlds import ServerWorld, World

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.journal import Journal
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


class Story:
    """A user's program, and the catalog in which it is killed.

    Args:
        world: The catalog; the user's own files lie beside it.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.originals = world.copy.with_name("originals")
        self.originals.mkdir()
        for name, content in (("copied", b"copied"), ("linked", b"linked"), ("temp", b"to be renamed")):
            (self.originals / f"{name}.png").write_bytes(content)
        self.workflow = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")

    @property
    def executions(self) -> Path:
        """Where the working folders are."""
        return self.world.copy / "executions"

    def steps(self, clean: bool = True) -> list[str]:
        """The steps of an undisturbed run."""
        self.world.fresh()
        steps = self.world.run(self.program(clean))
        assert steps is not None
        return steps

    def points(self, clean: bool = True) -> list[int]:
        """Of each kind of step the first one, or of some kinds, where steps take long."""
        return first_of_each_kind(self.steps(clean))[:: self.world.stride]

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
        exe.mark_immutable(best)
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
def story(world: World) -> Story:
    return Story(world)


def upload_again(story: Story, ml: DerivaML, rid: str, clean: bool) -> Execution:
    """Restore and upload: whatever the killed process had written is sent, and nobody holds a lock any more."""
    story.world.check_locks(rid)
    waiting = written(story, rid)
    exe = ml.restore_execution(rid)
    assert exe.status in (Status.created, Status.aborted, Status.completed)
    exe.upload_execution_outputs(clean_folder=clean)
    assert waiting <= set(made(ml, rid))
    return exe


def written(story: Story, rid: str) -> Made:
    """What is registered and lies in the staging folder, and what is in the store already."""
    files = Journal(story.executions / rid / "journal.jsonl").state.files.values()
    assets = [file.asset for file in files if not file.asset.record and file.asset.path.exists()]
    staged = {(asset.table, asset.filename, hashlib.md5(asset.path.read_bytes()).hexdigest()) for asset in assets}
    stored = story.world.objects()
    return staged | {one for one in EXPECTED if one[2] in stored}


def made(ml: DerivaML, rid: str) -> Counter[tuple[str, str, str]]:
    """How often each output has a row with a link to the execution."""
    found: Counter[tuple[str, str, str]] = Counter()
    for table in TABLES:
        links = ml.select_rows(f"{table}_Execution", {"Execution": rid, "Asset_Role": "Output"})
        rows = {row["RID"]: row for row in ml.select_rows(table)}
        linked = [rows[link[table]] for link in links]
        found.update((table, row["Filename"], row["MD5"]) for row in linked if (table, row["Filename"]) in CONTENTS)
    return found


def mend(story: Story, clean: bool) -> None:
    """What the user does after a crash, and what must be there then."""
    with story.world.open() as ml:
        found = ml.find_executions()
        exe = upload_again(story, ml, found[0].execution_rid, clean) if found else story.create(ml)
        if exe.status is Status.created:
            with exe:
                story.users_code(exe)
        else:
            story.users_code(exe)
        exe.upload_execution_outputs(clean_folder=clean)
        assert exe.upload_execution_outputs(clean_folder=clean) == {}
        check(story, ml, exe, clean)


def check(story: Story, ml: DerivaML, exe: Execution, clean: bool) -> None:
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
    check_objects(story, stored)
    assert list(exe.working_dir.rglob("*.part")) == []
    assert (exe.working_dir / "outputs").exists() is not clean
    story.world.check_locks(exe.execution_rid)


def check_objects(story: Story, stored: set[str]) -> None:
    """Each object has a row, but for a copy of the journal which was cut short, and has grown since."""
    objects = story.world.objects()
    assert stored <= objects.keys()
    for name in objects.keys() - stored:
        assert objects[name].startswith(b'{"time":')
        assert hashlib.md5(objects[name]).hexdigest() == name


def kill(story: Story, work: Callable[[DerivaML], None], point: int) -> None:
    """Kill a child before a step; by the journal's digest, which holds times, the store takes one step more or less."""
    taken = story.world.run(work, point)
    assert taken is None or point > len(taken)


def kill_and_mend(story: Story, points: Sequence[int], clean: bool) -> None:
    for point in points:
        story.world.fresh()
        kill(story, story.program(clean), point)
        mend(story, clean)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_run_killed_at_a_step_of_each_kind(story: Story, chunk: int) -> None:
    """Restoring, uploading and running the same code again gives what an undisturbed run gives."""
    kill_and_mend(story, story.points()[chunk::CHUNKS], clean=True)


@pytest.mark.parametrize("clean", [True, False])
def test_an_undisturbed_run(story: Story, clean: bool) -> None:
    """The child that nobody kills leaves the same, and doing all of it again adds nothing."""
    story.steps(clean)
    with story.world.open() as ml:
        assert set(made(ml, ml.find_executions()[0].execution_rid)) == EXPECTED
    mend(story, clean)


def test_a_run_that_keeps_its_folder_killed_at_some_steps(story: Story) -> None:
    """With clean_folder=False too."""
    kill_and_mend(story, story.points(clean=False)[::9], clean=False)


def kill_twice(story: Story, first: int, stride: int) -> None:
    """Kill the run, then kill the process that restores it, at one step after another."""
    story.world.fresh()
    kill(story, story.program(clean=True), first)
    dead = story.world.keep()
    rid = story.world.open().find_executions()[0].execution_rid

    def work(ml: DerivaML) -> None:
        ml.restore_execution(rid).upload_execution_outputs()

    story.world.back(dead)
    steps = story.world.run(work)
    assert steps is not None
    for second in first_of_each_kind(steps)[::stride]:
        story.world.back(dead)
        kill(story, work, second)
        mend(story, clean=True)


def last(steps: list[str], step: str) -> int:
    """The number, from 1, of the last step of that name."""
    return len(steps) - steps[::-1].index(step)


def test_killed_while_it_is_mended(story: Story) -> None:
    """A second crash, in the upload after the first, is no worse than one."""
    kill_twice(story, last(story.steps(), "before sync"), stride=5 * story.world.stride)


@pytest.mark.long
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_run_killed_at_every_step(story: Story, chunk: int, clean: bool) -> None:
    """The whole loop."""
    kill_and_mend(story, range(chunk + 1, len(story.steps(clean)) + 1, CHUNKS), clean)


@pytest.mark.long
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_killed_while_it_is_mended_everywhere(story: Story, chunk: int) -> None:
    """A second crash at a step of each kind, after a first one at every twentieth."""
    steps = story.steps()
    begun = next(number for number, step in enumerate(steps) if "after insert" in step and step.endswith("Execution"))
    for first in range(begun + 2 + 5 * chunk, len(steps), 5 * CHUNKS):
        kill_twice(story, first, stride=1)


@pytest.mark.parametrize("world", ["embedded"], indirect=True)
def test_making_a_catalog_killed_at_every_step(story: Story) -> None:
    """Whoever comes next finds a whole catalog or makes one, and takes away what was begun."""
    folder = story.world.copy

    def nothing(_: DerivaML) -> None:
        """The client is made before the work."""

    shutil.rmtree(folder, ignore_errors=True)
    steps = story.world.run(nothing)
    assert steps is not None
    for point in range(1, len(steps) + 1):
        shutil.rmtree(folder, ignore_errors=True)
        kill(story, nothing, point)
        was_there = (folder / "catalog.sqlite").exists()
        with story.world.open() as ml, story.create(ml) as exe:
            assert ml.lookup_execution(exe.execution_rid).status is Status.running
        if not was_there:
            assert list(folder.glob(".catalog-*")) == []


@pytest.mark.parametrize("world", ["server"], indirect=True)
def test_making_a_catalog_on_a_server_killed_at_every_request(story: Story) -> None:
    """What was made of it stays, and naming its number completes it: then runs are recorded in it."""
    world = story.world
    assert isinstance(world, ServerWorld)

    def nothing(_: DerivaML) -> None:
        """The catalog is made before the work."""

    steps = in_child(nothing, world.copy, world.make)
    assert steps is not None
    assert len(steps) > 5
    for point in range(2, len(steps) + 1):
        before = world.newest
        assert in_child(nothing, world.copy, world.make, point) is None
        assert int(world.newest) == int(before) + 1
        with world.make(number=world.newest) as ml, story.create(ml) as exe:
            assert ml.lookup_execution(exe.execution_rid).status is Status.running


def killed_before(story: Story, step: str) -> str:
    """The execution of a program that was killed before the first step of that name."""
    point = story.steps().index(step) + 1
    story.world.fresh()
    kill(story, story.program(clean=True), point)
    with story.world.open() as ml:
        (found,) = ml.find_executions()
    return found.execution_rid


def test_a_creation_cut_short_is_aborted(story: Story) -> None:
    """The next look says so; restoring writes it; nobody runs what was half made."""
    rid = killed_before(story, "before journal Created")
    ml = story.world.open()
    (found,) = ml.find_executions(status=Status.aborted)
    assert "The creation ended without reporting a status" in found.status_detail
    assert ml.restore_execution(rid).status is Status.aborted
    (row,) = ml.select_rows("Execution", {"RID": rid})
    assert row["Status"] == "Aborted"


def test_what_was_created_and_did_not_begin_can_still_run(story: Story) -> None:
    """Its process may have ended: nothing was running that could have died."""
    rid = killed_before(story, "before journal Leased")
    ml = story.world.open()
    assert ml.lookup_execution(rid).status is Status.created
    with ml.restore_execution(rid) as exe:
        assert ml.lookup_execution(rid).status is Status.running
    assert exe.status is Status.completed


def test_the_journal_is_kept_though_the_process_died_after_the_last_file(story: Story) -> None:
    """The next upload has no file to send, and knows that no copy was kept of what was sent before."""
    point = last(story.steps(), "before put Execution_Metadata")
    story.world.fresh()
    kill(story, story.program(clean=True), point)
    ml = story.world.open()
    exe = ml.restore_execution(ml.find_executions()[0].execution_rid)

    def copies() -> int:
        return [asset.filename for asset in exe.list_assets()].count("journal.jsonl")

    before = copies()
    assert exe.upload_execution_outputs() == {}
    assert copies() == before + 1
    assert exe.upload_execution_outputs() == {}
    assert copies() == before + 1
