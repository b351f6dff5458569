"""Several processes on one embedded catalog: all succeed, none disturbs another, and nothing is recorded twice."""

from __future__ import annotations

import multiprocessing
import traceback
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest

from deriva_ml_core.backend import Backend, ObjectStore
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl, load_plugins
from deriva_ml_core.workflow import Workflow
from waits import HANG

FORK = multiprocessing.get_context("fork")


def run_in_processes(count: int, work: Callable[[int], None]) -> None:
    """Run a function in several processes that start together; an exception of one fails the test."""
    barrier = FORK.Barrier(count)
    pipes = [FORK.Pipe(duplex=False) for _ in range(count)]
    children = [
        FORK.Process(target=_work, args=(number, work, barrier, sender)) for number, (_, sender) in enumerate(pipes)
    ]
    for child in children:
        child.start()
    tracebacks = [receiver.recv() for receiver, _ in pipes]
    for child in children:
        child.join()
    assert [each for each in tracebacks if each] == []


def _work(number: int, work: Callable[[int], None], barrier: Barrier, sender: Connection) -> None:
    try:
        barrier.wait(HANG)
        work(number)
    except BaseException:
        sender.send(traceback.format_exc())
    else:
        sender.send("")


def workflow() -> Workflow:
    return Workflow(name="Shared", workflow_type="Training", url="https://example.org/shared.py", checksum="c0ffee")


def run_many(executions: int, files: int) -> Callable[[int], None]:
    """Return a function that runs several executions with several files, one of which is equal in all runs."""

    def work(process: int) -> None:
        ml = DerivaML()
        for run in range(executions):
            config = ExecutionConfiguration(workflow=workflow(), description=f"{process}/{run}")
            with ml.create_execution(config) as exe:
                exe.asset_file_path("Model", "same.txt").write_text("the same in all runs")
                for number in range(1, files):
                    name = f"{process}-{run}-{number}.txt"
                    exe.asset_file_path("Model", name, asset_types=["Model_File"]).write_text(name)
            assert len(exe.upload_execution_outputs()["Model"]) == files

    return work


def check_many(home: Path, processes: int, executions: int, files: int) -> None:
    """Check that every run is completed with all its files, and each file has one row and one object."""
    ml = DerivaML()
    found = ml.find_executions()
    runs = processes * executions
    expected = {f"{process}/{run}" for process in range(processes) for run in range(executions)}
    assert Counter(exe.description for exe in found) == Counter(expected)
    assert {exe.status for exe in found} == {Status.completed}
    assert len(ml.find_workflows()) == 1
    rows = {row["RID"]: row["Filename"] for row in ml.select_rows("Model")}
    links = Counter(rows[link["Model"]] for link in ml.select_rows("Model_Execution"))
    assert links.pop("same.txt") == runs
    assert len(rows) == len(links) + 1 == runs * (files - 1) + 1
    assert set(links.values()) == {1}
    assert len(ml.select_rows("Model_Asset_Type")) == len(rows)
    for exe in found:
        names = {asset.filename for asset in exe.list_assets("Output") if asset.table == "Model"}
        run = exe.description.replace("/", "-")
        assert names == {"same.txt", *(f"{run}-{number}.txt" for number in range(1, files))}
    stored = {row["MD5"] for table in ("Model", "Execution_Metadata") for row in ml.select_rows(table)}
    assert {path.name for path in (home / "local" / "objects").rglob("*") if path.is_file()} == stored


@pytest.mark.parametrize(
    ("processes", "executions", "files"),
    [pytest.param(4, 5, 5, id="some"), pytest.param(8, 50, 10, id="many", marks=pytest.mark.long)],
)
def test_concurrent_runs(ml: DerivaML, home: Path, processes: int, executions: int, files: int) -> None:
    """All runs succeed without a lock error, and nothing is recorded twice."""
    run_in_processes(processes, run_many(executions, files))
    check_many(home, processes, executions, files)


def test_concurrent_creation_of_a_catalog(home: Path) -> None:
    """Eight processes open a missing catalog at once, and each records its run in the same one."""
    assert not home.exists()
    run_in_processes(8, run_many(1, 2))
    check_many(home, 8, 1, 2)
    assert [path.name for path in (home / "local").glob(".catalog-*")] == []


@dataclass
class CountingStore:
    """A store in which an upload waits shortly for another one, and which counts concurrent uploads."""

    store: ObjectStore
    inside: list[str] = field(default_factory=list)
    most: int = 0
    second: Event = field(default_factory=Event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def put(self, table: str, filename: str, *arguments: Any, **named: Any) -> Any:
        self.inside.append(filename)
        self.most = max(self.most, len(self.inside))
        if len(self.inside) > 1:
            self.second.set()
        self.second.wait(0.3)
        try:
            return self.store.put(table, filename, *arguments, **named)
        finally:
            self.inside.remove(filename)


@dataclass
class CountingStorePlugin:
    """Wraps the store of a backend in a `CountingStore`."""

    store_wrapper: CountingStore | None = None

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:
        backend = yield
        self.store_wrapper = CountingStore(backend.store)
        return replace(backend, store=self.store_wrapper)  # type: ignore[arg-type]


def test_uploads_of_one_execution_do_not_overlap(ml: DerivaML) -> None:
    """Two clients that upload one execution at once are never in the store together and upload each file once."""
    plugin = CountingStorePlugin()
    plugins = load_plugins({})
    with ml.create_execution(ExecutionConfiguration(workflow=workflow())) as exe:
        for name in "ab":
            exe.asset_file_path("Model", name).write_text(name)
    plugins.register(plugin)
    client = DerivaML(plugins=plugins)
    uploads = [client.restore_execution(exe.execution_rid).upload_execution_outputs(wait=False) for _ in range(2)]
    sent = [asset.filename for upload in uploads for asset in upload.result(HANG).get("Model", [])]
    assert sorted(sent) == ["a", "b"]
    assert plugin.store_wrapper is not None
    assert plugin.store_wrapper.most == 1


class ReportingDataset:
    """A torch dataset whose items report and register a file in an execution.

    Args:
        exe: The execution.
        size: Number of items.
    """

    def __init__(self, exe: Execution, size: int) -> None:
        self.exe = exe
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        self.exe.update_status(Status.running, f"item {index}")
        self.exe.asset_file_path("Execution_Asset", f"{index}.txt").write_text(str(index))
        return index


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_execution_in_data_loader_workers(ml: DerivaML, method: str) -> None:
    """Workers report and register in the execution of the training, at the same time as the training."""
    data = pytest.importorskip("torch.utils.data", reason="needs torch")
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow()))
    with exe:
        loader: Any = data.DataLoader(ReportingDataset(exe, 6), num_workers=2, multiprocessing_context=method)
        for batch in loader:
            exe.update_status(Status.running, f"batch {int(batch)}")
        exe.asset_file_path("Model", "m.pt").write_bytes(b"m")
    sent = exe.upload_execution_outputs()
    assert sorted(asset.filename for asset in sent["Execution_Asset"]) == [f"{index}.txt" for index in range(6)]
    assert [asset.filename for asset in sent["Model"]] == ["m.pt"]
    messages = Counter(update.message for update in exe.list_statuses() if update.message)
    assert messages == Counter(f"{word} {index}" for word in ("item", "batch") for index in range(6))
    (row,) = ml.select_rows("Execution", {"RID": exe.execution_rid})
    assert row["Status"] == "Completed"
