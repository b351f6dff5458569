"""Lineage of an execution, dataset or asset: what it is derived from and what used it, level by level."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from deriva_ml_core._text import sanitize_line
from deriva_ml_core._views import MAX_ROWS, Picture, Presentable, View
from deriva_ml_core.analysis.lineage_picture import MAX_PICTURE_NODES, render_svg
from deriva_ml_core.analysis.runs import lookup_table, summarize_executions
from deriva_ml_core.backend import Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets.members import MemberLink, member_links
from deriva_ml_core.datasets.versions import drop_creations
from deriva_ml_core.definitions import MLAsset, MLTable, Role, split_rid
from deriva_ml_core.errors import WrongTable
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.schema import CatalogModel, asset_execution_table_name

__all__ = ["Direction", "Edge", "Lineage", "Node", "OmittedNodes", "find_lineage", "render_dot", "render_mermaid"]

EXECUTION, DATASET = MLTable.execution.value, MLTable.dataset.value

MEMBERS_PER_QUERY = 10_000
"""Members of a dataset whose producers one query asks for."""


class Direction(StrEnum):
    """A direction of the search; the values are those of the JSON output."""

    upstream = "made from"
    downstream = "made into"


@dataclass(frozen=True, slots=True)
class Node:
    """An execution, a dataset or an asset.

    Args:
        rid: Its RID.
        table: Its table.
        name: The asset's file name, or the description.
        status: The execution's status; empty for other nodes.
    """

    rid: str
    table: str
    name: str
    status: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """A derivation: `product` is derived from `source`.

    Args:
        source: The RID of the earlier node.
        product: The RID of the later node.
    """

    source: str
    product: str


@dataclass(frozen=True, slots=True)
class OmittedNodes:
    """Neighbours of a node that are not part of the lineage, since there are too many of their table.

    Args:
        rid: The RID of the node.
        direction: The direction in which they are.
        table: Their table.
        count: Their number.
    """

    rid: str
    direction: Direction
    table: str
    count: int


@dataclass(frozen=True, slots=True)
class Lineage(Presentable):
    """The nodes around a start node.

    Args:
        start: The RID of the start node.
        nodes: The nodes by RID.
        upstream: The edges to what the start is derived from, nearest first.
        downstream: The edges to what used the start, nearest first.
        omitted: How many neighbours are left out, by node, direction and table.
        is_truncated: Whether the search stopped at its depth or its limit.
    """

    start: str
    nodes: Mapping[str, Node]
    upstream: tuple[Edge, ...]
    downstream: tuple[Edge, ...]
    omitted: tuple[OmittedNodes, ...]
    is_truncated: bool

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges of both directions, each once."""
        return tuple(dict.fromkeys((*self.upstream, *self.downstream)))

    def neighbours(self, direction: Direction) -> dict[str, list[str]]:
        """Return the RIDs next to each node in one direction."""
        neighbours: dict[str, list[str]] = {}
        if direction is Direction.upstream:
            for edge in self.upstream:
                neighbours.setdefault(edge.product, []).append(edge.source)
        else:
            for edge in self.downstream:
                neighbours.setdefault(edge.source, []).append(edge.product)
        return neighbours

    def to_dict(self) -> dict[str, Any]:
        """Return the lineage as ``deriva-ml lineage --json`` prints it."""
        return {
            "rid": self.start,
            "nodes": [asdict(node) for node in self.nodes.values()],
            "edges": [asdict(edge) for edge in self.edges],
            "left_out": [asdict(omitted) for omitted in self.omitted],
            "cut": self.is_truncated,
        }

    def to_svg(self, max_nodes: int = MAX_PICTURE_NODES) -> str:
        """Return a picture with sources on the left and products on the right, as an SVG element.

        It has no scripts and no references, and all texts are escaped.

        Args:
            max_nodes: Maximum number of nodes, nearest to the start first.
        """
        return render_svg(self.start, self.nodes, self.upstream, self.downstream, max_nodes)

    def _view(self) -> View:
        start = self.nodes[self.start]
        hidden = max(0, len(self.nodes) - MAX_PICTURE_NODES) + sum(each.count for each in self.omitted)
        notes = [f"{hidden:,} more nodes are not shown."] if hidden else []
        notes += ["The search stopped at its depth or limit."] if self.is_truncated else []
        picture = f'<div style="overflow-x:auto;margin-top:6px">{self.to_svg()}</div>'
        return View(f"Lineage of {start.table} {start.rid}", [Picture(picture, "\n".join(self._tree_lines())), *notes])

    def _tree_lines(self) -> Iterator[str]:
        """Yield the nodes in each direction for a terminal, nearest first."""
        for title, rids in (
            ("Derived from", dict.fromkeys(edge.source for edge in self.upstream)),
            ("Used by", dict.fromkeys(edge.product for edge in self.downstream)),
        ):
            yield f"{title}: {'' if rids else 'nothing'}".rstrip()
            nodes = [self.nodes[rid] for rid in list(rids)[:MAX_ROWS] if rid in self.nodes]
            yield from (f"  {' '.join(_label_lines(node))}" for node in nodes)


@dataclass(frozen=True, slots=True)
class _Step:
    """A link table that leads from nodes of one table to neighbours in another."""

    link_table: str
    from_column: str
    to_column: str
    to_table: str
    where: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Search:
    """A breadth-first search from one node, one query for each level and link table.

    Args:
        connection: The catalog.
        depth: Links to follow in each direction.
        limit: Nodes in each direction.
        siblings: Neighbours of one node in one table; the others are counted.
    """

    connection: Connection
    depth: int
    limit: int
    siblings: int
    omitted_counts: dict[tuple[str, Direction, str], int] = field(default_factory=dict)
    is_truncated: bool = False

    def walk(self, start: dict[str, str], direction: Direction) -> tuple[dict[str, str], tuple[Edge, ...]]:
        """Search in one direction.

        Args:
            start: The table of the start node by its RID.
            direction: The direction.

        Returns:
            The table of each node that was reached, by RID, and the edges between these nodes.
        """
        edges: dict[Edge, None] = {}
        seen, level = dict(start), dict(start)
        for _ in range(self.depth):
            next_level: dict[str, str] = {}
            for table in dict.fromkeys(level.values()):
                rids = [rid for rid in level if level[rid] == table]
                for step, pairs in _iter_linked_rids(self.connection, table, rids, direction):
                    self._add_edges(edges, step, pairs, direction, next_level)
            next_level = {rid: table for rid, table in next_level.items() if rid not in seen}
            if len(seen) + len(next_level) > self.limit:
                self.is_truncated = True
                next_level = dict(list(next_level.items())[: self.limit - len(seen)])
            seen |= next_level
            level = next_level
            if not level:
                break
        else:
            self.is_truncated = True
        return seen, tuple(edge for edge in edges if edge.source in seen and edge.product in seen)

    def _add_edges(
        self,
        edges: dict[Edge, None],
        step: _Step,
        pairs: Iterable[tuple[str, str]],
        direction: Direction,
        next_level: dict[str, str],
    ) -> None:
        neighbours: dict[str, set[str]] = {}
        for rid, neighbour in pairs:
            added = neighbours.setdefault(rid, set())
            if neighbour in added or rid == neighbour:
                continue
            if len(added) >= self.siblings:
                key = (rid, direction, step.to_table)
                self.omitted_counts[key] = self.omitted_counts.get(key, 0) + 1
                continue
            added.add(neighbour)
            next_level[neighbour] = step.to_table
            edges[Edge(neighbour, rid) if direction is Direction.upstream else Edge(rid, neighbour)] = None


def find_lineage(connection: Connection, rid: str, *, depth: int, limit: int, siblings: int) -> Lineage:
    """Search what a row is derived from and what used it; see ``DerivaML.lineage``."""
    table, start = lookup_table(connection, rid), split_rid(rid)[0]
    if table not in (EXECUTION, DATASET) and not connection.catalog.model.table(table).is_asset:
        raise WrongTable(
            f"{start} is a row of {table}, which has no lineage; use the RID of an execution, a dataset or an asset."
        )
    search = _Search(connection, depth, limit, siblings)
    up_tables, upstream = search.walk({start: table}, Direction.upstream)
    down_tables, downstream = search.walk({start: table}, Direction.downstream)
    return Lineage(
        start=start,
        nodes={node.rid: node for node in _load_nodes(connection, {start: table} | up_tables | down_tables)},
        upstream=upstream,
        downstream=downstream,
        omitted=tuple(OmittedNodes(*key, count) for key, count in search.omitted_counts.items()),
        is_truncated=search.is_truncated,
    )


def _iter_linked_rids(
    connection: Connection, table: str, rids: list[str], direction: Direction
) -> Iterator[tuple[_Step, Iterator[tuple[str, str]]]]:
    catalog = connection.catalog
    for step in _build_steps(catalog.model, table, direction):
        pages: Iterator[list[Row]] = catalog.pages(step.link_table, {step.from_column: rids, **step.where})
        if step.link_table == MLTable.dataset_execution:
            pages = (drop_creations(catalog, page) for page in pages)
        yield (
            step,
            ((row[step.from_column], row[step.to_column]) for page in pages for row in page if row[step.to_column]),
        )
    if table == DATASET and direction is Direction.upstream:
        for element, link in member_links(catalog.model).items():
            if catalog.model.table(element).is_asset:
                step = _Step(asset_execution_table_name(element), element, EXECUTION, EXECUTION)
                yield step, _iter_producers(connection, link, rids)


def _iter_producers(connection: Connection, link: MemberLink, datasets: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each dataset with the executions that produced its assets, each pair once."""
    catalog = connection.catalog
    seen: set[tuple[str, str]] = set()
    for page in catalog.pages(link.table, {link.dataset_column: datasets}, size=MEMBERS_PER_QUERY):
        members: dict[str, list[str]] = {}
        for row in page:
            members.setdefault(row[link.member_column], []).append(row[link.dataset_column])
        where = {link.element: list(members), "Asset_Role": Role.output}
        for row in catalog.select(asset_execution_table_name(link.element), where):
            pairs = {(dataset, row[EXECUTION]) for dataset in members[row[link.element]]} - seen
            seen |= pairs
            yield from pairs


def _build_steps(model: CatalogModel, table: str, direction: Direction) -> list[_Step]:
    assets = [
        name
        for name, each in model.tables.items()
        if each.is_asset and asset_execution_table_name(name) in model.tables
    ]
    nested = member_links(model).get(DATASET)
    if table == EXECUTION:
        role = {"Asset_Role": Role.input if direction is Direction.upstream else Role.output}
        through = MLTable.dataset_execution if direction is Direction.upstream else MLTable.dataset_version
        files = [name for name in assets if direction is Direction.upstream or name != MLAsset.execution_metadata]
        return [
            *(_Step(asset_execution_table_name(name), EXECUTION, name, name, role) for name in files),
            _Step(through, EXECUTION, DATASET, DATASET),
        ]
    if table == DATASET:
        through = MLTable.dataset_version if direction is Direction.upstream else MLTable.dataset_execution
        inner = _build_nesting_steps(nested, direction)
        return [_Step(through, DATASET, EXECUTION, EXECUTION), *inner]
    role = {"Asset_Role": Role.output if direction is Direction.upstream else Role.input}
    steps = [_Step(asset_execution_table_name(table), table, EXECUTION, EXECUTION, role)] if table in assets else []
    member = member_links(model).get(table)
    if direction is Direction.downstream and member is not None:
        steps.append(_Step(member.table, member.member_column, member.dataset_column, DATASET))
    return steps


def _build_nesting_steps(nested: MemberLink | None, direction: Direction) -> list[_Step]:
    if nested is None:
        return []
    ends = (
        (nested.dataset_column, nested.member_column)
        if direction is Direction.upstream
        else (nested.member_column, nested.dataset_column)
    )
    return [_Step(nested.table, *ends, DATASET)]


def _load_nodes(connection: Connection, tables: Mapping[str, str]) -> Iterator[Node]:
    catalog = connection.catalog
    for table in dict.fromkeys(tables.values()):
        rows = catalog.select(table, {"RID": [rid for rid, each in tables.items() if each == table]})
        if table == EXECUTION:
            for run in summarize_executions(connection, [RecordedExecution(connection, row) for row in rows]):
                yield Node(
                    run.rid, table, run.description or (run.workflow and run.workflow.name) or "", str(run.status)
                )
        else:
            for row in rows:
                yield Node(row["RID"], table, row.get("Filename") or row.get("Description") or "")


MAX_LABEL_LENGTH = 60
"""Characters of a name in a diagram."""

_MERMAID_SHAPES = {MLTable.execution.value: ('(["', '"])'), MLTable.dataset.value: ('[("', '")]')}
_DOT_SHAPES = {MLTable.execution.value: "oval", MLTable.dataset.value: "cylinder"}


def render_mermaid(lineage: Lineage) -> str:
    """Return the lineage as a Mermaid flowchart, sources left, products right."""
    numbers = {rid: f"n{number}" for number, rid in enumerate(lineage.nodes)}
    lines = ["flowchart LR"]
    for rid, node in lineage.nodes.items():
        before, after = _MERMAID_SHAPES.get(node.table, ('["', '"]'))
        lines.append(f"    {numbers[rid]}{before}{'<br/>'.join(map(_escape_mermaid, _label_lines(node)))}{after}")
    lines += [f"    {numbers[edge.source]} --> {numbers[edge.product]}" for edge in lineage.edges]
    lines += [f"    style {numbers[lineage.start]} stroke-width:3px"]
    return "\n".join(lines)


def render_dot(lineage: Lineage) -> str:
    """Return the lineage as a Graphviz graph, sources left, products right."""
    lines = ["digraph lineage {", "    rankdir=LR;", '    node [fontname="sans-serif"];']
    for rid, node in lineage.nodes.items():
        shape = _DOT_SHAPES.get(node.table, "note")
        bold = ", penwidth=3" if rid == lineage.start else ""
        label = "\\n".join(map(_escape_dot, _label_lines(node)))
        lines.append(f'    "{rid}" [shape={shape}, label="{label}"{bold}];')
    lines += [f'    "{edge.source}" -> "{edge.product}";' for edge in lineage.edges]
    return "\n".join([*lines, "}"])


def _label_lines(node: Node) -> list[str]:
    state = f" {node.status}" if node.status else ""
    name = sanitize_line(node.name)
    name = name if len(name) <= MAX_LABEL_LENGTH else name[: MAX_LABEL_LENGTH - 3] + "..."
    return [f"{node.table} {node.rid}{state}", *([name] if name else [])]


def _escape_mermaid(text: str) -> str:
    """Replace every character with a meaning in Mermaid or HTML by its character code."""
    return "".join(letter if letter.isalnum() or letter in " .,:_-/=" else f"#{ord(letter)};" for letter in text)


def _escape_dot(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
