"""Number of requests of each step of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import MLVocab, Status
from deriva_ml_core.errors import UnknownTerm
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm

Count = Callable[[Callable[[], Any]], int]


@pytest.fixture
def count(fake: DerivaServer) -> Count:
    """Return a function that counts the requests of a step."""

    def count_requests(step: Callable[[], Any]) -> int:
        fake.requests.clear()
        step()
        return len(fake.requests)

    return count_requests


@pytest.fixture
def config() -> ExecutionConfiguration:
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    return ExecutionConfiguration(workflow=workflow, description="d")


@pytest.fixture
def exe(ml: DerivaML, config: ExecutionConfiguration) -> Execution:
    exe = ml.create_execution(config)
    exe._runtime.background.drain()
    return exe


def stage(exe: Execution, count: int, prefix: str = "") -> None:
    for number in range(count):
        exe.asset_file_path("Model", f"{prefix}{number}.bin").write_bytes(bytes([number]) * 1024)


def test_requests_to_create_catalog(fake: DerivaServer, count: Count) -> None:
    """A catalog with tables, annotations and terms takes at most eight requests, and opening it one."""
    login = fake.credential()
    assert count(lambda: DerivaML.create(fake.hostname, "demo", credential=login)) <= 8
    assert count(lambda: DerivaML(fake.hostname, "1", credential=login)) == 1


def test_requests_to_create_execution(ml: DerivaML, config: ExecutionConfiguration, count: Count) -> None:
    """An execution takes at most ten requests, with a new or an existing workflow."""

    def create() -> None:
        ml.create_execution(config)._runtime.background.drain()

    assert count(create) <= 10
    assert count(create) <= 10


def test_requests_for_input_files(ml: DerivaML, config: ExecutionConfiguration, fake: DerivaServer) -> None:
    """Thirty input files take as many requests as ten, and are recorded in order."""
    with ml.create_execution(config) as exe:
        stage(exe, 30)
    rids = [asset.rid for asset in exe.upload_execution_outputs()["Model"]]
    request_counts = []
    for few in (10, 30):
        fake.requests.clear()
        exe = ml.create_execution(ExecutionConfiguration(workflow=config.workflow, assets=rids[:few]))
        exe._runtime.background.drain()
        request_counts.append(len(fake.requests))
    assert request_counts[0] == request_counts[1]
    assert [asset.rid for asset in exe.list_assets("Input")] == [*exe.info.assets] == rids


def test_requests_of_a_run(exe: Execution, count: Count) -> None:
    """A status takes one request, and staging a file none."""
    assert count(exe.__enter__) == 1
    assert count(lambda: exe.update_status(Status.running, "halfway")) == 1
    assert count(lambda: stage(exe, 3)) == 0
    assert count(lambda: exe.__exit__(None, None, None)) == 1


@pytest.mark.parametrize(("files", "most"), [(1, 6), (10, 16), (100, 110)])
def test_requests_of_an_upload(exe: Execution, count: Count, files: int, most: int) -> None:
    """Rows, links and types of all files take three requests, and a later copy of the journal four."""
    with exe:
        stage(exe, files)
        assert count(exe.upload_execution_outputs) == files + 3 <= most
        exe.update_status(Status.completed)
    assert count(exe.upload_execution_outputs) <= 1  # the execution's row
    stage(exe, 1, "later")
    assert count(exe.upload_execution_outputs) <= 1 + 3 + 4 + 1


def test_unknown_workflow_type(ml: DerivaML, catalog: DerivaCatalog) -> None:
    """The catalog rejects an unknown type; the error lists the known ones, and nothing is written."""
    unknown = Workflow(name="w", workflow_type="Trianing", url="https://example.org/w.py", checksum="0" * 40)
    with pytest.raises(UnknownTerm, match=r"'Trianing'.*Training"):
        ml.create_execution(ExecutionConfiguration(workflow=unknown))
    assert catalog.select("Workflow") == catalog.select("Execution") == []


def test_requests_of_insert_missing(catalog: DerivaCatalog, count: Count) -> None:
    """New rows take one request, and existing ones another to read them."""
    rows = [{"Name": name, "Description": ""} for name in ("b", "a")]
    assert count(lambda: catalog.insert_missing(MLVocab.dataset_type, rows, "Name")) == 1
    assert count(lambda: catalog.insert_missing(MLVocab.dataset_type, rows, "Name")) == 2


def test_lost_response_of_insert_missing(catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """Rows whose response is lost are inserted once, and returned in order."""
    fake.faults.add(Fault(Harm.lose, "POST", "Dataset_Type"))
    rows = [{"Name": name, "Description": ""} for name in ("b", "a")]
    found = catalog.insert_missing(MLVocab.dataset_type, rows, "Name")
    assert [row["Name"] for row in found] == ["b", "a"]
    (rid,) = catalog.reserve(1)
    fake.faults.add(Fault(Harm.lose, "POST", "Workflow$"))
    (row,) = catalog.insert_missing("Workflow", [{"RID": rid, "Name": "w", "Workflow_Type": "Training"}], "RID")
    assert (row["RID"], row["Name"], row["URL"]) == (rid, "w", None)
    assert len(catalog.select("Workflow")) == 1


def test_journal_is_fetched_once(ml: DerivaML, exe: Execution, fake: DerivaServer) -> None:
    """What the journal of a run on another machine says takes one download, however often it is read."""
    with exe:
        stage(exe, 1)
    exe.upload_execution_outputs()
    shutil.rmtree(exe.working_dir)
    recorded = ml.lookup_execution(exe.execution_rid)
    fake.requests.clear()
    assert recorded.start_time is not None
    assert recorded.stop_time is not None
    assert [update.status for update in recorded.list_statuses()] == [Status.created, Status.running, Status.completed]
    assert recorded.info.stop_time == recorded.stop_time
    downloads = [
        request for request in fake.requests if request.path.startswith("/hatrac") and "journal.jsonl" in request.path
    ]
    assert len(downloads) == 1
