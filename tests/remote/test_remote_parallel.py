"""Several files are on their way to a server at once: nothing is lost, sent twice or out of order by that."""

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

NAMES = [f"{number}.png" for number in range(9)]
IMAGES = "^/hatrac/Image/"


@pytest.fixture
def gate() -> Iterator[Event]:
    """What the server waits for; opened at the end of the test in any case."""
    event = Event()
    yield event
    event.set()


@pytest.fixture
def exe(ml: DerivaML, fake: DerivaServer) -> Execution:
    """A run that has ended with nine images, in a catalog that has had one before."""
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    made = ml.create_execution(ExecutionConfiguration(workflow=workflow, description="d"))
    with made:
        made.asset_file_path("Image", "first.png").write_text("first")
        made.upload_execution_outputs()  # the first object of a namespace goes alone
        for name in NAMES:
            made.asset_file_path("Image", name).write_text(name)
    fake.requests.clear()
    return made


def sent(fake: DerivaServer) -> list[str]:
    """The images that were sent, in the order of their arrival."""
    paths = (request.path for request in fake.requests if request.method == "PUT")
    return [path.rpartition("/")[2].partition(".")[2] for path in paths if path.startswith("/hatrac/Image/")]


def rows(fake: DerivaServer) -> list[list[str]]:
    """The images' names in each request that wrote rows of theirs."""
    posts = (request for request in fake.requests if request.method == "POST" and request.path.endswith(":Image"))
    return [[row["Filename"] for row in request.json()] for request in posts]


def check_complete(catalog: DerivaCatalog, fake: DerivaServer, names: list[str]) -> None:
    """Each file is stored once, has one row, one link and one type."""
    assert sorted(row["Filename"] for row in catalog.select("Image")) == sorted(names)
    assert len(catalog.select("Image_Execution")) == len(names)
    assert len(catalog.select("Image_Asset_Type")) == len(names)
    images = [held for name, held in fake.hatrac.objects.items() if name.startswith("/Image/")]
    assert [len(held.versions) for held in images] == [1] * len(names)


@pytest.mark.parametrize(("workers", "at_once"), [({}, 4), ({"upload_workers": 3}, 3), ({"upload_workers": 9}, 9)])
def test_at_once(exe: Execution, fake: DerivaServer, workers: dict[str, int], at_once: int) -> None:
    """So many files as are asked for, by default four, are with the server at the same time."""
    met = Barrier(at_once, timeout=60)
    fake.faults.add(Fault(Harm.call, "PUT", IMAGES, times=at_once, call=met.wait))
    assert len(exe.upload_execution_outputs(**workers)["Image"]) == len(NAMES)
    assert not met.broken


def test_one_by_one(exe: Execution, fake: DerivaServer) -> None:
    """One worker sends the files in the order of their registration, from the thread that asks."""
    exe.upload_execution_outputs(upload_workers=1)
    assert sent(fake) == NAMES


def test_rows_in_the_order_of_registration(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """The rows of all are written by one request, in the order in which the files were registered."""
    others = Barrier(2, timeout=60)
    fake.faults.add(Fault(Harm.call, "PUT", rf"{IMAGES}\w+\.0\.png$", call=others.wait))
    fake.faults.add(Fault(Harm.call, "PUT", rf"{IMAGES}\w+\.8\.png$", call=others.wait))  # the first waits for the last
    exe.upload_execution_outputs()
    assert rows(fake) == [NAMES]
    assert [row["Filename"] for row in catalog.select("Image", order=("RCT", "RID"))][1:] == NAMES


def test_a_file_that_fails(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """A file that the server refuses leaves the others going; it alone stays staged, and is named."""
    burnt = Answer.text(409, "The requested URL is not available.\n")
    fake.faults.add(Fault(Harm.answer, "PUT", rf"{IMAGES}\w+\.4\.png$", times=1000, reply=burnt))
    with pytest.raises(UploadFailed, match=r"1 files .*4\.png"):
        exe.upload_execution_outputs(retry_delay=0)
    assert [asset.filename for asset in exe.staged_assets()] == ["4.png"]
    assert rows(fake) == [[name for name in NAMES if name != "4.png"]]
    fake.faults.clear()
    exe.upload_execution_outputs()
    check_complete(catalog, fake, ["first.png", *NAMES])


def test_what_befalls_all_ends_the_pass(exe: Execution, fake: DerivaServer) -> None:
    """Where a login is wanted no worker begins another file, and all that is left says why."""
    fake.faults.add(Fault(Harm.answer, "PUT", IMAGES, times=1000, reply=Answer.text(401, "")))
    with pytest.raises(UploadFailed, match=r"9 files .*Log in with"):
        exe.upload_execution_outputs(retry_delay=0)
    assert 1 <= len(sent(fake)) <= 4
    assert len(exe.staged_assets()) == len(NAMES)


def test_connections_are_kept(exe: Execution, fake: DerivaServer) -> None:
    """A second upload, by threads of its own, makes no connection that the first has made."""
    met = Barrier(4, timeout=60)
    fake.faults.add(Fault(Harm.call, "PUT", IMAGES, times=4, call=met.wait))
    exe.upload_execution_outputs()
    before = len(fake.connections)
    for name in NAMES:
        exe.asset_file_path("Image", f"again-{name}").write_text(name)
    exe.upload_execution_outputs()
    assert len(fake.connections) == before


def test_progress(exe: Execution) -> None:
    """It counts each file once, in the thread that asked for the upload."""
    heard: list[tuple[int, int, int]] = []

    def hear(state: UploadProgress) -> None:
        heard.append((state.files_done, state.bytes_done, threading.get_ident()))

    exe.upload_execution_outputs(progress_callback=hear)
    size = len(NAMES[0])
    assert heard == [(count, count * size, threading.get_ident()) for count in range(len(NAMES) + 1)]


def test_a_callback_that_raises(exe: Execution, catalog: DerivaCatalog, fake: DerivaServer) -> None:
    """It ends the upload, as with one worker; the next upload sends the rest and nothing twice."""

    def hear(state: UploadProgress) -> None:
        if state.files_done == 2:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        exe.upload_execution_outputs(progress_callback=hear)
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


class Run:
    """A process that has six images and uploads them when it is told to."""

    def __init__(self, fake: DerivaServer, catalog: DerivaCatalog, chunk: int, then: str = UPLOAD) -> None:
        command = [sys.executable, "-c", RUN + then, fake.hostname, catalog.catalog_id, str(chunk)]
        pipe: Any = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.process.stdout is not None
        self.rid = self.process.stdout.readline().strip()

    def go(self) -> tuple[int, str]:
        """Upload; its exit status, and what it said of errors."""
        said = self.process.communicate("go\n", timeout=120)[1]
        return self.process.returncode, said

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)


def go_on(ml: DerivaML, run: Run, chunk: int) -> Execution:
    exe = ml.restore_execution(run.rid)
    exe.upload_execution_outputs(chunk_size=chunk, retry_delay=0)
    return exe


WHOLE, CHUNK = 2**20, 4096
SIX = ["first.png", *NAMES[:6]]


@pytest.mark.parametrize(("chunk", "where"), [(WHOLE, IMAGES), (CHUNK, r"^/hatrac/Image/.*;upload/\w+/2$")])
@pytest.mark.parametrize("skip", [0, 3])
def test_killed_with_several_in_flight(
    ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, chunk: int, where: str, skip: int
) -> None:
    """Three requests are done, their answers never heard; the next process sends no object twice, and all of them."""
    run = Run(fake, catalog, chunk)
    met = Barrier(3, action=lambda: run.signal(signal.SIGKILL), timeout=60)
    fake.faults.add(Fault(Harm.call, "PUT", where, times=3, skip=skip, call=met.wait))
    status, said = run.go()
    assert status == -signal.SIGKILL, said
    exe = go_on(ml, run, chunk)
    check_complete(catalog, fake, SIX)
    assert exe.staged_assets() == []
    assert fake.hatrac.jobs == {}


@pytest.mark.parametrize(("chunk", "where"), [(WHOLE, IMAGES), (CHUNK, r"^/hatrac/Image/.*;upload/\w+/1$")])
def test_interrupted_with_several_in_flight(
    ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, chunk: int, where: str, gate: Event
) -> None:
    """Ctrl-C ends the upload, and the process, while the server still keeps three files waiting; later it goes on."""
    run = Run(fake, catalog, chunk)
    met = Barrier(3, action=lambda: run.signal(signal.SIGINT), timeout=60)
    fake.faults.add(Fault(Harm.call, "PUT", where, times=3, call=lambda: (met.wait(), gate.wait())))
    status, said = run.go()
    assert "KeyboardInterrupt" in said
    assert status != 0
    assert rows(fake)[1:] == []
    gate.set()
    go_on(ml, run, chunk)
    check_complete(catalog, fake, SIX)
    assert fake.hatrac.jobs == {}


def test_a_script_that_ends_waits_for_its_upload(
    ml: DerivaML, fake: DerivaServer, catalog: DerivaCatalog, gate: Event
) -> None:
    """What is sent in the background, in several chunks, is sent to its end though the script has none left to run."""
    then = "exe.upload_execution_outputs(chunk_size=int(sys.argv[3]), wait=False, upload_workers=3)\n"
    run = Run(fake, catalog, CHUNK, then)
    status, said = run.go()
    assert status == 0, said
    check_complete(catalog, fake, SIX)
    assert ml.restore_execution(run.rid).staged_assets() == []
