"""An execution on the screen: facts, files, metrics, statuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from deriva_ml_cli.curves import Curve, sparkline
from deriva_ml_cli.screen import (
    Column,
    console,
    one_line,
    print_facts,
    print_note,
    print_table,
    print_title,
    shown,
    shown_status,
    speaks_unicode,
)
from deriva_ml_cli.wording import ago, counted, duration, moment, number, size

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["print_assets", "print_execution", "print_runs"]

MOST = 20
"""Rows of a list that are shown without ``--full``."""

FIRST, LAST = 3, 12
"""Statuses that are shown without ``--full``."""

NARROW, BROAD = 76, 110

RECORDS = "Execution_Metadata"


def print_execution(found: Mapping[str, Any], curves: Sequence[Curve], *, full: bool) -> None:
    """Print an execution, as `subjects.describe` tells it."""
    console().print(shown("Execution", "dim"), shown(found["rid"], "bold"), shown_status(found["status"]))
    if found["description"]:
        console().print(shown(found["description"], "bold"))
    if found["status_detail"] and found["status"] != "Completed":
        console().print(shown(found["status_detail"], "red" if found["status"] == "Failed" else ""))
    console().print()
    print_facts(_facts(found))
    _print_inputs(found["inputs"], full=full)
    outputs = [asset for asset in found["outputs"] if asset["table"] != RECORDS]
    print_assets("Outputs", outputs, full=full)
    print_assets("Records", [asset for asset in found["outputs"] if asset["table"] == RECORDS], full=full)
    for name, heading in (("parents", "Nested in"), ("children", "Nested in it")):
        print_related(heading, found[name], full=full)
    if curves:
        _print_curves(curves, full=full)
    else:
        _print_values(found["metric_values"], full=full)
    _print_timeline(found["timeline"], full=full)


def _facts(found: Mapping[str, Any]) -> dict[str, object]:
    environment, workflow = found["environment"], found["workflow"]
    head = environment["head"]
    changed = " with uncommitted changes" if environment["repository_changed"] else ""
    branch = f" on {environment['branch']}" if environment["branch"] else ""
    made = ", ".join(f"{each['rid']} {each['version']}" for each in found["datasets_made"])
    return {
        "workflow": _workflow(workflow) if workflow else "none",
        "code": environment["code_url"] or (workflow or {}).get("url"),
        "checksum": environment["code_checksum"] or (workflow or {}).get("checksum"),
        "commit": f"{head[:12]}{branch}{changed}" if head else None,
        "created": f"{moment(found['created'], seconds=True)} UTC ({ago(found['created'])})",
        "ran": _ran(found),
        "on": _machine(environment),
        "command": " ".join(environment["command"]),
        "training": "; ".join(map(_fit, found["fits"])),
        "folder": found["working_dir"] or environment["folder"],
        "datasets made": made,
        "not sent": _unsent(found["unsent"], found["rid"]),
    }


def _workflow(workflow: Mapping[str, Any]) -> str:
    return f"{workflow['name'] or 'unnamed'} ({workflow['type']}), {workflow['rid']}"


def _ran(found: Mapping[str, Any]) -> str:
    took = duration(found["duration_seconds"])
    if found["started"] is None:
        return took
    start, stop = moment(found["started"], seconds=True), found["stopped"]
    until = f" to {stop:%H:%M:%S}" if stop else ", still running" if found["status"] == "Running" else ""
    return f"{start}{until} UTC{f' ({took})' if took else ''}"


def _fit(fit: Mapping[str, Any]) -> str:
    """How a fit went, such as ``5 of 5 epochs, completed, best val_loss 0.3006 at epoch 5``."""
    of = f" of {fit['epochs']}" if fit["epochs"] else ""
    done = f"{fit['epochs_done']}{of} epochs" if fit["epochs_done"] is not None else ""
    best = fit["best"] if isinstance(fit["best"], dict) else {}
    value = best.get("value")
    told = f"best {best.get('metric')} {number(value)} at epoch {best.get('epoch')}" if isinstance(value, float) else ""
    return ", ".join(filter(None, (done, fit["outcome"], told)))


def _machine(environment: Mapping[str, Any]) -> str:
    parts = (
        f"{environment['host']}, process {environment['process']}" if environment["host"] else "",
        f"Python {environment['python']}" if environment["python"] else "",
        ", ".join(environment["gpus"]),
    )
    return ", ".join(filter(None, parts))


def _unsent(names: Sequence[str], rid: str) -> str:
    return f"{counted(len(names), 'file')}; `deriva-ml upload {rid}` sends them" if names else ""


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
    sum_of = size(sum(asset["length"] for asset in assets))
    print_title(heading, shown(f"{counted(len(assets), 'file')}, {sum_of}", "dim"))
    width = console().width
    columns = [Column("RID", style="cyan"), Column("File", flexible=True), Column("Size", right=True)]
    columns += [Column("Types", flexible=True)] if width >= NARROW else []
    columns += [Column("MD5", style="dim")] if width >= BROAD else []
    rows = [_file(asset, len(columns)) for asset in (assets if full else assets[:MOST])]
    print_table(columns, rows, indent=2)
    _note_rest(len(assets), full=full)


def _file(asset: Mapping[str, Any], count: int) -> list[object]:
    name = asset["filename"] if asset["table"] == RECORDS else f"{asset['table']}/{asset['filename']}"
    types = ", ".join(each for each in asset["asset_types"] if each != asset["table"])
    return [asset["rid"], name, size(asset["length"]), types, asset["md5"]][:count]


def _note_rest(count: int, *, full: bool) -> None:
    if count > MOST and not full:
        print_note(f"  and {count - MOST:,} more: --full")


def print_runs(heading: str, runs: Sequence[Mapping[str, Any]], *, full: bool) -> None:
    """Print executions with their states under a heading; none, and there is no heading."""
    if not runs:
        return
    print_title(heading)
    with_role = "role" in runs[0]
    columns = [Column("RID", style="cyan"), Column("Status"), Column("Created"), Column("Description", flexible=True)]
    columns[1:1] = [Column("Role")] if with_role else []
    rows = []
    for run in runs if full else runs[:MOST]:
        role = [run["role"]] if with_role else []
        rows.append([run["rid"], *role, shown_status(run["status"]), ago(run["created"]), run["description"]])
    print_table(columns, rows, indent=2)
    _note_rest(len(runs), full=full)


def print_related(heading: str, runs: Sequence[Mapping[str, Any]], *, full: bool) -> None:
    """Print nested executions under a heading; none, and there is no heading."""
    if runs:
        print_title(heading)
        columns = [Column("RID", style="cyan"), Column("Status"), Column("Description", flexible=True)]
        kept = runs if full else runs[:MOST]
        print_table(columns, [(r["rid"], shown_status(r["status"]), r["description"]) for r in kept], indent=2)
        _note_rest(len(runs), full=full)


def _print_curves(curves: Sequence[Curve], *, full: bool) -> None:
    fits = [curve for curve in curves if curve.stage == "fit"]
    others = [curve for curve in curves if curve.stage != "fit"]
    if fits:
        many = len({curve.fit for curve in fits}) > 1
        print_title("Metrics", shown(f"by {fits[0].by}", "dim"))
        print_table(_curve_columns(), [_curve_row(c, many=many) for c in (fits if full else fits[:MOST])], indent=2)
        _note_rest(len(fits), full=full)
    if others:
        print_title("Metrics of other stages")
        columns = [Column("Stage"), Column("Metric", flexible=True), Column("Value", right=True)]
        rows = [(c.stage, c.name, number(c.last)) for c in (others if full else others[:MOST])]
        print_table(columns, rows, indent=2)
        _note_rest(len(others), full=full)


def _print_values(values: Sequence[Mapping[str, Any]], *, full: bool) -> None:
    """Print where metrics stand of a run that kept no curves: a loop that told them as its progress."""
    if values:
        print_title("Metrics", shown("as they were told", "dim"))
        numbers = [Column(name, right=True) for name in ("Last", "Best", "At epoch")]
        rows = [
            (each["name"], each["stage"], number(each["last"]), number(each["best"]), each["best_at"])
            for each in (values if full else values[:MOST])
        ]
        print_table([Column("Metric", flexible=True), Column("Stage"), *numbers], rows, indent=2)
        _note_rest(len(values), full=full)


def _curve_columns() -> list[Column]:
    numbers = [Column(name, right=True) for name in ("First", "Last", "Best", "At")]
    return [Column("Metric", flexible=True), Column(""), *numbers]


def _curve_row(curve: Curve, *, many: bool) -> list[object]:
    screen = console()
    room = max(8, min(60, screen.width - 60))
    line = sparkline(curve.values, room, unicode=speaks_unicode(screen))
    name = f"{curve.name} (fit {curve.fit})" if many else curve.name
    at = "" if curve.best_at is None else str(curve.best_at)
    return [name, shown(line, "blue"), number(curve.first), number(curve.last), _best(curve), at]


def _best(curve: Curve) -> Text:
    return shown(number(curve.best), "bold" if curve.best == curve.last else "")


def _print_timeline(timeline: Sequence[Mapping[str, Any]], *, full: bool) -> None:
    if not timeline:
        return
    print_title("Timeline", shown(f"UTC, from {moment(timeline[0]['time'], seconds=True)}", "dim"))
    kept = list(timeline) if full or len(timeline) <= FIRST + LAST else [*timeline[:FIRST], None, *timeline[-LAST:]]
    start: datetime = timeline[0]["time"]
    rows = []
    for each in kept:
        if each is None:
            rows.append(["", "", shown(f"{len(timeline) - FIRST - LAST:,} more: --full", "dim")])
        else:
            rows.append([_since(each["time"], start), shown_status(each["status"]), one_line(each["message"])])
    print_table([Column("After", right=True), Column("Status"), Column("Message", flexible=True)], rows, indent=2)


def _since(time: datetime, start: datetime) -> str:
    return duration((time - start).total_seconds())
