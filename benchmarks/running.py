"""What a running training pays: for each status, and for each file that it registers."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from benchmarks.bare import BareTable
from benchmarks.figures import Figure, compared
from benchmarks.measure import beside, calls
from benchmarks.places import configuration, open_catalog
from benchmarks.scale import Scale
from deriva_ml import DerivaML, Execution, Status
from deriva_ml_core.backend import Backend, Catalog
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import Staged
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl, load_plugins


class CallCounter:
    """A plugin that counts what is asked of the catalog beyond its cached model."""

    def __init__(self) -> None:
        self.count = 0

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:  # noqa: ARG002 - pluggy tells a hook by its arguments
        """Put a counter before the catalog."""
        backend = yield
        return replace(backend, catalog=cast(Catalog, _Counted(backend.catalog, self)))


class _Counted:
    def __init__(self, catalog: object, counter: CallCounter) -> None:
        self._catalog, self._counter = catalog, counter

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._catalog, name)
        self._counter.count += callable(found)
        return found


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time calls on a running execution."""
    open_catalog(folder / "home").close()
    counter, plugins = CallCounter(), load_plugins({})
    plugins.register(counter)
    with DerivaML(f"file:{folder / 'home'}", plugins=plugins).create_execution(configuration()) as exe:
        yield _status(exe, BareTable(folder / "home" / "bare.sqlite"), scale)
        counter.count = 0
        yield _registration(exe, Journal(exe.working_dir / "one_line.jsonl"), scale)
        yield Figure("catalog calls in these asset_file_path", counter.count, "calls", target=0)


def _status(exe: Execution, bare: BareTable, scale: Scale) -> Figure:
    time = "2026-11-22T21:40:00.000000+00:00"
    bare.insert([{"RID": exe.execution_rid, "RCT": time, "Status": "Running"}])
    taken = beside(
        calls(lambda number: exe.update_status(Status.running, f"Epoch {number}"), scale.calls),
        calls(
            lambda number: bare.update(exe.execution_rid, Status="Running", Status_Detail=f"Epoch {number}", RMT=time),
            scale.calls,
        ),
        scale.rounds,
    )
    return compared("update_status", "one row updated by SQLAlchemy Core", taken, target=3)


def _registration(exe: Execution, journal: Journal, scale: Scale) -> Figure:
    exe.asset_file_path("Image", "first.png")
    line = Staged(asset=exe.staged_assets()[0])
    taken = beside(
        calls(lambda number: exe.asset_file_path("Image", f"{number}.png"), scale.calls),
        calls(lambda _: journal.append(line), scale.calls),
        scale.rounds,
    )
    return compared("asset_file_path of a new file", "one line appended to a journal", taken, target=10)
