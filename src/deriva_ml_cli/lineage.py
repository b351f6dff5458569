"""What something was made from and what was made from it: executions, datasets and files, level by level."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deriva_ml_cli.runs import runs_of
from deriva_ml_cli.subjects import table_of
from deriva_ml_core.dataset.members import Link, links
from deriva_ml_core.definitions import MLAsset, MLTable, Role, split_rid
from deriva_ml_core.errors import WrongTable
from deriva_ml_core.execution.provenance import RecordedExecution
from deriva_ml_core.schema import CatalogModel, execution_table

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["BACK", "ON", "Edge", "Lineage", "Node", "find_lineage"]

BACK, ON = "made from", "made into"

EXECUTION, DATASET = MLTable.execution.value, MLTable.dataset.value
MANY = 10_000
"""Members of a dataset whose makers one question asks for."""


@dataclass(frozen=True, slots=True)
class Node:
    """An execution, a dataset or a file.

    Args:
        rid: Its record id.
        table: Its table.
        name: A file's name, or a description.
        status: An execution's state; empty for others.
    """

    rid: str
    table: str
    name: str
    status: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """One thing that another was made from."""

    source: str
    product: str


@dataclass
class Lineage:
    """What was found around one node.

    Args:
        start: Its record id.
        nodes: The nodes by record id.
        edges: What was made from what, in the order in which it was found, for going back and for going on.
        more: How many neighbours a node has beside those that are among the nodes, by node, direction and table.
        cut: Whether the walk ended since it had found as many nodes as were asked for.
    """

    start: str
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[str, dict[Edge, None]] = field(default_factory=lambda: {BACK: {}, ON: {}})
    more: dict[tuple[str, str, str], int] = field(default_factory=dict)
    cut: bool = False

    def neighbours(self, direction: str) -> dict[str, list[str]]:
        """The nodes next to each node, back or on."""
        found: dict[str, list[str]] = {}
        for edge in self.edges[direction]:
            here, there = (edge.product, edge.source) if direction == BACK else (edge.source, edge.product)
            found.setdefault(here, []).append(there)
        return found

    def as_json(self) -> dict[str, Any]:
        """Its value for programs."""
        edges = dict.fromkeys((*self.edges[BACK], *self.edges[ON]))
        return {
            "rid": self.start,
            "nodes": [{name: getattr(node, name) for name in Node.__slots__} for node in self.nodes.values()],
            "edges": [{"source": edge.source, "product": edge.product} for edge in edges],
            "left_out": [
                {"rid": rid, "direction": direction, "table": table, "count": count}
                for (rid, direction, table), count in self.more.items()
            ],
            "cut": self.cut,
        }


@dataclass(frozen=True, slots=True)
class _Step:
    """How to get from nodes of one table to their neighbours of another: a table that links them."""

    link: str
    here: str
    there: str
    table: str
    where: Mapping[str, Any] = field(default_factory=dict)


def find_lineage(ml: DerivaML, rid: str, *, depth: int, limit: int, siblings: int) -> Lineage:
    """Walk back and on from a row, one question a level and a kind of link.

    Args:
        ml: The catalog.
        rid: An execution, a dataset or an asset.
        depth: How many links to follow in each direction.
        limit: The most nodes in each direction.
        siblings: The most neighbours of one table that a node is followed to; the others are counted.

    Raises:
        InvalidRID, UnknownRID, WrongTable: It names nothing that is made.
    """
    table, start = table_of(ml, rid), split_rid(rid)[0]
    model = ml.connection.catalog.model
    if table not in (EXECUTION, DATASET) and not model.table(table).is_asset:
        raise WrongTable(
            f"{start} is a row of {table}, which nothing is made from; give an execution, dataset or asset."
        )
    found = Lineage(start)
    tables = {start: table}
    for direction in (BACK, ON):
        tables |= _walk(ml, found, {start: table}, direction, (depth, limit, siblings))
    found.nodes.update({node.rid: node for node in _named(ml, tables)})
    return found


def _walk(
    ml: DerivaML, found: Lineage, start: dict[str, str], direction: str, bounds: tuple[int, int, int]
) -> dict[str, str]:
    depth, limit, siblings = bounds
    seen, level = dict(start), dict(start)
    for _ in range(depth):
        following: dict[str, str] = {}
        for table in dict.fromkeys(level.values()):
            here = [rid for rid in level if level[rid] == table]
            for step, rows in _rows(ml, table, here, direction):
                _take(found, step, rows, direction, siblings, following)
        following = {rid: table for rid, table in following.items() if rid not in seen}
        if len(seen) + len(following) > limit:
            found.cut = True
            following = dict(list(following.items())[: limit - len(seen)])
        seen |= following
        level = following
        if not level:
            return _keep(found, seen, direction)
    found.cut = True
    return _keep(found, seen, direction)


def _keep(found: Lineage, seen: dict[str, str], direction: str) -> dict[str, str]:
    kept = {edge: None for edge in found.edges[direction] if edge.source in seen and edge.product in seen}
    found.edges[direction] = kept
    return seen


def _take(
    found: Lineage,
    step: _Step,
    rows: Iterable[tuple[str, str]],
    direction: str,
    siblings: int,
    following: dict[str, str],
) -> None:
    taken: dict[str, dict[str, None]] = {}
    for here, there in rows:
        known = taken.setdefault(here, {})
        if there in known or here == there:
            continue
        if len(known) >= siblings:
            key = (here, direction, step.table)
            found.more[key] = found.more.get(key, 0) + 1
            continue
        known[there] = None
        following[there] = step.table
        found.edges[direction][Edge(there, here) if direction == BACK else Edge(here, there)] = None


def _rows(
    ml: DerivaML, table: str, here: list[str], direction: str
) -> Iterator[tuple[_Step, Iterator[tuple[str, str]]]]:
    catalog = ml.connection.catalog
    for step in _steps(catalog.model, table, direction):
        pages = catalog.pages(step.link, {step.here: here, **step.where})
        yield step, ((row[step.here], row[step.there]) for page in pages for row in page if row[step.there])
    if table == DATASET and direction == BACK:
        for element, link in links(catalog.model).items():
            if catalog.model.table(element).is_asset:
                step = _Step(execution_table(element), element, EXECUTION, EXECUTION)
                yield step, _makers(ml, link, here)


def _makers(ml: DerivaML, link: Link, datasets: list[str]) -> Iterator[tuple[str, str]]:
    """The executions that made the files in datasets, each once a dataset."""
    catalog = ml.connection.catalog
    known: set[tuple[str, str]] = set()
    for page in catalog.pages(link.table, {link.dataset: datasets}, size=MANY):
        members: dict[str, list[str]] = {}
        for row in page:
            members.setdefault(row[link.member], []).append(row[link.dataset])
        where = {link.element: list(members), "Asset_Role": Role.output}
        for row in catalog.select(execution_table(link.element), where):
            pairs = {(dataset, row[EXECUTION]) for dataset in members[row[link.element]]} - known
            known |= pairs
            yield from pairs


def _steps(model: CatalogModel, table: str, direction: str) -> list[_Step]:
    assets = [name for name, each in model.tables.items() if each.is_asset and execution_table(name) in model.tables]
    nested = links(model).get(DATASET)
    if table == EXECUTION:
        role = {"Asset_Role": Role.input if direction == BACK else Role.output}
        through = MLTable.dataset_execution if direction == BACK else MLTable.dataset_version
        files = [name for name in assets if direction == BACK or name != MLAsset.execution_metadata]
        return [
            *(_Step(execution_table(name), EXECUTION, name, name, role) for name in files),
            _Step(through, EXECUTION, DATASET, DATASET),
        ]
    if table == DATASET:
        through = MLTable.dataset_version if direction == BACK else MLTable.dataset_execution
        inner = _inner(nested, direction)
        return [_Step(through, DATASET, EXECUTION, EXECUTION), *inner]
    role = {"Asset_Role": Role.output if direction == BACK else Role.input}
    steps = [_Step(execution_table(table), table, EXECUTION, EXECUTION, role)] if table in assets else []
    member = links(model).get(table)
    if direction == ON and member is not None:
        steps.append(_Step(member.table, member.member, member.dataset, DATASET))
    return steps


def _inner(nested: Link | None, direction: str) -> list[_Step]:
    if nested is None:
        return []
    ends = (nested.dataset, nested.member) if direction == BACK else (nested.member, nested.dataset)
    return [_Step(nested.table, *ends, DATASET)]


def _named(ml: DerivaML, tables: Mapping[str, str]) -> Iterator[Node]:
    catalog = ml.connection.catalog
    for table in dict.fromkeys(tables.values()):
        rows = catalog.select(table, {"RID": [rid for rid, each in tables.items() if each == table]})
        if table == EXECUTION:
            for run in runs_of(ml, [RecordedExecution(ml.connection, row) for row in rows]):
                yield Node(run.rid, table, run.description or str(run.workflow.get("Name") or ""), str(run.status))
        else:
            for row in rows:
                yield Node(row["RID"], table, row.get("Filename") or row.get("Description") or "")
