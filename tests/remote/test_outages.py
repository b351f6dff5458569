"""Server outages during a run: the run continues, and everything is synchronised afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import CatalogUnavailable, DerivaMLException, LoginRequired, UploadFailed
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm
from fakes.web import Answer
from waits import HANG

ENDED = Fault(Harm.answer, times=10_000, reply=Answer.text(401, "Authentication required."))
GONE = Fault(Harm.reset, times=10_000)


@pytest.fixture
def ml(catalog: DerivaCatalog, fake: DerivaServer) -> DerivaML:
    """Return a client that waits only briefly for background writes at the end of a run."""
    return DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential("test2"), exit_timeout=0.5)


@pytest.fixture
def config() -> ExecutionConfiguration:
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    return ExecutionConfiguration(workflow=workflow, description="d")


def check_recorded(catalog: DerivaCatalog, fake: DerivaServer, rid: str) -> None:
    """Check that the run and its file are recorded once."""
    (row,) = catalog.select("Execution")
    assert (row["RID"], row["Status"]) == (rid, "Completed")
    assert [row["Filename"] for row in catalog.select("Model")] == ["m.pt"]
    assert len(catalog.select("Model_Execution")) == len(catalog.select("Model_Asset_Type")) == 1
    models = [stored_object for name, stored_object in fake.hatrac.objects.items() if name.startswith("/Model/")]
    assert [len(stored_object.versions) for stored_object in models] == [1]


@pytest.mark.parametrize(
    ("fault", "message"),
    # the second message if the background row sync is waiting for a response
    [(ENDED, "Log in with"), (GONE, "cannot be reached|has not responded for 0.5 seconds")],
    ids=["401", "reset"],
)
def test_outage_at_end_of_run(
    ml: DerivaML,
    config: ExecutionConfiguration,
    catalog: DerivaCatalog,
    fake: DerivaServer,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    message: str,
) -> None:
    """Neither statuses nor the end of a run raise during an outage; a later upload sends everything."""
    exe = ml.create_execution(config)
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
        fake.faults.add(fault)
        exe.update_status(Status.running, "in the dark")
        exe.update_status(Status.running, "still dark")
    assert exe.status is Status.completed
    assert caplog.text.count("Failed to write the status") == 1
    with pytest.raises(DerivaMLException, match=message):
        exe.upload_execution_outputs(retry_delay=0, max_retries=0)
    assert [asset.filename for asset in exe.staged_assets()] == ["m.pt"]
    fake.faults.clear()
    exe.upload_execution_outputs()
    found = DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential("test2"))
    messages = [update.message for update in found.lookup_execution(exe.execution_rid).list_statuses()]
    assert messages == ["", "", "in the dark", "still dark", ""]
    check_recorded(catalog, fake, exe.execution_rid)


def test_messages_name_the_catalog(
    ml: DerivaML,
    config: ExecutionConfiguration,
    catalog: DerivaCatalog,
    fake: DerivaServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The messages at the end of a run name a call and a command with the number of the catalog."""
    with pytest.raises(ValueError, match="stop"), ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
        raise ValueError("stop")
    call = f"DerivaML('http://localhost:{fake.port}', '{catalog.catalog_id}').restore_execution('{exe.execution_rid}')"
    assert f"{call}.upload_execution_outputs() or " in caplog.text
    options = f"--host http://localhost:{fake.port} --catalog {catalog.catalog_id}"
    assert f" or `deriva-ml upload {exe.execution_rid} {options}`" in caplog.text
    caplog.clear()
    with ml.create_execution(config) as exe:
        fake.faults.add(GONE)
    assert f"DerivaML('http://localhost:{fake.port}', '{catalog.catalog_id}').restore_execution(" in caplog.text
    assert exe.execution_rid in caplog.text


@pytest.mark.parametrize("status", [401, 403])
def test_refused_login_is_not_repeated(
    ml: DerivaML, config: ExecutionConfiguration, catalog: DerivaCatalog, fake: DerivaServer, status: int
) -> None:
    """A login that ends, or rights that are taken, during a run cost a few requests, however many statuses are set."""
    with ml.create_execution(config) as exe:
        fake.faults.add(Fault(Harm.answer, times=10_000, reply=Answer.text(status, "Access refused.")))
        exe._runtime.background.drain()
        fake.requests.clear()
        for number in range(60):
            exe.update_status(Status.running, str(number), wait=number % 3 == 0)
        exe._runtime.background.drain()
        assert 1 <= len(fake.requests) <= 3
        fake.requests.clear()
    assert 1 <= len(fake.requests) <= 3  # the end of the run tries again
    fake.faults.clear()
    exe.upload_execution_outputs()
    (row,) = catalog.select("Execution")
    assert row["Status"] == "Completed"


def test_session_expires_during_creation(
    ml: DerivaML,
    config: ExecutionConfiguration,
    catalog: DerivaCatalog,
    fake: DerivaServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A session that expires before the row exists fails the creation; later, the records wait for the next upload."""
    fake.faults.add(Fault(Harm.answer, "PUT", "^/hatrac/", times=100, reply=Answer.text(401, "")))
    first = ml.create_execution(config)
    assert first._runtime.background._records_upload is not None
    first._runtime.background._records_upload[1].result(timeout=HANG)
    assert "Log in with" in caplog.text
    assert f"DerivaML('http://localhost:{fake.port}', '{catalog.catalog_id}').restore_execution(" in caplog.text
    fake.faults.clear()
    first.upload_execution_outputs()
    assert len(catalog.select("Execution_Metadata_Execution")) >= 2
    fake.faults.add(Fault(Harm.answer, "POST", "ERMrest_RID_Lease", times=100, reply=Answer.text(401, "")))
    with pytest.raises(LoginRequired, match="Log in with"):
        ml.create_execution(config)
    fake.faults.clear()
    assert len(catalog.select("Execution")) == 1
    exe = ml.create_execution(config)
    assert len(catalog.select("Execution")) == 2
    assert len(catalog.select("Workflow")) == 1
    assert exe.status is Status.created


def test_aborted_writes_during_creation(
    ml: DerivaML, config: ExecutionConfiguration, catalog: DerivaCatalog, fake: DerivaServer
) -> None:
    """If every second write is aborted, each row still exists once."""
    for number in range(20):
        fake.faults.add(Fault(Harm.answer, "PUT|POST", "^/ermrest/", skip=number))
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
    exe.upload_execution_outputs()
    check_recorded(catalog, fake, exe.execution_rid)
    assert len(catalog.select("Workflow")) == 1
    filenames = [row["Filename"] for row in catalog.select("Execution_Metadata")]
    assert len(filenames) == len(set(filenames)) == len(catalog.select("Execution_Metadata_Execution"))


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/Model_Execution$|:Model_Execution$", "is not linked to execution"),
        (":Model_Asset_Type$", "has no asset type"),
    ],
    ids=["link", "types"],
)
def test_half_rows_are_named_and_completed(
    ml: DerivaML, config: ExecutionConfiguration, catalog: DerivaCatalog, fake: DerivaServer, path: str, problem: str
) -> None:
    """A file whose upload ends between its row, link and types is a problem until the next upload completes it."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
    fake.faults.add(Fault(Harm.answer, "POST", path, times=10_000, reply=Answer.text(403, "Access refused.")))
    with pytest.raises(UploadFailed):
        exe.upload_execution_outputs()
    (row,) = catalog.select("Model")
    for found in (ml.verify(exe.execution_rid), ml.verify()):
        (half,) = found.problems
        assert (half.what, half.table, half.rid, half.name) == ("row", "Model", row["RID"], "m.pt")
        assert half.problem.startswith(problem)
        assert f"`deriva-ml upload --host http://localhost:{fake.port} --catalog {catalog.catalog_id}`" in half.problem
    fake.faults.clear()
    exe.upload_execution_outputs()
    assert ml.verify().problems == ()
    check_recorded(catalog, fake, exe.execution_rid)


def test_outage_during_workflow_registration(ml: DerivaML, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """During an outage no workflow is written; later it is registered once."""
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    fake.faults.add(GONE)
    with pytest.raises(CatalogUnavailable, match="try again later"):
        ml.add_workflow(workflow)
    fake.faults.clear()
    assert catalog.select("Workflow") == []
    assert ml.add_workflow(workflow) == ml.add_workflow(workflow)
    assert len(catalog.select("Workflow")) == 1


def test_bag_with_failing_downloads(ml: DerivaML, config: ExecutionConfiguration, fake: DerivaServer) -> None:
    """Each object fails once, in a different way, and the bag still has all files."""
    contents = {f"{number}.png": bytes([number]) * 1000 for number in range(4)}
    with ml.create_execution(config) as exe:
        for name, content in contents.items():
            exe.asset_file_path("Image", name).write_bytes(content)
    images = exe.upload_execution_outputs()["Image"]
    ml.add_dataset_element_type("Image")
    dataset = exe.create_dataset("images")
    dataset.add_dataset_members([asset.rid for asset in images])
    for asset, harm in zip(images, (Harm.answer, Harm.reset, Harm.truncate, Harm.damage), strict=True):
        fake.faults.add(Fault(harm, "GET", f"^{asset.url.rpartition(':')[0]}", keep=100))
    members = dataset.download_dataset_bag().list_dataset_members()["Image"]
    assert {Path(row["Filename"]).name: Path(row["Filename"]).read_bytes() for row in members} == contents
