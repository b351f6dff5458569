"""Push to and from a Deriva server: complete, with few requests, and without duplicates after failures."""

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
from fakes.faults import Fault, Harm, call_between_chunks
from fakes.web import Answer
from sample_run import count_rows, describe_run, make_tables, record_sample_run

PLAIN = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="3" * 40)
QUICK = UploadOptions(retry_delay=0, chunk_size=4096)


@pytest.fixture(scope="module")
def master_catalog(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder of an embedded catalog with a run, and the run's RID."""
    folder = tmp_path_factory.mktemp("made")
    with DerivaML(f"file:{folder}") as ml:
        return folder, record_sample_run(ml).execution_rid


@pytest.fixture
def local(master_catalog: tuple[Path, str], home: Path) -> DerivaML:
    """Return a client for a copy of that catalog."""
    shutil.copytree(master_catalog[0], home / "local")
    return DerivaML()


@pytest.fixture
def run(local: DerivaML, master_catalog: tuple[Path, str]) -> RecordedExecution:
    """Return the run in it."""
    return local.lookup_execution(master_catalog[1])


@pytest.fixture
def owner(catalog: DerivaCatalog, fake: DerivaServer) -> DerivaML:
    """Return a client for the server's catalog as a user who can create tables."""
    return DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential())


def record_run(ml: DerivaML, files: int = 1, size: int = 1000) -> Execution:
    """Record a run with output files."""
    with ml.create_execution(ExecutionConfiguration(workflow=PLAIN, description="Train")) as exe:
        for number in range(files):
            exe.asset_file_path("Model", f"{number}.pt", asset_types=["Model_File"]).write_bytes(bytes([number]) * size)
    exe.upload_execution_outputs()
    return exe


def test_push_to_and_from_server(local: DerivaML, owner: DerivaML, run: RecordedExecution, tmp_path: Path) -> None:
    """A run recorded locally is complete on a server, and after a push from there to a third catalog."""
    report = local.push(run.execution_rid, owner, make_tables=True)
    assert describe_run(owner, report.execution) == describe_run(local, run.execution_rid)
    before = count_rows(owner)
    again = local.push(run.execution_rid, owner)
    assert (again.new, again.files) == ((), 0)
    assert count_rows(owner) == before
    third = DerivaML(f"file:{tmp_path / 'third'}")
    back = owner.push(report.execution, third, make_tables=True)
    assert describe_run(third, back.execution) == describe_run(local, run.execution_rid)
    assert list((third.connection.folder / "pushed").glob("*/files/*")) == []


def test_push_from_another_machine(local: DerivaML, owner: DerivaML, run: RecordedExecution) -> None:
    """A push without the ledger of the first one creates no duplicates."""
    first = local.push(run.execution_rid, owner, make_tables=True)
    before = count_rows(owner)
    shutil.rmtree(owner.connection.folder / "pushed")
    again = local.push(run.execution_rid, owner)
    assert (again.new, again.files, again.rids) == ((), 0, first.rids)
    assert count_rows(owner) == before


def test_request_counts(local: DerivaML, ml: DerivaML, fake: DerivaServer) -> None:
    """Ten files take at most 42 requests; a second push takes at most 20 and sends no bytes."""
    exe = record_run(local, files=10)
    ml.connection.catalog.refresh()
    fake.requests.clear()
    local.push(exe.execution_rid, ml)
    first = len(fake.requests)
    fake.requests.clear()
    local.push(exe.execution_rid, ml)
    assert (first <= 42, len(fake.requests) <= 20) == (True, True), (first, len(fake.requests))
    assert [request for request in fake.requests if "/hatrac/" in request.path] == []


def test_only_required_terms_are_read(
    local: DerivaML, owner: DerivaML, run: RecordedExecution, fake: DerivaServer
) -> None:
    """Only the required terms of the target's vocabularies are read."""
    fake.requests.clear()
    local.push(run.execution_rid, owner, make_tables=True)
    vocabularies = [name for name, table in owner.connection.catalog.model.tables.items() if table.is_vocabulary]
    paths = [request.path for request in fake.requests if request.method == "GET" and "/entity/" in request.path]
    whole = [path for path in paths if path.endswith(tuple(f":{name}" for name in vocabularies))]
    assert any(":Workflow_Type/Name=" in path for path in paths)
    assert whole == []


@pytest.mark.parametrize("at", [5, 15, *(pytest.param(at, marks=pytest.mark.long) for at in (0, 10, 20, 25, 30))])
def test_lost_responses(local: DerivaML, ml: DerivaML, fake: DerivaServer, at: int) -> None:
    """A lost response creates no duplicates, whichever it is."""
    exe = record_run(local, files=2)
    fake.faults.add(Fault(Harm.lose, skip=at))
    fake.faults.add(Fault(Harm.reset, skip=at + 3))
    report = local.push(exe.execution_rid, ml, options=QUICK)
    assert describe_run(ml, report.execution) == describe_run(local, exe.execution_rid)
    rows = count_rows(ml)
    assert (rows["Execution"], rows["Workflow"], rows["Model"], rows["Model_Execution"]) == (1, 1, 2, 2)
    assert local.push(exe.execution_rid, ml).new == ()


@pytest.mark.parametrize("at", [3, 20, *(pytest.param(at, marks=pytest.mark.long) for at in (12, 28))])
def test_session_expires_during_push(local: DerivaML, ml: DerivaML, fake: DerivaServer, at: int) -> None:
    """After an expired session and a login, the same push completes."""
    exe = record_run(local, files=3)
    fake.faults.add(Fault(Harm.call, skip=at, call=lambda: fake.log_out("test2")))
    with pytest.raises(LoginRequired, match="Log in"):
        local.push(exe.execution_rid, ml, options=QUICK)
    fake.log_in("test2")
    report = local.push(exe.execution_rid, ml, options=QUICK)
    assert describe_run(ml, report.execution) == describe_run(local, exe.execution_rid)
    rows = count_rows(ml)
    assert (rows["Execution"], rows["Workflow"], rows["Model"]) == (1, 1, 3)


def test_copy_is_pending_until_complete(local: DerivaML, ml: DerivaML, fake: DerivaServer) -> None:
    """Until the push is complete, the copy is Pending and its status names the source."""
    exe = record_run(local)
    ended = Answer.text(401, "Access to resource requires authentication.", "text/plain")
    fake.faults.add(Fault(Harm.answer, method="PUT", path="attributegroup", reply=ended))
    with pytest.raises(LoginRequired):
        local.push(exe.execution_rid, ml)
    (copy,) = ml.find_executions()
    assert copy.status is Status.pending
    assert f"Copy from {local.connection.catalog.cite(exe.execution_rid)}" in copy.status_detail
    assert local.push(exe.execution_rid, ml).execution == copy.execution_rid
    assert ml.lookup_execution(copy.execution_rid).status is Status.completed


def test_push_to_snapshot(local: DerivaML, ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog) -> None:
    """A push to a snapshot raises CatalogReadOnly and sends nothing."""
    exe = record_run(local)
    past = DerivaML(fake.hostname, f"{catalog.catalog_id}@{catalog.snapshot()}", credential=fake.credential())
    with pytest.raises(CatalogReadOnly, match="snapshot"):
        local.push(exe.execution_rid, past)
    assert fake.hatrac.objects == {}
    assert ml.find_executions() == []


def test_push_without_permission_for_tables(
    local: DerivaML, ml: DerivaML, owner: DerivaML, run: RecordedExecution
) -> None:
    """A writer cannot create missing tables; after the owner has, the push succeeds."""
    with pytest.raises(UnknownTable, match="Scan"):
        local.push(run.execution_rid, ml)
    with pytest.raises(AccessRefused):
        local.push(run.execution_rid, ml, make_tables=True)
    make_tables(owner)
    report = local.push(run.execution_rid, ml)
    assert describe_run(ml, report.execution) == describe_run(local, run.execution_rid)


def test_chunked_file_resumes(local: DerivaML, ml: DerivaML, fake: DerivaServer) -> None:
    """A push that is interrupted between chunks sends no chunk again that was confirmed before."""
    exe = record_run(local, size=40_000)
    # records of the run are sent at the same time, some in chunks
    call_between_chunks(fake.faults, 6, lambda: fake.log_out("test2"), path="/Model/.*")
    with pytest.raises(LoginRequired):
        local.push(exe.execution_rid, ml, options=QUICK)
    fake.log_in("test2")
    fake.requests.clear()
    local.push(exe.execution_rid, ml, options=QUICK)
    paths = [request.path for request in fake.requests if request.method == "PUT" and "/Model/" in request.path]
    numbers = {int(path.rpartition("/")[2]) for path in paths}
    assert {8, 9} <= numbers <= {6, 7, 8, 9}
    assert len(paths) == len(numbers)
    assert fake.hatrac.jobs == {}


def test_push_between_server_catalogs(owner: DerivaML, fake: DerivaServer, local: DerivaML) -> None:
    """Between two catalogs on servers, files pass through this machine and none is left."""
    exe = record_run(owner, files=2)
    other = DerivaML.create(fake.hostname, "other", credential=fake.credential())
    report = owner.push(exe.execution_rid, other)
    assert describe_run(other, report.execution) == describe_run(owner, exe.execution_rid)
    assert list((other.connection.folder / "pushed").glob("*/files/*")) == []


PUSH = """
import sys
from deriva_ml import DerivaML

there = DerivaML(sys.argv[1], sys.argv[2], credential={"cookie": "webauthn=test2"})
here = DerivaML("file:" + sys.argv[3])
print(here.push(sys.argv[4], there).execution)
"""


@pytest.mark.parametrize("machines", [1, 2])
def test_concurrent_pushes(
    local: DerivaML, ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, machines: int, tmp_path: Path
) -> None:
    """Two processes that push the same run, on one machine or two, create one copy."""
    exe = record_run(local, files=4)
    homes = [tmp_path / f"machine-{number % machines}" for number in range(2)]
    command = [sys.executable, "-c", PUSH, fake.hostname, catalog.catalog_id, local.connection.catalog.name]
    pushes = [
        subprocess.Popen(
            [*command, exe.execution_rid],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"DERIVA_ML_HOME": str(home), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        )
        for home in homes
    ]
    outputs = [push.communicate() for push in pushes]
    assert [push.returncode for push in pushes] == [0, 0], outputs
    (copy,) = {out.strip() for out, _ in outputs}
    assert describe_run(ml, copy) == describe_run(local, exe.execution_rid)
    rows = count_rows(ml)
    assert (rows["Execution"], rows["Workflow"], rows["Model"], rows["Model_Execution"]) == (1, 1, 4, 4)
