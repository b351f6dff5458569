"""The picture of a lineage: an SVG with sources on the left and products on the right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple, Protocol

from deriva_ml_core._text import sanitize_line
from deriva_ml_core._views import truncate
from deriva_ml_core.definitions import MLTable, status_traits

__all__ = ["MAX_PICTURE_NODES", "render_svg"]

MAX_PICTURE_NODES = 200
"""Maximum nodes in a picture, those nearest to the start. The others are counted."""

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 168, 40, 56, 14, 8
"""Sizes of a box and of the gaps between boxes, in pixels."""

MAX_LINE_LENGTH = 25
"""Maximum characters of a line in a box."""

ORDER_PASSES = 4
"""How often the boxes of each layer are sorted by the positions of their neighbours."""

COLOURS = {MLTable.execution.value: "#0072B2", MLTable.dataset.value: "#009E73"}
ASSET_COLOUR = "#B07A00"


class Node(Protocol):
    """An execution, a dataset or an asset."""

    @property
    def rid(self) -> str: ...
    @property
    def table(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...


class Edge(Protocol):
    """A derivation of a product from a source."""

    @property
    def source(self) -> str: ...
    @property
    def product(self) -> str: ...


class _Place(NamedTuple):
    x: float
    y: float


def render_svg(
    start: str, nodes: Mapping[str, Node], upstream: Sequence[Edge], downstream: Sequence[Edge], max_nodes: int
) -> str:
    """Return a lineage as an SVG element without scripts and references, all texts escaped.

    Args:
        start: The RID of the start node.
        nodes: The nodes by RID.
        upstream: The edges to what the start is derived from, nearest first.
        downstream: The edges to what used the start, nearest first.
        max_nodes: Maximum number of nodes, nearest to the start first.
    """
    shown = [rid for rid in _nearest_nodes(start, upstream, downstream, max_nodes) if rid in nodes]
    pairs = dict.fromkeys((edge.source, edge.product) for edge in (*upstream, *downstream))
    edges = [(source, product) for source, product in pairs if source in shown and product in shown]
    places = _place_nodes(shown, edges)
    width = max(place.x for place in places.values()) + WIDTH + MARGIN
    height = max(place.y for place in places.values()) + HEIGHT + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" font-family="sans-serif" font-size="11" fill="currentColor">',
        f"<title>Lineage of {escape(sanitize_line(start))}</title>",
        *(_render_edge(places[source], places[product]) for source, product in edges),
        *(_render_node(nodes[rid], place, is_start=rid == start) for rid, place in places.items()),
        "</svg>",
    ]
    return "".join(parts)


def _nearest_nodes(start: str, upstream: Sequence[Edge], downstream: Sequence[Edge], max_nodes: int) -> list[str]:
    """Return the start and the nodes nearest to it, alternately of both directions."""
    found = {start: None}
    directions: list[Iterator[str]] = [
        iter([edge.source for edge in upstream]),
        iter([edge.product for edge in downstream]),
    ]
    while directions and len(found) < max_nodes:
        for remaining in list(directions):
            rid = next((rid for rid in remaining if rid not in found), None)
            if rid is None:
                directions.remove(remaining)
            elif len(found) < max_nodes:
                found[rid] = None
    return list(found)


def _place_nodes(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, _Place]:
    """Return the position of each box: its layer from left to right, and its place in the layer."""
    layers: dict[int, list[str]] = {}
    for rid, number in _number_layers(nodes, edges).items():
        layers.setdefault(number, []).append(rid)
    neighbours: dict[str, list[str]] = {}
    for source, product in edges:
        neighbours.setdefault(source, []).append(product)
        neighbours.setdefault(product, []).append(source)
    order = {rid: float(index) for layer in layers.values() for index, rid in enumerate(layer)}
    for _ in range(ORDER_PASSES):
        for number in sorted(layers):
            layers[number].sort(key=lambda rid: _mean([order[each] for each in neighbours.get(rid, ())], order[rid]))
            middle = (len(layers[number]) - 1) / 2
            order.update((rid, index - middle) for index, rid in enumerate(layers[number]))
    top = min(order.values())
    return {
        rid: _Place(MARGIN + column * (WIDTH + GAP_X), MARGIN + (order[rid] - top) * (HEIGHT + GAP_Y))
        for column, number in enumerate(sorted(layers))
        for rid in layers[number]
    }


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _number_layers(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> Mapping[str, int]:
    """Return the layer of each node: one more than that of its last source. A cycle is cut at one of its nodes."""
    products: dict[str, list[str]] = {rid: [] for rid in nodes}
    open_sources = dict.fromkeys(nodes, 0)
    for source, product in edges:
        products[source].append(product)
        open_sources[product] += 1
    layers: dict[str, int] = dict.fromkeys(nodes, 0)
    waiting = dict.fromkeys(nodes)
    ready = [rid for rid in nodes if not open_sources[rid]]
    while waiting:
        rid = ready.pop() if ready else next(iter(waiting))
        if rid not in waiting:
            continue
        del waiting[rid]
        for product in products[rid]:
            open_sources[product] -= 1
            if product in waiting:
                layers[product] = max(layers[product], layers[rid] + 1)
                if not open_sources[product]:
                    ready.append(product)
    return layers


def _render_edge(source: _Place, product: _Place) -> str:
    x1, y1 = source.x + WIDTH, source.y + HEIGHT / 2
    x2, y2 = product.x - 5, product.y + HEIGHT / 2
    bend = max((x2 - x1) / 2, GAP_X / 2)
    curve = f"M{x1:g},{y1:g} C{x1 + bend:g},{y1:g} {x2 - bend:g},{y2:g} {x2:g},{y2:g}"
    head = f"M{x2 - 3:g},{y2 - 4:g} L{x2 + 4:g},{y2:g} L{x2 - 3:g},{y2 + 4:g} Z"
    return (
        f'<path d="{curve}" fill="none" stroke="currentColor" stroke-opacity=".45"/>'
        f'<path d="{head}" fill="currentColor" fill-opacity=".6"/>'
    )


def _render_node(node: Node, place: _Place, *, is_start: bool) -> str:
    colour = COLOURS.get(node.table, ASSET_COLOUR)
    radius = 12 if node.table == MLTable.execution else 3
    name = sanitize_line(node.name)
    status = f" · {sanitize_line(node.status)}" if node.status else ""
    whole = f"{sanitize_line(node.table)} {sanitize_line(node.rid)}{status}"
    box = (
        f'<rect x="{place.x:g}" y="{place.y:g}" width="{WIDTH}" height="{HEIGHT}" rx="{radius}" fill="{colour}" '
        f'fill-opacity=".12" stroke="{colour}" stroke-width="{3 if is_start else 1.2}"/>'
    )
    dot = ""
    if node.status:
        fill = status_traits(node.status).html_colour
        dot = f'<circle cx="{place.x + WIDTH - 11:g}" cy="{place.y + 12:g}" r="4" fill="{fill}"/>'
    lines = [f"{sanitize_line(node.table)} {sanitize_line(node.rid)}", name]
    texts = "".join(
        f'<text x="{place.x + 10:g}" y="{place.y + 16 + 15 * number:g}"{style}>'
        f"{escape(truncate(line, MAX_LINE_LENGTH))}</text>"
        for number, (line, style) in enumerate(zip(lines, (' font-weight="bold"', ' fill-opacity=".8"'), strict=True))
        if line
    )
    title = f"<title>{escape(truncate(f'{whole}: {name}' if name else whole, 300))}</title>"
    return f"<g>{title}{box}{dot}{texts}</g>"
