"""Copying of executions: workflows, rows that are Pending until the push ends, links, and metadata files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deriva_ml_core.backend import AnyOf, Row
from deriva_ml_core.definitions import RID, MLAsset, MLTable, MLVocab, Role, Status, TransferMode
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.journal.state import JOURNAL_FILENAME
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.push.collect import PushPlan
from deriva_ml_core.push.context import PushContext, description_with_source, differing_columns, global_row_id
from deriva_ml_core.push.source_record import (
    build_source_record,
    read_source_record,
    rewrite_journal,
    source_record_name,
)
from deriva_ml_core.push.transfer import put_file
from deriva_ml_core.schema import asset_execution_table_name, asset_type_table_name
from deriva_ml_core.workflow import Workflow, register_workflow

__all__ = [
    "ExecutionsByRID",
    "copy_executions",
    "copy_workflows",
    "link_assets_and_datasets",
    "link_nested_executions",
    "set_final_statuses",
    "write_metadata_files",
]


METADATA_TABLE = MLAsset.execution_metadata.value

ExecutionsByRID = Mapping[RID, RecordedExecution]
"""The executions to copy, by RID at the source."""


def copy_workflows(context: PushContext, plan: PushPlan) -> None:
    """Match each workflow by its URL or checksum, as registration does, or add it."""
    for rid, row in plan.workflows.items():
        copy, is_new = _find_or_register_workflow(context, row)
        context.record_copy(MLTable.workflow, plan.workflows, {rid: copy}, new=is_new)


def _find_or_register_workflow(context: PushContext, row: Row) -> tuple[RID, bool]:
    existing = context.find_copies(MLTable.workflow, {row["RID"]: row})
    if existing:
        context.complete_descriptions(MLTable.workflow, {row["RID"]: row}, existing)
        return existing[row["RID"]]["RID"], False
    url, checksum = row["URL"] or "", row["Checksum"]
    by_url = {"URL": url} if url and not url.startswith("file:") else None
    by_checksum = {"Checksum": checksum} if checksum else None
    conditions = tuple(condition for condition in (by_checksum, by_url) if condition)
    if url and conditions and row["Workflow_Type"]:
        matches = context.target.select(MLTable.workflow, AnyOf(conditions), limit=1)
        return register_workflow(context.target_connection, _workflow_from_row(row)), not matches
    copy = {column: row[column] for column in ("Name", "URL", "Checksum", "Version", "Workflow_Type")}
    copy["RID"] = context.reserve_rids({row["RID"]: row})[row["RID"]]
    if by_checksum is not None:
        text = description_with_source(row["Description"], context.source, row)
        target_row, is_new = context.target.insert_unless(MLTable.workflow, by_checksum, {**copy, "Description": text})
    else:  # only its source distinguishes the code of one interactive session from others
        target_row, is_new = context.find_or_insert(MLTable.workflow, row, copy)
    return target_row["RID"], is_new


def _workflow_from_row(row: Row) -> Workflow:
    return Workflow(
        name=row["Name"] or "",
        workflow_type=row["Workflow_Type"],
        description=row["Description"] or "",
        url=row["URL"],
        checksum=row["Checksum"] or "",
        version=row["Version"],
    )


def copy_executions(context: PushContext, plan: PushPlan) -> dict[RID, Row]:
    """Find or create the executions' rows, and find existing copies of the related executions.

    A new row is Pending until everything that belongs to the execution is copied.

    Args:
        context: State of the push.
        plan: The executions.

    Returns:
        The rows at the target, by RID at the source.
    """
    rows = {**plan.executions, **plan.related_executions}
    existing = context.find_copies(MLTable.execution, rows)
    context.complete_descriptions(MLTable.execution, rows, existing)
    unmatched = {rid: row for rid, row in rows.items() if rid not in existing}
    existing |= _find_by_source_record(context, unmatched)
    context.record_copy(MLTable.execution, rows, {rid: row["RID"] for rid, row in existing.items()}, new=False)
    new = {rid: row for rid, row in plan.executions.items() if rid not in existing}
    for rid, copy in context.reserve_rids(new).items():
        row = {
            "RID": copy,
            "Workflow": context.target_rid(new[rid]["Workflow"]) if new[rid]["Workflow"] else None,
            "Status": Status.pending,
            "Status_Detail": f"Copy from {context.source.cite(rid)} in progress; push again if it was interrupted",
        }
        existing[rid], is_new = context.find_or_insert(MLTable.execution, new[rid], row)
        context.record_copy(MLTable.execution, rows, {rid: existing[rid]["RID"]}, new=is_new)
    return existing


def _find_by_source_record(context: PushContext, rows: Mapping[RID, Row]) -> dict[RID, Row]:
    """Find copies that another machine pushed, by the source records that it stored with them."""
    if not rows:
        return {}
    names = {source_record_name(row): rid for rid, row in rows.items()}
    records = {row["RID"]: row for row in context.target.select(METADATA_TABLE, {"Filename": list(names)})}
    if not records:
        return {}
    where = {METADATA_TABLE: list(records), "Asset_Role": Role.output}
    links = context.target.select(asset_execution_table_name(METADATA_TABLE), where)
    copies = {link["Execution"]: names[records[link[METADATA_TABLE]]["Filename"]] for link in links}
    for record in records.values():
        _import_source_record(context, record)
    target_rows = context.target.select(MLTable.execution, {"RID": list(copies)})
    return {copies[row["RID"]]: row for row in target_rows}


def _import_source_record(context: PushContext, record: Row) -> None:
    """Add the RIDs in another machine's source record to the ledger."""
    copies = read_source_record(context.target_connection, record).copies
    context.ledger.record_confirmed(
        {name: rid for name, rid in copies.items() if name not in context.ledger.confirmed_rids}
    )


def set_final_statuses(context: PushContext, executions: ExecutionsByRID, copies: Mapping[RID, Row]) -> None:
    """Set the status of the copies, after everything that belongs to them is copied; the last step of a push."""
    changes: list[dict[str, Any]] = []
    for rid in executions:
        wanted = {
            "Status": executions[rid].status,
            "Status_Detail": executions[rid].status_detail or None,
            "Duration": executions[rid].duration,
        }
        if differing_columns(wanted, copies[rid]):
            changes.append({"RID": copies[rid]["RID"], **wanted})
    if changes:
        context.target.update(MLTable.execution, changes)


def link_assets_and_datasets(context: PushContext, plan: PushPlan) -> None:
    """Link executions to their files and input datasets."""
    target = context.target
    for table, roles in plan.asset_roles.items():
        links = {
            (context.target_rid(asset), context.target_rid(execution)): role
            for (asset, execution), role in roles.items()
        }
        rows = [
            {table: asset, "Execution": execution, "Asset_Role": role} for (asset, execution), role in links.items()
        ]
        target.insert(asset_execution_table_name(table), rows, skip_existing=True)
    versioned = []
    for dataset, execution, version in plan.input_datasets:
        link = {"Dataset": context.target_rid(dataset), "Execution": context.target_rid(execution)}
        if version is not None and version in context.pushed_rows:
            versioned.append({**link, "Dataset_Version": context.target_rid(version)})
        else:  # recorded by another client without a version
            target.insert_unless(MLTable.dataset_execution, link, link)
            context.notes[
                f"Execution {execution} records no finished version of its input dataset {dataset}: the copy has no "
                "version either, and the members of the current one."
            ] = None
    if versioned:
        target.insert(MLTable.dataset_execution, versioned, skip_existing=True)


def link_nested_executions(context: PushContext, plan: PushPlan) -> None:
    """Copy the nesting of executions, in order, if both executions have copies."""
    if MLTable.nested_execution not in context.target.model.tables:
        return
    rows = [
        row
        for row in sorted(plan.nested_executions, key=lambda row: (row["RCT"], row["RID"]))
        if row["Execution"] in context.pushed_rows and row["Nested_Execution"] in context.pushed_rows
    ]
    links = [
        {
            "Execution": context.target_rid(row["Execution"]),
            "Nested_Execution": context.target_rid(row["Nested_Execution"]),
            "Sequence": row["Sequence"],
        }
        for row in rows
    ]
    unnumbered = Counter(link["Execution"] for link in links if link["Sequence"] is None)
    # the order of links without a number is that of their creation
    one_by_one = [link for link in links if link["Sequence"] is None and unnumbered[link["Execution"]] > 1]
    together = [link for link in links if link not in one_by_one]
    for batch in (together, *([link] for link in one_by_one)):
        if batch:
            context.target.insert(MLTable.nested_execution, batch, skip_existing=True)


@dataclass(frozen=True)
class _MetadataFile:
    """A file that a push writes for a copied execution."""

    execution: RID
    filename: str
    content: bytes

    @property
    def md5(self) -> str:
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


def write_metadata_files(
    context: PushContext, plan: PushPlan, executions: ExecutionsByRID, options: UploadOptions
) -> None:
    """Store the journal, rewritten for the target, and the source record with each copied execution.

    Args:
        context: State of the push.
        plan: The rows that are copied.
        executions: The executions.
        options: Options of the file transfer.
    """
    files = [file for rid in executions for file in _build_metadata_files(context, plan, executions, rid)]
    stored = _find_existing_files(context, files)
    new = [file for file in files if file not in stored]
    stored |= _upload_metadata_files(context, plan, new, options)
    links = [
        {METADATA_TABLE: row["RID"], "Execution": context.target_rid(file.execution), "Asset_Role": Role.output}
        for file, row in stored.items()
    ]
    context.target.insert(asset_execution_table_name(METADATA_TABLE), links, skip_existing=True)
    if METADATA_TABLE in context.target_terms.get(MLVocab.asset_type, ()):
        types = [
            {METADATA_TABLE: rid, MLVocab.asset_type: METADATA_TABLE}
            for rid in {row["RID"]: None for row in stored.values()}
        ]
        context.target.insert(asset_type_table_name(METADATA_TABLE), types, skip_existing=True)


def _build_metadata_files(
    context: PushContext, plan: PushPlan, executions: ExecutionsByRID, execution: RID
) -> Iterator[_MetadataFile]:
    copies = {rid: row.target for rid, row in context.pushed_rows.items()}
    journal = rewrite_journal(
        context.source_connection, execution, copies, executions[execution].status, executions[execution].status_detail
    )
    if journal is not None:
        yield _MetadataFile(execution, JOURNAL_FILENAME, journal)
    row = plan.executions[execution]
    global_ids = {context.global_ids[rid]: copy for rid, copy in copies.items() if rid not in plan.related_executions}
    yield _MetadataFile(execution, source_record_name(row), build_source_record(context.source, row, global_ids))


def _find_existing_files(context: PushContext, files: Sequence[_MetadataFile]) -> dict[_MetadataFile, Row]:
    """Return files that an earlier push stored: a journal with the same content, a record of the same source."""
    digests = tuple(sorted({file.md5 for file in files}))
    names = tuple(sorted({file.filename for file in files} - {JOURNAL_FILENAME}))
    found = context.target.select(METADATA_TABLE, AnyOf(({"MD5": digests}, {"Filename": names})), order=("RCT", "RID"))
    by_content = {(row["MD5"], row["Filename"]): row for row in found}
    by_name = {row["Filename"]: row for row in found if row["Filename"] in names}
    matches = {file: by_content.get((file.md5, file.filename)) or by_name.get(file.filename) for file in files}
    return {file: row for file, row in matches.items() if row is not None}


def _upload_metadata_files(
    context: PushContext, plan: PushPlan, files: Sequence[_MetadataFile], options: UploadOptions
) -> dict[_MetadataFile, Row]:
    rows = {}
    for file in files:
        path = context.transfer_folder / file.md5
        path.write_bytes(file.content)
        name = f"{global_row_id(plan.executions[file.execution])}/{file.md5}"
        stored = put_file(
            context, name, METADATA_TABLE, file.filename, path, handover=TransferMode.move, options=options
        )
        path.unlink(missing_ok=True)
        rows[file] = {
            "URL": stored.url,
            "Filename": file.filename,
            "Length": stored.length,
            "MD5": stored.md5,
        }
    if not rows:
        return {}
    context.target_connection.store.sync()
    created = {row["URL"]: row for row in context.target.insert_missing(METADATA_TABLE, list(rows.values()), "URL")}
    return {file: created[str(row["URL"])] for file, row in rows.items()}
