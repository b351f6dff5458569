"""Time of the calls on a running execution: status updates and registered files."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from benchmarks.baseline_table import BaselineTable
from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import execution_configuration, open_catalog
from benchmarks.scale import Scale
from benchmarks.timing import compare, repeat_calls
from deriva_ml import DerivaML, Execution, Status
from deriva_ml_core.backend import Backend, Catalog
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import Staged
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl, load_plugins


class CallCounter:
    """Plugin that counts calls of catalog methods."""

    def __init__(self) -> None:
        self.count = 0

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:  # noqa: ARG002 - pluggy requires the hook's argument
        """Wrap the catalog in a counter."""
        backend = yield
        return replace(backend, catalog=cast(Catalog, _CountedCatalog(backend.catalog, self)))


class _CountedCatalog:
    def __init__(self, catalog: object, counter: CallCounter) -> None:
        self._catalog, self._counter = catalog, counter

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._catalog, name)
        self._counter.count += callable(attribute)
        return attribute


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time calls on a running execution."""
    open_catalog(folder / "home").close()
    counter, plugins = CallCounter(), load_plugins({})
    plugins.register(counter)
    with DerivaML(f"file:{folder / 'home'}", plugins=plugins).create_execution(execution_configuration()) as exe:
        yield _measure_status(exe, BaselineTable(folder / "home" / "bare.sqlite"), scale)
        counter.count = 0
        yield _measure_registration(exe, Journal(exe.working_dir / "one_line.jsonl"), scale)
        yield Figure("catalog calls of asset_file_path", counter.count, "calls", target=0)


def _measure_status(exe: Execution, bare: BaselineTable, scale: Scale) -> Figure:
    time = "2026-11-22T21:40:00.000000+00:00"
    bare.insert([{"RID": exe.execution_rid, "RCT": time, "Status": "Running"}])
    comparison = compare(
        repeat_calls(lambda number: exe.update_status(Status.running, f"Epoch {number}"), scale.calls),
        repeat_calls(
            lambda number: bare.update(exe.execution_rid, Status="Running", Status_Detail=f"Epoch {number}", RMT=time),
            scale.calls,
        ),
        scale.rounds,
    )
    return comparison_figure("update_status", "one row updated with SQLAlchemy Core", comparison, target=3)


def _measure_registration(exe: Execution, journal: Journal, scale: Scale) -> Figure:
    exe.asset_file_path("Image", "first.png")
    line = Staged(asset=exe.staged_assets()[0])
    comparison = compare(
        repeat_calls(lambda number: exe.asset_file_path("Image", f"{number}.png"), scale.calls),
        repeat_calls(lambda _: journal.append(line), scale.calls),
        scale.rounds,
    )
    return comparison_figure("asset_file_path of a new file", "one line appended to a journal", comparison, target=10)
