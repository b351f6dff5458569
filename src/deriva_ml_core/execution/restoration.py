"""An execution found again: from its working folder, or from what the catalog kept of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from deriva_ml_core.assets.recorded import assets_of, download_asset
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Role, Status
from deriva_ml_core.execution.live import Execution
from deriva_ml_core.execution.provenance import JOURNAL, RecordedExecution, fetch_kept_journal, last_status
from deriva_ml_core.execution.resuming import refuse_running
from deriva_ml_core.execution.row import RowWriter
from deriva_ml_core.journal.file import Journal
from deriva_ml_core.journal.story import Creating, Event, Input, Restored, StatusSet, Stopped, now
from deriva_ml_core.models import StatusUpdate

__all__ = ["restore_execution", "resume_execution"]

log = logging.getLogger(__name__)


def resume_execution(connection: Connection, rid: RID) -> Execution:
    """Find an execution again to go on with it; see ``DerivaML.resume_execution``."""
    execution = _restored(connection, rid, again=True)
    refuse_running(Journal(execution.working_dir / JOURNAL).story, rid)
    return execution


def restore_execution(connection: Connection, rid: RID) -> Execution:
    """Find an execution again; see ``DerivaML.restore_execution``."""
    return _restored(connection, rid, again=False)


def _restored(connection: Connection, rid: RID, *, again: bool) -> Execution:
    row: dict[str, Any] = connection.require_row(MLTable.execution, rid)
    folder = connection.working_folder(rid)
    if not (folder / JOURNAL).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _rebuild(connection, RecordedExecution(connection, row), folder)
    journal = Journal(folder / JOURNAL)
    ended = _end_if_dead(journal, row)
    writer = RowWriter(connection, journal, rid)
    if journal.story.statuses and not _agree(journal, row):
        writer.write()
        row = connection.require_row(MLTable.execution, rid)
    if journal.story.metrics:
        writer.write_metrics()
    execution = Execution(connection, row, folder, restored=True, again=again)
    if ended is not None:
        execution.tell_status(ended)
    return execution


def _agree(journal: Journal, row: dict[str, Any]) -> bool:
    last = journal.story.statuses[-1]
    return (row["Status"], row["Status_Detail"] or "") == (last.status, last.error or last.message)


def _end_if_dead(journal: Journal, row: dict[str, Any]) -> StatusUpdate | None:
    """Write that a run was aborted whose process died without a word, unless its row has the last word.

    It ended when it was last heard of: nobody knows how long it went on.
    """
    story = journal.story
    last = last_status(story)
    if last is None or last[0] is story.status:
        return None
    status, reason = last
    if (written := Status(row["Status"] or status)).ended and not story.resumed:
        status, reason = written, row["Status_Detail"] or ""
    update = StatusUpdate(status=status, message=reason, time=now(), previous=story.status, error=reason or None)
    heard = [each.time for each in story.statuses] + [story.start or update.time]
    journal.append(Stopped(time=max(heard)), StatusSet(update=update))
    return update


def _rebuild(connection: Connection, recorded: RecordedExecution, folder: Path) -> None:
    """Put a journal together where the working folder is gone or on another machine."""
    rid = recorded.execution_rid
    if fetch_kept_journal(connection, rid, folder / JOURNAL):
        journal = Journal(folder / JOURNAL)
        creating, lease = journal.story.creating, journal.story.lease
        source = f"{lease.host if lease else 'another machine'}:{creating.folder if creating else 'its working folder'}"
        journal.append(Restored(source=source))
    else:
        source = _where_it_was(connection, rid)
        Journal(folder / JOURNAL).append(*_retold(recorded, source))
    log.warning(
        "Execution %s is restored from the catalog; files that were staged and not uploaded are, if anywhere, in %s.",
        rid,
        source,
    )


def _retold(recorded: RecordedExecution, source: str) -> list[Event]:
    update = StatusUpdate(
        status=Status(recorded.status), message=recorded.status_detail, time=recorded.created or now()
    )
    return [
        Creating(rid=recorded.execution_rid, description=recorded.description, workflow_rid=recorded.workflow_rid),
        Restored(source=source),
        *(Input(dataset=spec) for spec in recorded.list_input_datasets()),
        *(Input(asset=asset.rid) for asset in recorded.list_assets(Role.input)),
        StatusSet(update=update),
    ]


def _where_it_was(connection: Connection, rid: RID) -> str:
    """Host and folder of a run, by its environment snapshot."""
    import tempfile

    snapshots = [asset for asset in assets_of(connection, rid, Role.output) if "Runtime_Env" in asset.asset_types]
    if not snapshots:
        return "an unknown place"
    with tempfile.TemporaryDirectory() as folder:
        path = download_asset(connection, snapshots[-1], Path(folder))
        snapshot = json.loads(path.read_text(encoding="utf-8"))
    host = snapshot.get("environment", {}).get("hostname", "an unknown machine")
    return f"{host}:{snapshot.get('folder', '?')}"
