"""SIGKILL at every step of creation, staging and upload: afterwards every file is recorded once, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fail_points import Step, first_of_each_kind, in_child
from sandboxes import Sandbox, ServerSandbox

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

OutputSet = set[tuple[str, str, str]]
"""Table, file name and MD5 of each output except the metadata files."""

EXPECTED: OutputSet = {
    (table, name, hashlib.md5(content).hexdigest())
    for (table, name), contents in CONTENTS.items()
    for content in contents
}


class Program:
    """A user's program and the sandbox in which it is killed.

    Args:
        sandbox: The sandbox; the user's own files are next to it.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.originals = sandbox.copy.with_name("originals")
        self.originals.mkdir()
        for name, content in (("copied", b"copied"), ("linked", b"linked"), ("temp", b"to be renamed")):
            (self.originals / f"{name}.png").write_bytes(content)
        self.workflow = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")

    @property
    def executions(self) -> Path:
        """The folder of the working folders."""
        return self.sandbox.copy / "executions"

    def steps(self, clean: bool = True) -> list[str]:
        """Return the steps of an undisturbed run."""
        self.sandbox.reset()
        steps = self.sandbox.run(self.run_function(clean))
        assert steps is not None
        return steps

    def points(self, clean: bool = True) -> list[int]:
        """Return the first step of each kind; only some kinds if steps are slow."""
        return first_of_each_kind(self.steps(clean))[:: self.sandbox.stride]

    def run_function(self, clean: bool) -> Callable[[DerivaML], None]:
        """Return the program: a function that runs a whole execution."""

        def work(ml: DerivaML) -> None:
            with self.create(ml) as exe:
                self.users_code(exe)
            exe.upload_execution_outputs(clean_folder=clean)

        return work

    def create(self, ml: DerivaML) -> Execution:
        return ml.create_execution(ExecutionConfiguration(workflow=self.workflow, description="To be killed"))

    def users_code(self, exe: Execution) -> None:
        """The user's code in the run; running it again requests the same."""
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
    """Write as a careful program does: the file is complete or does not exist."""
    draft = exe.working_dir / "draft"
    draft.write_bytes(content)
    draft.replace(path)


@pytest.fixture(scope="module")
def program(sandbox: Sandbox) -> Program:
    return Program(sandbox)


def upload_again(program: Program, ml: DerivaML, rid: str, clean: bool) -> Execution:
    """Restore and upload: all files that the killed process had written are uploaded, and no lock is held."""
    program.sandbox.check_locks(rid)
    expected = written_outputs(program, rid)
    exe = ml.restore_execution(rid)
    assert exe.status in (Status.created, Status.aborted, Status.completed)
    exe.upload_execution_outputs(clean_folder=clean)
    assert expected <= set(recorded_outputs(ml, rid))
    return exe


def written_outputs(program: Program, rid: str) -> OutputSet:
    """Return the registered files that are in the staging folder or in the store."""
    files = Journal(program.executions / rid / "journal.jsonl").state.files.values()
    assets = [file.asset for file in files if not file.asset.record and file.asset.path.exists()]
    staged = {(asset.table, asset.filename, hashlib.md5(asset.path.read_bytes()).hexdigest()) for asset in assets}
    stored = program.sandbox.objects()
    return staged | {one for one in EXPECTED if one[2] in stored}


def recorded_outputs(ml: DerivaML, rid: str) -> Counter[tuple[str, str, str]]:
    """Count the rows of each output that are linked to the execution."""
    found: Counter[tuple[str, str, str]] = Counter()
    for table in TABLES:
        links = ml.select_rows(f"{table}_Execution", {"Execution": rid, "Asset_Role": "Output"})
        rows = {row["RID"]: row for row in ml.select_rows(table)}
        linked = [rows[link[table]] for link in links]
        found.update((table, row["Filename"], row["MD5"]) for row in linked if (table, row["Filename"]) in CONTENTS)
    return found


def recover(program: Program, clean: bool) -> None:
    """Run what a user runs after a crash, and check the result."""
    with program.sandbox.open() as ml:
        found = ml.find_executions()
        exe = upload_again(program, ml, found[0].execution_rid, clean) if found else program.create(ml)
        if exe.status is Status.created:
            with exe:
                program.users_code(exe)
        else:
            program.users_code(exe)
        exe.upload_execution_outputs(clean_folder=clean)
        assert exe.upload_execution_outputs(clean_folder=clean) == {}
        check(program, ml, exe, clean)


def check(program: Program, ml: DerivaML, exe: Execution, clean: bool) -> None:
    """Check that every file has one row, role link, type links and the right bytes, and that nothing else is left."""
    assert [each.execution_rid for each in ml.find_executions()] == [exe.execution_rid]
    assert recorded_outputs(ml, exe.execution_rid) == Counter(EXPECTED)
    assert exe.staged_assets() == []
    stored = set()
    for asset in exe.list_assets("Output"):
        ml.verify_asset(asset)
        stored.add(asset.md5)
        if (asset.table, asset.filename) in CONTENTS:
            assert sorted(asset.asset_types) == TYPES.get((asset.table, asset.filename), [asset.table])
            assert asset.metadata == ({"Angle": 1.5} if asset.table == "Scan" else {})
    assert "journal.jsonl" in [asset.filename for asset in exe.list_assets("Output")]
    check_objects(program, stored)
    assert list(exe.working_dir.rglob("*.part")) == []
    assert (exe.working_dir / "outputs").exists() is not clean
    program.sandbox.check_locks(exe.execution_rid)


def check_objects(program: Program, stored: set[str]) -> None:
    """Check that each object has a row; the only exception is an older copy of the journal."""
    objects = program.sandbox.objects()
    assert stored <= objects.keys()
    for name in objects.keys() - stored:
        assert objects[name].startswith(b'{"time":')
        assert hashlib.md5(objects[name]).hexdigest() == name


def kill(program: Program, work: Callable[[DerivaML], None], point: Step | int) -> None:
    """Kill a child before a step.

    A number may not be reached: the number of store steps depends on the journal's digest.
    """
    steps = program.sandbox.run(work, point)
    assert steps is None or (isinstance(point, int) and point > len(steps))


def kill_and_recover(program: Program, points: Sequence[int], clean: bool) -> None:
    for point in points:
        program.sandbox.reset()
        kill(program, program.run_function(clean), point)
        recover(program, clean)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_kill_at_a_step_of_each_kind(program: Program, chunk: int) -> None:
    """Restoring, uploading and running the same code again gives the result of an undisturbed run."""
    kill_and_recover(program, program.points()[chunk::CHUNKS], clean=True)


@pytest.mark.parametrize("clean", [True, False])
def test_undisturbed_run(program: Program, clean: bool) -> None:
    """A run that is not killed gives the same result, and running it again adds nothing."""
    program.steps(clean)
    with program.sandbox.open() as ml:
        assert set(recorded_outputs(ml, ml.find_executions()[0].execution_rid)) == EXPECTED
    recover(program, clean)


def test_kill_without_clean_folder(program: Program) -> None:
    """The same with clean_folder=False."""
    kill_and_recover(program, program.points(clean=False)[::9], clean=False)


def kill_twice(program: Program, first: Step | int, stride: int) -> None:
    """Kill the run, then kill the process that restores it, at one step after another."""
    program.sandbox.reset()
    kill(program, program.run_function(clean=True), first)
    dead = program.sandbox.save()
    rid = program.sandbox.open().find_executions()[0].execution_rid

    def work(ml: DerivaML) -> None:
        ml.restore_execution(rid).upload_execution_outputs()

    program.sandbox.restore(dead)
    steps = program.sandbox.run(work)
    assert steps is not None
    for second in first_of_each_kind(steps)[::stride]:
        program.sandbox.restore(dead)
        kill(program, work, second)
        recover(program, clean=True)


def test_kill_during_recovery(program: Program) -> None:
    """A second crash during the upload after the first has the same result."""
    kill_twice(program, Step.last("before sync", program.steps()), stride=5 * program.sandbox.stride)


@pytest.mark.long
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_kill_at_every_step(program: Program, chunk: int, clean: bool) -> None:
    """Kill the run at every step."""
    kill_and_recover(program, range(chunk + 1, len(program.steps(clean)) + 1, CHUNKS), clean)


@pytest.mark.long
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_kill_during_recovery_at_every_step(program: Program, chunk: int) -> None:
    """A second crash at a step of each kind, after a first one at every twentieth step."""
    steps = program.steps()
    created = next(number for number, step in enumerate(steps) if "after insert" in step and step.endswith("Execution"))
    for first in range(created + 2 + 5 * chunk, len(steps), 5 * CHUNKS):
        kill_twice(program, first, stride=1)


@pytest.mark.parametrize("sandbox", ["embedded"], indirect=True)
def test_kill_while_a_catalog_is_created(program: Program) -> None:
    """The next process finds a complete catalog or creates one, and removes what was left."""
    folder = program.sandbox.copy

    def nothing(_: DerivaML) -> None:
        """The client is created before the function runs."""

    shutil.rmtree(folder, ignore_errors=True)
    steps = program.sandbox.run(nothing)
    assert steps is not None
    for point in range(1, len(steps) + 1):
        shutil.rmtree(folder, ignore_errors=True)
        kill(program, nothing, point)
        was_there = (folder / "catalog.sqlite").exists()
        with program.sandbox.open() as ml, program.create(ml) as exe:
            assert ml.lookup_execution(exe.execution_rid).status is Status.running
        if not was_there:
            assert list(folder.glob(".catalog-*")) == []


@pytest.mark.parametrize("sandbox", ["server"], indirect=True)
def test_kill_while_a_server_catalog_is_created(program: Program) -> None:
    """The partial catalog stays; creating with its id completes it, and runs are recorded in it."""
    sandbox = program.sandbox
    assert isinstance(sandbox, ServerSandbox)

    def nothing(_: DerivaML) -> None:
        """The catalog is created before the function runs."""

    steps = in_child(nothing, sandbox.copy, sandbox.make)
    assert steps is not None
    assert len(steps) > 5
    for point in range(2, len(steps) + 1):
        before = sandbox.newest
        assert in_child(nothing, sandbox.copy, sandbox.make, point) is None
        assert int(sandbox.newest) == int(before) + 1
        with sandbox.make(number=sandbox.newest) as ml, program.create(ml) as exe:
            assert ml.lookup_execution(exe.execution_rid).status is Status.running


def kill_before(program: Program, kind: str) -> str:
    """Kill the program before the first step of a kind, and return its execution."""
    program.sandbox.reset()
    kill(program, program.run_function(clean=True), Step(kind))
    with program.sandbox.open() as ml:
        (found,) = ml.find_executions()
    return found.execution_rid


def test_killed_creation_is_aborted(program: Program) -> None:
    """A lookup shows the execution as aborted; a restore writes it."""
    rid = kill_before(program, "before journal Created")
    ml = program.sandbox.open()
    (found,) = ml.find_executions(status=Status.aborted)
    assert "The creation ended without reporting a status" in found.status_detail
    assert ml.restore_execution(rid).status is Status.aborted
    (row,) = ml.select_rows("Execution", {"RID": rid})
    assert row["Status"] == "Aborted"


def test_created_execution_can_run_in_another_process(program: Program) -> None:
    """An execution that was created and not started can run after its process has ended."""
    rid = kill_before(program, "before journal ProcessAttached")
    ml = program.sandbox.open()
    assert ml.lookup_execution(rid).status is Status.created
    with ml.restore_execution(rid) as exe:
        assert ml.lookup_execution(rid).status is Status.running
    assert exe.status is Status.completed


def test_journal_is_uploaded_after_a_kill(program: Program) -> None:
    """If the process died after the last file, the next upload only uploads the journal."""
    point = Step.last("before put Execution_Metadata", program.steps())
    program.sandbox.reset()
    kill(program, program.run_function(clean=True), point)
    ml = program.sandbox.open()
    exe = ml.restore_execution(ml.find_executions()[0].execution_rid)

    def copies() -> list[tuple[str, int]]:
        return [(asset.rid, asset.length) for asset in exe.list_assets() if asset.filename == "journal.jsonl"]

    before = dict(copies())
    assert exe.upload_execution_outputs() == {}
    ((rid, length),) = copies()
    assert before.get(rid, 0) < length
    assert exe.upload_execution_outputs() == {}
    assert copies() == [(rid, length)]
