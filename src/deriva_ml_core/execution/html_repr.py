"""The HTML representation of an execution in notebooks. It works in every state of the run and of the catalog."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core._text import describe_error, format_duration, format_number, format_size, sanitize_line
from deriva_ml_core._views import FRAME_STYLE, image_html, render_cell, render_link, render_muted, truncate
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLAsset, MLTable, Role, Status, status_traits
from deriva_ml_core.journal.state import JOURNAL_FILENAME, ExecutionState, FileState
from deriva_ml_core.models import Asset, DatasetSpec, MetricSummary, UploadOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["render_html"]

CURVES_FILE, CURVES_TYPE = "training_curves.png", "Training_Curves"
PRIORITY_TYPES = frozenset({"Best_Checkpoint", "Last_Checkpoint"})
"""Asset types that are listed first."""

MAX_IMAGE_BYTES = 512 * 2**10
"""Maximum size of the image, in bytes: the notebook file stores its outputs."""

MAX_ITEMS = 10
MAX_TEXT_LENGTH = 600
"""Maximum length of a text, in characters."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class ExecutionView(Protocol):
    """The attributes of an execution that are shown; implemented by recorded and live executions."""

    @property
    def _connection(self) -> Connection: ...
    @property
    def execution_rid(self) -> RID: ...
    @property
    def workflow_rid(self) -> RID | None: ...
    @property
    def description(self) -> str: ...
    @property
    def working_dir(self) -> Path: ...
    @property
    def status(self) -> Status: ...
    @property
    def status_detail(self) -> str: ...
    @property
    def duration(self) -> str | None: ...
    @property
    def created(self) -> datetime | None: ...
    @property
    def url(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...

    @property
    def params(self) -> dict[str, JsonValue]: ...

    def _summarize_metrics(self) -> list[MetricSummary]: ...
    def list_assets(self) -> list[Asset]: ...
    def list_input_datasets(self) -> list[DatasetSpec]: ...


def render_html(execution: ExecutionView, load_state: Callable[[], ExecutionState]) -> str:
    """Return the HTML of an execution, without scripts and style sheets, with all text escaped. It never raises.

    Args:
        execution: The execution.
        load_state: Function that loads the state from the local journal or from the catalog.
    """
    try:
        return _render_execution(execution, load_state)
    except Exception as error:
        log.debug("Failed to render the execution as HTML.", exc_info=True)
        text = escape(truncate(describe_error(error), MAX_TEXT_LENGTH))
        return f'<div style="{FRAME_STYLE}">Execution: {text}</div>'


@dataclass
class _CatalogReader:
    """Reads from a catalog until a query fails; later queries return their default, so that users wait only once."""

    error: str = ""

    def read(self, query: Callable[[], T], default: T) -> T:
        if self.error:
            return default
        try:
            return query()
        except Exception as error:  # noqa: BLE001 - the HTML shows the error
            self.error = describe_error(error)
            return default


@dataclass(frozen=True)
class _File:
    name: str
    types: tuple[str, ...]
    size: int | None
    md5: str
    is_pending: bool = False


@dataclass(frozen=True)
class _Contents:
    """Parameters, metrics, inputs, outputs, metadata files, curves and workflow of an execution."""

    params: Mapping[str, JsonValue] = field(default_factory=dict)
    metrics: Sequence[MetricSummary] = ()
    inputs: Sequence[str] = ()
    outputs: Sequence[_File] = ()
    metadata_files: Sequence[str] = ()
    image: bytes = b""
    workflow: Mapping[str, Any] = field(default_factory=dict)


def _render_execution(execution: ExecutionView, load_state: Callable[[], ExecutionState]) -> str:
    reader = _CatalogReader()
    state = reader.read(load_state, ExecutionState())
    contents = _collect_contents(execution, state, reader)
    no_tags: tuple[str, ...] = ()
    tags = reader.read(lambda: execution.tags, no_tags)
    rows = [
        ("Tags", escape(truncate(", ".join(tags), MAX_TEXT_LENGTH))),
        ("Workflow", _render_workflow(execution.workflow_rid, contents.workflow)),
        ("Parameters", _render_params(contents.params)),
        ("Metrics", _render_metrics(contents.metrics)),
        ("Inputs", _render_lines(map(escape, contents.inputs))),
        ("Outputs", _render_files(contents.outputs)),
        ("Records", _render_lines(map(escape, contents.metadata_files)) if contents.metadata_files else ""),
    ]
    parts = [_render_header(execution, state), *_render_texts(execution)]
    body = "".join(
        f"<tr style='background:none'>{render_cell(render_muted(name))}{render_cell(html)}</tr>"
        for name, html in rows
        if html
    )
    parts.append(f'<table style="border-collapse:collapse;margin:6px 0 0 0">{body}</table>')
    if reader.error:
        text = truncate(reader.error, MAX_TEXT_LENGTH)
        parts.append(f"<div>The catalog cannot be read, so this may be incomplete: {escape(text)}</div>")
    if contents.image:
        parts.append(image_html(contents.image, "Training curves"))
    return f'<div style="{FRAME_STYLE}">{"".join(parts)}</div>'


# Collect the contents


def _collect_contents(execution: ExecutionView, state: ExecutionState, reader: _CatalogReader) -> _Contents:
    catalog = execution._connection.catalog
    workflow: list[dict[str, Any]] = []
    if (rid := execution.workflow_rid) is not None:
        workflow = reader.read(lambda: catalog.select(MLTable.workflow, {"RID": rid}), [])
    datasets = reader.read(execution.list_input_datasets, list(state.datasets.values()))
    assets = reader.read(execution.list_assets, None)
    params = reader.read(lambda: execution.params, dict(state.parameters))
    metrics = reader.read(execution._summarize_metrics, list(state.metrics.values()))
    metadata_rids = state.own_record_rids()
    inputs = [f"Dataset {spec.rid}{f', version {spec.version}' if spec.version else ''}" for spec in datasets]
    if assets is None:  # fall back to the journal
        inputs += state.assets
        uploaded = [
            _file_from_state(file)
            for file in state.files.values()
            if file.rid is not None and file.rid not in metadata_rids
        ]
        metadata_files = [file.asset.filename for file in state.files.values() if file.asset.record]
    else:
        inputs += [
            f"{truncate(asset.filename)} ({asset.table} {asset.rid})" for asset in assets if asset.role == Role.input
        ]
        outputs = [asset for asset in assets if asset.role != Role.input]
        metadata = [asset for asset in outputs if asset.rid in metadata_rids or _is_journal(asset)]
        uploaded = [_file_from_asset(asset) for asset in outputs if asset not in metadata]
        metadata_files = [asset.filename for asset in metadata]
    pending = [_file_from_state(file) for file in state.pending_files() if not file.asset.record]
    uploaded.sort(key=lambda file: PRIORITY_TYPES.isdisjoint(file.types))
    image = _load_curves_image(execution, state, [] if assets is None else assets)
    files = [*pending, *uploaded]
    records = list(dict.fromkeys(metadata_files))
    return _Contents(params, metrics, inputs, files, records, image, dict(*workflow))


def _is_journal(asset: Asset) -> bool:
    return (asset.table, asset.filename) == (MLAsset.execution_metadata, JOURNAL_FILENAME)


def _file_from_asset(asset: Asset) -> _File:
    return _File(asset.filename, asset.asset_types, asset.length, asset.md5)


def _file_from_state(file: FileState) -> _File:
    asset, stored = file.asset, file.stored
    if stored is not None:
        return _File(asset.filename, asset.asset_types, stored.length, stored.md5, is_pending=file.rid is None)
    try:
        size = asset.path.stat().st_size
    except OSError:  # not written yet
        size = None
    return _File(asset.filename, asset.asset_types, size, "", is_pending=True)


def _load_curves_image(execution: ExecutionView, state: ExecutionState, assets: Sequence[Asset]) -> bytes:
    """Return the newest curves: staged, in the working folder, or in the store; empty if none can be shown."""
    staged = [
        file.asset.path
        for file in state.pending_files()
        if (file.asset.table, file.asset.filename) == (MLAsset.execution_metadata, CURVES_FILE)
    ]
    for file in (*reversed(staged), execution.working_dir / CURVES_FILE):
        if content := _read_png(file):
            return content
    outputs = [a for a in assets if a.table == MLAsset.execution_metadata and a.role == Role.output]
    stored = [asset for asset in outputs if CURVES_TYPE in asset.asset_types or asset.filename == CURVES_FILE]
    try:
        return _download_image(execution._connection, stored[-1]) if stored else b""
    except Exception:
        log.debug("Failed to download the curves.", exc_info=True)
        return b""


def _download_image(connection: Connection, asset: Asset) -> bytes:
    if asset.length > MAX_IMAGE_BYTES:
        return b""
    with scratch_folder(connection.folder) as folder:
        file = folder / CURVES_FILE
        connection.store.get(asset.url, file, length=asset.length, md5=asset.md5, options=UploadOptions())
        return _read_png(file)


def _read_png(file: Path) -> bytes:
    try:
        content = file.read_bytes() if file.stat().st_size <= MAX_IMAGE_BYTES else b""
    except OSError:
        return b""
    return content if content.startswith(b"\x89PNG\r\n\x1a\n") else b""


# Render HTML


def _render_header(execution: ExecutionView, state: ExecutionState) -> str:
    status = execution.status
    colour = status_traits(status).html_colour
    badge = f'<span style="background:{colour};color:#fff;border-radius:10px;padding:1px 9px">{escape(status)}</span>'
    name = render_link(f"Execution {execution.execution_rid}", execution.url)
    since = state.start_time or execution.created
    times = [f"{since.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if since else "", _run_time_text(execution, state)]
    return f"<div><b>{name}</b> &nbsp;{badge} &nbsp;{render_muted(escape(' · '.join(filter(None, times))))}</div>"


def _render_texts(execution: ExecutionView) -> Iterable[str]:
    for text in (execution.description, execution.status_detail):
        if text:
            yield f'<div style="white-space:pre-wrap">{escape(truncate(text, MAX_TEXT_LENGTH))}</div>'


def _run_time_text(execution: ExecutionView, state: ExecutionState) -> str:
    """Return the run time, up to now for a run that has not ended."""
    ended = execution.status.is_terminal
    if state.start_time is None or (ended and state.running_since is not None):  # it died at an unknown time
        return execution.duration or ""
    return f"{'' if ended else 'for '}{format_duration(state.elapsed_run_time().total_seconds())}"


def _render_workflow(rid: RID | None, row: Mapping[str, Any]) -> str:
    if rid is None:
        return ""
    name = render_link(truncate(row.get("Name") or f"Workflow {rid}"), row.get("URL") or "")
    return name + render_muted(escape(f" {row['Version']}" if row.get("Version") else ""))


def _render_params(params: Mapping[str, JsonValue]) -> str:
    rows = [
        f"{render_cell(escape(truncate(sanitize_line(name))))}{render_cell(escape(truncate(sanitize_line(value))))}"
        for name, value in list(params.items())[:MAX_ITEMS]
    ]
    return _render_table(rows, len(params))


def _render_metrics(metrics: Sequence[MetricSummary]) -> str:
    rows = []
    for metric in metrics[:MAX_ITEMS]:
        best = "" if metric.best is None else f"best {format_number(metric.best)}"
        best += f" at {metric.best_at}" if best and metric.best_at is not None else ""
        last = "not finite" if metric.last is None else format_number(metric.last)
        cells = escape(truncate(sanitize_line(metric.label))), escape(last), render_muted(escape(best))
        rows.append("".join(map(render_cell, cells)))
    return _render_table(rows, len(metrics))


def _render_table(rows: Sequence[str], count: int) -> str:
    """Render rows of cells, and how many there are beyond them; empty without rows."""
    more = render_muted(f"and {count - len(rows)} more") if count > len(rows) else ""
    body = "".join(f'<tr style="background:none">{row}</tr>' for row in rows)
    return f'<table style="border-collapse:collapse;margin:0">{body}</table>{more}' if rows else ""


def _render_files(files: Sequence[_File]) -> str:
    if not files:
        return render_muted("none")
    rows = [_render_file(file) for file in files[:MAX_ITEMS]]
    more = render_muted(f"and {len(files) - MAX_ITEMS} more") if len(files) > MAX_ITEMS else ""
    return f'<table style="border-collapse:collapse;margin:0">{"".join(rows)}</table>{more}'


def _render_file(file: _File) -> str:
    types, state = escape(truncate(", ".join(file.types))), "staged" if file.is_pending else escape(file.md5[:8])
    cells = (
        escape(truncate(file.name)),
        render_muted(types),
        format_size(file.size) or render_muted("not written"),
        render_muted(state),
    )
    return f'<tr style="background:none">{"".join(map(render_cell, cells))}</tr>'


def _render_lines(lines: Iterable[str]) -> str:
    """Render the first ten lines of HTML."""
    items = list(lines)
    more = [render_muted(f"and {len(items) - MAX_ITEMS} more")] if len(items) > MAX_ITEMS else []
    return "<br>".join([*items[:MAX_ITEMS], *more]) or render_muted("none")
