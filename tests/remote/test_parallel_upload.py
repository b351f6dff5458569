"""Parallel uploads to a server: no file is lost, sent twice or recorded out of order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from threading import Barrier, Event
from typing import Any

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import UploadFailed
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import UploadProgress
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm
from fakes.web import Answer
from waits import HANG

NAMES = [f"{number}.png" for number in range(9)]
IMAGES = "^/hatrac/Image/"


@pytest.fixture
def gate() -> Iterator[Event]:
    """Yield an event that the server waits for; it is set at the end of the test in any case."""
    event = Event()
    yield event
    event.set()


@pytest.fixture
def exe(ml: DerivaML, fake: DerivaServer) -> Execution:
    """Return a finished run with nine staged images, in a catalog that has one image already."""
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, description="d"))
    with exe:
        exe.asset_file_path("Image", "first.png").write_text("first")
        exe.upload_execution_outputs()  # the first object of a namespace is uploaded alone
        for name in NAMES:
            exe.asset_file_path("Image", name).write_text(name)
    fake.requests.clear()
    return exe


def sent_images(fake: DerivaServer) -> list[str]:
    """Return the names of the sent images, in order of arrival."""
    paths = (request.path for request in fake.requests if request.method == "PUT")
    return [path.rpartition("/")[2].partition(".")[2] for path in paths if path.startswith("/hatrac/Image/")]


def inserted_rows(fake: DerivaServer) -> list[list[str]]:
    """Return the images' names in each request that inserted their rows."""
    posts = (request for request in fake.requests if request.method == "POST" and request.path.endswith(":Image"))
    return [[row["Filename"] for row in request.json()] for request in posts]


def check_complete(catalog: DerivaCatalog, fake: DerivaServer, names: list[str]) -> None:
    """Check that each file is stored once, with one row, one link and one type."""
    assert sorted(row["Filename"] for row in catalog.select("Image")) == sorted(names)
    assert len(catalog.select("Image_Execution")) == len(names)
    assert len(catalog.select("Image_Asset_Type")) == len(names)
    images = [stored_object for name, stored_object in fake.hatrac.objects.items() if name.startswith("/Image/")]
    assert [len(stored_object.versions) for stored_object in images] == [1] * len(names)


@pytest.mark.parametrize(("workers", "parallel"), [({}, 4), ({"upload_workers": 3}, 3), ({"upload_workers": 9}, 9)])
def test_number_of_parallel_uploads(exe: Execution, fake: DerivaServer, workers: dict[str, int], parallel: int) -> None:
    """The server receives as many files in parallel as requested, four by default."""
    barrier = Barrier(parallel, timeout=HANG)
    fake.faults.add(Fault(Harm.call, "PUT", IMAGES, times=parallel, call=barrier.wait))
    assert len(exe.upload_execution_outputs(**workers)["Image"]) == len(NAMES)
    assert not barrier.broken


def test_one_by_one(exe: Execution, fake: DerivaServer) -> None:
    """One worker sends the files in order of registration."""
    exe.upload_execution_outputs(upload_workers=1)
    assert sent_images(fake) == NAMES


def test_rows_in_order_of_registration(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """One request inserts the rows of all files, in order of registration."""
    barrier = Barrier(2, timeout=HANG)
    fake.faults.add(Fault(Harm.call, "PUT", rf"{IMAGES}\w+\.0\.png$", call=barrier.wait))
    fake.faults.add(
        Fault(Harm.call, "PUT", rf"{IMAGES}\w+\.8\.png$", call=barrier.wait)
    )  # the first waits for the last
    exe.upload_execution_outputs()
    assert inserted_rows(fake) == [NAMES]
    assert [row["Filename"] for row in catalog.select("Image", order=("RCT", "RID"))][1:] == NAMES


def test_one_file_fails(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """If one file is refused, the others are uploaded; it stays staged, and the error names it."""
    burnt = Answer.text(409, "The requested URL is not available.\n")
    fake.faults.add(Fault(Harm.answer, "PUT", rf"{IMAGES}\w+\.4\.png$", times=1000, reply=burnt))
    with pytest.raises(UploadFailed, match=r"1 files .*4\.png"):
        exe.upload_execution_outputs(retry_delay=0)
    assert [asset.filename for asset in exe.staged_assets()] == ["4.png"]
    assert inserted_rows(fake) == [[name for name in NAMES if name != "4.png"]]
    fake.faults.clear()
    exe.upload_execution_outputs()
    check_complete(catalog, fake, ["first.png", *NAMES])


def test_expired_session_stops_the_upload(exe: Execution, fake: DerivaServer) -> None:
    """After an expired session no worker starts another file, and the error has the reason."""
    fake.faults.add(Fault(Harm.answer, "PUT", IMAGES, times=1000, reply=Answer.text(401, "")))
    with pytest.raises(UploadFailed, match=r"9 files .*Log in with"):
        exe.upload_execution_outputs(retry_delay=0)
    assert 1 <= len(sent_images(fake)) <= 4
    assert len(exe.staged_assets()) == len(NAMES)


def test_connections_are_reused(exe: Execution, fake: DerivaServer) -> None:
    """A second upload opens no new connections."""
    barrier = Barrier(4, timeout=HANG)
    fake.faults.add(Fault(Harm.call, "PUT", IMAGES, times=4, call=barrier.wait))
    exe.upload_execution_outputs()
    before = len(fake.connections)
    for name in NAMES:
        exe.asset_file_path("Image", f"again-{name}").write_text(name)
    exe.upload_execution_outputs()
    assert len(fake.connections) == before


def test_progress(exe: Execution) -> None:
    """The callback counts each file once, in the thread that called the upload."""
    calls: list[tuple[int, int, int]] = []

    def on_progress(state: UploadProgress) -> None:
        calls.append((state.files_done, state.bytes_done, threading.get_ident()))

    exe.upload_execution_outputs(progress_callback=on_progress)
    size = len(NAMES[0])
    assert calls == [(count, count * size, threading.get_ident()) for count in range(len(NAMES) + 1)]


def test_a_callback_that_raises(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """A callback that raises ends the upload; the next upload sends the rest, and nothing twice."""

    def on_progress(state: UploadProgress) -> None:
        if state.files_done == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        exe.upload_execution_outputs(progress_callback=on_progress)
    exe.upload_execution_outputs()
    check_complete(catalog, fake, ["first.png", *NAMES])


RUN = """
import sys
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

ml = DerivaML(sys.argv[1], sys.argv[2], credential={"cookie": "webauthn=test2"})
workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/t.py", checksum="0" * 40)
exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, description="d"))
with exe:
    exe.asset_file_path("Image", "first.png").write_text("first")
    exe.upload_execution_outputs()
    for number in range(6):
        exe.asset_file_path("Image", f"{number}.png").write_text(str(number) * 12_000)
    print(exe.execution_rid, flush=True)
    sys.stdin.readline()
"""

UPLOAD = "exe.upload_execution_outputs(chunk_size=int(sys.argv[3]), retry_delay=0, upload_workers=3)\n"


class UploadProcess:
    """A process with six staged images that uploads them on request."""

    def __init__(self, fake: DerivaServer, catalog: DerivaCatalog, chunk: int, then: str = UPLOAD) -> None:
        command = [sys.executable, "-c", RUN + then, fake.hostname, catalog.catalog_id, str(chunk)]
        pipe: Any = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None
        self.rid = self.process.stdout.readline().strip()

    def go(self) -> tuple[int, str]:
        """Start the upload; return the exit status and standard error."""
        stderr = self.process.communicate("go\n")[1]
        return self.process.returncode, stderr

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)


def complete_upload(ml: DerivaML, run: UploadProcess, chunk: int) -> Execution:
    exe = ml.restore_execution(run.rid)
    exe.upload_execution_outputs(chunk_size=chunk, retry_delay=0)
    return exe


WHOLE, CHUNK = 2**20, 4096
SIX = ["first.png", *NAMES[:6]]


@pytest.mark.parametrize(("chunk", "where"), [(WHOLE, IMAGES), (CHUNK, r"^/hatrac/Image/.*;upload/\w+/2$")])
@pytest.mark.parametrize("skip", [0, 3])
def test_killed_during_parallel_uploads(
    ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, chunk: int, where: str, skip: int
) -> None:
    """After a kill during three requests, the next process sends every object once."""
    run = UploadProcess(fake, catalog, chunk)
    barrier = Barrier(3, action=lambda: run.signal(signal.SIGKILL), timeout=HANG)
    fake.faults.add(Fault(Harm.call, "PUT", where, times=3, skip=skip, call=barrier.wait))
    status, stderr = run.go()
    assert status == -signal.SIGKILL, stderr
    exe = complete_upload(ml, run, chunk)
    check_complete(catalog, fake, SIX)
    assert exe.staged_assets() == []
    assert fake.hatrac.jobs == {}


@pytest.mark.parametrize(("chunk", "where"), [(WHOLE, IMAGES), (CHUNK, r"^/hatrac/Image/.*;upload/\w+/1$")])
def test_interrupted_during_parallel_uploads(
    ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, chunk: int, where: str, gate: Event
) -> None:
    """Ctrl-C ends the process although three requests wait; a later upload completes."""
    run = UploadProcess(fake, catalog, chunk)
    barrier = Barrier(3, action=lambda: run.signal(signal.SIGINT), timeout=HANG)
    fake.faults.add(Fault(Harm.call, "PUT", where, times=3, call=lambda: (barrier.wait(), gate.wait())))
    status, stderr = run.go()
    assert "KeyboardInterrupt" in stderr
    assert status != 0
    assert inserted_rows(fake)[1:] == []
    gate.set()
    complete_upload(ml, run, chunk)
    check_complete(catalog, fake, SIX)
    assert fake.hatrac.jobs == {}


def test_script_waits_for_background_upload(
    ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, gate: Event
) -> None:
    """A script that ends waits for its background upload."""
    then = "exe.upload_execution_outputs(chunk_size=int(sys.argv[3]), wait=False, upload_workers=3)\n"
    run = UploadProcess(fake, catalog, CHUNK, then)
    status, stderr = run.go()
    assert status == 0, stderr
    check_complete(catalog, fake, SIX)
    assert ml.restore_execution(run.rid).staged_assets() == []
