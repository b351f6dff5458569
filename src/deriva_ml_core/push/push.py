"""The push: what goes, what stands against it, and the steps, each of which may be done again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._progress import progress_reporter
from deriva_ml_core.backend import Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLAsset, MLTable, MLVocab, Role
from deriva_ml_core.errors import ConfigurationError, ExecutionRunning
from deriva_ml_core.execution.recorded import RecordedExecution, load_local_state
from deriva_ml_core.models import UploadOptions, UploadProgress
from deriva_ml_core.push.collect import PushPlan, RowsByTable, build_push_plan
from deriva_ml_core.push.context import Ledger, PushContext, PushReport
from deriva_ml_core.push.datasets import copy_datasets
from deriva_ml_core.push.executions import (
    ExecutionsByRID,
    copy_executions,
    copy_workflows,
    link_assets_and_datasets,
    link_nested_executions,
    set_final_statuses,
    write_metadata_files,
)
from deriva_ml_core.push.rows import copy_asset_types, copy_rows, copy_terms
from deriva_ml_core.push.schema_check import ensure_schema
from deriva_ml_core.push.source_record import is_source_record_name, read_source_record, source_record_name
from deriva_ml_core.schema import asset_execution_table_name

__all__ = ["push"]

LEDGER_FOLDER = "pushed"
"""The folder of the ledgers, in the target's own folder."""

log = logging.getLogger(__name__)


def push(
    source: Connection,
    rid: RID,
    target: Connection,
    *,
    children: bool = True,
    lineage: bool = False,
    make_tables: bool = False,
    options: UploadOptions | None = None,
    progress_callback: Callable[[UploadProgress], None] | None = None,
) -> PushReport:
    """Copy an execution to another catalog; see ``DerivaML.push``."""
    rows = _select_executions(source, rid, children=children, lineage=lineage)
    runs = {each: RecordedExecution(source, row) for each, row in rows.items()}
    _check_not_running(runs)
    unsent = tuple(_find_unsent_files(source, runs))
    gathered = build_push_plan(source, rows.values())
    _check_not_original(source, target, gathered)
    gathered.terms[MLVocab.asset_type]["Name"]["Execution_Metadata"] = None
    with _open_context(source, target) as passage, progress_reporter(progress_callback, "Copying") as heard:
        tables = ensure_schema(passage, gathered, make_tables=make_tables)
        _copy_all(passage, gathered, runs, options or UploadOptions(), heard)
    return PushReport(
        source=source.catalog.cite(rid),
        target=target.catalog.cite(passage.target_rid(rid)),
        execution=passage.target_rid(rid),
        rows=tuple(row for each, row in passage.pushed_rows.items() if each not in gathered.related_executions),
        tables=tables,
        terms=tuple(passage.added_terms),
        files=passage.files_sent,
        bytes=passage.bytes_sent,
        unsent=unsent,
        notes=tuple(passage.notes),
    )


def _copy_all(
    context: PushContext,
    plan: PushPlan,
    executions: ExecutionsByRID,
    options: UploadOptions,
    progress_callback: Callable[[UploadProgress], None] | None,
) -> None:
    def copy(rows: RowsByTable, update_existing: bool) -> None:
        copy_rows(context, rows, options, progress_callback, update_existing=update_existing)

    copy_terms(context, plan)
    copy_workflows(context, plan)
    copies = copy_executions(context, plan)
    copy_datasets(context, plan, copy)
    copy(plan.rows, True)
    copy_asset_types(context, plan.asset_types)
    link_assets_and_datasets(context, plan)
    link_nested_executions(context, plan)
    write_metadata_files(context, plan, executions, options)
    set_final_statuses(context, executions, copies)


# which executions


def _select_executions(source: Connection, rid: RID, *, children: bool, lineage: bool) -> dict[RID, Row]:
    """The rows of the executions that go: the one that is asked for, then those in it and, by lineage, before it."""
    first = source.require_row(MLTable.execution, rid)
    chosen = {str(first["RID"]): dict(first)}
    waiting = list(chosen)
    while waiting:
        found: set[RID] = set()
        if children and MLTable.nested_execution in source.catalog.model.tables:
            links = source.catalog.select(MLTable.nested_execution, {"Execution": waiting})
            found |= {link["Nested_Execution"] for link in links}
        if lineage:
            found |= set(_find_producing_executions(source, [chosen[each] for each in waiting]))
        waiting = sorted(found - chosen.keys())
        rows = source.catalog.select(MLTable.execution, {"RID": waiting}) if waiting else []
        chosen |= {row["RID"]: row for row in rows}
    return chosen


def _find_producing_executions(source: Connection, execution_rows: Iterable[Row]) -> Iterator[RID]:
    """The executions that made what went into others: files, dataset versions, and the files in datasets."""
    gathered = build_push_plan(source, execution_rows)
    for table, model in source.catalog.model.tables.items():
        rids = sorted({rid for rows in gathered.all_rows() for rid in rows.get(table, ())}) if model.is_asset else []
        if rids and asset_execution_table_name(table) in source.catalog.model.tables:
            where = {table: rids, "Asset_Role": Role.output}
            yield from (link["Execution"] for link in source.catalog.select(asset_execution_table_name(table), where))
    for contents in gathered.versions.values():
        if contents.version.execution is not None:
            yield contents.version.execution


# what stands against it


def _check_not_original(source: Connection, target: Connection, plan: PushPlan) -> None:
    """Refuse executions that the target has as themselves: it is the same catalog, or these are copies from there."""
    originals = {rid: (rid, source_record_name(row)) for rid, row in plan.executions.items()}
    records = {
        rid: row
        for rid, row in plan.rows.get(MLAsset.execution_metadata, {}).items()
        if is_source_record_name(row["Filename"])
    }
    for (record, run), role in plan.asset_roles.get(MLAsset.execution_metadata, {}).items():
        if record in records and role == Role.output:
            originals[f"{run} by {record}"] = (
                read_source_record(source, records[record]).rid,
                records[record]["Filename"],
            )
    wanted = sorted({rid for rid, _ in originals.values() if rid})
    there = {row["RID"]: row for row in target.catalog.select(MLTable.execution, {"RID": wanted})}
    for told, (rid, name) in originals.items():
        if rid in there and source_record_name(there[rid]) == name:
            raise ConfigurationError(
                f"{told.partition(' ')[0]} is execution {rid} of {target.catalog.name}, or a copy of it: there is "
                "nothing to copy to there."
            )


def _check_not_running(executions: ExecutionsByRID) -> None:
    going = {rid: run.status for rid, run in executions.items() if not run.status.is_terminal}
    if going:
        told = ", ".join(f"{rid} is {status}" for rid, status in going.items())
        raise ExecutionRunning(
            f"Only executions that have ended are copied, and {told}. Push when it has ended; `deriva-ml status` says "
            "when, and `deriva-ml abort` ends one that nobody will finish."
        )


def _find_unsent_files(source: Connection, executions: ExecutionsByRID) -> Iterator[str]:
    """The files that were registered on this machine and never uploaded."""
    for rid in executions:
        story = load_local_state(source, rid)
        names = [file.asset.filename for file in story.pending_files() if not file.asset.record] if story else []
        if names:
            log.warning(
                "Execution %s has %d files that are not uploaded, so that they are not copied: %s. "
                "`deriva-ml upload %s` sends them; push again afterwards.",
                rid,
                len(names),
                ", ".join(names[:5]),
                rid,
            )
        yield from names


# where it is written down


@contextmanager
def _open_context(source: Connection, target: Connection) -> Iterator[PushContext]:
    """One push at a time between two catalogs from this machine: the next goes on from what this one wrote down."""
    from filelock import FileLock, Timeout

    folder = target.folder / LEDGER_FOLDER / hashlib.sha256(source.catalog.name.encode()).hexdigest()[:16]
    with translate_os_errors(f"What is copied cannot be written down in {folder}", _nearest_existing_folder(folder)):
        (folder / "files").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("Another process copies to %s just now; this one goes on when that has ended.", target.folder)
            lock.acquire()
    try:
        yield PushContext(source, target, Ledger(folder / "ledger.jsonl"), folder / "files")
    finally:
        lock.release()


def _nearest_existing_folder(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())
