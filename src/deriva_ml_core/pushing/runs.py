"""Executions at the target: found again or made, said to be on their way, and at the end what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deriva_ml_core.backend import AnyOf, Row
from deriva_ml_core.definitions import RID, MLAsset, MLTable, Role, Status
from deriva_ml_core.execution.provenance import RecordedExecution
from deriva_ml_core.pushing.gathering import PushPlan
from deriva_ml_core.pushing.origin import description_with_source
from deriva_ml_core.pushing.passage import PushContext, differing_columns
from deriva_ml_core.pushing.provenance import read_source_record, source_record_name
from deriva_ml_core.schema import asset_execution_table_name
from deriva_ml_core.workflow import Workflow, register_workflow

__all__ = ["ExecutionsByRID", "copy_executions", "copy_workflows", "set_final_statuses"]

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
