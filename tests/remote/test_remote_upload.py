"""An upload to a server that stops halfway keeps all that is staged, and goes on without sending anything twice."""

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
    """A run that has ended with six images."""
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    made = ml.create_execution(ExecutionConfiguration(workflow=workflow, description="d"))
    with made:
        for name in NAMES:
            made.asset_file_path("Image", name).write_text(name)
    return made


def sent(fake: DerivaServer) -> list[str]:
    return [request.path for request in fake.requests if request.path.startswith("/hatrac/Image/")]


def check_complete(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """Every image is stored once, has one row and one link, and nothing is staged any more."""
    assert sorted(row["Filename"] for row in catalog.select("Image")) == NAMES
    assert len(catalog.select("Image_Execution")) == len(NAMES)
    assert len(catalog.select("Image_Asset_Type")) == len(NAMES)
    images = [held for name, held in fake.hatrac.objects.items() if name.startswith("/Image/")]
    assert [len(held.versions) for held in images] == [1] * len(NAMES)
    assert exe.staged_assets() == []
    assert not (Path(exe.working_dir) / "outputs").exists()


@pytest.mark.parametrize(("path", "after", "there"), [("^/hatrac/Image", 3, 3), ("^/ermrest/.*:Image$", 0, 6)])
def test_a_session_that_ends(
    exe: Execution, catalog: DerivaCatalog, fake: DerivaServer, path: str, after: int, there: int
) -> None:
    """What to do is said, at once; after a login the rest is sent."""
    fake.faults.add(Fault(Harm.answer, "PUT|POST", path, skip=after, times=1000, reply=Answer.text(401, "")))
    with pytest.raises(UploadFailed, match="Log in with"):
        exe.upload_execution_outputs(retry_delay=0)
    stored = {name for name in fake.hatrac.objects if name.startswith("/Image/")}
    assert len(stored) == there
    assert len(exe.staged_assets()) == len(NAMES) - after
    fake.faults.clear()
    fake.requests.clear()
    exe.upload_execution_outputs(retry_delay=0)
    assert not {name.removeprefix("/hatrac") for name in sent(fake)} & stored
    check_complete(exe, catalog, fake)


def test_a_storm(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """Where every third request is refused, breaks or loses its answer, the upload succeeds all the same."""
    for number, harm in enumerate((Harm.answer, Harm.reset, Harm.lose) * 3):
        fake.faults.add(Fault(harm, "PUT|POST|GET|HEAD", skip=3 * number))
    exe.upload_execution_outputs(max_retries=9, retry_delay=0)
    check_complete(exe, catalog, fake)


def test_a_store_that_is_down(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """After the repeats the upload says so and keeps the files; later it sends them."""
    fake.faults.add(Fault(Harm.answer, "PUT", "^/hatrac/Image", times=1000))
    with pytest.raises(UploadFailed, match="cannot process"):
        exe.upload_execution_outputs(max_retries=1, retry_delay=0, upload_workers=1)
    assert len(sent(fake)) == 2
    fake.faults.clear()
    exe.upload_execution_outputs()
    check_complete(exe, catalog, fake)


def test_no_right_to_the_store(exe: Execution, fake: DerivaServer) -> None:
    """Who may write rows and no objects is told whom to ask."""
    fake.hatrac.namespaces[""].acl.clear()
    with pytest.raises(UploadFailed, match="write access to the catalog does not include it"):
        exe.upload_execution_outputs(retry_delay=0)
