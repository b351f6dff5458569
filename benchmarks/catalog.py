"""Time of catalog calls compared with SQLAlchemy Core, and in large catalogs compared with small ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.baseline_table import BaselineTable
from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import open_catalog
from benchmarks.scale import Scale
from benchmarks.timing import compare, repeat_calls
from deriva_ml import DerivaML
from deriva_ml_core.definitions import MLTable

NEWEST = 50


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time single calls on tables of several sizes, then public look-ups in the largest and the smallest catalog."""
    catalogs = {size: _FilledCatalog(folder / str(size), size) for size in scale.executions}
    for size, catalog in catalogs.items():
        yield from _compare_with_core(catalog, f"among {size:,}", scale)
    few, many = min(catalogs), max(catalogs)
    for what, look_up in _LOOK_UPS.items():
        comparison = compare(
            repeat_calls(_call_with_rid(catalogs[many], look_up), scale.calls),
            repeat_calls(_call_with_rid(catalogs[few], look_up), scale.calls),
            scale.rounds,
        )
        yield comparison_figure(f"{what} among {many:,}", f"among {few:,}", comparison, target=1.3)


class _FilledCatalog:
    """A catalog and a baseline table with the same number of executions."""

    def __init__(self, folder: Path, size: int) -> None:
        self.ml = open_catalog(folder)
        self.catalog = self.ml.connection.catalog
        self.bare = BaselineTable(folder / "bare.sqlite")
        workflow = {"Name": "Benchmark", "Workflow_Type": "Training", "URL": "https://example.org", "Checksum": "b"}
        row, _ = self.catalog.insert_unless(MLTable.workflow, {"URL": workflow["URL"]}, workflow)
        self.row = {"Workflow": row["RID"], "Description": "A run", "Status": "Completed", "Status_Detail": "Epoch 9"}
        self.catalog.insert(MLTable.execution, [self.row] * size)
        rows = [row for page in self.catalog.pages(MLTable.execution) for row in page]
        self.rids: list[str] = [row["RID"] for row in rows]
        self.bare.insert(rows)
        self.template = rows[0]

    def rid(self, number: int) -> str:
        """Return the RID for a call's number, in an order that defeats caches."""
        return self.rids[number * 7919 % len(self.rids)]


_LOOK_UPS: dict[str, Callable[[DerivaML, str], object]] = {
    "lookup_execution and read its status": lambda ml, rid: ml.lookup_execution(rid).status,
    f"find_executions(limit={NEWEST}) and read each status": lambda ml, _: [
        execution.status for execution in ml.find_executions(limit=NEWEST)
    ],
}


def _call_with_rid(filled: _FilledCatalog, look_up: Callable[[DerivaML, str], object]) -> Callable[[int], object]:
    return lambda number: look_up(filled.ml, filled.rid(number))


def _compare_with_core(filled: _FilledCatalog, among: str, scale: Scale) -> Iterator[Figure]:
    catalog, bare = filled.catalog, filled.bare
    pairs: dict[str, tuple[Callable[[int], object], Callable[[int], object]]] = {
        "select one row": (
            lambda number: catalog.select(MLTable.execution, {"RID": filled.rid(number)}),
            lambda number: bare.select(filled.rid(number)),
        ),
        f"select the newest {NEWEST}": (
            lambda _: catalog.select(MLTable.execution, order=("RCT", "RID"), descending=True, limit=NEWEST),
            lambda _: bare.newest(NEWEST),
        ),
        "update one row": (
            lambda number: catalog.update(
                MLTable.execution, [{"RID": filled.rid(number), "Status_Detail": str(number)}]
            ),
            lambda number: bare.update(filled.rid(number), Status_Detail=str(number)),
        ),
        "insert one row": (
            lambda _: catalog.insert(MLTable.execution, [filled.row]),
            lambda number: bare.insert([{**filled.template, "RID": f"new-{number}"}]),
        ),
    }
    for what, (call, core_call) in pairs.items():
        comparison = compare(repeat_calls(call, scale.calls), repeat_calls(core_call, scale.calls), scale.rounds)
        yield comparison_figure(f"{what} {among}", "SQLAlchemy Core, one table", comparison)
