"""What something was made from and what was made from it: executions, datasets and files, level by level."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deriva_ml_core._text import sanitize_line
from deriva_ml_core.analysis.describe import lookup_table
from deriva_ml_core.analysis.runs import summarize_executions
from deriva_ml_core.datasets.members import MemberLink, member_links
from deriva_ml_core.definitions import MLAsset, MLTable, Role, split_rid
from deriva_ml_core.errors import WrongTable
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.schema import CatalogModel, asset_execution_table_name

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection

__all__ = ["DOWNSTREAM", "UPSTREAM", "Edge", "Lineage", "Node", "find_lineage", "render_dot", "render_mermaid"]


UPSTREAM, DOWNSTREAM = "made from", "made into"

EXECUTION, DATASET = MLTable.execution.value, MLTable.dataset.value
MEMBERS_PER_QUERY = 10_000
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
        omitted_counts: How many neighbours a node has beside those that are among the nodes, by node, direction and
            table.
        is_truncated: Whether the walk ended since it had found as many nodes as were asked for.
    """

    start: str
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: dict[str, dict[Edge, None]] = field(default_factory=lambda: {UPSTREAM: {}, DOWNSTREAM: {}})
    omitted_counts: dict[tuple[str, str, str], int] = field(default_factory=dict)
    is_truncated: bool = False

    def neighbours(self, direction: str) -> dict[str, list[str]]:
        """The nodes next to each node, back or on."""
        found: dict[str, list[str]] = {}
        for edge in self.edges[direction]:
            here, there = (edge.product, edge.source) if direction == UPSTREAM else (edge.source, edge.product)
            found.setdefault(here, []).append(there)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Its value for programs."""
        edges = dict.fromkeys((*self.edges[UPSTREAM], *self.edges[DOWNSTREAM]))
        return {
            "rid": self.start,
            "nodes": [{name: getattr(node, name) for name in Node.__slots__} for node in self.nodes.values()],
            "edges": [{"source": edge.source, "product": edge.product} for edge in edges],
            "left_out": [
                {"rid": rid, "direction": direction, "table": table, "count": count}
                for (rid, direction, table), count in self.omitted_counts.items()
            ],
            "cut": self.is_truncated,
        }


@dataclass(frozen=True, slots=True)
class _Step:
    """How to get from nodes of one table to their neighbours of another: a table that links them."""

    link_table: str
    from_column: str
    to_column: str
    to_table: str
    where: Mapping[str, Any] = field(default_factory=dict)


def find_lineage(connection: Connection, rid: str, *, depth: int, limit: int, siblings: int) -> Lineage:
    """Walk back and on from a row, one question a level and a kind of link.

    Args:
        connection: The catalog.
        rid: An execution, a dataset or an asset.
        depth: How many links to follow in each direction.
        limit: The most nodes in each direction.
        siblings: The most neighbours of one table that a node is followed to; the others are counted.

    Raises:
        InvalidRID, UnknownRID, WrongTable: It names nothing that is made.
    """
    table, start = lookup_table(connection, rid), split_rid(rid)[0]
    model = connection.catalog.model
    if table not in (EXECUTION, DATASET) and not model.table(table).is_asset:
        raise WrongTable(
            f"{start} is a row of {table}, which nothing is made from; give an execution, dataset or asset."
        )
    found = Lineage(start)
    tables = {start: table}
    for direction in (UPSTREAM, DOWNSTREAM):
        tables |= _walk(connection, found, {start: table}, direction, (depth, limit, siblings))
    found.nodes.update({node.rid: node for node in _load_nodes(connection, tables)})
    return found


def _walk(
    connection: Connection, lineage: Lineage, start: dict[str, str], direction: str, bounds: tuple[int, int, int]
) -> dict[str, str]:
    depth, limit, siblings = bounds
    seen, level = dict(start), dict(start)
    for _ in range(depth):
        following: dict[str, str] = {}
        for table in dict.fromkeys(level.values()):
            here = [rid for rid in level if level[rid] == table]
            for step, rows in _iter_linked_rids(connection, table, here, direction):
                _add_edges(lineage, step, rows, direction, siblings, following)
        following = {rid: table for rid, table in following.items() if rid not in seen}
        if len(seen) + len(following) > limit:
            lineage.is_truncated = True
            following = dict(list(following.items())[: limit - len(seen)])
        seen |= following
        level = following
        if not level:
            return _prune_edges(lineage, seen, direction)
    lineage.is_truncated = True
    return _prune_edges(lineage, seen, direction)


def _prune_edges(lineage: Lineage, seen: dict[str, str], direction: str) -> dict[str, str]:
    kept = {edge: None for edge in lineage.edges[direction] if edge.source in seen and edge.product in seen}
    lineage.edges[direction] = kept
    return seen


def _add_edges(
    lineage: Lineage,
    step: _Step,
    rows: Iterable[tuple[str, str]],
    direction: str,
    siblings: int,
    next_level: dict[str, str],
) -> None:
    taken: dict[str, dict[str, None]] = {}
    for here, there in rows:
        known = taken.setdefault(here, {})
        if there in known or here == there:
            continue
        if len(known) >= siblings:
            key = (here, direction, step.to_table)
            lineage.omitted_counts[key] = lineage.omitted_counts.get(key, 0) + 1
            continue
        known[there] = None
        next_level[there] = step.to_table
        lineage.edges[direction][Edge(there, here) if direction == UPSTREAM else Edge(here, there)] = None


def _iter_linked_rids(
    connection: Connection, table: str, rids: list[str], direction: str
) -> Iterator[tuple[_Step, Iterator[tuple[str, str]]]]:
    catalog = connection.catalog
    for step in _build_steps(catalog.model, table, direction):
        pages = catalog.pages(step.link_table, {step.from_column: rids, **step.where})
        yield (
            step,
            ((row[step.from_column], row[step.to_column]) for page in pages for row in page if row[step.to_column]),
        )
    if table == DATASET and direction == UPSTREAM:
        for element, link in member_links(catalog.model).items():
            if catalog.model.table(element).is_asset:
                step = _Step(asset_execution_table_name(element), element, EXECUTION, EXECUTION)
                yield step, _iter_producers(connection, link, rids)


def _iter_producers(connection: Connection, link: MemberLink, datasets: list[str]) -> Iterator[tuple[str, str]]:
    """The executions that made the files in datasets, each once a dataset."""
    catalog = connection.catalog
    known: set[tuple[str, str]] = set()
    for page in catalog.pages(link.table, {link.dataset_column: datasets}, size=MEMBERS_PER_QUERY):
        members: dict[str, list[str]] = {}
        for row in page:
            members.setdefault(row[link.member_column], []).append(row[link.dataset_column])
        where = {link.element: list(members), "Asset_Role": Role.output}
        for row in catalog.select(asset_execution_table_name(link.element), where):
            pairs = {(dataset, row[EXECUTION]) for dataset in members[row[link.element]]} - known
            known |= pairs
            yield from pairs


def _build_steps(model: CatalogModel, table: str, direction: str) -> list[_Step]:
    assets = [
        name
        for name, each in model.tables.items()
        if each.is_asset and asset_execution_table_name(name) in model.tables
    ]
    nested = member_links(model).get(DATASET)
    if table == EXECUTION:
        role = {"Asset_Role": Role.input if direction == UPSTREAM else Role.output}
        through = MLTable.dataset_execution if direction == UPSTREAM else MLTable.dataset_version
        files = [name for name in assets if direction == UPSTREAM or name != MLAsset.execution_metadata]
        return [
            *(_Step(asset_execution_table_name(name), EXECUTION, name, name, role) for name in files),
            _Step(through, EXECUTION, DATASET, DATASET),
        ]
    if table == DATASET:
        through = MLTable.dataset_version if direction == UPSTREAM else MLTable.dataset_execution
        inner = _build_nesting_steps(nested, direction)
        return [_Step(through, DATASET, EXECUTION, EXECUTION), *inner]
    role = {"Asset_Role": Role.output if direction == UPSTREAM else Role.input}
    steps = [_Step(asset_execution_table_name(table), table, EXECUTION, EXECUTION, role)] if table in assets else []
    member = member_links(model).get(table)
    if direction == DOWNSTREAM and member is not None:
        steps.append(_Step(member.table, member.member_column, member.dataset_column, DATASET))
    return steps


def _build_nesting_steps(nested: MemberLink | None, direction: str) -> list[_Step]:
    if nested is None:
        return []
    ends = (
        (nested.dataset_column, nested.member_column)
        if direction == UPSTREAM
        else (nested.member_column, nested.dataset_column)
    )
    return [_Step(nested.table, *ends, DATASET)]


def _load_nodes(connection: Connection, tables: Mapping[str, str]) -> Iterator[Node]:
    catalog = connection.catalog
    for table in dict.fromkeys(tables.values()):
        rows = catalog.select(table, {"RID": [rid for rid, each in tables.items() if each == table]})
        if table == EXECUTION:
            for run in summarize_executions(connection, [RecordedExecution(connection, row) for row in rows]):
                yield Node(run.rid, table, run.description or str(run.workflow.get("Name") or ""), str(run.status))
        else:
            for row in rows:
                yield Node(row["RID"], table, row.get("Filename") or row.get("Description") or "")


MAX_LABEL_LENGTH = 60
"""Letters of a name that a drawing shows."""

_MERMAID_SHAPES = {MLTable.execution.value: ('(["', '"])'), MLTable.dataset.value: ('[("', '")]')}
_DOT_SHAPES = {MLTable.execution.value: "oval", MLTable.dataset.value: "cylinder"}


def render_mermaid(lineage: Lineage) -> str:
    """A flowchart for Mermaid, from what was there first to what came of it."""
    numbers = {rid: f"n{number}" for number, rid in enumerate(lineage.nodes)}
    lines = ["flowchart LR"]
    for rid, node in lineage.nodes.items():
        before, after = _MERMAID_SHAPES.get(node.table, ('["', '"]'))
        lines.append(f"    {numbers[rid]}{before}{'<br/>'.join(map(_escape_mermaid, _label_lines(node)))}{after}")
    lines += [f"    {numbers[edge.source]} --> {numbers[edge.product]}" for edge in _list_edges(lineage)]
    lines += [f"    style {numbers[lineage.start]} stroke-width:3px"]
    return "\n".join(lines)


def render_dot(lineage: Lineage) -> str:
    """A graph for Graphviz, from what was there first to what came of it."""
    lines = ["digraph lineage {", "    rankdir=LR;", '    node [fontname="sans-serif"];']
    for rid, node in lineage.nodes.items():
        shape = _DOT_SHAPES.get(node.table, "note")
        bold = ", penwidth=3" if rid == lineage.start else ""
        label = "\\n".join(map(_escape_dot, _label_lines(node)))
        lines.append(f'    "{rid}" [shape={shape}, label="{label}"{bold}];')
    lines += [f'    "{edge.source}" -> "{edge.product}";' for edge in _list_edges(lineage)]
    return "\n".join([*lines, "}"])


def _label_lines(node: Node) -> list[str]:
    state = f" {node.status}" if node.status else ""
    name = sanitize_line(node.name)
    name = name if len(name) <= MAX_LABEL_LENGTH else name[: MAX_LABEL_LENGTH - 3] + "..."
    return [f"{node.table} {node.rid}{state}", *([name] if name else [])]


def _escape_mermaid(text: str) -> str:
    """The text with all that Mermaid or HTML would read as its own written as numbers of letters."""
    return "".join(letter if letter.isalnum() or letter in " .,:_-/=" else f"#{ord(letter)};" for letter in text)


def _escape_dot(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _list_edges(lineage: Lineage) -> list[Edge]:
    return list(dict.fromkeys((*lineage.edges[UPSTREAM], *lineage.edges[DOWNSTREAM])))
