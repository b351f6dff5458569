"""What a row is derived from and what used it: a picture, and the same as lists of links."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from deriva_ml_core._text import format_count
from deriva_ml_core.analysis.lineage import Direction, Lineage, Node
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.charts import NODE_GAP_X, NODE_GAP_Y, draw_lineage, place_nodes
from deriva_ml_ui.live_view import LiveView
from deriva_ml_ui.page_parts import add_link, address, clean, is_dark, node

__all__ = ["LineageGraph", "node_address"]

MAX_LISTED = 100
"""Links in each list below the picture."""


def node_address(table: str, rid: str) -> str:
    """Return the address of the page of a node."""
    page = {"Execution": "runs", "Dataset": "datasets"}.get(table, "assets")
    return address(f"/{page}/{rid}")


class LineageGraph:
    """The lineage of a row, which is loaded after the rest of its page.

    Args:
        answers: The catalog.
        rid: The row.
        depth: How many links to follow in each direction.
    """

    def __init__(self, answers: Answers, rid: str, depth: int = 4) -> None:
        self._view: LiveView[Lineage] = LiveView(
            answers,
            ("lineage", rid, depth),
            lambda ml: ml.lineage(rid, depth=depth, limit=60, siblings=8),
            is_live=lambda _: False,
        )
        self._view.on_answer(self._show)
        ui.timer(0, self._view.start, once=True)

    async def _show(self, lineage: Lineage) -> None:
        dark = await is_dark()
        self._view.content.clear()
        if len(lineage.nodes) < 2:
            node("p", "Nothing was recorded that it was made from, and nothing used it.", "note")
            return
        tables = {rid: each.table for rid, each in lineage.nodes.items()}

        def follow(event: Any) -> None:
            if event.data_type == "node" and (rid := str(event.name)) in tables:
                ui.navigate.to(node_address(tables[rid], rid))

        places = place_nodes(lineage).values()
        width = (max(column for column, _ in places) + 1) * NODE_GAP_X
        height = max((max(row for _, row in places) + 1) * NODE_GAP_Y + 60, 200)
        with node("figure", None, "panel graph", aria_label="Lineage, as in the lists below", tabindex="0"):
            chart = ui.echart(draw_lineage(lineage, is_dark=dark), on_point_click=follow)
            chart.style(f"width: max(100%, {width}px); height: {height}px")
        _add_list("Made from", lineage, Direction.upstream)
        _add_list("Made into", lineage, Direction.downstream)
        if lineage.omitted or lineage.is_truncated:
            count = sum(each.count for each in lineage.omitted)
            more = f"{format_count(count, 'neighbour')} left out" if count else "cut"
            node(
                "p",
                f"Only the nearest rows are shown: {more}. deriva-ml lineage {clean(lineage.start)} has all.",
                "note",
            )


def _add_list(title: str, lineage: Lineage, direction: Direction) -> None:
    nearest = lineage.neighbours(direction).get(lineage.start, [])
    rids = dict.fromkeys(nearest)
    if not rids:
        return
    node("h3", title)
    with node("ul", None, "links"):
        for rid in list(rids)[:MAX_LISTED]:
            _add_item(lineage.nodes[rid])


def _add_item(each: Node) -> None:
    with node("li"):
        node("span", f"{each.table} ")
        add_link(each.rid, node_address(each.table, each.rid))
        node("span", f" {each.name} {each.status}".rstrip())
