"""Requests and time of each step of a run on a Deriva server that answers after 10 ms.

The server is the tests' fake server on loopback. A real server gets the same requests, but takes other times. The
baseline of a step is the number of requests of the existing client, deriva-ml on PyPI, on a real server. Its version
1.17.10 sent as many requests to upload files to the fake server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import unique_bytes
from benchmarks.scale import Scale
from benchmarks.timing import compare, time_call
from deriva_ml import DerivaML, Execution, ExecutionConfiguration, Status, Workflow
from deriva_ml_core.backends.deriva.http import Server

if TYPE_CHECKING:
    from fakes.deriva_server import DerivaServer

LATENCY = 0.01
"""Seconds before each response."""

CHUNK = 25 * 2**20

EXISTING_CLIENT = "the existing client"

EXISTING_REQUESTS_FOR_100 = 421
"""Requests of the existing client to upload 100 files, one after the other."""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Measure the steps of a run in order."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from fakes.deriva_server import serving

    home = {"DERIVA_ML_HOME": str(folder / "home")}  # contains the cache of bags
    with patch.dict(os.environ, home), serving(folder / "hatrac", latency=LATENCY) as fake:
        yield from _Steps(fake, scale, folder).run()


class _Steps:
    """The steps of a run, each counted and timed.

    Args:
        fake: The server.
        scale: The numbers and sizes of files.
        folder: The folder for files.
    """

    def __init__(self, fake: DerivaServer, scale: Scale, folder: Path) -> None:
        self.fake, self.scale, self.folder = fake, scale, folder
        self.seconds = 0.0
        """Duration of the last step."""

    def run(self) -> Iterator[Figure]:
        login = self.fake.credential()
        yield self.measure("create a catalog with the whole schema", 8, lambda: self.create_catalog(login), existing=76)
        ml = DerivaML(self.fake.hostname, "1", credential=login, working_dir=self.folder)
        yield self.measure("connect", 3, lambda: DerivaML(self.fake.hostname, "1", credential=login), existing=2)
        workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
        config = ExecutionConfiguration(workflow=workflow, description="A benchmark")
        what = "create_execution with 2 metadata files"
        yield self.measure(what, 10, lambda: self.create(ml, config), existing=34)
        yield self.measure(f"{what}, of a known workflow", 10, lambda: self.create(ml, config), existing=34)
        exe = self.create(ml, config)
        yield self.measure("enter and exit", 2, lambda: self.enter_and_exit(exe), existing=8)
        exe = self.create(ml, config)
        exe.__enter__()
        yield self.measure("update_status", 1, lambda: exe.update_status(Status.running, "halfway"), existing=2)
        yield self.measure("asset_file_path", 0, lambda: self.write_file(exe, "0.bin", 1024), existing=2)
        yield self.measure("upload 1 file of 1 KiB", 6, exe.upload_execution_outputs, existing=25)
        yield from self.upload_small_files(exe)
        yield from self.upload_big_file(exe)
        yield self.measure("exit, with 4 requests to upload the journal", 5, lambda: exe.__exit__(None, None, None))
        yield from self.download_bag(ml, exe)

    def create(self, ml: DerivaML, config: ExecutionConfiguration) -> Execution:
        """Create an execution, and wait until its metadata files are uploaded in the background."""
        exe = ml.create_execution(config)
        exe._runtime.background.drain()
        return exe

    def measure(self, what: str, target: int, step: Callable[[], Any], *, existing: int | None = None) -> Figure:
        """Count the requests of a step and time it."""
        self.fake.requests.clear()
        self.seconds = time_call(step)
        note = f"{self.seconds * 1000:.0f} ms"
        floor = "" if existing is None else EXISTING_CLIENT
        return Figure(what, len(self.fake.requests), "requests", floor, existing, target=target, note=note)

    def upload_small_files(self, exe: Execution) -> Iterator[Figure]:
        """Measure uploads of small files, several of them at once."""
        for count in sorted({min(10, self.scale.bags[0]), self.scale.bags[0]}):
            for number in range(count):
                self.write_file(exe, f"{count}-{number}.bin", 1024)
            what, target = f"upload {count} files of 1 KiB", count + (6 if count <= 10 else 10)
            existing = {10: 61, 100: EXISTING_REQUESTS_FOR_100}.get(count)
            yield self.measure(what, target, exe.upload_execution_outputs, existing=existing)
            if count == 100:
                latency = EXISTING_REQUESTS_FOR_100 * LATENCY
                floor = f"latency of {EXISTING_REQUESTS_FOR_100} requests of {EXISTING_CLIENT}"
                yield Figure(what, self.seconds, "s", floor, latency, self.seconds / latency, 0.25)

    def enter_and_exit(self, exe: Execution) -> None:
        with exe:
            pass

    def create_catalog(self, login: dict[str, str]) -> None:
        DerivaML.create(self.fake.hostname, "benchmark", credential=login)

    def write_file(self, exe: Execution, name: str, size: int) -> None:
        exe.asset_file_path("Model", name).write_bytes(unique_bytes(size))

    def upload_big_file(self, exe: Execution) -> Iterator[Figure]:
        """Compare the upload of a big file with sending its chunks and completing the upload job."""
        size = self.scale.big_bytes
        what, existing = f"upload a file of {size / 2**20:g} MiB", 38 if size == 256 * 2**20 else None
        chunks = -(-size // CHUNK)
        self.write_file(exe, "big.bin", size)
        yield self.measure(what, chunks + 9, exe.upload_execution_outputs, existing=existing)

        def upload() -> float:
            self.write_file(exe, "big.bin", size)  # new bytes under the same name
            return time_call(exe.upload_execution_outputs)

        comparison = compare(upload, lambda: self.time_chunks(size), min(3, self.scale.heavy_rounds))
        target = 1.5 if size > CHUNK else None
        yield comparison_figure(what, "its chunks sent one by one, and the job completed", comparison, target)

    def time_chunks(self, size: int) -> float:
        """Return the seconds to send the chunks of a file and to complete the upload job."""
        server = Server("http", self.fake.hostname.removeprefix("http://"), self.fake.credential())
        path = "/hatrac/floor/object"
        job = f'{{"chunk-length": {CHUNK}, "content-length": {size}}}'.encode()
        headers = {"Content-Type": "application/json"}
        start_time = perf_counter()
        job_url = server.request("POST", f"{path};upload?parents=true", headers=headers, body=job).text.strip()
        for number, start in enumerate(range(0, size, CHUNK)):
            server.request("PUT", f"{job_url}/{number}", body=bytes(min(CHUNK, size - start)))
        server.request("POST", job_url)
        return perf_counter() - start_time

    def download_bag(self, ml: DerivaML, exe: Execution) -> Iterator[Figure]:
        """Measure the download of a dataset for the first time, and from the cache."""
        count = self.scale.bags[0]
        rows = ml.connection.catalog.select("Model", order=("RCT", "RID"), limit=count)
        dataset = exe.create_dataset(description="A benchmark", dataset_types=["Training"])
        ml.add_dataset_element_type("Model")
        dataset.add_dataset_members([row["RID"] for row in rows])
        cold, cached = (655, 115) if count == 100 else (None, None)
        yield self.measure(f"download a bag of {count} files", count + 15, dataset.download_dataset_bag, existing=cold)
        yield self.measure("download the same bag again", 3, dataset.download_dataset_bag, existing=cached)
