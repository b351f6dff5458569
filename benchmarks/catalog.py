"""What catalog calls cost beside SQLAlchemy Core, and whether they stay as quick among many executions as among few."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bare import BareTable
from benchmarks.figures import Figure, compared
from benchmarks.measure import beside, calls
from benchmarks.places import open_catalog
from benchmarks.scale import Scale
from deriva_ml import DerivaML
from deriva_ml_core.definitions import MLTable

NEWEST = 50


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time single calls on tables of several sizes, then public look-ups among the most against among the fewest."""
    filled = {size: _Filled(folder / str(size), size) for size in scale.executions}
    for size, here in filled.items():
        yield from _beside_core(here, f"among {size:,}", scale)
    few, many = min(filled), max(filled)
    for what, of in _LOOK_UPS.items():
        taken = beside(
            calls(_each(filled[many], of), scale.calls), calls(_each(filled[few], of), scale.calls), scale.rounds
        )
        yield compared(f"{what} among {many:,}", f"among {few:,}", taken, target=1.3)


class _Filled:
    """A catalog and a bare table with equally many executions."""

    def __init__(self, folder: Path, size: int) -> None:
        self.ml = open_catalog(folder)
        self.catalog = self.ml.connection.catalog
        self.bare = BareTable(folder / "bare.sqlite")
        workflow = {"Name": "Benchmark", "Workflow_Type": "Training", "URL": "https://example.org", "Checksum": "b"}
        row, _ = self.catalog.insert_unless(MLTable.workflow, {"URL": workflow["URL"]}, workflow)
        self.row = {"Workflow": row["RID"], "Description": "A run", "Status": "Completed", "Status_Detail": "Epoch 9"}
        self.catalog.insert(MLTable.execution, [self.row] * size)
        self.rids: list[str] = [found["RID"] for page in self.catalog.pages(MLTable.execution) for found in page]
        rows = [found for page in self.catalog.pages(MLTable.execution) for found in page]
        self.bare.insert(rows)
        self.like = rows[0]

    def rid(self, number: int) -> str:
        """One after another, in no order that a cache would like."""
        return self.rids[number * 7919 % len(self.rids)]


_LOOK_UPS: dict[str, Callable[[DerivaML, str], object]] = {
    "lookup_execution, its status read,": lambda ml, rid: ml.lookup_execution(rid).status,
    f"find_executions(limit={NEWEST}), each status read,": lambda ml, _: [
        found.status for found in ml.find_executions(limit=NEWEST)
    ],
}


def _each(here: _Filled, of: Callable[[DerivaML, str], object]) -> Callable[[int], object]:
    return lambda number: of(here.ml, here.rid(number))


def _beside_core(here: _Filled, among: str, scale: Scale) -> Iterator[Figure]:
    catalog, bare = here.catalog, here.bare
    pairs: dict[str, tuple[Callable[[int], object], Callable[[int], object]]] = {
        "select one row": (
            lambda number: catalog.select(MLTable.execution, {"RID": here.rid(number)}),
            lambda number: bare.select(here.rid(number)),
        ),
        f"select the newest {NEWEST}": (
            lambda _: catalog.select(MLTable.execution, order=("RCT", "RID"), descending=True, limit=NEWEST),
            lambda _: bare.newest(NEWEST),
        ),
        "update one row": (
            lambda number: catalog.update(MLTable.execution, [{"RID": here.rid(number), "Status_Detail": str(number)}]),
            lambda number: bare.update(here.rid(number), Status_Detail=str(number)),
        ),
        "insert one row": (
            lambda _: catalog.insert(MLTable.execution, [here.row]),
            lambda number: bare.insert([{**here.like, "RID": f"new-{number}"}]),
        ),
    }
    for what, (ours, core) in pairs.items():
        taken = beside(calls(ours, scale.calls), calls(core, scale.calls), scale.rounds)
        yield compared(f"{what} {among}", "SQLAlchemy Core, one bare table", taken)
