"""An execution found again: from its working folder, or from what the catalog kept of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from deriva_ml_core.assets.lookup import download_asset, list_execution_assets
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Role, Status, status_from_row
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME, RecordedExecution, download_journal, effective_status
from deriva_ml_core.execution.row_sync import RowSync
from deriva_ml_core.execution.run_lock import check_not_running
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import CreationStarted, Event, InputRecorded, Restored, StatusSet, Stopped, utc_now
from deriva_ml_core.models import StatusUpdate

__all__ = ["restore_execution", "resume_execution"]

log = logging.getLogger(__name__)


def resume_execution(connection: Connection, rid: RID) -> Execution:
    """Find an execution again to go on with it; see ``DerivaML.resume_execution``."""
    execution = _restore(connection, rid, resumed=True)
    check_not_running(Journal(execution.working_dir / JOURNAL_FILENAME).state, rid)
    return execution


def restore_execution(connection: Connection, rid: RID) -> Execution:
    """Find an execution again; see ``DerivaML.restore_execution``."""
    return _restore(connection, rid, resumed=False)


def _restore(connection: Connection, rid: RID, *, resumed: bool) -> Execution:
    row: dict[str, Any] = connection.require_row(MLTable.execution, rid)
    folder = connection.working_folder(rid)
    if not (folder / JOURNAL_FILENAME).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _rebuild_journal(connection, RecordedExecution(connection, row), folder)
    journal = Journal(folder / JOURNAL_FILENAME)
    ended = _abort_if_dead(journal, row)
    writer = RowSync(connection, journal, rid)
    if journal.state.statuses and not _is_row_current(journal, row):
        writer.write()
        row = connection.require_row(MLTable.execution, rid)
    if journal.state.metrics:
        writer.write_metrics()
    execution = Execution(connection, row, folder, restored=True, resumed=resumed)
    if ended is not None:
        execution._notify_status(ended)
    return execution


def _is_row_current(journal: Journal, row: dict[str, Any]) -> bool:
    last = journal.state.statuses[-1]
    return (row["Status"], row["Status_Detail"] or "") == (last.status, last.error or last.message)


def _abort_if_dead(journal: Journal, row: dict[str, Any]) -> StatusUpdate | None:
    """Write that a run was aborted whose process died without a word, unless its row has the last word.

    It ended when it was last heard of: nobody knows how long it went on.
    """
    story = journal.state
    last = effective_status(story)
    if last is None or last[0] is story.status:
        return None
    status, reason = last
    if (written := status_from_row(row["Status"])) is not None and written.is_terminal and not story.is_resumed:
        status, reason = written, row["Status_Detail"] or ""
    update = StatusUpdate(status=status, message=reason, time=utc_now(), previous=story.status, error=reason or None)
    heard = [each.time for each in story.statuses] + [story.start_time or update.time]
    journal.append(Stopped(time=max(heard)), StatusSet(update=update))
    return update


def _rebuild_journal(connection: Connection, recorded: RecordedExecution, folder: Path) -> None:
    """Put a journal together where the working folder is gone or on another machine."""
    rid = recorded.execution_rid
    if download_journal(connection, rid, folder / JOURNAL_FILENAME):
        journal = Journal(folder / JOURNAL_FILENAME)
        creating, lease = journal.state.creation, journal.state.process
        source = f"{lease.host if lease else 'another machine'}:{creating.folder if creating else 'its working folder'}"
        journal.append(Restored(source=source))
    else:
        source = _recorded_location(connection, rid)
        Journal(folder / JOURNAL_FILENAME).append(*_events_from_catalog(recorded, source))
    log.warning(
        "Execution %s is restored from the catalog; files that were staged and not uploaded are, if anywhere, in %s.",
        rid,
        source,
    )


def _events_from_catalog(recorded: RecordedExecution, source: str) -> list[Event]:
    update = StatusUpdate(
        status=Status(recorded.status), message=recorded.status_detail, time=recorded.created or utc_now()
    )
    return [
        CreationStarted(
            rid=recorded.execution_rid, description=recorded.description, workflow_rid=recorded.workflow_rid
        ),
        Restored(source=source),
        *(InputRecorded(dataset=spec) for spec in recorded.list_input_datasets()),
        *(InputRecorded(asset=asset.rid) for asset in recorded.list_assets(Role.input)),
        StatusSet(update=update),
    ]


def _recorded_location(connection: Connection, rid: RID) -> str:
    """Host and folder of a run, by its environment snapshot."""
    import tempfile

    snapshots = [
        asset for asset in list_execution_assets(connection, rid, Role.output) if "Runtime_Env" in asset.asset_types
    ]
    if not snapshots:
        return "an unknown place"
    with tempfile.TemporaryDirectory() as folder:
        path = download_asset(connection, snapshots[-1], Path(folder))
        snapshot = json.loads(path.read_text(encoding="utf-8"))
    host = snapshot.get("environment", {}).get("hostname", "an unknown machine")
    return f"{host}:{snapshot.get('folder', '?')}"
