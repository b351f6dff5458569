"""Restores an execution from its working folder, or from the records in the catalog."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from deriva_ml_core._files.permissions import create_folder
from deriva_ml_core.assets.lookup import download_asset, list_execution_assets
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Role, Status, status_from_row
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.execution.exit_status import effective_status
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME, RecordedExecution, download_journal
from deriva_ml_core.execution.row_sync import RowSync
from deriva_ml_core.execution.run_lock import check_not_running
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.state import CreationStarted, Event, InputRecorded, Restored, StatusSet, Stopped, utc_now
from deriva_ml_core.models import StatusUpdate

__all__ = ["restore_execution", "resume_execution"]

log = logging.getLogger(__name__)


def resume_execution(connection: Connection, rid: RID) -> Execution:
    """Restore an execution to resume its run; see ``DerivaML.resume_execution``."""
    execution = _restore(connection, rid, resumed=True)
    check_not_running(Journal(execution.working_dir / JOURNAL_FILENAME).state, rid)
    return execution


def restore_execution(connection: Connection, rid: RID) -> Execution:
    """Restore an execution; see ``DerivaML.restore_execution``."""
    return _restore(connection, rid, resumed=False)


def _restore(connection: Connection, rid: RID, *, resumed: bool) -> Execution:
    row: dict[str, Any] = connection.require_row(MLTable.execution, rid)
    folder = connection.working_folder(rid)
    if not (folder / JOURNAL_FILENAME).is_file():
        create_folder(folder, connection.folder)
        _rebuild_journal(connection, RecordedExecution(connection, row), folder)
    journal = Journal(folder / JOURNAL_FILENAME)
    final_update = _abort_if_dead(journal, row)
    row_sync = RowSync(connection, journal, rid)
    if journal.state.statuses and not _is_row_current(journal, row):
        row_sync.write()
        row = connection.require_row(MLTable.execution, rid)
    if journal.state.metrics:
        row_sync.write_metrics()
    execution = Execution(connection, row, folder, restored=True, resumed=resumed)
    if final_update is not None:
        execution._notify_status(final_update)
    return execution


def _is_row_current(journal: Journal, row: dict[str, Any]) -> bool:
    last = journal.state.statuses[-1]
    return (row["Status"], row["Status_Detail"] or "") == (last.status, last.error or last.message)


def _abort_if_dead(journal: Journal, row: dict[str, Any]) -> StatusUpdate | None:
    """Mark a run as aborted if its process died without reporting an end; a terminal status of the row has priority.

    The end time is that of the last journal entry, since the time of death is unknown.
    """
    state = journal.state
    last = effective_status(state)
    if last is None or last[0] is state.status:
        return None
    status, reason = last
    row_status = status_from_row(row["Status"])
    if row_status is not None and row_status.is_terminal and not state.is_resumed:
        status, reason = row_status, row["Status_Detail"] or ""
    update = StatusUpdate(status=status, message=reason, time=utc_now(), previous=state.status, error=reason or None)
    times = [entry.time for entry in state.statuses] + [state.start_time or update.time]
    journal.append(Stopped(time=max(times)), StatusSet(update=update))
    return update


def _rebuild_journal(connection: Connection, recorded: RecordedExecution, folder: Path) -> None:
    """Rebuild the journal of an execution whose working folder is lost or on another machine."""
    rid = recorded.execution_rid
    if download_journal(connection, rid, folder / JOURNAL_FILENAME):
        journal = Journal(folder / JOURNAL_FILENAME)
        creation, process = journal.state.creation, journal.state.process
        host = process.host if process else "another machine"
        source = f"{host}:{creation.folder if creation else 'its working folder'}"
        journal.append(Restored(source=source))
    else:
        source = _recorded_location(connection, rid)
        Journal(folder / JOURNAL_FILENAME).append(*_events_from_catalog(recorded, source))
    log.warning(
        "Execution %s was restored from the catalog. Files that were staged and not uploaded may still be in %s.",
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
    """Return host and folder of a run from its environment snapshot."""
    import tempfile

    snapshots = [
        asset for asset in list_execution_assets(connection, rid, Role.output) if "Runtime_Env" in asset.asset_types
    ]
    if not snapshots:
        return "an unknown location"
    with tempfile.TemporaryDirectory() as folder:
        path = download_asset(connection, snapshots[-1], Path(folder))
        snapshot = json.loads(path.read_text(encoding="utf-8"))
    host = snapshot.get("environment", {}).get("hostname", "an unknown machine")
    return f"{host}:{snapshot.get('folder', '?')}"
