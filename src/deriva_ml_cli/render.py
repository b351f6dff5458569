"""An execution on the screen: facts, files, metrics, statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deriva_ml_cli.sparkline import sparkline
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
from deriva_ml_core.training.metrics_file import MetricCurve

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["print_assets", "print_execution", "print_execution_list", "print_record"]


MAX_ROWS = 20
"""Rows of a list that are shown without ``--full``."""

FIRST_STATUSES, LAST_STATUSES = 3, 12
"""Statuses that are shown without ``--full``."""

MEDIUM_WIDTH, WIDE_WIDTH = 76, 110

METADATA_TABLE = "Execution_Metadata"


def print_execution(execution: Mapping[str, Any], curves: Sequence[MetricCurve], *, full: bool) -> None:
    """Print an execution, as `subjects.describe` tells it."""
    create_console().print(
        safe_text("Execution", "dim"), safe_text(execution["rid"], "bold"), status_text(execution["status"])
    )
    if execution["description"]:
        create_console().print(safe_text(execution["description"], "bold"))
    if execution["status_detail"] and execution["status"] != "Completed":
        create_console().print(safe_text(execution["status_detail"], "red" if execution["status"] == "Failed" else ""))
    create_console().print()
    print_fields(_execution_fields(execution))
    _print_inputs(execution["inputs"], full=full)
    outputs = [asset for asset in execution["outputs"] if asset["table"] != METADATA_TABLE]
    print_assets("Outputs", outputs, full=full)
    print_assets("Records", [asset for asset in execution["outputs"] if asset["table"] == METADATA_TABLE], full=full)
    for name, heading in (("parents", "Nested in"), ("children", "Nested in it")):
        print_nested_executions(heading, execution[name], full=full)
    if curves:
        _print_curves(curves, full=full)
    else:
        _print_metric_values(execution["metric_values"], full=full)
    _print_timeline(execution["timeline"], full=full)


def _execution_fields(execution: Mapping[str, Any]) -> dict[str, object]:
    environment, workflow = execution["environment"], execution["workflow"]
    head = environment["head"]
    changed = " with uncommitted changes" if environment["repository_changed"] else ""
    branch = f" on {environment['branch']}" if environment["branch"] else ""
    made = ", ".join(f"{each['rid']} {each['version']}" for each in execution["datasets_made"])
    return {
        "workflow": _format_workflow(workflow) if workflow else "none",
        "code": environment["code_url"] or (workflow or {}).get("url"),
        "checksum": environment["code_checksum"] or (workflow or {}).get("checksum"),
        "commit": f"{head[:12]}{branch}{changed}" if head else None,
        "created": f"{format_time(execution['created'], show_seconds=True)} UTC ({format_age(execution['created'])})",
        "ran": _format_run_time(execution),
        "on": _format_machine(environment),
        "command": " ".join(environment["command"]),
        "training": "; ".join(map(_format_fit, execution["fits"])),
        "folder": execution["working_dir"] or environment["folder"],
        "datasets made": made,
        "not sent": _format_unsent_files(execution["unsent"], execution["rid"]),
    }


def _format_workflow(workflow: Mapping[str, Any]) -> str:
    return f"{workflow['name'] or 'unnamed'} ({workflow['type']}), {workflow['rid']}"


def _format_run_time(execution: Mapping[str, Any]) -> str:
    took = format_duration(execution["duration_seconds"])
    if execution["started"] is None:
        return took
    start, stop = format_time(execution["started"], show_seconds=True), execution["stopped"]
    until = f" to {stop:%H:%M:%S}" if stop else ", still running" if execution["status"] == "Running" else ""
    return f"{start}{until} UTC{f' ({took})' if took else ''}"


def _format_fit(fit: Mapping[str, Any]) -> str:
    """How a fit went, such as ``5 of 5 epochs, completed, best val_loss 0.3006 at epoch 5``."""
    of = f" of {fit['epochs']}" if fit["epochs"] else ""
    done = f"{fit['epochs_done']}{of} epochs" if fit["epochs_done"] is not None else ""
    best = fit["best"] if isinstance(fit["best"], dict) else {}
    value = best.get("value")
    told = (
        f"best {best.get('metric')} {format_number(value)} at epoch {best.get('epoch')}"
        if isinstance(value, float)
        else ""
    )
    return ", ".join(filter(None, (done, fit["outcome"], told)))


def _format_machine(environment: Mapping[str, Any]) -> str:
    parts = (
        f"{environment['host']}, process {environment['process']}" if environment["host"] else "",
        f"Python {environment['python']}" if environment["python"] else "",
        ", ".join(environment["gpus"]),
    )
    return ", ".join(filter(None, parts))


def _format_unsent_files(names: Sequence[str], rid: str) -> str:
    return f"{format_count(len(names), 'file')}; `deriva-ml upload {rid}` sends them" if names else ""


def _print_inputs(inputs: Mapping[str, Any], *, full: bool) -> None:
    if inputs["datasets"]:
        print_title("Input datasets")
        columns = [Column("RID", style="cyan"), Column("Version"), Column("Description", flexible=True)]
        print_table(
            columns, [(each["rid"], each["version"], each["description"]) for each in inputs["datasets"]], indent=2
        )
    print_assets("Input files", inputs["assets"], full=full)


def print_assets(heading: str, assets: Sequence[Mapping[str, Any]], *, full: bool) -> None:
    """Print files with their tables, types and sizes under a heading; none, and there is no heading."""
    if not assets:
        return
    sum_of = format_size(sum(asset["length"] for asset in assets))
    print_title(heading, safe_text(f"{format_count(len(assets), 'file')}, {sum_of}", "dim"))
    width = create_console().width
    columns = [Column("RID", style="cyan"), Column("File", flexible=True), Column("Size", align_right=True)]
    columns += [Column("Types", flexible=True)] if width >= MEDIUM_WIDTH else []
    columns += [Column("MD5", style="dim")] if width >= WIDE_WIDTH else []
    rows = [_asset_row(asset, len(columns)) for asset in (assets if full else assets[:MAX_ROWS])]
    print_table(columns, rows, indent=2)
    _print_remaining_count(len(assets), full=full)


def _asset_row(asset: Mapping[str, Any], column_count: int) -> list[object]:
    name = asset["filename"] if asset["table"] == METADATA_TABLE else f"{asset['table']}/{asset['filename']}"
    types = ", ".join(each for each in asset["asset_types"] if each != asset["table"])
    return [asset["rid"], name, format_size(asset["length"]), types, asset["md5"]][:column_count]


def _print_remaining_count(count: int, *, full: bool) -> None:
    if count > MAX_ROWS and not full:
        print_note(f"  and {count - MAX_ROWS:,} more: --full")


def print_execution_list(heading: str, executions: Sequence[Mapping[str, Any]], *, full: bool) -> None:
    """Print executions with their states under a heading; none, and there is no heading."""
    if not executions:
        return
    print_title(heading)
    with_role = "role" in executions[0]
    columns = [Column("RID", style="cyan"), Column("Status"), Column("Created"), Column("Description", flexible=True)]
    columns[1:1] = [Column("Role")] if with_role else []
    rows = []
    for run in executions if full else executions[:MAX_ROWS]:
        role = [run["role"]] if with_role else []
        rows.append([run["rid"], *role, status_text(run["status"]), format_age(run["created"]), run["description"]])
    print_table(columns, rows, indent=2)
    _print_remaining_count(len(executions), full=full)


def print_nested_executions(heading: str, executions: Sequence[Mapping[str, Any]], *, full: bool) -> None:
    """Print nested executions under a heading; none, and there is no heading."""
    if executions:
        print_title(heading)
        columns = [Column("RID", style="cyan"), Column("Status"), Column("Description", flexible=True)]
        kept = executions if full else executions[:MAX_ROWS]
        print_table(columns, [(r["rid"], status_text(r["status"]), r["description"]) for r in kept], indent=2)
        _print_remaining_count(len(executions), full=full)


def _print_curves(curves: Sequence[MetricCurve], *, full: bool) -> None:
    fits = [curve for curve in curves if curve.stage == "fit"]
    others = [curve for curve in curves if curve.stage != "fit"]
    if fits:
        many = len({curve.fit for curve in fits}) > 1
        print_title("Metrics", safe_text(f"by {fits[0].by}", "dim"))
        print_table(
            _curve_columns(), [_curve_row(c, show_fit=many) for c in (fits if full else fits[:MAX_ROWS])], indent=2
        )
        _print_remaining_count(len(fits), full=full)
    if others:
        print_title("Metrics of other stages")
        columns = [Column("Stage"), Column("Metric", flexible=True), Column("Value", align_right=True)]
        rows = [(c.stage, c.name, format_number(c.last)) for c in (others if full else others[:MAX_ROWS])]
        print_table(columns, rows, indent=2)
        _print_remaining_count(len(others), full=full)


def _print_metric_values(values: Sequence[Mapping[str, Any]], *, full: bool) -> None:
    """Print where metrics stand of a run that kept no curves: a loop that told them as its progress."""
    if values:
        print_title("Metrics", safe_text("as they were told", "dim"))
        numbers = [Column(name, align_right=True) for name in ("Last", "Best", "At epoch")]
        rows = [
            (each["name"], each["stage"], format_number(each["last"]), format_number(each["best"]), each["best_at"])
            for each in (values if full else values[:MAX_ROWS])
        ]
        print_table([Column("Metric", flexible=True), Column("Stage"), *numbers], rows, indent=2)
        _print_remaining_count(len(values), full=full)


def _curve_columns() -> list[Column]:
    numbers = [Column(name, align_right=True) for name in ("First", "Last", "Best", "At")]
    return [Column("Metric", flexible=True), Column(""), *numbers]


def _curve_row(curve: MetricCurve, *, show_fit: bool) -> list[object]:
    screen = create_console()
    room = max(8, min(60, screen.width - 60))
    line = sparkline(curve.values, room, unicode=can_print_unicode(screen))
    name = f"{curve.name} (fit {curve.fit})" if show_fit else curve.name
    at = "" if curve.best_at is None else str(curve.best_at)
    return [
        name,
        safe_text(line, "blue"),
        format_number(curve.first),
        format_number(curve.last),
        _best_value_text(curve),
        at,
    ]


def _best_value_text(curve: MetricCurve) -> Text:
    return safe_text(format_number(curve.best), "bold" if curve.best == curve.last else "")


def _print_timeline(timeline: Sequence[Mapping[str, Any]], *, full: bool) -> None:
    if not timeline:
        return
    print_title("Timeline", safe_text(f"UTC, from {format_time(timeline[0]['time'], show_seconds=True)}", "dim"))
    kept = (
        list(timeline)
        if full or len(timeline) <= FIRST_STATUSES + LAST_STATUSES
        else [*timeline[:FIRST_STATUSES], None, *timeline[-LAST_STATUSES:]]
    )
    start: datetime = timeline[0]["time"]
    rows = []
    for each in kept:
        if each is None:
            rows.append(["", "", safe_text(f"{len(timeline) - FIRST_STATUSES - LAST_STATUSES:,} more: --full", "dim")])
        else:
            rows.append(
                [_format_elapsed(each["time"], start), status_text(each["status"]), sanitize_line(each["message"])]
            )
    print_table([Column("After", align_right=True), Column("Status"), Column("Message", flexible=True)], rows, indent=2)


def _format_elapsed(time: datetime, start: datetime) -> str:
    return format_duration((time - start).total_seconds())


def print_record(record: Mapping[str, Any], *, full: bool) -> None:
    """Print what `subjects.describe` told of a workflow, a dataset, an asset or another row."""
    printers = {"workflow": _print_workflow, "dataset": _print_dataset, "asset": _print_asset, "row": _print_row}
    printers[record["kind"]](record, full)


def _print_heading(kind: str, rid: str, subtitle: str, style: str = "bold") -> None:
    create_console().print(safe_text(kind, "dim"), safe_text(rid, "bold"))
    if subtitle:
        create_console().print(safe_text(subtitle, style))
    create_console().print()


def _format_timestamp(value: str | datetime | None) -> str:
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{format_time(time, show_seconds=True)} UTC ({format_age(time)})" if time else ""


def _print_workflow(record: Mapping[str, Any], full: bool) -> None:
    _print_heading("Workflow", record["rid"], record["name"] or "")
    print_fields(
        {
            "type": record["type"],
            "description": record["description"],
            "code": record["url"],
            "checksum": record["checksum"],
            "version": record["version"],
            "created": _format_timestamp(record["created"]),
        }
    )
    print_execution_list("Newest executions", record["newest_executions"], full=full)


def _print_dataset(record: Mapping[str, Any], full: bool) -> None:
    _print_heading("Dataset", record["rid"], record["description"])
    members = ", ".join(format_count(count, element, element) for element, count in record["members"].items())
    print_fields(
        {
            "types": ", ".join(record["types"]),
            "version": record["version"],
            "members": members or "none",
            "lies in": ", ".join(record["parents"]),
            "created": _format_timestamp(record["created"]),
            "deleted": "yes" if record["deleted"] else None,
        }
    )
    versions = list(reversed(record["versions"]))
    print_title("Versions", safe_text(format_count(len(versions), "version"), "dim"))
    columns = [Column("Version"), Column("Created"), Column("By", style="cyan"), Column("Description", flexible=True)]
    rows = [
        (
            each["version"],
            format_age(datetime.fromisoformat(each["created"])),
            each["execution"] or "",
            each["description"],
        )
        for each in (versions if full else versions[:MAX_ROWS])
    ]
    print_table(columns, rows, indent=2)
    if len(versions) > MAX_ROWS and not full:
        print_note(f"  and {len(versions) - MAX_ROWS:,} more: --full")
    print_execution_list("Newest executions that read it", record["newest_executions"], full=full)


def _print_asset(record: Mapping[str, Any], full: bool) -> None:
    _print_heading("Asset", record["rid"], record["filename"])
    print_fields(
        {
            "table": record["table"],
            "types": ", ".join(record["asset_types"]),
            "size": f"{format_size(record['length'])} ({record['length']:,} bytes)",
            "MD5": record["md5"],
            "url": record["url"],
            "stored in": record["source"],
            "created": _format_timestamp(record["created"]),
            **record["metadata"],
        }
    )
    print_execution_list("Executions", record["executions"], full=full)


def _print_row(record: Mapping[str, Any], full: bool) -> None:  # noqa: ARG001
    _print_heading(f"Row of {record['table']}", record["rid"], "")
    print_fields({name: value for name, value in record["columns"].items() if name != "RID"})
