"""Push of executions to another catalog: selection, checks, and the steps, each of which can be repeated."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._files.permissions import create_folder
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
"""Folder of the ledgers, in the target catalog's folder."""

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
    executions = {row["RID"]: RecordedExecution(source, row) for row in rows.values()}
    _check_not_running(source, executions)
    unsent = tuple(_find_unsent_files(source, executions))
    plan = build_push_plan(source, rows.values())
    _check_not_original(source, target, plan)
    plan.terms[MLVocab.asset_type]["Name"]["Execution_Metadata"] = None
    with _open_context(source, target) as context, progress_reporter(progress_callback, "Copying") as report_progress:
        tables = ensure_schema(context, plan, make_tables=make_tables)
        _copy_all(context, plan, executions, options or UploadOptions(), report_progress)
    return PushReport(
        source=source.catalog.cite(rid),
        target=target.catalog.cite(context.target_rid(rid)),
        execution=context.target_rid(rid),
        rows=tuple(row for row in context.pushed_rows.values() if row.source not in plan.related_executions),
        tables=tables,
        terms=tuple(context.added_terms),
        files=context.files_sent,
        bytes=context.bytes_sent,
        unsent=unsent,
        notes=tuple(context.notes),
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
    """Return the rows of the executions to copy: the named one, its children and, by lineage, its predecessors."""
    first = source.require_row(MLTable.execution, rid)
    selected = {str(first["RID"]): dict(first)}
    waiting = list(selected)
    while waiting:
        found: set[RID] = set()
        if children:
            links = source.catalog.select(MLTable.nested_execution, {"Execution": waiting})
            found |= {link["Nested_Execution"] for link in links}
        if lineage:
            found |= set(_find_producing_executions(source, [selected[parent] for parent in waiting]))
        waiting = sorted(found - selected.keys())
        rows = source.catalog.select(MLTable.execution, {"RID": waiting}) if waiting else []
        selected |= {row["RID"]: row for row in rows}
    return selected


def _find_producing_executions(source: Connection, execution_rows: Iterable[Row]) -> Iterator[RID]:
    """Yield the executions that created the inputs of others: files, dataset versions, and files in datasets."""
    plan = build_push_plan(source, execution_rows)
    for table, model in source.catalog.model.tables.items():
        rids = sorted({rid for rows in plan.all_rows() for rid in rows.get(table, ())}) if model.is_asset else []
        if rids and asset_execution_table_name(table) in source.catalog.model.tables:
            where = {table: rids, "Asset_Role": Role.output}
            yield from (link["Execution"] for link in source.catalog.select(asset_execution_table_name(table), where))
    for contents in plan.versions.values():
        if contents.version.execution is not None:
            yield contents.version.execution


# checks


def _check_not_original(source: Connection, target: Connection, plan: PushPlan) -> None:
    """Raise `ConfigurationError` if the target has the originals: the same catalog, or executions copied from it."""
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
    rids = sorted({rid for rid, _ in originals.values() if rid})
    existing = {row["RID"]: row for row in target.catalog.select(MLTable.execution, {"RID": rids})}
    for key, (rid, name) in originals.items():
        if rid in existing and source_record_name(existing[rid]) == name:
            raise ConfigurationError(
                f"{key.partition(' ')[0]} is execution {rid} of {target.catalog.name}, or a copy of it: there is "
                "nothing to copy."
            )


def _check_not_running(source: Connection, executions: ExecutionsByRID) -> None:
    unfinished = {rid: run.status for rid, run in executions.items() if not run.status.is_terminal}
    if unfinished:
        statuses = ", ".join(f"{rid} is {status}" for rid, status in unfinished.items())
        rid = next(iter(unfinished))
        raise ExecutionRunning(
            f"Only finished executions can be pushed, but {statuses}. Push again after it ends: "
            f"`{source.command('status', rid)}` shows its state, and `{source.command('abort', rid)}` ends an "
            "abandoned run."
        )


def _find_unsent_files(source: Connection, executions: ExecutionsByRID) -> Iterator[str]:
    """Yield the names of files that were staged on this machine but not uploaded."""
    for rid in executions:
        state = load_local_state(source, rid)
        pending = state.pending_files() if state else []
        filenames = [file.asset.filename for file in pending if not file.asset.record or file.is_pending_record]
        if filenames:
            log.warning(
                "Execution %s has %d files that are not uploaded and therefore not copied: %s. "
                "Run %s, then push again.",
                rid,
                len(filenames),
                ", ".join(filenames[:5]),
                f"`{source.command('upload', rid)}`",
            )
        yield from filenames


# ledger


@contextmanager
def _open_context(source: Connection, target: Connection) -> Iterator[PushContext]:
    """Yield the context of a push, under a lock: pushes between the same two catalogs share a ledger."""
    from filelock import FileLock, Timeout

    folder = target.folder / LEDGER_FOLDER / hashlib.sha256(source.catalog.name.encode()).hexdigest()[:16]
    with translate_os_errors(f"The progress of the push cannot be saved in {folder}", _nearest_existing_folder(folder)):
        create_folder(folder / "files", target.folder)
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("Another process is pushing to %s; this push waits until that one ends.", target.folder)
            lock.acquire()
    try:
        yield PushContext(source, target, Ledger(folder / "ledger.jsonl"), folder / "files")
    finally:
        lock.release()


def _nearest_existing_folder(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
