"""How many requests each step of a run on a Deriva server takes, and how long, where each answer takes 10 ms.

The server is the tests' fake one, on loopback; requests are the same on a real one, times are not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.figures import Figure
from benchmarks.places import fresh_bytes
from benchmarks.scale import Scale
from deriva_ml import DerivaML, Execution, ExecutionConfiguration, Status, Workflow
from deriva_ml_core.backends.remote.server import Server

if TYPE_CHECKING:
    from fakes.deriva_server import DerivaServer

LATENCY = 0.01
"""Seconds before each answer."""

CHUNK = 25 * 2**20


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
        yield self.counted("make a catalog with the whole schema", 8, lambda: self.create(login))
        ml = DerivaML(self.fake.hostname, "1", credential=login, working_dir=self.folder)
        yield self.counted("connect", 3, lambda: DerivaML(self.fake.hostname, "1", credential=login))
        workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
        config = ExecutionConfiguration(workflow=workflow, description="A benchmark")
        yield self.counted("create_execution with 2 metadata files", None, lambda: ml.create_execution(config))
        exe = ml.create_execution(config)
        yield self.counted("enter", 1, exe.__enter__)
        yield self.counted("update_status", 1, lambda: exe.update_status(Status.running, "halfway"))
        yield self.counted("asset_file_path", 0, lambda: self.file(exe, "0.bin", 1024))
        yield self.counted("upload 1 file of 1 KiB", 6, exe.upload_execution_outputs)
        for count in sorted({min(10, self.scale.bags[0]), self.scale.bags[0]}):
            for number in range(count):
                self.file(exe, f"{count}-{number}.bin", 1024)
            most = count + (6 if count <= 10 else 10)
            yield self.counted(f"upload {count} files of 1 KiB", most, exe.upload_execution_outputs)
        yield from self.big(exe)
        yield self.counted("leave, with the journal's copy", 7, lambda: exe.__exit__(None, None, None))
        yield from self.bag(ml, exe)

    def counted(self, what: str, most: int | None, step: Callable[[], Any]) -> Figure:
        """How many requests a step took, and how long."""
        self.fake.requests.clear()
        begun = perf_counter()
        step()
        self.taken = perf_counter() - begun
        note = f"{self.taken * 1000:.0f} ms"
        return Figure(what, len(self.fake.requests), "requests", target=most, note=note)

    def create(self, login: dict[str, str]) -> None:
        DerivaML.create(self.fake.hostname, "benchmark", credential=login)

    def file(self, exe: Execution, name: str, size: int) -> None:
        exe.asset_file_path("Model", name).write_bytes(fresh_bytes(size))

    def big(self, exe: Execution) -> Iterator[Figure]:
        """One big file, beside its chunks and the job's end alone."""
        size = self.scale.big_bytes
        self.file(exe, "big.bin", size)
        chunks = -(-size // CHUNK)
        counted = self.counted(f"upload a file of {size / 2**20:g} MiB", chunks + 9, exe.upload_execution_outputs)
        yield counted
        taken, floor = self.taken, self.floor(size)
        what, beside = f"upload a file of {size / 2**20:g} MiB", "its chunks, sent one by one, and the job's end"
        yield Figure(what, taken, "s", beside, floor, taken / floor, 1.5 if size > CHUNK else None)

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
        yield self.counted(f"a bag of {count} files", count + 15, dataset.download_dataset_bag)
        yield self.counted("the same bag again", 3, dataset.download_dataset_bag)
