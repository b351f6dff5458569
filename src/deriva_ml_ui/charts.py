"""Options of the charts. Texts of the catalog are values in lists and never keys, see `page_parts`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deriva_ml_core.analysis.lineage import Lineage

__all__ = [
    "NODE_GAP_X",
    "NODE_GAP_Y",
    "Series",
    "draw_curves",
    "draw_lineage",
    "draw_parallel",
    "place_nodes",
    "smooth",
]

LIGHT_COLORS = (
    "#0b57b8",
    "#c2410c",
    "#14713c",
    "#8b2fc9",
    "#b3261e",
    "#0e7490",
    "#8a5300",
    "#be185d",
    "#4d5b2a",
    "#475569",
)
DARK_COLORS = (
    "#82b4ff",
    "#ffb37a",
    "#6fd69a",
    "#d3a6ff",
    "#ff9d94",
    "#67d5e8",
    "#f0b45c",
    "#ff9ecb",
    "#c0d68a",
    "#b6c2d1",
)

MAX_SYMBOL_POINTS = 40
"""Points of a curve up to which each is marked."""

MAX_LABEL_LENGTH = 28
NODE_GAP_X, NODE_GAP_Y = 190, 80
"""Pixels between the nodes of a lineage."""


@dataclass(frozen=True, slots=True)
class Series:
    """A curve.

    Args:
        name: Its name in the legend.
        points: Its points.
        color: The number of its colour.
        is_dashed: Whether its line is dashed.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    color: int = 0
    is_dashed: bool = False


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Return the exponential moving average of values; those that are not finite stay as they are.

    Args:
        values: The values.
        weight: The weight of what came before, from 0 to below 1.
    """
    average, norm, smoothed = 0.0, 0.0, []
    for value in values:
        if not math.isfinite(value):
            smoothed.append(value)
            continue
        average = weight * average + (1 - weight) * value
        norm = weight * norm + (1 - weight)  # the first values have nothing before them
        smoothed.append(average / norm)
    return smoothed


def draw_curves(
    series: Sequence[Series],
    axis: str,
    *,
    is_dark: bool,
    smoothing: float = 0.0,
    is_log: bool = False,
    has_legend: bool = True,
) -> dict[str, Any]:
    """Return the options of a panel of curves.

    Args:
        series: The curves.
        axis: The title of the horizontal axis.
        is_dark: Whether the page is dark.
        smoothing: The weight for `smooth`; the values themselves are drawn faintly then.
        is_log: Whether the vertical axis is logarithmic.
        has_legend: Whether the curves are named below the panel.
    """
    colors = DARK_COLORS if is_dark else LIGHT_COLORS
    lines = []
    for each in series:
        color = colors[each.color % len(colors)]
        xs, ys = [point[0] for point in each.points], [point[1] for point in each.points]
        if smoothing > 0:
            lines.append(_line(each, xs, ys, color, opacity=0.25))
            ys = smooth(ys, smoothing)
        lines.append(_line(each, xs, ys, color, opacity=1.0))
    text = _text_color(is_dark)
    return {
        "animation": False,
        "aria": {"enabled": True},
        "color": list(colors),
        "grid": {"left": 56, "right": 18, "top": 34, "bottom": 62 if has_legend else 40},
        "legend": {
            "show": has_legend,
            "type": "scroll",
            "bottom": 0,
            "textStyle": {"color": text},
            "pageTextStyle": {"color": text},
        },
        # the text of a tooltip is drawn, and is no HTML
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True, "order": "valueAsc"},
        "toolbox": {
            "right": 12,
            "feature": {"dataZoom": {"title": {"zoom": "Zoom", "back": "Zoom back"}}, "restore": {"title": "Reset"}},
            "iconStyle": {"borderColor": text},
        },
        "dataZoom": [{"type": "inside", "filterMode": "none", "zoomOnMouseWheel": "ctrl"}],
        "xAxis": _axis("value", axis, is_dark),
        "yAxis": _axis("log" if is_log else "value", "", is_dark),
        "series": lines,
    }


def _line(series: Series, xs: Sequence[float], ys: Sequence[float], color: str, *, opacity: float) -> dict[str, Any]:
    style = {"width": 2, "opacity": opacity, "type": "dashed" if series.is_dashed else "solid"}
    return {
        "type": "line",
        "name": series.name,
        "data": [[x, y if math.isfinite(y) else None] for x, y in zip(xs, ys, strict=True)],
        "showSymbol": len(xs) <= MAX_SYMBOL_POINTS and opacity == 1.0,
        "symbolSize": 5,
        "color": color,
        "lineStyle": style,
        "silent": opacity < 1.0,
    }


def _axis(kind: str, name: str, is_dark: bool) -> dict[str, Any]:
    text, line = _text_color(is_dark), "#383f4b" if is_dark else "#d5d9e0"
    return {
        "type": kind,
        "name": name,
        "nameLocation": "middle",
        "nameGap": 26,
        "scale": True,
        "nameTextStyle": {"color": text},
        "axisLabel": {"color": text, "hideOverlap": True},
        "axisLine": {"lineStyle": {"color": line}},
        "splitLine": {"lineStyle": {"color": line}},
    }


def _legend(text: str) -> dict[str, Any]:
    return {"type": "scroll", "bottom": 0, "textStyle": {"color": text}, "pageTextStyle": {"color": text}}


def _text_color(is_dark: bool) -> str:
    return "#a3adbb" if is_dark else "#566070"


def draw_parallel(axes: Sequence[tuple[str, Sequence[Any]]], names: Sequence[str], *, is_dark: bool) -> dict[str, Any]:
    """Return the options of parallel coordinates: one line for each run.

    Args:
        axes: The title of each axis, and the value of each run on it; None where a run has none.
        names: The name of each run.
        is_dark: Whether the page is dark.
    """
    colors, text = DARK_COLORS if is_dark else LIGHT_COLORS, _text_color(is_dark)
    columns = [_parallel_axis(number, title, values) for number, (title, values) in enumerate(axes)]
    rows = [[_plain(values[run]) for _, values in axes] for run in range(len(names))]
    return {
        "animation": False,
        "aria": {"enabled": True},
        "legend": _legend(text),
        "tooltip": {"renderMode": "richText", "confine": True},
        "parallel": {
            "left": 50,
            "right": 60,
            "top": 56,
            "bottom": 60,
            "parallelAxisDefault": {
                "nameTextStyle": {"color": text},
                "nameTruncate": {"maxWidth": 110},
                "nameRotate": 0,
                "axisLabel": {"color": text},
                "axisLine": {"lineStyle": {"color": text}},
            },
        },
        "parallelAxis": columns,
        "series": [
            {
                "type": "parallel",
                "name": name,
                "lineStyle": {"width": 2, "opacity": 0.85, "color": colors[number % len(colors)]},
                "itemStyle": {"color": colors[number % len(colors)]},
                "data": [row],
            }
            for number, (name, row) in enumerate(zip(names, rows, strict=True))
        ],
    }


def _parallel_axis(number: int, title: str, values: Sequence[Any]) -> dict[str, Any]:
    axis: dict[str, Any] = {"dim": number, "name": title}
    if all(value is None or _is_number(value) for value in values):
        return {**axis, "type": "value", "scale": True}
    return {**axis, "type": "category", "data": list(dict.fromkeys(_plain(v) for v in values if v is not None))}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if _is_number(value) else str(value)[:60]


def place_nodes(lineage: Lineage) -> dict[str, tuple[int, int]]:
    """Return the column and the row of each node: sources left of what was made from them.

    Args:
        lineage: The lineage; a cycle, which a damaged catalog may have, is cut.
    """
    sources: dict[str, list[str]] = {rid: [] for rid in lineage.nodes}
    for edge in lineage.edges:
        if edge.source in sources and edge.product in sources:
            sources[edge.product].append(edge.source)
    columns: dict[str, int] = {}
    for _ in range(len(sources) + 1):  # the longest path has that many nodes
        changed = False
        for rid, before in sources.items():
            column = max((columns.get(each, 0) + 1 for each in before), default=0)
            if columns.get(rid) != column and column <= len(sources):
                columns[rid], changed = column, True
        if not changed:
            break
    rows: dict[int, int] = {}
    places = {}
    for rid in sorted(sources, key=lambda each: columns.get(each, 0)):
        column = columns.get(rid, 0)
        places[rid] = (column, rows.get(column, 0))
        rows[column] = rows.get(column, 0) + 1
    return places


_SYMBOLS: Mapping[str, str] = {"Execution": "circle", "Dataset": "diamond"}
_NODE_COLORS: Mapping[str, int] = {"Execution": 0, "Dataset": 2}


def draw_lineage(lineage: Lineage, *, is_dark: bool) -> dict[str, Any]:
    """Return the options of a graph of what a row is derived from and what used it.

    Args:
        lineage: The lineage.
        is_dark: Whether the page is dark.
    """
    colors, text = DARK_COLORS if is_dark else LIGHT_COLORS, _text_color(is_dark)
    places = place_nodes(lineage)
    heights: dict[int, int] = {}
    for column, row in places.values():
        heights[column] = max(heights.get(column, 0), row)
    tallest = max(heights.values(), default=0)
    numbers = {rid: number for number, rid in enumerate(lineage.nodes)}
    nodes = []
    for rid, each in lineage.nodes.items():
        column, row = places[rid]
        label = each.name if len(each.name) <= MAX_LABEL_LENGTH else f"{each.name[: MAX_LABEL_LENGTH - 1]}…"
        title = f"{each.table} {rid} {each.status}".rstrip()
        is_start = rid == lineage.start
        style = {"color": colors[_NODE_COLORS.get(each.table, 1)], "borderColor": text, "borderWidth": 3 * is_start}
        nodes.append(
            {
                "name": rid,
                "value": [column, row + (tallest - heights[column]) / 2],
                "symbol": _SYMBOLS.get(each.table, "rect"),
                "symbolSize": 24 if is_start else 16,
                "itemStyle": style,
                "label": {"formatter": _escape_formatter(f"{title}\n{label}")},
                "tooltip": {"formatter": _escape_formatter(f"{title}\n{each.name}")},
            }
        )
    return {
        "animation": False,
        "aria": {"enabled": True},
        "tooltip": {"renderMode": "richText", "confine": True},
        "grid": {"left": 90, "right": 90, "top": 30, "bottom": 50},
        "xAxis": {"show": False, "type": "value", "min": 0, "max": max(max(heights, default=0), 1)},
        "yAxis": {"show": False, "type": "value", "min": 0, "max": max(tallest, 1), "inverse": True},
        "series": [
            {
                "type": "graph",
                "coordinateSystem": "cartesian2d",
                "label": {"show": True, "position": "bottom", "color": text, "fontSize": 11, "lineHeight": 14},
                "edgeSymbol": ["none", "arrow"],
                "edgeSymbolSize": 8,
                "lineStyle": {"color": text, "opacity": 0.7, "width": 1.5},
                "data": nodes,
                "links": [
                    {"source": numbers[edge.source], "target": numbers[edge.product]}
                    for edge in lineage.edges
                    if edge.source in numbers and edge.product in numbers
                ],
            }
        ],
    }


def _escape_formatter(text: str) -> str:
    """Return a text without the braces that a formatter replaces."""
    return text.replace("{", "(").replace("}", ")")
