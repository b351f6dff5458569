"""Uploads that a server interrupts: staged files are kept, and nothing is sent_images twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import UploadFailed
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm
from fakes.web import Answer

NAMES = [f"{number}.png" for number in range(6)]


@pytest.fixture
def exe(ml: DerivaML) -> Execution:
    """Return a finished run with six staged images."""
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, description="d"))
    with exe:
        for name in NAMES:
            exe.asset_file_path("Image", name).write_text(name)
    return exe


def sent_images(fake: DerivaServer) -> list[str]:
    """Return the paths of the image objects in the requests."""
    return [request.path for request in fake.requests if request.path.startswith("/hatrac/Image/")]


def check_complete(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """Check that every image is stored once, with one row and one link, and that none is staged."""
    assert sorted(row["Filename"] for row in catalog.select("Image")) == NAMES
    assert len(catalog.select("Image_Execution")) == len(NAMES)
    assert len(catalog.select("Image_Asset_Type")) == len(NAMES)
    images = [stored_object for name, stored_object in fake.hatrac.objects.items() if name.startswith("/Image/")]
    assert [len(stored_object.versions) for stored_object in images] == [1] * len(NAMES)
    assert exe.staged_assets() == []
    assert not (Path(exe.working_dir) / "outputs").exists()


@pytest.mark.parametrize(("path", "after", "stored_count"), [("^/hatrac/Image", 3, 3), ("^/ermrest/.*:Image$", 0, 6)])
def test_session_expires_during_upload(
    exe: Execution, catalog: DerivaCatalog, fake: DerivaServer, path: str, after: int, stored_count: int
) -> None:
    """An expired session raises an error that names the login command; after a login the rest is sent."""
    fake.faults.add(Fault(Harm.answer, "PUT|POST", path, skip=after, times=1000, reply=Answer.text(401, "")))
    with pytest.raises(UploadFailed, match="Log in with"):
        exe.upload_execution_outputs(retry_delay=0)
    stored = {name for name in fake.hatrac.objects if name.startswith("/Image/")}
    assert len(stored) == stored_count
    assert len(exe.staged_assets()) == len(NAMES) - after
    fake.faults.clear()
    fake.requests.clear()
    exe.upload_execution_outputs(retry_delay=0)
    assert not {name.removeprefix("/hatrac") for name in sent_images(fake)} & stored
    check_complete(exe, catalog, fake)


def test_many_failing_requests(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """An upload succeeds although many requests are refused, reset or lose their response."""
    for number, harm in enumerate((Harm.answer, Harm.reset, Harm.lose) * 3):
        fake.faults.add(Fault(harm, "PUT|POST|GET|HEAD", skip=3 * number))
    exe.upload_execution_outputs(max_retries=9, retry_delay=0)
    check_complete(exe, catalog, fake)


def test_unavailable_store(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """If the store stays unavailable, the upload fails and keeps the files; a later upload sends them."""
    fake.faults.add(Fault(Harm.answer, "PUT", "^/hatrac/Image", times=1000))
    with pytest.raises(UploadFailed, match="cannot process"):
        exe.upload_execution_outputs(max_retries=1, retry_delay=0, upload_workers=1)
    assert len(sent_images(fake)) == 2
    fake.faults.clear()
    exe.upload_execution_outputs()
    check_complete(exe, catalog, fake)


def test_no_permission_for_objects(exe: Execution, fake: DerivaServer) -> None:
    """A user without object permissions is told whom to ask for them."""
    fake.hatrac.namespaces[""].acl.clear()
    with pytest.raises(UploadFailed, match="write access to the catalog does not include it"):
        exe.upload_execution_outputs(retry_delay=0)
