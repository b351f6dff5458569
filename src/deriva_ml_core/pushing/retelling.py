"""An execution's journal, told for another catalog: its course and inputs, under the record ids that those have there.

The lines of its files stay behind. They name paths and record ids of the source, and whoever restored the copy would
send what still waits in the original's folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.execution.provenance import download_journal
from deriva_ml_core.journal.lines import parse_event
from deriva_ml_core.journal.story import (
    JOURNAL_FILENAME,
    Created,
    CreationStarted,
    Event,
    InputRecorded,
    ProcessAttached,
    RankFailed,
    Restored,
    Resumed,
    Started,
    StatusSet,
    Stopped,
)
from deriva_ml_core.models import StatusUpdate

__all__ = ["rewrite_journal"]

PORTABLE_EVENTS = (Created, Restored, ProcessAttached, Started, Resumed, RankFailed, Stopped, StatusSet)
"""The lines that are the same in every catalog."""


def rewrite_journal(
    source: Connection, rid: RID, copies: Mapping[RID, RID], status: Status, detail: str
) -> bytes | None:
    """The journal of an execution's copy; the same bytes for the same course.

    Args:
        source: Where the execution is.
        rid: The execution.
        copies: The record ids of copies.
        status: Its state.
        detail: The words beside that.

    Returns:
        None where it left no journal.
    """
    lines = _read_journal_lines(source, rid)
    events = [retold for line in lines if (retold := _rewrite_event(parse_event(line), copies)) is not None]
    if not events:
        return None
    time = max(event.time for event in events)
    events.append(Restored(time=time, source=source.catalog.cite(rid)))
    last = next((event.update for event in reversed(events) if isinstance(event, StatusSet)), None)
    if last is None or last.status is not status:  # the process died without a word
        events += [Stopped(time=time), _final_status_event(last, status, detail, time)]
    return "".join(event.model_dump_json(exclude_none=True) + "\n" for event in events).encode()


def _final_status_event(last: StatusUpdate | None, status: Status, detail: str, time: datetime) -> StatusSet:
    previous = None if last is None else last.status
    told: dict[str, Any] = {"status": status, "message": detail, "time": time, "previous": previous}
    return StatusSet(time=time, update=StatusUpdate(**told))


def _read_journal_lines(source: Connection, rid: RID) -> list[bytes]:
    local = source.working_folder(rid) / JOURNAL_FILENAME
    if local.is_file():
        return local.read_bytes().split(b"\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / JOURNAL_FILENAME
        return path.read_bytes().split(b"\n") if download_journal(source, rid, path) else []


def _rewrite_event(event: Event | None, copies: Mapping[RID, RID]) -> Event | None:
    if isinstance(event, PORTABLE_EVENTS):
        return event
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
