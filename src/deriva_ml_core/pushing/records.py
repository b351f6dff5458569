"""The two records that an execution's copy gets beside those it had: its course, and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deriva_ml_core.backend import AnyOf, Row
from deriva_ml_core.definitions import RID, MLAsset, MLVocab, Role, TransferMode
from deriva_ml_core.journal.story import JOURNAL_FILENAME
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.pushing.gathering import PushPlan
from deriva_ml_core.pushing.objects import put_file
from deriva_ml_core.pushing.origin import global_row_id
from deriva_ml_core.pushing.passage import PushContext
from deriva_ml_core.pushing.provenance import build_source_record, source_record_name
from deriva_ml_core.pushing.retelling import rewrite_journal
from deriva_ml_core.pushing.runs import ExecutionsByRID
from deriva_ml_core.schema import asset_execution_table_name, asset_type_table_name

__all__ = ["write_metadata_files"]

METADATA_TABLE = MLAsset.execution_metadata.value


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
