"""Files stored with a copied execution: the source record, which maps rows to copies, and the rewritten journal."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core._retry import RetryingStore
from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, RID_PATTERN, Status
from deriva_ml_core.execution.recorded import download_journal
from deriva_ml_core.journal.events import PORTABLE_EVENTS, parse_event
from deriva_ml_core.journal.state import (
    JOURNAL_FILENAME,
    BestCorrected,
    CreationStarted,
    Event,
    InputRecorded,
    Restored,
    StatusSet,
    Stopped,
)
from deriva_ml_core.models import StatusUpdate, UploadOptions
from deriva_ml_core.push.context import creation_time, global_row_id

__all__ = [
    "SourceRecord",
    "build_source_record",
    "is_source_record_name",
    "read_source_record",
    "rewrite_journal",
    "source_record_name",
]


FILE_NAME_PREFIX = "copied_from_"
MAX_RECORD_BYTES = 2**28
"""Largest record in bytes that is read; each copied row takes under 100."""


@dataclass(frozen=True)
class SourceRecord:
    """Contents of a source record.

    Args:
        rid: RID of the execution in the source catalog; empty if the record is unreadable.
        copies: RIDs of copies, by the global ID of each row.
    """

    rid: RID = ""
    copies: Mapping[str, RID] = field(default_factory=dict)


def source_record_name(row: Mapping[str, Any]) -> str:
    """Return the file name of an execution's source record, which identifies its copy."""
    return f"{FILE_NAME_PREFIX}{hashlib.sha256(global_row_id(row).encode()).hexdigest()[:32]}.json"


def is_source_record_name(filename: str | None) -> bool:
    """Whether a file name is the name of a source record."""
    return re.fullmatch(rf"{FILE_NAME_PREFIX}[0-9a-f]{{32}}\.json", filename or "") is not None


def build_source_record(catalog: Catalog, row: Row, copies: Mapping[str, RID]) -> bytes:
    """Return a source record as JSON.

    Args:
        catalog: The source catalog.
        row: The execution's row in it.
        copies: RIDs of copies, by the global ID of each row.
    """
    source = {
        "citation": catalog.cite(row["RID"]),
        "catalog": catalog.name,
        "host": platform.node(),
        "rid": row["RID"],
        "made": creation_time(row),
    }
    return json.dumps({"source": source, "copies": dict(copies)}, indent=1, sort_keys=True).encode()


def read_source_record(connection: Connection, row: Row) -> SourceRecord:
    """Read a source record. Anyone can have written it, so only RIDs are taken from it.

    Args:
        connection: The catalog that contains it.
        row: The row of the record's file.
    """
    if row["Length"] > MAX_RECORD_BYTES:
        return SourceRecord()
    with scratch_folder(connection.folder) as folder:
        file = folder / "record"
        RetryingStore(connection.store).get(
            row["URL"], file, length=row["Length"], md5=row["MD5"], options=UploadOptions()
        )
        try:
            record = json.loads(file.read_bytes())
            copies = {str(name): str(rid) for name, rid in record["copies"].items() if _is_rid(rid)}
            rid = record["source"]["rid"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return SourceRecord()
    return SourceRecord(rid if _is_rid(rid) else "", copies)


def _is_rid(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(RID_PATTERN, text) is not None


def rewrite_journal(
    source: Connection, rid: RID, copies: Mapping[RID, RID], status: Status, detail: str
) -> bytes | None:
    """Return the journal of an execution's copy; the same events give the same bytes.

    Args:
        source: The source catalog.
        rid: RID of the execution in it.
        copies: RIDs of copies, by RID at the source.
        status: The execution's status.
        detail: The status message.

    Returns:
        The journal's bytes, or None if the execution has no journal.
    """
    events = [rewritten for event in _read_journal(source, rid) if (rewritten := _rewrite_event(event, copies))]
    if not events:
        return None
    time = max(event.time for event in events)
    events.append(Restored(time=time, source=source.catalog.cite(rid)))
    last = next((event.update for event in reversed(events) if isinstance(event, StatusSet)), None)
    if last is None or last.status is not status:  # the process was killed
        events += [Stopped(time=time), _final_status_event(last, status, detail, time)]
    return "".join(event.model_dump_json(exclude_none=True) + "\n" for event in events).encode()


def _final_status_event(last: StatusUpdate | None, status: Status, detail: str, time: datetime) -> StatusSet:
    previous = None if last is None else last.status
    fields: dict[str, Any] = {"status": status, "message": detail, "time": time, "previous": previous}
    return StatusSet(time=time, update=StatusUpdate(**fields))


def _read_journal(source: Connection, rid: RID) -> Iterable[Event | None]:
    local = source.working_folder(rid) / JOURNAL_FILENAME
    if local.is_file():
        return map(parse_event, local.read_bytes().split(b"\n"))
    journal = download_journal(source, rid)
    return journal.events[:-1] if journal is not None else ()  # without the note that it was downloaded


def _rewrite_event(event: Event | None, copies: Mapping[RID, RID]) -> Event | None:
    if isinstance(event, Restored) and event.records:
        return event.model_copy(update={"records": tuple(copies[rid] for rid in event.records if rid in copies)})
    if isinstance(event, PORTABLE_EVENTS):
        return event
    if isinstance(event, BestCorrected):
        correction = event.correction
        fields = {"assets": correction.assets, "previous_assets": correction.previous_assets}
        mapped = {name: tuple(copies[rid] for rid in rids if rid in copies) for name, rids in fields.items()}
        return event.model_copy(update={"correction": correction.model_copy(update=mapped)})
    if isinstance(event, CreationStarted) and event.rid in copies:
        workflow = copies.get(event.workflow_rid) if event.workflow_rid else None
        return event.model_copy(update={"rid": copies[event.rid], "workflow_rid": workflow})
    if isinstance(event, InputRecorded):
        if event.dataset is not None and event.dataset.rid in copies:
            spec = event.dataset.model_copy(update={"rid": copies[event.dataset.rid]})
            return event.model_copy(update={"dataset": spec})
        if event.asset is not None and event.asset in copies:
            return event.model_copy(update={"asset": copies[event.asset]})
    return None
