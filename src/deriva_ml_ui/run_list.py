"""The page of runs: filters, columns that differ, and states that change while runs train."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nicegui import ui
from starlette.datastructures import QueryParams

from deriva_ml_core._text import format_duration, format_number, sanitize_line
from deriva_ml_core.analysis.runs import ExecutionPage, ExecutionSummary, label_metric
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.metric_modes import choose_metric
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.live_view import LiveView
from deriva_ml_ui.page_parts import (
    Cell,
    Column,
    LiveTable,
    TableRow,
    address,
    age_cell,
    node,
    status_class,
)

__all__ = ["RunFilters", "RunTable", "add_run_list", "run_address"]

ROWS_PER_PAGE = 50
MAX_PARAMETER_COLUMNS, MAX_METRIC_COLUMNS = 4, 3
MAX_CELL_LENGTH = 40
MAX_SUGGESTIONS = 200
"""Names of parameters and metrics that the field for columns suggests."""

MAX_PAGE = 100_000


def run_address(rid: str) -> str:
    """Return the address of a run's page."""
    return address(f"/runs/{rid}")


@dataclass(frozen=True, slots=True)
class RunFilters:
    """What the page of runs shows; the same as its address.

    Args:
        text: A text in the description or the workflow's name.
        where: Conditions on parameters and metrics, separated by commas.
        status: The name of a status; empty for all.
        tags: Tags, separated by commas; a run must have all of them.
        workflow: The RID of a workflow.
        dataset: The RID of an input dataset.
        sort: The metric to sort by, as for ``DerivaML.list_executions``; empty for newest first.
        columns: Names of parameters and metrics, separated by commas; empty for those that differ.
        page: The page, from 1.
    """

    text: str = ""
    where: str = ""
    status: str = ""
    tags: str = ""
    workflow: str = ""
    dataset: str = ""
    sort: str = ""
    columns: str = ""
    page: int = 1

    @classmethod
    def from_query(cls, query: QueryParams) -> RunFilters:
        """Return the filters of an address."""
        texts = {name: query.get(name, "").strip() for name in cls.__slots__ if name != "page"}
        number = query.get("page", "1")
        page = int(number) if number.isascii() and number.isdecimal() and len(number) < 7 else 1
        return cls(**texts, page=min(max(page, 1), MAX_PAGE))

    def address(self) -> str:
        """Return the address of these filters."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return address("/", {**values, "page": self.page if self.page > 1 else ""})

    def sorted_address(self, sort: str) -> str:
        """Return the address of these filters with another order, from the first page on."""
        return replace(self, sort=sort, page=1).address()

    def page_address(self, page: int) -> str:
        """Return the address of another page."""
        return replace(self, page=page).address()

    def load(self, ml: DerivaML) -> ExecutionPage:
        """Return the executions of the page.

        Raises:
            DerivaMLException: A filter names what does not exist, or cannot be parsed.
        """
        statuses = {status.name: status for status in Status}
        if self.status and self.status not in statuses:
            raise ConfigurationError(f"There is no status {self.status!r}; use one of {', '.join(statuses)}.")
        return ml.list_executions(
            text=self.text or None,
            where=split_list(self.where),
            status=statuses.get(self.status),
            tags=split_list(self.tags),
            workflow=self.workflow or None,
            dataset=self.dataset or None,
            sort=self.sort or None,
            limit=ROWS_PER_PAGE,
            page=self.page,
        )


def split_list(text: str) -> list[str]:
    """Return the parts between commas that are outside of quotes."""
    parts = re.findall(r"""(?:"[^"]*"|'[^']*'|[^,])+""", text)
    return [part.strip() for part in parts if part.strip()]


class RunTable:
    """A table of runs whose states change in place.

    Args:
        filters: The filters that its headings change; None for a table that does not sort.
        selected: The RIDs of selected runs, which the table changes; None for a table without checkboxes.
    """

    def __init__(self, filters: RunFilters | None = None, selected: dict[str, None] | None = None) -> None:
        self._filters = filters
        self._names = split_list(filters.columns) if filters else []
        self._selected = selected
        self._table = LiveTable("Runs", None if selected is None else self._select, tuple(selected or ()))

    def _select(self, rid: str, is_selected: bool) -> None:
        if self._selected is None:
            return
        if is_selected:
            self._selected[rid] = None
        else:
            self._selected.pop(rid, None)

    def show(self, runs: Sequence[ExecutionSummary]) -> None:
        """Show these runs."""
        params, metrics = self._choose_names(runs)
        has_tags = any(run.tags for run in runs)
        self._table.show(
            [
                Column("rid", "RID"),
                Column("status", "Status"),
                *(self._metric_column(name) for name in metrics),
                *(Column(f"param {name}", name) for name in params),
                self._created_column(),
                Column("duration", "Duration", is_number=True),
                *([Column("tags", "Tags")] if has_tags else []),
                Column("workflow", "Workflow"),
                Column("description", "Description"),
            ],
            [TableRow(run.rid, tuple(_run_cells(run, params, metrics, has_tags=has_tags))) for run in runs],
        )

    def _choose_names(self, runs: Sequence[ExecutionSummary]) -> tuple[list[str], list[str]]:
        params = list(dict.fromkeys(name for run in reversed(runs) for name in run.params))
        metrics = list(dict.fromkeys(label_metric(metric) for run in reversed(runs) for metric in run.metrics))
        if self._names:
            bare = [name.removeprefix("params.").removeprefix("metrics.") for name in self._names]
            return [name for name in bare if name in params], [name for name in bare if name in metrics]
        varying = [name for name in params if len({repr(run.params.get(name)) for run in runs}) > 1]
        chosen = choose_metric(metrics)
        first = [name for name in (self._sorted_metric, chosen) if name in metrics]
        return varying[:MAX_PARAMETER_COLUMNS], list(dict.fromkeys([*first, *metrics]))[:MAX_METRIC_COLUMNS]

    @property
    def _sorted_metric(self) -> str:
        sort = self._filters.sort if self._filters else ""
        base, _, suffix = sort.rpartition(":")
        return base if base and suffix in ("last", "best", "min", "max") else sort

    def _created_column(self) -> Column:
        if self._filters is None:
            return Column("created", "Created")
        state = None if self._filters.sort else "descending"
        return Column("created", "Created", sort_target=self._filters.sorted_address(""), sort_state=state)

    def _metric_column(self, name: str) -> Column:
        if self._filters is None or name.endswith(")"):  # of another stage than the fit
            return Column(f"metric {name}", name, is_number=True)
        is_sorted = name == self._sorted_metric
        target = self._filters.sorted_address(name)
        return Column(
            f"metric {name}", name, is_number=True, sort_target=target, sort_state="ascending" if is_sorted else None
        )


def _run_cells(run: ExecutionSummary, params: Sequence[str], metrics: Sequence[str], *, has_tags: bool) -> list[Cell]:
    values = {label_metric(metric): metric for metric in run.metrics}
    workflow = run.workflow
    return [
        Cell(run.rid, run_address(run.rid), copied=run.rid),
        Cell(str(run.status), classes=status_class(run.status), title=run.status_detail or None),
        *(_metric_cell(values.get(name)) for name in metrics),
        *(_short_cell(run.params.get(name, "")) for name in params),
        age_cell(run.created),
        Cell(format_duration(run.duration_seconds)),
        *([_short_cell(", ".join(run.tags))] if has_tags else []),
        Cell(workflow.name or workflow.rid, address(f"/workflows/{workflow.rid}")) if workflow else Cell(""),
        _short_cell(run.description, 2 * MAX_CELL_LENGTH),
    ]


def _metric_cell(metric: Any) -> Cell:
    if metric is None:
        return Cell("")
    best = (
        "" if metric.best is None else f"best {metric.best!r}" + (f" at epoch {metric.best_at}" * bool(metric.best_at))
    )
    title = ", ".join(filter(None, (best, "" if metric.last is None else f"last {metric.last!r}")))
    return Cell(format_number(metric.last if metric.best is None else metric.best), title=title)


def _short_cell(value: object, length: int = MAX_CELL_LENGTH) -> Cell:
    text = sanitize_line(value)
    return Cell(text) if len(text) <= length else Cell(f"{text[: length - 1]}…", title=text[:1000])


def add_run_list(answers: Answers, filters: RunFilters) -> LiveView[ExecutionPage]:
    """Add the filters and the table of runs, and return what keeps it up to date."""
    selected: dict[str, None] = {}
    names = _add_filter_form(filters)
    view = LiveView(answers, ("runs", filters), filters.load)
    with view.content:
        note = node("p", "", "note", role="status")
        table = RunTable(filters, selected)
        with node("nav", None, "pages", aria_label="Pages"):
            previous = node("a", "Newer" if not filters.sort else "Better", href=filters.page_address(filters.page - 1))
            following = node("a", "Older" if not filters.sort else "Worse", href=filters.page_address(filters.page + 1))

    def show(page: ExecutionPage) -> None:
        table.show(page.executions)
        note.text = _describe_page(filters, page)
        previous.set_visibility(filters.page > 1)
        following.set_visibility(page.has_more)
        _suggest_names(names, page.executions)

    with view.actions:
        compare = node("button", "Compare the selected runs", "primary", type="button")
        compare.on("click", lambda: _compare(selected))
    view.on_answer(show)
    return view


def _compare(selected: Mapping[str, None]) -> None:
    if len(selected) < 2:
        ui.notify("Select two or more runs first.")
    else:
        ui.navigate.to(address("/compare", {"runs": ",".join(selected)}))


def _describe_page(filters: RunFilters, page: ExecutionPage) -> str:
    if not page.executions:
        is_filtered = filters != RunFilters()
        return "No run matches these filters." if is_filtered else "This catalog has no runs yet."
    first = (filters.page - 1) * ROWS_PER_PAGE + 1
    last = first + len(page.executions) - 1
    ranking = page.ranking
    if ranking is None:
        order = "newest first"
    else:
        kind, direction = (
            "last" if ranking.by_last_value else "best",
            "largest" if ranking.larger_is_better else "smallest",
        )
        order = f"by the {kind} value of {sanitize_line(ranking.name)}, {direction} first; runs without it are left out"
    return f"Runs {first} to {last}, {order}."


def _add_filter_form(filters: RunFilters) -> Any:
    with node("form", None, "filters", method="get", action="/", role="search", aria_label="Filter runs"):
        _add_field("Text", "text", filters.text, "in the description or workflow")
        _add_field("Conditions", "where", filters.where, "lr > 0.001, val_loss < 0.3", wide=True)
        with node("label"):
            node("span", "Status")
            with node("select", None, name="status"):
                for value, title in [("", "All"), *((status.name, str(status)) for status in Status)]:
                    node("option", title, value=value, selected=True if value == filters.status else None)
        _add_field("Tags", "tags", filters.tags, "all of them")
        _add_field("Sort by", "sort", filters.sort, "a metric", suggestions="metric-names")
        _add_field("Columns", "columns", filters.columns, "those that differ", suggestions="column-names")
        for name in ("workflow", "dataset"):
            if value := getattr(filters, name):
                _add_field(name.capitalize(), name, value, "RID")
        node("button", "Apply", type="submit")
        node("a", "Clear", href="/")
        return {name: node("datalist", None, id=name) for name in ("metric-names", "column-names")}


def _add_field(
    title: str, name: str, value: str, hint: str, *, wide: bool = False, suggestions: str | None = None
) -> None:
    with node("label", None, "wide" if wide else ""):
        node("span", title)
        node("input", None, type="text", name=name, value=value, placeholder=hint, list=suggestions, autocomplete="off")


def _suggest_names(lists: Mapping[str, Any], runs: Sequence[ExecutionSummary]) -> None:
    metrics = list(dict.fromkeys(metric.name for run in runs for metric in run.metrics))[:MAX_SUGGESTIONS]
    params = list(dict.fromkeys(name for run in runs for name in run.params))[:MAX_SUGGESTIONS]
    for name, values in (("metric-names", metrics), ("column-names", [*params, *metrics])):
        if len(lists[name].default_slot.children) != len(values):
            lists[name].clear()
            with lists[name]:
                for value in values:
                    node("option", None, value=sanitize_line(value))
