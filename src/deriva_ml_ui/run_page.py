"""The page of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from deriva_ml_core._text import format_duration, format_number, format_time, sanitize_line
from deriva_ml_core.analysis.describe import ExecutionDescription
from deriva_ml_core.analysis.run_files import PATCH_FILE, EpochCost, load_epoch_costs
from deriva_ml_core.analysis.runs import label_metric
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import WrongTable
from deriva_ml_core.models import Asset, MediaFile, StatusUpdate
from deriva_ml_ui.answers import Answers
from deriva_ml_ui.charts import Series, draw_curves
from deriva_ml_ui.file_list import FileList, add_command, asset_address, show_preview, visible_text
from deriva_ml_ui.lineage_graph import LineageGraph
from deriva_ml_ui.live_view import LiveView
from deriva_ml_ui.media_gallery import MediaGallery
from deriva_ml_ui.metric_panels import MetricPanels, set_options
from deriva_ml_ui.page_parts import (
    Cell,
    Column,
    LiveTable,
    TableRow,
    add_link,
    add_rid,
    add_section,
    address,
    clean,
    is_dark,
    is_web_address,
    node,
    set_class,
    status_class,
)
from deriva_ml_ui.run_list import run_address

__all__ = ["RunPage"]

ROWS_SHOWN = 100
"""Parameters, and metrics, that are shown without a search."""

MAX_STATUSES = 60
MAX_CONSOLE_CHARACTERS = 60_000
"""The end of the console output that is shown."""

PARTS: Mapping[str, str] = {
    "curves": "Curves",
    "parameters": "Parameters",
    "metrics": "Metrics",
    "files": "Files",
    "timeline": "Timeline",
    "code": "Code",
    "environment": "Environment",
    "lineage": "Lineage",
}


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """What the page of a run shows, apart from its curves.

    Args:
        description: What is recorded.
        params: Its parameters.
        costs: What its epochs cost.
        media: The images, figures and tables that it logged.
    """

    description: ExecutionDescription
    params: Mapping[str, Any]
    costs: tuple[EpochCost, ...]
    media: tuple[MediaFile, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self.description.summary.status.is_terminal


def load_run(ml: DerivaML, rid: str) -> RunAnswer:
    """Return everything about a run but its curves.

    Raises:
        DerivaMLException: There is no such run, or the catalog cannot be read.
    """
    description = ml.describe(rid, include_curves=False)
    if not isinstance(description, ExecutionDescription):
        raise WrongTable(f"{rid} is not the RID of a run.")
    execution = ml.lookup_execution(description.rid)
    assets = (*description.input_assets, *description.outputs)
    costs = load_epoch_costs(ml.connection, execution, assets)
    return RunAnswer(description, execution.params, tuple(costs), tuple(execution.list_media()))


def read_console_end(ml: DerivaML, rid: str) -> str | None:
    """Return the end of what a run printed; None if it was not recorded."""
    text = ml.lookup_execution(rid).read_console()
    if text is None or len(text) <= MAX_CONSOLE_CHARACTERS:
        return text
    return "…" + text[-MAX_CONSOLE_CHARACTERS:].partition("\n")[2]


class RunPage:
    """Everything that is recorded about a run; a run that trains is followed.

    Args:
        answers: The catalog.
        rid: The run.
    """

    def __init__(self, answers: Answers, rid: str) -> None:
        self._answers, self._rid = answers, rid
        self._is_over = False
        self._answer: RunAnswer | None = None
        self._patch: str | None = None
        self._environment: object = None
        self._shown_facts: object = None
        self._status_class = ""
        self._cost_charts: dict[str, Any] = {}
        self._is_dark = False
        self._view: LiveView[RunAnswer] = LiveView(
            answers, ("run", rid), lambda ml: load_run(ml, rid), is_live=lambda answer: not answer.is_over
        )
        with self._view.content:
            self._add_parts()
        self._view.on_answer(self._show)

    async def start(self) -> None:
        """Load the run."""
        await self._view.start()

    def _add_parts(self) -> None:
        with node("p", None, "headline", role="status"):
            self._status: Any = node("span", "")
            self._message: Any = node("span", "")
            self._duration: Any = node("span", "", "muted")
        self._facts: Any = node("dl", None, "facts")
        with node("nav", None, "parts", aria_label="Parts of this page"):
            for anchor, title in PARTS.items():
                node("a", title, href=f"#{anchor}")
        with add_section(PARTS["curves"], "curves"):
            MetricPanels(self._answers, [self._rid], lambda: not self._is_over)
            self._costs: Any = node("div", None, "panels")
        with add_section("Images, figures and tables", "media") as self._media_section:
            self._media = MediaGallery(self._answers)
        self._media_section.set_visibility(False)
        with add_section(PARTS["parameters"], "parameters"):
            self._params = SearchableTable("Parameters", ("Name", "Value"))
        with add_section(PARTS["metrics"], "metrics"):
            self._metrics = SearchableTable("Metrics", ("Name", "Best", "At epoch", "Last"))
        with add_section(PARTS["files"], "files"):
            self._inputs_title = node("h3", "Inputs")
            self._datasets: Any = node("ul", None, "links")
            self._inputs = FileList("Input files", self._answers)
            node("h3", "Outputs")
            self._made: Any = node("ul", None, "links")
            self._outputs = FileList("Output files", self._answers)
            self._unsent: Any = node("p", "", "note")
        with add_section(PARTS["timeline"], "timeline"):
            self._timeline: Any = node("ol", None, "timeline")
        with add_section("Console", "console") as self._console_section:
            self._add_console()
        self._console_section.set_visibility(False)
        with add_section(PARTS["code"], "code"):
            self._code: Any = node("dl", None, "facts")
            self._patch_place: Any = node("div")
        with add_section(PARTS["environment"], "environment"):
            self._machine: Any = node("dl", None, "facts")
        with add_section(PARTS["lineage"], "lineage"):
            LineageGraph(self._answers, self._rid)

    def _show(self, answer: RunAnswer) -> None:
        description, summary = answer.description, answer.description.summary
        self._answer, self._is_over = answer, answer.is_over
        self._show_status(description)
        facts = (
            summary.rid,
            summary.description,
            summary.tags,
            summary.workflow,
            description.parents,
            description.children,
        )
        if facts != self._shown_facts:  # focus stays where it is while a run trains
            self._shown_facts = facts
            _fill(self._facts, lambda: _add_facts(description))
        self._params.show([(name, _value_text(value)) for name, value in answer.params.items()])
        self._metrics.show(list(_metric_rows(description)))
        self._media_section.set_visibility(bool(answer.media))
        self._media.show(answer.media)
        self._show_files(description)
        _fill(self._timeline, lambda: _add_statuses(description.statuses))
        environment = (description.environment, tuple(description.outputs))
        if environment != self._environment:  # these do not change while it trains
            self._environment = environment
            _fill(self._code, lambda: _add_code(description))
            _fill(self._machine, lambda: _add_environment(description))
            self._show_records(description.outputs)
        ui.timer(0, lambda: self._show_costs(answer.costs), once=True)  # once the browser is connected

    def _show_status(self, description: ExecutionDescription) -> None:
        summary = description.summary
        self._status.text = str(summary.status)
        set_class(self._status, self._status_class, status_class(summary.status))
        self._status_class = status_class(summary.status)
        self._message.text = clean(summary.status_detail)
        self._duration.text = format_duration(summary.duration_seconds)

    def _show_files(self, description: ExecutionDescription) -> None:
        has_inputs = bool(description.input_datasets or description.input_assets)
        self._inputs_title.set_visibility(has_inputs)
        _fill(self._datasets, lambda: _add_dataset_links(description))
        self._inputs.show(description.input_assets)
        _fill(self._made, lambda: _add_made_datasets(description))
        self._outputs.show(description.outputs)
        count = len(description.unsent)
        names = ", ".join(map(sanitize_line, description.unsent[:10])) + (", …" if count > 10 else "")
        self._unsent.text = f"Not uploaded yet: {names}" if count else ""

    def _show_records(self, outputs: Sequence[Asset]) -> None:
        patch = next((asset for asset in reversed(outputs) if asset.filename == PATCH_FILE), None)
        if patch is not None and patch.rid != self._patch:
            self._patch = patch.rid
            with self._patch_place:
                node("h3", "Uncommitted changes")
                self._load_preview(patch)

    def _add_console(self) -> None:
        """Add what the run prints, which is loaded after the rest of the page; the section is hidden without it."""
        view: LiveView[str | None] = LiveView(
            self._answers,
            ("console", self._rid),
            lambda ml: read_console_end(ml, self._rid),
            is_live=lambda _: not self._is_over,
        )
        with view.content:
            block = node("pre", None, "text", tabindex="0", role="region", aria_label="Console output")

        def show(text: str | None) -> None:
            self._console_section.set_visibility(text is not None)
            block.say(visible_text(text or ""))

        view.on_answer(show)
        ui.timer(0, view.start, once=True)

    def _load_preview(self, asset: Asset) -> None:
        place = node("div")
        with place:
            node("p", "Loading…", "waiting")
        ui.timer(0, lambda: show_preview(self._answers, asset, place), once=True)

    async def _show_costs(self, costs: Sequence[EpochCost]) -> None:
        series = [Series(title, points) for title, points in _cost_curves(costs) if len(points) > 1]
        if not series:
            return
        if not self._cost_charts:
            self._is_dark = await is_dark()
            with self._costs:
                for each in series:
                    with node("figure", None, "panel small", aria_label=f"{each.name} by epoch"):
                        node("figcaption", each.name)
                        self._cost_charts[each.name] = ui.echart({}).classes("chart")
        for each in series:
            if (chart := self._cost_charts.get(each.name)) is not None:
                set_options(chart, draw_curves([each], "epoch", is_dark=self._is_dark, has_legend=False))


def _fill(place: Any, add: Any) -> None:
    """Replace the content of an element."""
    place.clear()
    with place:
        add()


def _add_fact(name: str, value: object, target: str | None = None, classes: str = "") -> None:
    if value in (None, "", ()):
        return
    node("dt", name)
    with node("dd"):
        if target is None:
            node("span", value, classes)
        else:
            add_link(value, target)


def _add_facts(description: ExecutionDescription) -> None:
    summary = description.summary
    node("dt", "RID")
    with node("dd"):
        add_rid(summary.rid)
    _add_fact("Description", summary.description)
    if summary.workflow is not None:
        workflow = summary.workflow
        _add_fact("Workflow", workflow.name or workflow.rid, address(f"/workflows/{workflow.rid}"))
    if summary.tags:
        node("dt", "Tags")
        with node("dd"):
            for tag in summary.tags:
                add_link(tag, address("/", {"tags": tag}), "tag")
    _add_fact("Created", summary.created and f"{format_time(summary.created, show_seconds=True)} UTC")
    for name, runs in (("Part of", description.parents), ("Nested runs", description.children)):
        if runs:
            node("dt", name)
            with node("dd"):
                for run in runs[:50]:
                    add_link(run.rid, run_address(run.rid))
                    node("span", " ")
                if len(runs) > 50:
                    node("span", f"and {len(runs) - 50:,} more")
    if len(description.children) > 1:
        rids = ",".join(run.rid for run in description.children[:50])
        _add_fact("Comparison", "Compare the nested runs", address("/compare", {"runs": rids}))
    node("dt", "Shell")
    with node("dd"):
        add_command(f"deriva-ml show {summary.rid}")


def _value_text(value: Any) -> str:
    return sanitize_line(value if isinstance(value, str) else repr(value) if isinstance(value, float) else str(value))


def _metric_rows(description: ExecutionDescription) -> Iterator[tuple[str, ...]]:
    for metric in description.metrics:
        at = "" if metric.best_at is None else str(metric.best_at)
        yield label_metric(metric), format_number(metric.best), at, format_number(metric.last)


def _add_dataset_links(description: ExecutionDescription) -> None:
    for dataset in description.input_datasets:
        with node("li"):
            node("span", "Dataset ")
            add_link(dataset.rid, address(f"/datasets/{dataset.rid}"))
            node("span", f" {dataset.version or ''} {dataset.description}")


def _add_made_datasets(description: ExecutionDescription) -> None:
    for spec in description.output_datasets:
        with node("li"):
            node("span", "Dataset ")
            add_link(spec.rid, address(f"/datasets/{spec.rid}"))
            node("span", f" {spec.version or ''}")


def _add_statuses(statuses: Sequence[StatusUpdate]) -> None:
    """Add the changes of the status, and the newest message of each."""
    shown: list[StatusUpdate] = []
    for update in statuses:
        if len(shown) > 1 and shown[-1].status is update.status is shown[-2].status:
            shown[-1] = update  # the messages between the first and the newest one of a status are left out
        else:
            shown.append(update)
    for update in shown[-MAX_STATUSES:]:
        with node("li"):
            node("time", f"{format_time(update.time, show_seconds=True)}")
            node("span", str(update.status), status_class(update.status))
            node("span", update.error or update.message)
            if update.corrected_by:
                node("span", f"corrected by {update.corrected_by}", "muted")
    if not shown:
        node("li", "No statuses are available: the journal is on another machine and was not uploaded.")


def _add_code(description: ExecutionDescription) -> None:
    environment = description.environment
    workflow = description.summary.workflow
    url = environment.code_url or (workflow.url if workflow else None)
    if url and is_web_address(url):
        node("dt", "Code")
        with node("dd"):
            node("a", url, href=url, rel="noopener noreferrer", target="_blank")
    else:
        _add_fact("Code", url)
    _add_fact("Checksum", environment.code_checksum)
    _add_fact("Commit", environment.head)
    _add_fact("Branch", environment.branch)
    if environment.code_changed:
        _add_fact("File", "changed since its last commit", classes="status-aborted")
    if environment.repository_changed:
        _add_fact("Repository", "had uncommitted changes", classes="status-aborted")
    if environment.repository_pushed is False:
        _add_fact("Commit", "was on no remote branch", classes="status-aborted")
    node("dt", "Shell")
    with node("dd"):
        add_command(f"deriva-ml reproduce {description.rid}")


def _add_environment(description: ExecutionDescription) -> None:
    environment = description.environment
    _add_fact("Host", environment.host)
    _add_fact("Process", environment.process)
    _add_fact("Command", " ".join(map(str, environment.command)))
    _add_fact("Python", environment.python)
    _add_fact("System", environment.platform)
    _add_fact("GPUs", ", ".join(map(str, environment.gpus)))
    _add_fact("Folder", environment.folder)
    for asset in description.outputs:
        if asset.filename.startswith("environment_snapshot_"):
            _add_fact("All packages", asset.filename, asset_address(asset.rid))


def _cost_curves(costs: Sequence[EpochCost]) -> Iterator[tuple[str, tuple[tuple[float, float], ...]]]:
    """Yield the title and the points of what epochs cost."""
    number = {index: float(index + 1) for index in range(len(costs))}
    several = len({cost.fit for cost in costs}) > 1
    for title, values in (
        ("Seconds per epoch", [cost.seconds for cost in costs]),
        ("Samples per second", [cost.samples_per_second for cost in costs]),
        ("Peak memory in GB", [None if cost.peak_memory is None else cost.peak_memory / 1e9 for cost in costs]),
    ):
        xs = [number[index] if several else float(cost.epoch) for index, cost in enumerate(costs)]
        yield title, tuple((x, value) for x, value in zip(xs, values, strict=True) if value is not None)


class SearchableTable:
    """A table of names and values; of many rows, the first ones and those that a search finds.

    Args:
        caption: What it lists.
        titles: The headings; all columns but the first hold values.
    """

    def __init__(self, caption: str, titles: Sequence[str]) -> None:
        self._columns = [Column(title, title) for title in titles]
        self._rows: list[tuple[str, ...]] = []
        self._pattern = ""
        with node("div", None, "filters") as self._search, node("label"):
            node("span", f"Search {caption.lower()}")
            field = node("input", type="search", placeholder="part of a name", autocomplete="off")
        field.on("input", self._filter, js_handler="(event) => emit(event.target.value)", throttle=0.3)
        self._note: Any = node("p", "", "note", role="status")
        self._table = LiveTable(caption)

    def show(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Show these rows."""
        self._rows = list(rows)
        self._search.set_visibility(len(rows) > 10)
        self._redraw()

    def _filter(self, event: Any) -> None:
        self._pattern = str(event.args).casefold()
        self._redraw()

    def _redraw(self) -> None:
        matching = [row for row in self._rows if self._pattern in row[0].casefold()]
        shown = matching[:ROWS_SHOWN]
        self._table.show(
            self._columns,
            [TableRow(row[0], tuple(_text_cell(text) for text in row)) for row in shown],
        )
        if not self._rows:
            self._note.text = "None are recorded."
        elif len(shown) < len(matching):
            self._note.text = f"The first {len(shown)} of {len(matching):,}."
        else:
            self._note.text = "" if matching else "No name matches."


def _text_cell(text: str) -> Cell:
    shown = clean(text)
    return Cell(shown) if len(shown) <= 160 else Cell(f"{shown[:159]}…", title=shown[:1000])
