"""Executions at the target: found again or made, said to be on their way, and at the end what they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deriva_ml_core.backend import Either, Row
from deriva_ml_core.definitions import RID, MLAsset, MLTable, Role, Status
from deriva_ml_core.execution.provenance import RecordedExecution
from deriva_ml_core.pushing.gathering import Gathered
from deriva_ml_core.pushing.origin import described
from deriva_ml_core.pushing.passage import Passage, differing
from deriva_ml_core.pushing.provenance import read_record, record_name
from deriva_ml_core.schema import execution_table
from deriva_ml_core.workflow import Workflow, register

__all__ = ["Runs", "bring_runs", "bring_workflows", "finish_runs"]

METADATA = MLAsset.execution_metadata.value

Runs = Mapping[RID, RecordedExecution]
"""The executions that are copied."""


def bring_workflows(passage: Passage, gathered: Gathered) -> None:
    """Find each workflow by its URL or checksum, as registering it does, or add it."""
    for rid, row in gathered.workflows.items():
        found, new = _registered(passage, row)
        passage.settle(MLTable.workflow, gathered.workflows, {rid: found}, new=new)


def _registered(passage: Passage, row: Row) -> tuple[RID, bool]:
    known = passage.found(MLTable.workflow, {row["RID"]: row})
    if known:
        passage.complete(MLTable.workflow, {row["RID"]: row}, known)
        return known[row["RID"]]["RID"], False
    url, checksum = row["URL"] or "", row["Checksum"]
    by_url = {"URL": url} if url and not url.startswith("file:") else None
    by_checksum = {"Checksum": checksum} if checksum else None
    same = tuple(condition for condition in (by_checksum, by_url) if condition)
    if url and same and row["Workflow_Type"]:
        there = passage.there.select(MLTable.workflow, Either(same), limit=1)
        return register(passage.target, _workflow(row)), not there
    copy = {column: row[column] for column in ("Name", "URL", "Checksum", "Version", "Workflow_Type")}
    copy["RID"] = passage.reserved({row["RID"]: row})[row["RID"]]
    if by_checksum is not None:
        text = described(row["Description"], passage.here, row)
        found, new = passage.there.insert_unless(MLTable.workflow, by_checksum, {**copy, "Description": text})
    else:  # code of an interactive session is told from all other only by where it came from
        found, new = passage.claim(MLTable.workflow, row, copy)
    return found["RID"], new


def _workflow(row: Row) -> Workflow:
    return Workflow(
        name=row["Name"] or "",
        workflow_type=row["Workflow_Type"],
        description=row["Description"] or "",
        url=row["URL"],
        checksum=row["Checksum"] or "",
        version=row["Version"],
    )


def bring_runs(passage: Passage, gathered: Gathered) -> dict[RID, Row]:
    """Find or make the executions' rows, and find the copies of those that are named and not copied now.

    A new one is Pending until all that belongs to it is there.

    Args:
        passage: From where, and where to.
        gathered: The executions.

    Returns:
        The rows at the target, by the record id here.
    """
    rows = {**gathered.runs, **gathered.relatives}
    known = passage.found(MLTable.execution, rows)
    passage.complete(MLTable.execution, rows, known)
    unknown = {rid: row for rid, row in rows.items() if rid not in known}
    known |= _recognised(passage, unknown)
    passage.settle(MLTable.execution, rows, {rid: row["RID"] for rid, row in known.items()}, new=False)
    new = {rid: row for rid, row in gathered.runs.items() if rid not in known}
    for rid, copy in passage.reserved(new).items():
        row = {
            "RID": copy,
            "Workflow": passage.copy_of(new[rid]["Workflow"]) if new[rid]["Workflow"] else None,
            "Status": Status.pending,
            "Status_Detail": f"It is being copied from {passage.here.cite(rid)}; if that was cut off, push it again",
        }
        known[rid], made = passage.claim(MLTable.execution, new[rid], row)
        passage.settle(MLTable.execution, rows, {rid: known[rid]["RID"]}, new=made)
    return known


def _recognised(passage: Passage, rows: Mapping[RID, Row]) -> dict[RID, Row]:
    """The copies that another machine pushed, by the records that it left with them."""
    if not rows:
        return {}
    names = {record_name(row): rid for rid, row in rows.items()}
    records = {row["RID"]: row for row in passage.there.select(METADATA, {"Filename": list(names)})}
    if not records:
        return {}
    where = {METADATA: list(records), "Asset_Role": Role.output}
    links = passage.there.select(execution_table(METADATA), where)
    copies = {link["Execution"]: names[records[link[METADATA]]["Filename"]] for link in links}
    for record in records.values():
        _learn(passage, record)
    found = passage.there.select(MLTable.execution, {"RID": list(copies)})
    return {copies[row["RID"]]: row for row in found}


def _learn(passage: Passage, record: Row) -> None:
    """Take over what another machine wrote down of its push."""
    copies = read_record(passage.target, record).copies
    passage.ledger.confirm({name: rid for name, rid in copies.items() if name not in passage.ledger.there})


def finish_runs(passage: Passage, runs: Runs, copies: Mapping[RID, Row]) -> None:
    """Say of the executions what they are, now that all that belongs to them is there; the last step of a push."""
    changes: list[dict[str, Any]] = []
    for rid in runs:
        wanted = {
            "Status": runs[rid].status,
            "Status_Detail": runs[rid].status_detail or None,
            "Duration": runs[rid].duration,
        }
        if differing(wanted, copies[rid]):
            changes.append({"RID": copies[rid]["RID"], **wanted})
    if changes:
        passage.there.update(MLTable.execution, changes)
