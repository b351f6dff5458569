"""The page that compares runs: curves in the same panels, parallel coordinates, and what differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from deriva_ml_core._text import format_count
from deriva_ml_core.analysis.compare import SECTIONS, Comparison
from deriva_ml_core.analysis.runs import ExecutionSummary, label_metric, summarize_with_values
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import check_rid
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.metric_modes import choose_metric
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.charts import draw_parallel
from deriva_ml_ui.live_view import LiveView
from deriva_ml_ui.metric_panels import MetricPanels
from deriva_ml_ui.page_parts import Cell, Column, LiveTable, TableRow, add_section, clean, is_dark, node
from deriva_ml_ui.run_list import RunTable, split_list

__all__ = ["ComparisonPage", "load_comparison", "parallel_axes", "parse_rids"]

MAX_RUNS = 50
MAX_AXES = 12
MAX_DIFFERENCES = 500
MAX_VALUE_LENGTH = 120


@dataclass(frozen=True, slots=True)
class ComparisonAnswer:
    """What the page shows.

    Args:
        comparison: What differs.
        runs: The runs with their parameters and metrics.
    """

    comparison: Comparison
    runs: tuple[ExecutionSummary, ...]

    @property
    def is_over(self) -> bool:
        """Whether all runs have ended."""
        return all(run.status.is_terminal for run in self.runs)


def parse_rids(text: str) -> list[str]:
    """Return the runs of an address, each once.

    Raises:
        InvalidRID: One of them is no RID.
        ConfigurationError: There are too many.
    """
    rids = list(dict.fromkeys(map(check_rid, split_list(text))))
    if len(rids) > MAX_RUNS:
        raise ConfigurationError(f"At most {MAX_RUNS} runs are compared on a page, and these are {len(rids)}.")
    return rids


def load_comparison(ml: DerivaML, rids: Sequence[str]) -> ComparisonAnswer:
    """Return what differs between runs."""
    left, right, *others = rids
    runs = summarize_with_values(ml.connection, [ml.lookup_execution(rid) for rid in rids])
    return ComparisonAnswer(ml.compare(left, right, *others), runs)


def parallel_axes(runs: Sequence[ExecutionSummary]) -> list[tuple[str, list[Any]]]:
    """Return the axes of parallel coordinates: parameters that differ, and then metrics, the deciding one last.

    Args:
        runs: The runs.
    """
    names = dict.fromkeys(name for run in runs for name in run.params)
    params = [
        (name, [run.params.get(name) for run in runs])
        for name in names
        if len({repr(run.params.get(name)) for run in runs}) > 1
    ]
    labels = list(dict.fromkeys(label_metric(metric) for run in runs for metric in run.metrics))
    chosen = choose_metric(labels)
    labels.sort(key=lambda label: label != chosen)
    metrics = [(label, [_best_value(run, label) for run in runs]) for label in labels]
    shown = [axis for axis in metrics if any(value is not None for value in axis[1])]
    count = max(MAX_AXES - len(params), 2)
    return [*params[: MAX_AXES - min(count, len(shown))], *reversed(shown[:count])]


def _best_value(run: ExecutionSummary, label: str) -> float | None:
    for metric in run.metrics:
        if label_metric(metric) == label:
            value = metric.last if metric.best is None else metric.best
            return value if value is not None and math.isfinite(value) else None
    return None


class ComparisonPage:
    """Runs side by side.

    Args:
        answers: The catalog.
        rids: The runs, at least two.
    """

    def __init__(self, answers: Answers, rids: Sequence[str]) -> None:
        self._rids = tuple(rids)
        self._is_over = False
        self._chart: Any = None
        self._view: LiveView[ComparisonAnswer] = LiveView(
            answers,
            ("compare", self._rids),
            lambda ml: load_comparison(ml, self._rids),
            is_live=lambda answer: not answer.is_over,
        )
        with self._view.content:
            with add_section("Runs", "runs"):
                self._runs = RunTable()
            with add_section("Curves", "curves"):
                MetricPanels(answers, rids, lambda: not self._is_over)
            with add_section("Parameters and metrics", "parallel"):
                self._parallel: Any = node("div")
            with add_section("Differences", "differences"):
                self._note: Any = node("p", "", "note", role="status")
                self._tables: Any = node("div")
        self._view.on_answer(self._show)

    async def start(self) -> None:
        """Load the comparison."""
        await self._view.start()

    def _show(self, answer: ComparisonAnswer) -> None:
        self._is_over = answer.is_over
        self._runs.show(answer.runs)
        ui.timer(0, lambda: self._show_parallel(answer.runs), once=True)
        self._show_differences(answer.comparison)

    async def _show_parallel(self, runs: Sequence[ExecutionSummary]) -> None:
        dark = await is_dark()
        axes = parallel_axes(runs)
        self._parallel.clear()
        with self._parallel:
            if len(axes) < 2:
                node("p", "Too few parameters and metrics differ for this picture.", "note")
                return
            options = draw_parallel(axes, [run.rid for run in runs], is_dark=dark)
            with node("figure", None, "panel graph", aria_label="Parallel coordinates", tabindex="0"):
                ui.echart(options).style(f"width: max(100%, {len(axes) * 130}px); height: 360px")

    def _show_differences(self, comparison: Comparison) -> None:
        differences = comparison.differences[:MAX_DIFFERENCES]
        equal = sum(comparison.equal_counts.values())
        more = len(comparison.differences) - len(differences)
        cut = f" The first {MAX_DIFFERENCES} are shown; deriva-ml diff prints all." if more > 0 else ""
        count = format_count(len(comparison.differences), "value")
        self._note.text = f"{count} differ, {format_count(equal, 'value')} are equal.{cut}"
        self._tables.clear()
        with self._tables:
            for section in SECTIONS:
                of_section = [each for each in differences if each.section == section]
                if not of_section:
                    continue
                node("h3", section.capitalize())
                table = LiveTable(f"Differences: {section}")
                columns = [Column("name", "Name"), *(Column(rid, rid) for rid in comparison.executions)]
                rows = [TableRow(each.name, tuple(_value_cells(each.name, each.values))) for each in of_section]
                table.show(columns, rows)


def _value_cells(name: str, values: Sequence[Any]) -> Iterator[Cell]:
    yield Cell(clean(name))
    for value in values:
        text = "" if value is None else clean(f"{value:.6g}" if isinstance(value, float) else value)
        if isinstance(value, float):
            yield Cell(text, title=repr(value))
        elif len(text) > MAX_VALUE_LENGTH:
            yield Cell(f"{text[: MAX_VALUE_LENGTH - 1]}…", title=text[:1000])
        else:
            yield Cell(text)


def add_run_choice() -> None:
    """Add what a person does to compare runs, on the page without any."""
    with node("p"):
        node("span", "Select runs in the ")
        node("a", "list of runs", href="/")
        node("span", ", or enter their RIDs:")
    with node("form", None, "filters", method="get", action="/compare"):
        with node("label", None, "wide"):
            node("span", "RIDs, separated by commas")
            node("input", type="text", name="runs", autocomplete="off")
        node("button", "Compare", type="submit")
