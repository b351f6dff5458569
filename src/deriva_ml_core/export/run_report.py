"""Runs as one page of HTML to send to a colleague: parameters, metrics, curves, media, code, files and lineage."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core._text import describe_error, format_duration, format_size, format_time
from deriva_ml_core.analysis.compare import Comparison, compare_executions
from deriva_ml_core.analysis.describe import ExecutionDescription, describe
from deriva_ml_core.analysis.lineage import find_lineage
from deriva_ml_core.analysis.run_files import PATCH_FILE, load_environment
from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import MLAsset
from deriva_ml_core.errors import ConfigurationError, DerivaMLException
from deriva_ml_core.execution.record_files import METRICS_TYPES, fetch_metadata_file
from deriva_ml_core.execution.recorded import RecordedExecution, lookup_execution
from deriva_ml_core.export.html_document import (
    Html,
    render_badge,
    render_details,
    render_document,
    render_image,
    render_link,
    render_preformatted,
    render_section,
    render_table,
    render_text,
)
from deriva_ml_core.models import Asset, MediaFile
from deriva_ml_core.training.curve_picture import CurveLine, CurvePanel, render_curves, render_panel
from deriva_ml_core.training.metric_rows import MetricRow
from deriva_ml_core.training.metrics_file import METRICS_FILE

__all__ = ["MAX_RUNS", "render_run_page"]

log = logging.getLogger(__name__)

MAX_RUNS = 50
"""Maximum number of runs on a page."""

MAX_PATCH_BYTES = 256 * 2**10
MAX_IMAGE_BYTES, MAX_IMAGES_BYTES = 256 * 2**10, 8 * 2**20
"""Maximum bytes of one image, and of all images on the page."""

MAX_MEDIA_PER_NAME, MAX_MEDIA_NAMES = 12, 30
MAX_TABLE_BYTES, MAX_TABLE_ROWS, MAX_TABLE_COLUMNS = 64 * 2**10, 20, 12
MAX_FILES, MAX_STATUSES, MAX_PARAMETERS, MAX_DIFFERENCES = 300, 100, 1000, 500
MAX_CURVE_POINTS, MAX_PANELS = 400, 20
"""Maximum points of a line where runs share axes, and maximum number of such axes."""

MAX_LINEAGE_NODES = 80

IMAGE_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def render_run_page(connection: Connection, rids: Sequence[str]) -> str:
    """Return the page.

    Args:
        connection: The catalog.
        rids: The executions; two and more are compared.

    Raises:
        InvalidRID, UnknownRID, WrongTable: A RID is not that of an execution.
        ConfigurationError: There are too many executions.
    """
    rids = list(dict.fromkeys(rids))
    if not 1 <= len(rids) <= MAX_RUNS:
        raise ConfigurationError(f"A page shows 1 to {MAX_RUNS} executions, and these are {len(rids)}. Pass fewer.")
    executions = [lookup_execution(connection, rid) for rid in rids]
    budget = _Budget(MAX_IMAGES_BYTES)
    reports = [_RunReport(connection, execution, budget) for execution in executions]
    if len(reports) == 1:
        title = reports[0].title
        body = [Html(f"<h1>{render_text(title)}</h1>"), *reports[0].render()]
    else:
        title = f"Comparison of {len(reports)} executions"
        details = (
            render_details(f"{each.rid} {each.execution.description}", Html("".join(each.render()))) for each in reports
        )
        body = [
            Html(f"<h1>{title}</h1>"),
            *_render_comparison(connection, reports),
            render_section("Executions", details),
        ]
    foot = f"Exported from {connection.catalog.name} on {format_time(datetime.now(UTC))} UTC."
    generator = f"deriva-ml-core {version('deriva-ml-core')}"
    note = Html(f'<p class="note">{render_text(foot)} {render_text(generator)}</p>')
    return render_document(title, [*body, note], {"generator": generator})


@dataclass(slots=True)
class _Budget:
    """The bytes of images that the page may still have."""

    left: int

    def take(self, nbytes: int) -> bool:
        if nbytes > min(self.left, MAX_IMAGE_BYTES):
            return False
        self.left -= nbytes
        return True


def _attempt(what: str, render: Callable[[], Html]) -> Html:
    """Return a part of the page, or why it is missing: a store may be unavailable, or a file damaged."""
    try:
        return render()
    except (DerivaMLException, OSError, ValueError) as error:
        log.warning("The page has no %s: %s", what, describe_error(error))
        return Html(f'<p class="note">{render_text(f"Not available: {describe_error(error)}")}</p>')


class _RunReport:
    """The part of the page about one run.

    Args:
        connection: The catalog.
        execution: The run.
        budget: The bytes that are left for images.
    """

    def __init__(self, connection: Connection, execution: RecordedExecution, budget: _Budget) -> None:
        self._connection = connection
        self.execution = execution
        self._budget = budget
        description = describe(connection, execution.execution_rid)
        assert isinstance(description, ExecutionDescription)
        self.description = description
        self._assets = execution.list_assets()

    @property
    def rid(self) -> str:
        """Its RID."""
        return self.execution.execution_rid

    @property
    def title(self) -> str:
        """Its description, or its RID."""
        return self.execution.description or f"Execution {self.rid}"

    def render(self) -> Iterator[Html]:
        """Yield its sections."""
        yield self._render_overview()
        parameters = list(self.execution.params.items())
        rows = [(name, value if isinstance(value, int | float) else str(value)) for name, value in parameters]
        yield render_section("Parameters", [_bounded(rows, MAX_PARAMETERS)])
        yield render_section("Metrics", [_attempt("metrics", self._render_metrics)])
        yield render_section("Curves", [_attempt("curves", self._render_curves)])
        yield render_section("Images, figures and tables", [_attempt("images", self._render_media)])
        yield render_section("Inputs", [self._render_inputs()])
        yield render_section("Outputs", [self._render_outputs()])
        yield render_section("Lineage", [_attempt("lineage", self._render_lineage)])
        yield render_section("Code", [self._render_code(), _attempt("patch", self._render_patch)])
        yield render_section("Environment", [_attempt("environment", self._render_environment)])
        yield render_section("Statuses", [self._render_statuses()])

    def _render_overview(self) -> Html:
        summary, description = self.description.summary, self.description
        workflow = summary.workflow
        rows: list[tuple[str, object]] = [
            ("Execution", render_link(self.rid, description.citation)),
            ("Status", Html(f"{render_badge(summary.status)} {render_text(summary.status_detail)}")),
            ("Workflow", workflow and f"{workflow.name or workflow.rid} ({workflow.workflow_type})"),
            ("Started", description.start_time and f"{format_time(description.start_time, show_seconds=True)} UTC"),
            ("Duration", format_duration(summary.duration_seconds)),
            ("Host", description.environment.host),
            ("Part of", ", ".join(parent.rid for parent in description.parents)),
            ("Has parts", ", ".join(child.rid for child in description.children[:MAX_RUNS])),
            ("Cited as", description.citation),
        ]
        return render_table((name, value) for name, value in rows if value)

    def _render_metrics(self) -> Html:
        rows = [
            (name, each.last, each.last_at, each.best, each.best_at, each.best_step)
            for name, each in self.execution.metrics.items()
        ]
        return _bounded(rows, MAX_PARAMETERS, ("Metric", "Last", "Epoch", "Best", "Epoch of best", "Step of best"))

    def _render_curves(self) -> Html:
        local = self.execution.working_dir / METRICS_FILE
        with fetch_metadata_file(
            self._connection, self.execution, self._assets, METRICS_FILE, METRICS_TYPES, local_path=local
        ) as file:
            return _render_grid(map(Html, render_curves(file)))

    def _render_media(self) -> Html:
        by_name: dict[tuple[str, str], list[MediaFile]] = {}
        for media in self.execution.list_media():
            by_name.setdefault((media.kind, media.name), []).append(media)
        parts = [
            render_section(name, self._render_name(files), level=3)
            for (_, name), files in list(by_name.items())[:MAX_MEDIA_NAMES]
        ]
        return Html("".join([*parts, _render_more(len(by_name) - MAX_MEDIA_NAMES, "names")]))

    def _render_name(self, files: Sequence[MediaFile]) -> Iterator[Html]:
        """Yield the last images or tables of a name."""
        shown = files[-MAX_MEDIA_PER_NAME:]
        if shown[0].kind == "table":
            yield from (self._render_table(media) for media in shown[-1:])
            yield _render_more(len(files) - 1, "earlier tables")
            return
        images = [self._render_image(media) for media in shown]
        yield _render_grid(image for image in images if image)
        missing = sum(not image for image in images)
        yield _render_more(missing, f"images larger than {format_size(MAX_IMAGE_BYTES)} or beyond the page's size")
        yield _render_more(len(files) - len(shown), "earlier images")

    def _render_image(self, media: MediaFile) -> Html:
        if not self._budget.take(media.length):
            return Html("")
        content = self._read(media)
        return render_image(content, IMAGE_TYPES[Path(media.filename).suffix], media.name, _describe_position(media))

    def _render_table(self, media: MediaFile) -> Html:
        if media.length > MAX_TABLE_BYTES:
            text = f"{_describe_position(media)}: {format_size(media.length)}, in {media.filename}"
            return Html(f'<p class="note">{render_text(text)}</p>')
        rows = list(csv.reader(self._read(media).decode("utf-8", "replace").splitlines()))
        cut = [row[:MAX_TABLE_COLUMNS] for row in rows]
        table = render_table(cut[1 : MAX_TABLE_ROWS + 1], cut[0] if cut else ())
        caption = Html(f'<p class="note">{render_text(_describe_position(media))}</p>')
        return Html(caption + table + _render_more(len(rows) - 1 - MAX_TABLE_ROWS, "rows"))

    def _read(self, media: MediaFile) -> bytes:
        if media.path is not None:
            return media.path.read_bytes()
        if media.asset is None:
            raise ValueError(f"{media.filename} is neither on this machine nor in the catalog")
        with scratch_folder(self._connection.folder) as folder:
            return download_asset(self._connection, media.asset, folder).read_bytes()

    def _render_inputs(self) -> Html:
        rows: list[Sequence[object]] = [
            (each.rid, "Dataset", f"{each.description} (version {each.version})", None, "")
            for each in self.description.input_datasets
        ]
        return self._render_assets([*rows, *map(_asset_row, self.description.input_assets)])

    def _render_outputs(self) -> Html:
        rows: list[Sequence[object]] = [
            (each.rid, "Dataset", f"version {each.version}", None, "") for each in self.description.output_datasets
        ]
        outputs = sorted(self.description.outputs, key=lambda each: each.table == MLAsset.execution_metadata)
        note = _render_more(len(self.description.unsent), "files that are not uploaded")
        return Html(self._render_assets([*rows, *map(_asset_row, outputs)]) + note)

    def _render_assets(self, rows: Sequence[Sequence[object]]) -> Html:
        return _bounded(rows, MAX_FILES, ("RID", "Table", "Name", "Size", "MD5"))

    def _render_lineage(self) -> Html:
        lineage = find_lineage(self._connection, self.rid, depth=6, limit=MAX_LINEAGE_NODES, siblings=8)
        return Html(f'<div class="wide">{lineage.to_svg(MAX_LINEAGE_NODES)}</div>')

    def _render_code(self) -> Html:
        environment = self.description.environment
        workflow = self.description.summary.workflow
        url = environment.code_url or (workflow.url if workflow else None) or ""
        rows: list[tuple[str, object]] = [
            ("URL", render_link(url, url)),
            ("Checksum", environment.code_checksum or (workflow.checksum if workflow else None)),
            ("Version", workflow.version if workflow else None),
            ("Commit", environment.head),
            ("Branch", environment.branch),
            ("Command", " ".join(map(str, environment.command))),
        ]
        return render_table((name, value) for name, value in rows if value)

    def _render_patch(self) -> Html:
        local = self.execution.working_dir / "records" / PATCH_FILE
        with fetch_metadata_file(self._connection, self.execution, self._assets, PATCH_FILE, local_path=local) as file:
            if file is None:
                return Html("")
            size = file.stat().st_size
            with file.open("rb") as patch:
                text = patch.read(MAX_PATCH_BYTES).decode("utf-8", "replace")
        note = _render_more(max(0, size - MAX_PATCH_BYTES), "bytes")
        return render_details(f"Uncommitted changes ({format_size(size)})", Html(render_preformatted(text) + note))

    def _render_environment(self) -> Html:
        environment = self.description.environment
        rows: list[tuple[str, object]] = [
            ("Python", environment.python),
            ("Platform", environment.platform),
            ("GPUs", ", ".join(map(str, environment.gpus))),
        ]
        recorded = load_environment(self._connection, self.execution, self._assets).get("environment")
        packages = recorded.get("packages") if isinstance(recorded, dict) else None
        known = sorted(packages.items()) if isinstance(packages, dict) else []
        table = render_table((name, value) for name, value in rows if value)
        return Html(table + render_details(f"{len(known):,} packages", _bounded(known, MAX_PARAMETERS)))

    def _render_statuses(self) -> Html:
        statuses = self.description.statuses
        rows = [
            (format_time(each.time, show_seconds=True), str(each.status), each.error or each.message)
            for each in statuses[-MAX_STATUSES:]
        ]
        table = render_table(rows, ("Time (UTC)", "Status", "Message"))
        more = _render_more(len(statuses) - len(rows), "earlier statuses")
        return render_details(f"{len(statuses):,} statuses", Html(more + table)) if rows else Html("")


def _asset_row(asset: Asset) -> tuple[object, ...]:
    return asset.rid, asset.table, asset.filename, format_size(asset.length), asset.md5


def _describe_position(media: MediaFile) -> str:
    parts = (("fit", media.fit), ("epoch", media.epoch), ("step", media.step))
    return ", ".join(f"{name} {number}" for name, number in parts if number is not None) or format_time(media.time)


def _bounded(rows: Sequence[Sequence[object]], limit: int, header: Sequence[str] = ()) -> Html:
    return Html(render_table(rows[:limit], header) + _render_more(len(rows) - limit, "rows"))


def _render_more(count: int, what: str) -> Html:
    return Html(f'<p class="note">{render_text(f"and {count:,} {what}")}</p>' if count > 0 else "")


def _render_grid(parts: Iterator[Html]) -> Html:
    content = "".join(parts)
    return Html(f'<div class="grid">{content}</div>' if content else "")


# Several runs


def _render_comparison(connection: Connection, reports: Sequence[_RunReport]) -> Iterator[Html]:
    yield render_section("Overview", [_render_overview_table(reports)])
    yield render_section("Curves", [_attempt("curves", lambda: _render_overlaid_curves(reports))])
    comparison = compare_executions(connection, *(report.rid for report in reports))
    yield render_section("What differs", _render_differences(comparison))


def _render_overview_table(reports: Sequence[_RunReport]) -> Html:
    rows = []
    for report in reports:
        summary = report.description.summary
        duration = format_duration(summary.duration_seconds)
        rows.append((report.rid, render_badge(summary.status), summary.description, duration))
    return render_table(rows, ("Execution", "Status", "Description", "Duration"))


def _render_differences(comparison: Comparison) -> Iterator[Html]:
    sections: dict[str, list[Sequence[object]]] = {}
    for each in comparison.differences:
        cells = [value if isinstance(value, int | float | None) else str(value) for value in each.values]
        sections.setdefault(each.section, []).append((each.name, *cells))
    for name, rows in sections.items():
        yield render_section(name, [_bounded(rows, MAX_DIFFERENCES, ("", *comparison.executions))], level=3)
    equal = sum(comparison.equal_counts.values())
    yield Html(f'<p class="note">{render_text(f"{equal:,} other values are equal.")}</p>')


def _render_overlaid_curves(reports: Sequence[_RunReport]) -> Html:
    """Return a picture for each metric, with a line for each fit of each run."""
    panels: dict[tuple[str, str], list[CurveLine]] = {}
    for colour, report in enumerate(reports):
        for (metric, unit, fit), rows in _group_rows(report.execution).items():
            positions = [float(row["epoch" if unit == "epoch" else "step"] or 0) for row in rows]
            label = report.rid if fit == 1 else f"{report.rid}, fit {fit}"
            line = CurveLine(label, positions, [row["value"] for row in rows], colour, is_dashed=fit > 1)
            panels.setdefault((metric, unit), []).append(line)
    ordered = sorted(panels, key=lambda key: "loss" not in key[0].casefold())
    pictures = (
        render_panel(CurvePanel(metric, unit, panels[metric, unit], "loss" in metric.casefold()))
        for metric, unit in ordered[:MAX_PANELS]
    )
    return Html(_render_grid(map(Html, pictures)) + _render_more(len(panels) - MAX_PANELS, "metrics"))


def _group_rows(execution: RecordedExecution) -> Mapping[tuple[str, str, int], list[MetricRow]]:
    """Return the values of a run by metric, unit and fit: by epoch, or by step if there are none by epoch."""
    curves: dict[tuple[str, str, int], list[MetricRow]] = {}
    for unit in ("epoch", "step"):
        rows = execution.metric_rows(stage="fit", by=unit, max_points=MAX_CURVE_POINTS)
        for row in rows:
            curves.setdefault((row["metric"], unit, row["fit"]), []).append(row)
        if curves:
            break
    return curves
