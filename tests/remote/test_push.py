"""An execution copied to a Deriva server, and from one: whole, with few requests, and once whatever goes wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import AccessRefused, CatalogReadOnly, LoginRequired, UnknownTable
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm
from fakes.web import Answer
from pushed_world import counts, make_tables, make_world, told

PLAIN = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="3" * 40)
QUICK = UploadOptions(retry_delay=0, chunk_size=4096)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An embedded catalog with a run in it, and the run's record id."""
    folder = tmp_path_factory.mktemp("made")
    with DerivaML(f"file:{folder}") as ml:
        return folder, make_world(ml).execution_rid


@pytest.fixture
def here(made: tuple[Path, str], home: Path) -> DerivaML:
    """A client of a copy of that catalog that a test has for itself."""
    shutil.copytree(made[0], home / "local")
    return DerivaML()


@pytest.fixture
def world(here: DerivaML, made: tuple[Path, str]) -> RecordedExecution:
    """The run in it."""
    return here.lookup_execution(made[1])


@pytest.fixture
def owner(catalog: DerivaCatalog, fake: DerivaServer) -> DerivaML:
    """A client of the server's catalog that may make tables there."""
    return DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential())


def ran(ml: DerivaML, files: int = 1, size: int = 1000) -> Execution:
    """A run with output files."""
    with ml.create_execution(ExecutionConfiguration(workflow=PLAIN, description="Train")) as exe:
        for number in range(files):
            exe.asset_file_path("Model", f"{number}.pt", asset_types=["Model_File"]).write_bytes(bytes([number]) * size)
    exe.upload_execution_outputs()
    return exe


def test_to_a_server_and_from_it(here: DerivaML, owner: DerivaML, world: RecordedExecution, tmp_path: Path) -> None:
    """What was recorded offline is published whole; copied from there to a third catalog it is whole too."""
    report = here.push(world.execution_rid, owner, make_tables=True)
    assert told(owner, report.execution) == told(here, world.execution_rid)
    before = counts(owner)
    again = here.push(world.execution_rid, owner)
    assert (again.new, again.files) == ((), 0)
    assert counts(owner) == before
    third = DerivaML(f"file:{tmp_path / 'third'}")
    back = owner.push(report.execution, third, make_tables=True)
    assert told(third, back.execution) == told(here, world.execution_rid)
    assert list((third.connection.folder / "pushed").glob("*/files/*")) == []


def test_another_machine(here: DerivaML, owner: DerivaML, world: RecordedExecution) -> None:
    """Who knows nothing of the first push makes nothing twice."""
    first = here.push(world.execution_rid, owner, make_tables=True)
    before = counts(owner)
    shutil.rmtree(owner.connection.folder / "pushed")
    again = here.push(world.execution_rid, owner)
    assert (again.new, again.files, again.rids) == ((), 0, first.rids)
    assert counts(owner) == before


def test_requests(here: DerivaML, ml: DerivaML, fake: DerivaServer) -> None:
    """Ten files go with at most 42 requests, and a second push looks with at most 20 and sends no bytes."""
    exe = ran(here, files=10)
    ml.connection.catalog.refresh()
    fake.requests.clear()
    here.push(exe.execution_rid, ml)
    first = len(fake.requests)
    fake.requests.clear()
    here.push(exe.execution_rid, ml)
    assert (first <= 42, len(fake.requests) <= 20) == (True, True), (first, len(fake.requests))
    assert [request for request in fake.requests if "/hatrac/" in request.path] == []


def test_big_vocabularies(here: DerivaML, owner: DerivaML, world: RecordedExecution, fake: DerivaServer) -> None:
    """Of the target's vocabularies only the terms that are needed are read, which may be few of very many."""
    fake.requests.clear()
    here.push(world.execution_rid, owner, make_tables=True)
    vocabularies = [name for name, table in owner.connection.catalog.model.tables.items() if table.is_vocabulary]
    asked = [request.path for request in fake.requests if request.method == "GET" and "/entity/" in request.path]
    whole = [path for path in asked if path.endswith(tuple(f":{name}" for name in vocabularies))]
    assert any(":Workflow_Type/Name=" in path for path in asked)
    assert whole == []


@pytest.mark.parametrize("at", [5, 15, *(pytest.param(at, marks=pytest.mark.long) for at in (0, 10, 20, 25, 30))])
def test_answers_that_are_lost(here: DerivaML, ml: DerivaML, fake: DerivaServer, at: int) -> None:
    """An answer that is lost after the work was done makes nothing twice, whichever it is."""
    exe = ran(here, files=2)
    fake.faults.add(Fault(Harm.lose, skip=at))
    fake.faults.add(Fault(Harm.reset, skip=at + 3))
    report = here.push(exe.execution_rid, ml, options=QUICK)
    assert told(ml, report.execution) == told(here, exe.execution_rid)
    rows = counts(ml)
    assert (rows["Execution"], rows["Workflow"], rows["Model"], rows["Model_Execution"]) == (1, 1, 2, 2)
    assert here.push(exe.execution_rid, ml).new == ()


@pytest.mark.parametrize("at", [3, 20, *(pytest.param(at, marks=pytest.mark.long) for at in (12, 28))])
def test_a_session_that_ends(here: DerivaML, ml: DerivaML, fake: DerivaServer, at: int) -> None:
    """A login that ends in the middle says how to log in; afterwards the same push goes on."""
    exe = ran(here, files=3)
    fake.faults.add(Fault(Harm.call, skip=at, call=lambda: fake.log_out("test2")))
    with pytest.raises(LoginRequired, match="Log in"):
        here.push(exe.execution_rid, ml, options=QUICK)
    fake.log_in("test2")
    report = here.push(exe.execution_rid, ml, options=QUICK)
    assert told(ml, report.execution) == told(here, exe.execution_rid)
    rows = counts(ml)
    assert (rows["Execution"], rows["Workflow"], rows["Model"]) == (1, 1, 3)


def test_until_it_is_whole_it_is_pending(here: DerivaML, ml: DerivaML, fake: DerivaServer) -> None:
    """Whoever looks before the end is told that the run is still being copied, and from where."""
    exe = ran(here)
    ended = Answer.text(401, "Access to resource requires authentication.", "text/plain")
    fake.faults.add(Fault(Harm.answer, method="PUT", path="attributegroup", reply=ended))
    with pytest.raises(LoginRequired):
        here.push(exe.execution_rid, ml)
    (copy,) = ml.find_executions()
    assert copy.status is Status.pending
    assert f"Copy from {here.connection.catalog.cite(exe.execution_rid)}" in copy.status_detail
    assert here.push(exe.execution_rid, ml).execution == copy.execution_rid
    assert ml.lookup_execution(copy.execution_rid).status is Status.completed


def test_a_snapshot_takes_nothing(here: DerivaML, ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog) -> None:
    """A target that is a state of the past says so, and no byte is sent to it."""
    exe = ran(here)
    past = DerivaML(fake.hostname, f"{catalog.catalog_id}@{catalog.snapshot()}", credential=fake.credential())
    with pytest.raises(CatalogReadOnly, match="snapshot"):
        here.push(exe.execution_rid, past)
    assert fake.hatrac.objects == {}
    assert ml.find_executions() == []


def test_who_may_not_make_tables(here: DerivaML, ml: DerivaML, owner: DerivaML, world: RecordedExecution) -> None:
    """A writer is told what lacks, and that it may not be made; once the owner has made it the writer's push goes."""
    with pytest.raises(UnknownTable, match="Scan"):
        here.push(world.execution_rid, ml)
    with pytest.raises(AccessRefused):
        here.push(world.execution_rid, ml, make_tables=True)
    make_tables(owner)
    report = here.push(world.execution_rid, ml)
    assert told(ml, report.execution) == told(here, world.execution_rid)


def test_a_big_file_goes_on(here: DerivaML, ml: DerivaML, fake: DerivaServer) -> None:
    """A push that ends between two chunks of a file sends only the others when it is done again."""
    exe = ran(here, size=40_000)
    fake.faults.add(Fault(Harm.call, method="PUT", path="upload/.*/6", call=lambda: fake.log_out("test2")))
    with pytest.raises(LoginRequired):
        here.push(exe.execution_rid, ml, options=QUICK)
    fake.log_in("test2")
    fake.requests.clear()
    here.push(exe.execution_rid, ml, options=QUICK)
    chunks = [request for request in fake.requests if request.method == "PUT" and ";upload/" in request.path]
    assert 0 < len(chunks) <= 5
    assert fake.hatrac.jobs == {}


def test_two_servers_catalogs(owner: DerivaML, fake: DerivaServer, here: DerivaML) -> None:
    """Between two catalogs of servers bytes pass through this machine, and none stay."""
    exe = ran(owner, files=2)
    other = DerivaML.create(fake.hostname, "other", credential=fake.credential())
    report = owner.push(exe.execution_rid, other)
    assert told(other, report.execution) == told(owner, exe.execution_rid)
    assert list((other.connection.folder / "pushed").glob("*/files/*")) == []


PUSH = """
import sys
from deriva_ml import DerivaML

there = DerivaML(sys.argv[1], sys.argv[2], credential={"cookie": "webauthn=test2"})
here = DerivaML("file:" + sys.argv[3])
print(here.push(sys.argv[4], there).execution)
"""


@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_at_once(
    here: DerivaML, ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, machines: int, tmp_path: Path
) -> None:
    """Two processes, of one machine or of two, that push one run at once make one copy."""
    exe = ran(here, files=4)
    homes = [tmp_path / f"machine-{number % machines}" for number in range(2)]
    command = [sys.executable, "-c", PUSH, fake.hostname, catalog.catalog_id, here.connection.catalog.name]
    pushes = [
        subprocess.Popen(
            [*command, exe.execution_rid],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"DERIVA_ML_HOME": str(place), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )
        for place in homes
    ]
    said = [push.communicate(timeout=120) for push in pushes]
    assert [push.returncode for push in pushes] == [0, 0], said
    (copy,) = {out.strip() for out, _ in said}
    assert told(ml, copy) == told(here, exe.execution_rid)
    rows = counts(ml)
    assert (rows["Execution"], rows["Workflow"], rows["Model"], rows["Model_Execution"]) == (1, 1, 4, 4)
