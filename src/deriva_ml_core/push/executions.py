"""Executions at the target: found again or made, said to be on their way, and at the end what they are."""

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
"""The executions that are copied."""


def copy_workflows(context: PushContext, plan: PushPlan) -> None:
    """Find each workflow by its URL or checksum, as registering it does, or add it."""
    for rid, row in plan.workflows.items():
        found, new = _find_or_register_workflow(context, row)
        context.record_copy(MLTable.workflow, plan.workflows, {rid: found}, new=new)


def _find_or_register_workflow(context: PushContext, row: Row) -> tuple[RID, bool]:
    known = context.find_copies(MLTable.workflow, {row["RID"]: row})
    if known:
        context.complete_descriptions(MLTable.workflow, {row["RID"]: row}, known)
        return known[row["RID"]]["RID"], False
    url, checksum = row["URL"] or "", row["Checksum"]
    by_url = {"URL": url} if url and not url.startswith("file:") else None
    by_checksum = {"Checksum": checksum} if checksum else None
    same = tuple(condition for condition in (by_checksum, by_url) if condition)
    if url and same and row["Workflow_Type"]:
        there = context.target.select(MLTable.workflow, AnyOf(same), limit=1)
        return register_workflow(context.target_connection, _workflow_from_row(row)), not there
    copy = {column: row[column] for column in ("Name", "URL", "Checksum", "Version", "Workflow_Type")}
    copy["RID"] = context.reserve_rids({row["RID"]: row})[row["RID"]]
    if by_checksum is not None:
        text = description_with_source(row["Description"], context.source, row)
        found, new = context.target.insert_unless(MLTable.workflow, by_checksum, {**copy, "Description": text})
    else:  # code of an interactive session is told from all other only by where it came from
        found, new = context.find_or_insert(MLTable.workflow, row, copy)
    return found["RID"], new


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
    """Find or make the executions' rows, and find the copies of those that are named and not copied now.

    A new one is Pending until all that belongs to it is there.

    Args:
        context: From where, and where to.
        plan: The executions.

    Returns:
        The rows at the target, by the record id here.
    """
    rows = {**plan.executions, **plan.related_executions}
    known = context.find_copies(MLTable.execution, rows)
    context.complete_descriptions(MLTable.execution, rows, known)
    unknown = {rid: row for rid, row in rows.items() if rid not in known}
    known |= _find_by_source_record(context, unknown)
    context.record_copy(MLTable.execution, rows, {rid: row["RID"] for rid, row in known.items()}, new=False)
    new = {rid: row for rid, row in plan.executions.items() if rid not in known}
    for rid, copy in context.reserve_rids(new).items():
        row = {
            "RID": copy,
            "Workflow": context.target_rid(new[rid]["Workflow"]) if new[rid]["Workflow"] else None,
            "Status": Status.pending,
            "Status_Detail": f"It is being copied from {context.source.cite(rid)}; if that was cut off, push it again",
        }
        known[rid], made = context.find_or_insert(MLTable.execution, new[rid], row)
        context.record_copy(MLTable.execution, rows, {rid: known[rid]["RID"]}, new=made)
    return known


def _find_by_source_record(context: PushContext, rows: Mapping[RID, Row]) -> dict[RID, Row]:
    """The copies that another machine pushed, by the records that it left with them."""
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
    found = context.target.select(MLTable.execution, {"RID": list(copies)})
    return {copies[row["RID"]]: row for row in found}


def _import_source_record(context: PushContext, record: Row) -> None:
    """Take over what another machine wrote down of its push."""
    copies = read_source_record(context.target_connection, record).copies
    context.ledger.record_confirmed(
        {name: rid for name, rid in copies.items() if name not in context.ledger.confirmed_rids}
    )


def set_final_statuses(context: PushContext, executions: ExecutionsByRID, copies: Mapping[RID, Row]) -> None:
    """Say of the executions what they are, now that all that belongs to them is there; the last step of a push."""
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
    """Link executions to their files and input datasets; links that are there stay."""
    there = context.target
    for table, roles in plan.asset_roles.items():
        links = {(context.target_rid(asset), context.target_rid(run)): role for (asset, run), role in roles.items()}
        rows = [{table: asset, "Execution": run, "Asset_Role": role} for (asset, run), role in links.items()]
        there.insert(asset_execution_table_name(table), rows, skip_existing=True)
    versioned = []
    for dataset, run, version in plan.input_datasets:
        link = {"Dataset": context.target_rid(dataset), "Execution": context.target_rid(run)}
        if version is not None and version in context.pushed_rows:
            versioned.append({**link, "Dataset_Version": context.target_rid(version)})
        else:  # another client's, of which no version is known
            there.insert_unless(MLTable.dataset_execution, link, link)
            context.notes[
                f"Of dataset {dataset} no finished version is recorded as input of {run}: the copy names none, and has "
                "the members of the current one."
            ] = None
    if versioned:
        there.insert(MLTable.dataset_execution, versioned, skip_existing=True)


def link_nested_executions(context: PushContext, plan: PushPlan) -> None:
    """Nest executions as they are here, in their order, where both ends have copies."""
    if MLTable.nested_execution not in context.target.model.tables:
        return
    rows = [
        row
        for row in sorted(plan.nested_executions, key=lambda row: (row["RCT"], row["RID"]))
        if row["Execution"] in context.pushed_rows and row["Nested_Execution"] in context.pushed_rows
    ]
    places = [
        {
            "Execution": context.target_rid(row["Execution"]),
            "Nested_Execution": context.target_rid(row["Nested_Execution"]),
            "Sequence": row["Sequence"],
        }
        for row in rows
    ]
    unplaced = Counter(place["Execution"] for place in places if place["Sequence"] is None)
    # those without a number are in the order in which their links were made
    one_by_one = [place for place in places if place["Sequence"] is None and unplaced[place["Execution"]] > 1]
    together = [place for place in places if place not in one_by_one]
    for portion in (together, *([place] for place in one_by_one)):
        if portion:
            context.target.insert(MLTable.nested_execution, portion, skip_existing=True)


@dataclass(frozen=True)
class _MetadataFile:
    """A file that is written for a copy."""

    execution: RID
    filename: str
    content: bytes

    @property
    def md5(self) -> str:
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


def write_metadata_files(
    context: PushContext, plan: PushPlan, executions: ExecutionsByRID, options: UploadOptions
) -> None:
    """Keep with each copy the journal, told for its catalog, and a record of where it came from.

    Args:
        context: From where, and where to.
        plan: What was copied.
        executions: The executions.
        options: How to send.
    """
    records = [record for run in executions for record in _build_metadata_files(context, plan, executions, run)]
    there = _find_existing_files(context, records)
    new = [record for record in records if record not in there]
    there |= _upload_metadata_files(context, plan, new, options)
    links = [
        {METADATA_TABLE: row["RID"], "Execution": context.target_rid(record.execution), "Asset_Role": Role.output}
        for record, row in there.items()
    ]
    context.target.insert(asset_execution_table_name(METADATA_TABLE), links, skip_existing=True)
    if METADATA_TABLE in context.target_terms.get(MLVocab.asset_type, ()):
        types = [
            {METADATA_TABLE: rid, MLVocab.asset_type: METADATA_TABLE}
            for rid in {row["RID"]: None for row in there.values()}
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
    told = {context.global_ids[rid]: copy for rid, copy in copies.items() if rid not in plan.related_executions}
    yield _MetadataFile(execution, source_record_name(row), build_source_record(context.source, row, told))


def _find_existing_files(context: PushContext, files: Sequence[_MetadataFile]) -> dict[_MetadataFile, Row]:
    """Those that an earlier push kept: the journal with the same lines, and any record of the same origin."""
    digests = tuple(sorted({record.md5 for record in files}))
    names = tuple(sorted({record.filename for record in files} - {JOURNAL_FILENAME}))
    found = context.target.select(METADATA_TABLE, AnyOf(({"MD5": digests}, {"Filename": names})), order=("RCT", "RID"))
    by_content = {(row["MD5"], row["Filename"]): row for row in found}
    by_name = {row["Filename"]: row for row in found if row["Filename"] in names}
    known = {record: by_content.get((record.md5, record.filename)) or by_name.get(record.filename) for record in files}
    return {record: row for record, row in known.items() if row is not None}


def _upload_metadata_files(
    context: PushContext, plan: PushPlan, files: Sequence[_MetadataFile], options: UploadOptions
) -> dict[_MetadataFile, Row]:
    rows = {}
    for record in files:
        file = context.transfer_folder / record.md5
        file.write_bytes(record.content)
        name = f"{global_row_id(plan.executions[record.execution])}/{record.md5}"
        stored = put_file(
            context, name, METADATA_TABLE, record.filename, file, handover=TransferMode.move, options=options
        )
        file.unlink(missing_ok=True)
        rows[record] = {
            "URL": stored.url,
            "Filename": record.filename,
            "Length": stored.length,
            "MD5": stored.md5,
        }
    if not rows:
        return {}
    context.target_connection.store.sync()
    made = {row["URL"]: row for row in context.target.insert_missing(METADATA_TABLE, list(rows.values()), "URL")}
    return {record: made[str(row["URL"])] for record, row in rows.items()}
