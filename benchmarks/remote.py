"""How many requests each step of a run on a Deriva server takes, and how long, where each answer takes 10 ms.

The server is the tests' fake one, on loopback; requests are the same on a real one, times are not. Beside each step
stands what it takes the existing client, deriva-ml of PyPI, on a real server; 1.17.10 took as many to upload here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.figures import Figure, compared
from benchmarks.measure import beside, seconds
from benchmarks.places import fresh_bytes
from benchmarks.scale import Scale
from deriva_ml import DerivaML, Execution, ExecutionConfiguration, Status, Workflow
from deriva_ml_core.backends.deriva.http import Server

if TYPE_CHECKING:
    from fakes.deriva_server import DerivaServer

LATENCY = 0.01
"""Seconds before each answer."""

CHUNK = 25 * 2**20

EXISTING = "the existing client"

THEIRS_FOR_100 = 421
"""The requests that it takes to upload 100 files, one after the other."""


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Take a run through its steps, one after the other."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from fakes.deriva_server import serving

    home = {"DERIVA_ML_HOME": str(folder / "home")}  # where bags are kept
    with patch.dict(os.environ, home), serving(folder / "hatrac", latency=LATENCY) as fake:
        yield from _Steps(fake, scale, folder).run()


class _Steps:
    """The steps of a run, each counted and timed.

    Args:
        fake: The server.
        scale: How many files there are, and how big the big one is.
        folder: Where files lie.
    """

    def __init__(self, fake: DerivaServer, scale: Scale, folder: Path) -> None:
        self.fake, self.scale, self.folder = fake, scale, folder
        self.taken = 0.0

    def run(self) -> Iterator[Figure]:
        login = self.fake.credential()
        yield self.counted("make a catalog with the whole schema", 8, lambda: self.create(login), theirs=76)
        ml = DerivaML(self.fake.hostname, "1", credential=login, working_dir=self.folder)
        yield self.counted("connect", 3, lambda: DerivaML(self.fake.hostname, "1", credential=login), theirs=2)
        workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
        config = ExecutionConfiguration(workflow=workflow, description="A benchmark")
        made = "create_execution with 2 metadata files"
        yield self.counted(made, 10, lambda: ml.create_execution(config), theirs=34)
        yield self.counted(f"{made}, of a known workflow", 10, lambda: ml.create_execution(config), theirs=34)
        exe = ml.create_execution(config)
        yield self.counted("enter and leave", 2, lambda: self.through(exe), theirs=8)
        exe = ml.create_execution(config)
        exe.__enter__()
        yield self.counted("update_status", 1, lambda: exe.update_status(Status.running, "halfway"), theirs=2)
        yield self.counted("asset_file_path", 0, lambda: self.file(exe, "0.bin", 1024), theirs=2)
        yield self.counted("upload 1 file of 1 KiB", 6, exe.upload_execution_outputs, theirs=25)
        yield from self.many(exe)
        yield from self.big(exe)
        yield self.counted("leave, with the journal's copy, which takes 4", 5, lambda: exe.__exit__(None, None, None))
        yield from self.bag(ml, exe)

    def counted(self, what: str, most: int, step: Callable[[], Any], *, theirs: int | None = None) -> Figure:
        """How many requests a step took, and how long."""
        self.fake.requests.clear()
        begun = perf_counter()
        step()
        self.taken = perf_counter() - begun
        note = f"{self.taken * 1000:.0f} ms"
        other = "" if theirs is None else EXISTING
        return Figure(what, len(self.fake.requests), "requests", other, theirs, target=most, note=note)

    def many(self, exe: Execution) -> Iterator[Figure]:
        """Small files, several of them on their way at once."""
        for count in sorted({min(10, self.scale.bags[0]), self.scale.bags[0]}):
            for number in range(count):
                self.file(exe, f"{count}-{number}.bin", 1024)
            what, most = f"upload {count} files of 1 KiB", count + (6 if count <= 10 else 10)
            theirs = {10: 61, 100: THEIRS_FOR_100}.get(count)
            yield self.counted(what, most, exe.upload_execution_outputs, theirs=theirs)
            if count == 100:
                waited = THEIRS_FOR_100 * LATENCY
                other = f"{EXISTING} waiting for its {THEIRS_FOR_100} answers, and doing nothing else"
                yield Figure(what, self.taken, "s", other, waited, self.taken / waited, 0.25)

    def through(self, exe: Execution) -> None:
        with exe:
            pass

    def create(self, login: dict[str, str]) -> None:
        DerivaML.create(self.fake.hostname, "benchmark", credential=login)

    def file(self, exe: Execution, name: str, size: int) -> None:
        exe.asset_file_path("Model", name).write_bytes(fresh_bytes(size))

    def big(self, exe: Execution) -> Iterator[Figure]:
        """One big file, beside its chunks and the job's end alone."""
        size = self.scale.big_bytes
        named, theirs = f"upload a file of {size / 2**20:g} MiB", 38 if size == 256 * 2**20 else None
        chunks = -(-size // CHUNK)
        self.file(exe, "big.bin", size)
        yield self.counted(named, chunks + 9, exe.upload_execution_outputs, theirs=theirs)

        def uploaded() -> float:
            self.file(exe, "big.bin", size)  # new bytes under its name
            return seconds(exe.upload_execution_outputs)

        taken = beside(uploaded, lambda: self.floor(size), min(3, self.scale.heavy_rounds))
        yield compared(named, "its chunks, sent one by one, and the job's end", taken, 1.5 if size > CHUNK else None)

    def floor(self, size: int) -> float:
        """Seconds for the chunks of other bytes, and for putting them together."""
        server = Server("http", self.fake.hostname.removeprefix("http://"), self.fake.credential())
        path = "/hatrac/floor/object"
        job = f'{{"chunk-length": {CHUNK}, "content-length": {size}}}'.encode()
        headers = {"Content-Type": "application/json"}
        begun = perf_counter()
        made = server.request("POST", f"{path};upload?parents=true", headers=headers, body=job).text.strip()
        for number, start in enumerate(range(0, size, CHUNK)):
            server.request("PUT", f"{made}/{number}", body=bytes(min(CHUNK, size - start)))
        server.request("POST", made)
        return perf_counter() - begun

    def bag(self, ml: DerivaML, exe: Execution) -> Iterator[Figure]:
        """A dataset brought for the first time, and again."""
        count = self.scale.bags[0]
        rows = ml.connection.catalog.select("Model", order=("RCT", "RID"), limit=count)
        dataset = exe.create_dataset(description="A benchmark", dataset_types=["Training"])
        ml.add_dataset_element_type("Model")
        dataset.add_dataset_members([row["RID"] for row in rows])
        cold, cached = (655, 115) if count == 100 else (None, None)
        yield self.counted(f"a bag of {count} files", count + 15, dataset.download_dataset_bag, theirs=cold)
        yield self.counted("the same bag again", 3, dataset.download_dataset_bag, theirs=cached)
