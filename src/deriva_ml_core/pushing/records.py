"""The two records that an execution's copy gets beside those it had: its course, and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deriva_ml_core.backend import Either, Row
from deriva_ml_core.definitions import RID, Handover, MLAsset, MLVocab, Role
from deriva_ml_core.journal.story import JOURNAL
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.pushing.gathering import Gathered
from deriva_ml_core.pushing.objects import put_file
from deriva_ml_core.pushing.origin import origin
from deriva_ml_core.pushing.passage import Passage
from deriva_ml_core.pushing.provenance import record_content, record_name
from deriva_ml_core.pushing.retelling import retold
from deriva_ml_core.pushing.runs import Runs
from deriva_ml_core.schema import asset_type_table, execution_table

__all__ = ["keep_records"]

METADATA = MLAsset.execution_metadata.value


@dataclass(frozen=True)
class _Record:
    """A file that is written for a copy."""

    run: RID
    filename: str
    content: bytes

    @property
    def md5(self) -> str:
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


def keep_records(passage: Passage, gathered: Gathered, runs: Runs, options: UploadOptions) -> None:
    """Keep with each copy the journal, told for its catalog, and a record of where it came from.

    Args:
        passage: From where, and where to.
        gathered: What was copied.
        runs: The executions.
        options: How to send.
    """
    records = [record for run in runs for record in _records(passage, gathered, runs, run)]
    there = _there(passage, records)
    new = [record for record in records if record not in there]
    there |= _made(passage, gathered, new, options)
    links = [
        {METADATA: row["RID"], "Execution": passage.copy_of(record.run), "Asset_Role": Role.output}
        for record, row in there.items()
    ]
    passage.there.insert(execution_table(METADATA), links, skip_existing=True)
    if METADATA in passage.vocabularies.get(MLVocab.asset_type, ()):
        types = [{METADATA: rid, MLVocab.asset_type: METADATA} for rid in {row["RID"]: None for row in there.values()}]
        passage.there.insert(asset_type_table(METADATA), types, skip_existing=True)


def _records(passage: Passage, gathered: Gathered, runs: Runs, run: RID) -> Iterator[_Record]:
    copies = {rid: row.target for rid, row in passage.rows.items()}
    journal = retold(passage.source, run, copies, runs[run].status, runs[run].status_detail)
    if journal is not None:
        yield _Record(run, JOURNAL, journal)
    row = gathered.runs[run]
    told = {passage.names[rid]: copy for rid, copy in copies.items() if rid not in gathered.relatives}
    yield _Record(run, record_name(row), record_content(passage.here, row, told))


def _there(passage: Passage, records: Sequence[_Record]) -> dict[_Record, Row]:
    """Those that an earlier push kept: the journal with the same lines, and any record of the same origin."""
    digests = tuple(sorted({record.md5 for record in records}))
    names = tuple(sorted({record.filename for record in records} - {JOURNAL}))
    found = passage.there.select(METADATA, Either(({"MD5": digests}, {"Filename": names})), order=("RCT", "RID"))
    by_content = {(row["MD5"], row["Filename"]): row for row in found}
    by_name = {row["Filename"]: row for row in found if row["Filename"] in names}
    known = {
        record: by_content.get((record.md5, record.filename)) or by_name.get(record.filename) for record in records
    }
    return {record: row for record, row in known.items() if row is not None}


def _made(
    passage: Passage, gathered: Gathered, records: Sequence[_Record], options: UploadOptions
) -> dict[_Record, Row]:
    rows = {}
    for record in records:
        file = passage.folder / record.md5
        file.write_bytes(record.content)
        name = f"{origin(gathered.runs[record.run])}/{record.md5}"
        stored = put_file(passage, name, METADATA, record.filename, file, handover=Handover.move, options=options)
        file.unlink(missing_ok=True)
        rows[record] = {
            "URL": stored.url,
            "Filename": record.filename,
            "Length": stored.length,
            "MD5": stored.md5,
        }
    if not rows:
        return {}
    passage.target.store.sync()
    made = {row["URL"]: row for row in passage.there.insert_missing(METADATA, list(rows.values()), "URL")}
    return {record: made[str(row["URL"])] for record, row in rows.items()}
