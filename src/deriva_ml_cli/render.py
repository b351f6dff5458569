"""Output of `deriva-ml show`: fields, files, metrics and timeline of a description."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from deriva_ml_cli.terminal import (
    Column,
    can_print_unicode,
    create_console,
    print_fields,
    print_note,
    print_table,
    print_title,
    safe_text,
    status_text,
)
from deriva_ml_core._text import (
    format_age,
    format_count,
    format_duration,
    format_number,
    format_size,
    format_time,
    sanitize_line,
)
from deriva_ml_core.analysis.describe import (
    AssetDescription,
    AssetUse,
    DatasetDescription,
    Description,
    ExecutionDescription,
    FitDescription,
    RowDescription,
    RunEnvironment,
    WorkflowDescription,
)
from deriva_ml_core.analysis.runs import ExecutionSummary, WorkflowSummary
from deriva_ml_core.definitions import MLAsset, Status
from deriva_ml_core.models import Asset, BestCorrection, MetricSummary, StatusUpdate
from deriva_ml_core.training.metrics_file import MetricCurve

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection

__all__ = ["print_description", "sparkline"]

MAX_ROWS = 20
"""Rows of a list that are shown without ``--full``."""

FIRST_STATUSES, LAST_STATUSES = 3, 12
"""Statuses at the beginning and the end of a timeline that are shown without ``--full``."""

MEDIUM_WIDTH, WIDE_WIDTH = 76, 110
"""Characters of a line from which more columns are shown."""


def print_description(connection: Connection, description: Description, *, full: bool) -> None:
    """Print a description.

    Args:
        connection: The catalog, which commands in the output name.
        description: The description.
        full: Whether to print every file and status.
    """
    match description:
        case ExecutionDescription():
            _print_execution(connection, description, full=full)
        case WorkflowDescription():
            _print_workflow(description, full=full)
        case DatasetDescription():
            _print_dataset(description, full=full)
        case AssetDescription():
            _print_asset(description, full=full)
        case RowDescription():
            _print_row(description)


def _print_execution(connection: Connection, execution: ExecutionDescription, *, full: bool) -> None:
    summary = execution.summary
    create_console().print(safe_text("Execution", "dim"), safe_text(summary.rid, "bold"), status_text(summary.status))
    if summary.description:
        create_console().print(safe_text(summary.description, "bold"))
    if summary.status_detail and summary.status is not Status.completed:
        style = "red" if summary.status is Status.failed else ""
        create_console().print(safe_text(summary.status_detail, style))
    create_console().print()
    print_fields(_execution_fields(connection, execution))
    _print_inputs(execution, full=full)
    records = [asset for asset in execution.outputs if asset.table == MLAsset.execution_metadata]
    _print_assets("Outputs", [asset for asset in execution.outputs if asset not in records], full=full)
    _print_assets("Records", records, full=full)
    _print_nested_executions("Nested in", execution.parents, full=full)
    _print_nested_executions("Nested executions", execution.children, full=full)
    if execution.curves:
        _print_curves(execution.curves, full=full)
    else:
        _print_metric_values(execution.metrics, full=full)
    _print_best_corrections(execution.best_corrections)
    _print_timeline(execution.statuses, full=full)


def _execution_fields(connection: Connection, execution: ExecutionDescription) -> dict[str, object]:
    environment, summary = execution.environment, execution.summary
    workflow = summary.workflow
    changes = " with uncommitted changes" if environment.repository_changed else ""
    unpushed = ", not pushed" if environment.repository_pushed is False else ""
    branch = f" on {environment.branch}" if environment.branch else ""
    created = f"{format_time(summary.created, show_seconds=True)} UTC ({format_age(summary.created)})"
    return {
        "tags": ", ".join(summary.tags),
        "workflow": _format_workflow(workflow) if workflow else "none",
        "code": environment.code_url or (workflow.url if workflow else None),
        "checksum": environment.code_checksum or (workflow.checksum if workflow else None),
        "commit": f"{environment.head[:12]}{branch}{changes}{unpushed}" if environment.head else None,
        "created": created,
        "by": summary.user,
        "ran": _format_run_time(execution),
        "on": _format_machine(environment),
        "command": " ".join(map(str, environment.command)),
        "training": "; ".join(map(_format_fit, execution.fits)),
        "folder": execution.working_dir or environment.folder,
        "output datasets": ", ".join(f"{spec.rid} {spec.version}" for spec in execution.output_datasets),
        "not uploaded": _format_unsent_files(connection, execution.unsent, summary.rid),
    }


def _format_workflow(workflow: WorkflowSummary) -> str:
    return f"{workflow.name or 'unnamed'} ({workflow.workflow_type}), {workflow.rid}"


def _format_run_time(execution: ExecutionDescription) -> str:
    duration = format_duration(execution.summary.duration_seconds)
    if execution.start_time is None:
        return duration
    start, stop = format_time(execution.start_time, show_seconds=True), execution.stop_time
    is_running = execution.summary.status is Status.running
    end = f" to {stop:%H:%M:%S}" if stop else ", still running" if is_running else ""
    return f"{start}{end} UTC{f' ({duration})' if duration else ''}"


def _format_fit(fit: FitDescription) -> str:
    """Return the outcome of a fit, such as ``5 of 5 epochs, completed, best val_loss 0.3006 at epoch 5``."""
    planned = f" of {fit.epochs}" if fit.epochs else ""
    epochs = f"{fit.epochs_done}{planned} epochs" if fit.epochs_done is not None else ""
    best = fit.best if isinstance(fit.best, dict) else {}
    value = best.get("value")
    metric = (
        f"best {best.get('metric')} {format_number(value)} at epoch {best.get('epoch')}"
        if isinstance(value, float)
        else ""
    )
    return ", ".join(filter(None, (epochs, fit.outcome, metric)))


def _format_machine(environment: RunEnvironment) -> str:
    parts = (
        f"{environment.host}, process {environment.process}" if environment.host else "",
        f"Python {environment.python}" if environment.python else "",
        ", ".join(map(str, environment.gpus)),
    )
    return ", ".join(filter(None, parts))


def _format_unsent_files(connection: Connection, names: Sequence[str], rid: str) -> str:
    command = connection.command("upload", rid)
    return f"{format_count(len(names), 'file')}; upload with `{command}`" if names else ""


def _print_inputs(execution: ExecutionDescription, *, full: bool) -> None:
    if execution.input_datasets:
        print_title("Input datasets")
        columns = [Column("RID", style="cyan"), Column("Version"), Column("Description", flexible=True)]
        rows = [(dataset.rid, dataset.version, dataset.description) for dataset in execution.input_datasets]
        print_table(columns, rows, indent=2)
    _print_assets("Input files", execution.input_assets, full=full)


def _print_assets(heading: str, assets: Sequence[Asset], *, full: bool) -> None:
    """Print assets under a heading, or nothing if there are none."""
    if not assets:
        return
    total = format_size(sum(asset.length for asset in assets))
    print_title(heading, safe_text(f"{format_count(len(assets), 'file')}, {total}", "dim"))
    width = create_console().width
    columns = [Column("RID", style="cyan"), Column("File", flexible=True), Column("Size", align_right=True)]
    columns += [Column("Types", flexible=True)] if width >= MEDIUM_WIDTH else []
    columns += [Column("MD5", style="dim")] if width >= WIDE_WIDTH else []
    rows = [_asset_row(asset, len(columns)) for asset in (assets if full else assets[:MAX_ROWS])]
    print_table(columns, rows, indent=2)
    _print_remaining_count(len(assets), full=full)


def _asset_row(asset: Asset, column_count: int) -> Sequence[object]:
    name = asset.filename if asset.table == MLAsset.execution_metadata else f"{asset.table}/{asset.filename}"
    types = ", ".join(asset_type for asset_type in asset.asset_types if asset_type != asset.table)
    return [asset.rid, name, format_size(asset.length), types, asset.md5][:column_count]


def _print_remaining_count(count: int, *, full: bool) -> None:
    if count > MAX_ROWS and not full:
        print_note(f"  and {count - MAX_ROWS:,} more: --full")


def _print_execution_list(heading: str, executions: Sequence[ExecutionSummary], *, full: bool) -> None:
    """Print executions under a heading, or nothing if there are none."""
    if not executions:
        return
    print_title(heading)
    columns = [Column("RID", style="cyan"), Column("Status"), Column("Created"), Column("Description", flexible=True)]
    rows = [
        (each.rid, status_text(each.status), format_age(each.created), each.description)
        for each in (executions if full else executions[:MAX_ROWS])
    ]
    print_table(columns, rows, indent=2)
    _print_remaining_count(len(executions), full=full)


def _print_asset_uses(uses: Sequence[AssetUse], *, full: bool) -> None:
    if not uses:
        return
    print_title("Executions")
    columns = [Column("RID", style="cyan"), Column("Role"), Column("Status"), Column("Created")]
    rows = [
        (
            use.execution.rid,
            use.role,
            status_text(use.execution.status),
            format_age(use.execution.created),
            use.execution.description,
        )
        for use in (uses if full else uses[:MAX_ROWS])
    ]
    print_table([*columns, Column("Description", flexible=True)], rows, indent=2)
    _print_remaining_count(len(uses), full=full)


def _print_nested_executions(heading: str, executions: Sequence[ExecutionSummary], *, full: bool) -> None:
    """Print nested executions under a heading, or nothing if there are none."""
    if not executions:
        return
    print_title(heading)
    columns = [Column("RID", style="cyan"), Column("Status"), Column("Description", flexible=True)]
    rows = [
        (each.rid, status_text(each.status), each.description)
        for each in (executions if full else executions[:MAX_ROWS])
    ]
    print_table(columns, rows, indent=2)
    _print_remaining_count(len(executions), full=full)


def _print_curves(curves: Sequence[MetricCurve], *, full: bool) -> None:
    fits = [curve for curve in curves if curve.stage == "fit"]
    others = [curve for curve in curves if curve.stage != "fit"]
    if fits:
        has_many_fits = len({curve.fit for curve in fits}) > 1
        print_title("Metrics", safe_text(f"by {fits[0].by}", "dim"))
        rows = [_curve_row(curve, show_fit=has_many_fits) for curve in (fits if full else fits[:MAX_ROWS])]
        numbers = [Column(name, align_right=True) for name in ("First", "Last", "Best", "At")]
        print_table([Column("Metric", flexible=True), Column(""), *numbers], rows, indent=2)
        _print_remaining_count(len(fits), full=full)
    if others:
        print_title("Metrics of other stages")
        columns = [Column("Stage"), Column("Metric", flexible=True), Column("Value", align_right=True)]
        values = [
            (curve.stage, curve.name, format_number(curve.last)) for curve in (others if full else others[:MAX_ROWS])
        ]
        print_table(columns, values, indent=2)
        _print_remaining_count(len(others), full=full)


def _curve_row(curve: MetricCurve, *, show_fit: bool) -> list[object]:
    console = create_console()
    width = max(8, min(60, console.width - 60))
    best = safe_text(format_number(curve.best), "bold" if curve.best == curve.last else "")
    return [
        f"{curve.name} (fit {curve.fit})" if show_fit else curve.name,
        safe_text(sparkline(curve.values, width, unicode=can_print_unicode(console)), "blue"),
        format_number(curve.first),
        format_number(curve.last),
        best,
        curve.best_at,
    ]


def _print_metric_values(metrics: Sequence[MetricSummary], *, full: bool) -> None:
    """Print the last and best values of a run without curves, whose metrics came with its statuses."""
    if not metrics:
        return
    print_title("Metrics")
    numbers = [Column(name, align_right=True) for name in ("Last", "Best", "At epoch")]
    rows = [
        (metric.name, metric.stage, format_number(metric.last), format_number(metric.best), metric.best_at)
        for metric in (metrics if full else metrics[:MAX_ROWS])
    ]
    print_table([Column("Metric", flexible=True), Column("Stage"), *numbers], rows, indent=2)
    _print_remaining_count(len(metrics), full=full)


def _print_best_corrections(corrections: Sequence[BestCorrection]) -> None:
    if not corrections:
        return
    print_title("Corrections of the best checkpoint", safe_text("UTC", "dim"))
    rows: list[list[object]] = [
        [
            format_time(each.time, show_seconds=True),
            sanitize_line(each.previous or ""),
            sanitize_line(each.checkpoint),
            sanitize_line(each.corrected_by),
            sanitize_line(each.reason),
        ]
        for each in corrections
    ]
    columns = [Column("Time"), Column("From"), Column("To"), Column("By"), Column("Reason", flexible=True)]
    print_table(columns, rows, indent=2)


def _print_timeline(statuses: Sequence[StatusUpdate], *, full: bool) -> None:
    if not statuses:
        return
    start = statuses[0].time
    print_title("Timeline", safe_text(f"UTC, from {format_time(start, show_seconds=True)}", "dim"))
    omitted = 0 if full else max(0, len(statuses) - FIRST_STATUSES - LAST_STATUSES)
    if omitted:
        note = safe_text(f"{omitted:,} more: --full", "dim")
        rows = [_status_row(update, start) for update in statuses[:FIRST_STATUSES]]
        rows += [["", "", note], *(_status_row(update, start) for update in statuses[-LAST_STATUSES:])]
    else:
        rows = [_status_row(update, start) for update in statuses]
    print_table([Column("After", align_right=True), Column("Status"), Column("Message", flexible=True)], rows, indent=2)


def _status_row(update: StatusUpdate, start: datetime) -> list[object]:
    elapsed = format_duration((update.time - start).total_seconds())
    return [elapsed, status_text(update.status), sanitize_line(update.error or update.message)]


def _print_heading(kind: str, rid: str, subtitle: str) -> None:
    create_console().print(safe_text(kind, "dim"), safe_text(rid, "bold"))
    if subtitle:
        create_console().print(safe_text(subtitle, "bold"))
    create_console().print()


def _format_timestamp(text: str | None) -> str:
    time = datetime.fromisoformat(text) if text else None
    return f"{format_time(time, show_seconds=True)} UTC ({format_age(time)})" if time else ""


def _print_workflow(description: WorkflowDescription, *, full: bool) -> None:
    workflow = description.workflow
    _print_heading("Workflow", workflow.rid, workflow.name or "")
    print_fields(
        {
            "type": workflow.workflow_type,
            "description": workflow.description,
            "code": workflow.url,
            "checksum": workflow.checksum,
            "version": workflow.version,
            "created": _format_timestamp(workflow.created),
        }
    )
    _print_execution_list("Newest executions", description.newest_executions, full=full)


def _print_dataset(dataset: DatasetDescription, *, full: bool) -> None:
    _print_heading("Dataset", dataset.rid, dataset.description)
    members = ", ".join(format_count(count, table, table) for table, count in dataset.members.items())
    print_fields(
        {
            "types": ", ".join(dataset.types),
            "version": dataset.version,
            "members": members or "none",
            "member of": ", ".join(dataset.parents),
            "created": _format_timestamp(dataset.created),
            "deleted": "yes" if dataset.deleted else None,
        }
    )
    versions = list(reversed(dataset.versions))
    print_title("Versions", safe_text(format_count(len(versions), "version"), "dim"))
    columns = [
        Column("Version"),
        Column("Created"),
        Column("Execution", style="cyan"),
        Column("Description", flexible=True),
    ]
    rows = [
        (version.version, format_age(version.created), version.execution or "", version.description)
        for version in (versions if full else versions[:MAX_ROWS])
    ]
    print_table(columns, rows, indent=2)
    _print_remaining_count(len(versions), full=full)
    _print_execution_list("Newest executions that used it", dataset.newest_executions, full=full)


def _print_asset(description: AssetDescription, *, full: bool) -> None:
    asset = description.asset
    _print_heading("Asset", asset.rid, asset.filename)
    print_fields(
        {
            "table": asset.table,
            "types": ", ".join(asset.asset_types),
            "size": f"{format_size(asset.length)} ({asset.length:,} bytes)",
            "MD5": asset.md5,
            "url": asset.url,
            "stored in": description.source,
            "created": _format_timestamp(description.created),
            **asset.metadata,
        }
    )
    _print_asset_uses(description.uses, full=full)


def _print_row(row: RowDescription) -> None:
    _print_heading(f"Row of {row.table}", row.rid, "")
    print_fields({name: value for name, value in row.columns.items() if name != "RID"})


UNICODE_BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=^"
"""For terminals without Unicode."""


def sparkline(values: Sequence[float], width: int, *, unicode: bool = True) -> str:
    """Return a line of blocks whose heights follow the values.

    Args:
        values: The values; NaN and infinity leave a gap.
        width: The maximum number of blocks; each shows the mean of its values if there are more.
        unicode: Whether to use Unicode blocks instead of ASCII characters.
    """
    marks = UNICODE_BLOCKS if unicode else ASCII_BLOCKS
    means = list(_iter_bin_means(values, width))
    finite = [value for value in means if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    if not (math.isfinite(high - low) and high > low):
        return "".join(marks[len(marks) // 2] if math.isfinite(value) else " " for value in means)
    top = len(marks) - 1
    return "".join(marks[round((value - low) / (high - low) * top)] if math.isfinite(value) else " " for value in means)


def _iter_bin_means(values: Sequence[float], max_bins: int) -> Iterator[float]:
    count = min(max_bins, len(values))
    for index in range(count):
        part = values[index * len(values) // count : (index + 1) * len(values) // count]
        finite = [value for value in part if math.isfinite(value)]
        yield math.fsum(finite) / len(finite) if finite else math.nan
