"""Curves of one or more runs in panels, with a choice of axis and smoothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nicegui import ui

from deriva_ml_core.client import DerivaML
from deriva_ml_core.metric_modes import choose_metric
from deriva_ml_core.training.metric_rows import MetricRow
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.charts import Series, draw_curves
from deriva_ml_ui.live_view import LiveView
from deriva_ml_ui.page_parts import clean, is_dark, node

__all__ = ["CurveData", "MetricPanels", "group_name", "load_curve_data", "split_curves"]

MAX_PANELS = 8
MAX_POINTS = 1_000
"""Points of each curve that are sent to the browser."""

MAX_CURVES = 60
"""Curves in a panel."""

STAGE_WORDS = frozenset({"train", "training", "val", "valid", "validation", "test", "eval", "dev"})
AXES: Mapping[str, str] = {"epoch": "epoch", "step": "step", "time": "minutes since the first value"}

Curve = tuple[str, str, int, str]
"""Name of a metric, stage, number of the fit, and the unit that its values describe."""


@dataclass(frozen=True, slots=True)
class CurveData:
    """The values of some metrics of some runs.

    Args:
        names: The names of all metrics of the runs, the most important first.
        shown: The names whose values these are.
        rows: The values, by run.
        labels: What the runs are called.
    """

    names: tuple[str, ...]
    shown: tuple[str, ...]
    rows: tuple[tuple[MetricRow, ...], ...]
    labels: tuple[str, ...]


def group_name(metric: str) -> str:
    """Return the name of the panel of a metric: ``loss`` for ``val_loss`` and ``train/loss``."""
    parts = re.split(r"([_/.\-\s])", metric)
    words = [word for word in parts[::2] if word.lower() not in STAGE_WORDS]
    if not words:
        return metric
    kept, separator = words[0], next((sep for sep in parts[1::2]), "_")
    return separator.join([kept, *words[1:]]) if len(words) < len(parts[::2]) else metric


def load_curve_data(ml: DerivaML, rids: Sequence[str], pattern: str) -> CurveData:
    """Return the curves of runs whose name has a text; at most so many as `MAX_PANELS` panels show.

    Args:
        ml: The client.
        rids: The runs.
        pattern: The text, upper or lower case.
    """
    runs = [ml.lookup_execution(rid) for rid in rids]
    panel_name = group_name if len(runs) == 1 else str
    names = list(dict.fromkeys(metric.name for run in runs for metric in run.list_metrics()))
    chosen = choose_metric(names)
    if chosen is not None:
        first = panel_name(chosen)
        names.sort(key=lambda name: panel_name(name) != first)
    matching = [name for name in names if pattern.casefold() in name.casefold()]
    panels = set(list(dict.fromkeys(map(panel_name, matching)))[:MAX_PANELS])
    shown = tuple(name for name in matching if panel_name(name) in panels)[: MAX_PANELS * MAX_CURVES]
    points = max(MAX_POINTS // max(1, len(rids) // 4), 100)
    # without rows in the catalog, as on a server without the table, the names are those of the file
    wanted = shown if names else None
    rows = tuple(tuple(run.metric_rows(wanted, max_points=points)) for run in runs) if shown or not names else ()
    if not names:
        found = dict.fromkeys(row["metric"] for of_run in rows for row in of_run)
        names = list(found)
        shown = tuple(name for name in names if pattern.casefold() in name.casefold())
    labels = tuple(f"{run.execution_rid} {run.description}".strip()[:60] for run in runs)
    return CurveData(tuple(names), shown, rows, labels)


def split_curves(rows: Sequence[MetricRow]) -> dict[Curve, list[MetricRow]]:
    """Return the rows of each curve."""
    curves: dict[Curve, list[MetricRow]] = {}
    for row in rows:
        curves.setdefault((row["metric"], row["stage"], row["fit"], row["by"]), []).append(row)
    return curves


def choose_unit(curves: Mapping[Curve, Any], axis: str) -> list[Curve]:
    """Return the curves to draw on an axis: by epoch on the axis of epochs, and by step on the others, if possible."""
    preferred = "epoch" if axis == "epoch" else "step"
    chosen: dict[tuple[str, str, int], Curve] = {}
    for curve in curves:
        key = curve[:3]
        if key not in chosen or curve[3] == preferred:
            chosen[key] = curve
    return list(chosen.values())


def place_points(rows: Sequence[MetricRow], axis: str, start: datetime | None) -> tuple[tuple[float, float], ...]:
    """Return the points of a curve; values without a position on the axis are left out.

    Args:
        rows: The curve.
        axis: A key of `AXES`.
        start: The time of the first value of the run.
    """
    points = []
    for number, row in enumerate(rows, 1):
        if axis == "time":
            time = _parse_time(row["time"])
            if time is not None and start is not None:
                points.append(((time - start).total_seconds() / 60, row["value"]))
            continue
        position = row["epoch"] if axis == "epoch" else row["step"]
        if position is None and all(each["epoch" if axis == "epoch" else "step"] is None for each in rows):
            position = number
        if position is not None:
            points.append((float(position), row["value"]))
    return tuple(points)


def _parse_time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def build_panels(data: CurveData, axis: str) -> dict[str, list[Series]]:
    """Return the curves of each panel.

    Args:
        data: The values.
        axis: A key of `AXES`.
    """
    panels: dict[str, list[Series]] = {}
    for run, rows in enumerate(data.rows):
        curves = split_curves(rows)
        times = [time for row in rows if (time := _parse_time(row["time"])) is not None]
        start = min(times, default=None)
        fits = {curve[2] for curve in curves}
        for curve in choose_unit(curves, axis):
            name, stage, fit, _ = curve
            if name not in data.shown:
                continue
            label = name if stage == "fit" else f"{name} ({stage})"
            label += f", fit {fit}" if len(fits) > 1 else ""
            points = place_points(curves[curve], axis, start)
            if len(data.rows) > 1:  # each metric has its own panel, and each run its own colour
                suffix = label.removeprefix(name)
                panel = panels.setdefault(name, [])
                panel.append(Series(data.labels[run] + suffix, points, run, is_dashed=bool(suffix)))
            else:
                panel = panels.setdefault(group_name(name), [])
                panel.append(Series(label, points, len(panel)))
    order = list(dict.fromkeys(data.shown if len(data.rows) > 1 else map(group_name, data.shown)))
    return {name: panels[name][:MAX_CURVES] for name in order if name in panels}


class MetricPanels:
    """The curves of runs, with what chooses them.

    Args:
        answers: The catalog.
        rids: The runs.
        is_live: Returns whether one of the runs still trains.
    """

    def __init__(self, answers: Answers, rids: Sequence[str], is_live: Callable[[], bool]) -> None:
        self._rids = tuple(rids)
        self._axis, self._smoothing, self._pattern, self._is_log = "epoch", 0.0, "", False
        self._is_dark = False
        self._data: CurveData | None = None
        self._charts: dict[str, Any] = {}
        self._add_controls()
        self._view: LiveView[CurveData] = LiveView(answers, self._key(), self._question(), is_live=lambda _: is_live())
        with self._view.content:
            self._note = node("p", "", "note", role="status")
            self._grid = node("div", None, "panels")
        self._view.on_answer(self._show)
        ui.timer(0, self._start, once=True)

    def _key(self) -> tuple[object, ...]:
        return ("curves", self._rids, self._pattern)

    def _question(self) -> Callable[[DerivaML], CurveData]:
        rids, pattern = self._rids, self._pattern
        return lambda ml: load_curve_data(ml, rids, pattern)

    async def _start(self) -> None:
        self._is_dark = await is_dark()
        await self._view.start()

    def _add_controls(self) -> None:
        with node("div", None, "filters", role="group", aria_label="Curves"):
            with node("label"):
                node("span", "Horizontal axis")
                axis = node("select")
                with axis:
                    for value in AXES:
                        node("option", value.capitalize(), value=value)
            axis.on("change", lambda event: self._redraw(axis=str(event.args)), js_handler=EMIT_VALUE)
            with node("label"):
                node("span", "Smoothing")
                smoothing = node("input", type="range", min="0", max="0.98", step="0.02", value="0")
            smoothing.on("input", lambda event: self._redraw(smoothing=event.args), js_handler=EMIT_VALUE, throttle=0.2)
            with node("label"):
                node("span", "Metrics")
                pattern = node("input", type="search", placeholder="part of a name", autocomplete="off")
            pattern.on("change", lambda event: self._choose(str(event.args)), js_handler=EMIT_VALUE)
            with node("label", None, "check"):
                scale = node("input", type="checkbox")
                node("span", "Logarithmic")
            scale.on("change", lambda event: self._redraw(is_log=bool(event.args)), js_handler=EMIT_CHECKED)

    def _redraw(self, *, axis: str | None = None, smoothing: Any = None, is_log: bool | None = None) -> None:
        if axis is not None and axis in AXES:
            self._axis = axis
        if smoothing is not None:
            try:
                self._smoothing = min(max(float(smoothing), 0.0), 0.98)
            except ValueError:
                return
        if is_log is not None:
            self._is_log = is_log
        if self._data is not None:
            self._show(self._data)

    async def _choose(self, pattern: str) -> None:
        self._pattern = pattern.strip()[:200]
        await self._view.ask_other(self._key(), self._question())

    def _show(self, data: CurveData) -> None:
        self._data = data
        panels = build_panels(data, self._axis)
        self._note.say(_describe_choice(data, len(panels), self._pattern))
        if list(panels) != list(self._charts):
            self._grid.clear()
            with self._grid:
                self._charts = {name: _add_panel(name) for name in panels}
        for name, series in panels.items():
            title = AXES[self._axis]
            options = draw_curves(series, title, is_dark=self._is_dark, smoothing=self._smoothing, is_log=self._is_log)
            set_options(self._charts[name], options)


EMIT_VALUE = "(event) => emit(event.target.value)"
EMIT_CHECKED = "(event) => emit(event.target.checked)"


def set_options(chart: Any, options: dict[str, Any]) -> None:
    """Show other options in a chart; equal ones are not sent again."""
    if chart.options != options:
        chart.options.clear()
        chart.options.update(options)
        chart.update()


def _add_panel(name: str) -> Any:
    with node("figure", None, "panel", aria_label=f"Curves of {clean(name)}"):
        node("figcaption", name)
        return ui.echart({}).classes("chart")


def _describe_choice(data: CurveData, shown: int, pattern: str) -> str:
    if not data.names:
        return "No metrics are recorded yet."
    if not shown:
        return f"No metric has {clean(pattern)!r} in its name." if pattern else "No values are recorded yet."
    groups = len(set(map(group_name, data.names)) if len(data.rows) < 2 else data.names)
    if shown < groups and not pattern:
        return f"{shown} of {groups:,} panels. Enter a part of a name to see others."
    return ""
