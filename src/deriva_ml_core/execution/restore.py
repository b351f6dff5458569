"""Restores an execution from its working folder, or from the records in the catalog."""

from __future__ import annotations

import getpass
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._files.permissions import create_folder
from deriva_ml_core._text import escape_surrogates
from deriva_ml_core.assets.lookup import download_asset, list_execution_assets
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Role, Status, status_from_row
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.execution.exit_status import effective_status
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME, RecordedExecution, download_journal
from deriva_ml_core.execution.row_sync import RowSync
from deriva_ml_core.execution.run_lock import check_not_running, lock_for_resume
from deriva_ml_core.journal.events import DownloadedJournal
from deriva_ml_core.journal.journal import Journal, create_journal
from deriva_ml_core.journal.state import (
    CreationStarted,
    ExecutionState,
    InputRecorded,
    Restored,
    StatusSet,
    Stopped,
    utc_now,
)
from deriva_ml_core.models import StatusUpdate

__all__ = ["correct_status", "open_for_correction", "restore_execution", "resume_execution"]

log = logging.getLogger(__name__)

MAX_LISTED_NAMES = 10
"""Maximum number of files that a warning names."""


def resume_execution(connection: Connection, rid: RID) -> Execution:
    """Restore an execution to resume its run; see ``DerivaML.resume_execution``."""
    execution = _restore(connection, rid, resumed=True)
    check_not_running(Journal(execution.working_dir / JOURNAL_FILENAME).state, rid)
    return execution


def restore_execution(connection: Connection, rid: RID) -> Execution:
    """Restore an execution; see ``DerivaML.restore_execution``."""
    return _restore(connection, rid, resumed=False)


def correct_status(connection: Connection, rid: RID, status: Status | str, reason: str) -> None:
    """Correct the status of an execution that has ended; see ``DerivaML.correct_status``."""
    names = {text: each for each in Status if each.is_terminal for text in (each.name, each.value.lower())}
    if (new_status := names.get(str(status).lower())) is None:
        known = ", ".join(each.name for each in Status if each.is_terminal)
        raise ConfigurationError(f"A run cannot end with the status {str(status)!r}; use one of {known}.")
    with open_for_correction(connection, rid, reason) as (execution, reason, user):
        execution._runtime.status_tracker.correct(new_status, reason, user)


@contextmanager
def open_for_correction(connection: Connection, rid: RID, reason: str) -> Iterator[tuple[Execution, str, str]]:
    """Open an execution that has ended, to correct a record; then store the copy of its journal again.

    Args:
        connection: The catalog.
        rid: RID of the execution.
        reason: Why the record is wrong.

    Yields:
        The execution, the reason on one line, and the user who corrects it.

    Raises:
        UnknownRID, WrongTable: There is no such execution.
        ConfigurationError: The reason is empty.
        ExecutionRunning: A process is running the execution.
    """
    reason = " ".join(escape_surrogates(reason).split())
    if not reason:
        raise ConfigurationError(f"The correction of execution {rid} needs a reason, which is kept with it.")
    execution = _restore(connection, rid, resumed=False)
    runtime = execution._runtime
    with lock_for_resume(runtime.journal, rid):
        if runtime.journal.state.running_since is not None:  # it ran on a machine that cannot be asked
            runtime.journal.append(Stopped(time=max(update.time for update in runtime.journal.state.statuses)))
        yield execution, reason, _user_name()
        runtime.outputs.finalize(clean=False)


def _user_name() -> str:
    try:
        return escape_surrogates(getpass.getuser())
    except (OSError, KeyError):  # a container without a user database
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "an unknown user"


def _restore(connection: Connection, rid: RID, *, resumed: bool) -> Execution:
    row: dict[str, Any] = connection.require_row(MLTable.execution, rid)
    folder = connection.working_folder(rid)
    with translate_os_errors(f"Cannot read {folder / JOURNAL_FILENAME}", folder):
        is_here = (folder / JOURNAL_FILENAME).is_file()
    if not is_here:
        with translate_os_errors(f"Cannot create {folder}", folder.parent):
            create_folder(folder, connection.folder)
        _rebuild_journal(connection, RecordedExecution(connection, row), folder)
    journal = Journal(folder / JOURNAL_FILENAME)
    final_update = _abort_if_dead(journal, row)
    if journal.state.has_local_statuses:  # the catalog needs nothing that was downloaded from it
        row_sync = RowSync(connection, journal, rid)
        if not _is_row_current(journal, row):
            row_sync.write()
            row = connection.require_row(MLTable.execution, rid)
        if journal.state.metrics or journal.state.parameters:
            row_sync.write_metrics()
    execution = Execution(connection, row, folder, restored=True, resumed=resumed)
    execution._runtime.staging.repair_links()
    execution._runtime.outputs.stage_console()
    if final_update is not None:
        execution._notify_status(final_update)
    return execution


def _is_row_current(journal: Journal, row: dict[str, Any]) -> bool:
    return (row["Status"], row["Status_Detail"] or "") == _status_text(journal.state.statuses[-1])


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
    """Rebuild the journal of an execution whose working folder is lost or on another machine.

    What the catalog has of it is data: statuses, inputs and times. It names no files and no process of this machine.
    """
    rid = recorded.execution_rid
    journal = download_journal(connection, rid) or _journal_from_catalog(connection, recorded)
    *events, restored = journal.events
    state = journal.state
    if not state.statuses or _status_text(state.statuses[-1]) != (recorded.status, recorded.status_detail):
        # the row is newer: the run was resumed on another machine, or was corrected
        events.append(_status_from_row(recorded, state))
    create_journal(folder / JOURNAL_FILENAME, [*events, restored])
    log.warning(
        "Execution %s was restored from the catalog. %s may still be in %s.",
        rid,
        f"Files that are not uploaded ({_format_names(journal.unsent)})"
        if journal.unsent
        else "Files that were staged and not uploaded",
        journal.source,
    )


def _format_names(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_LISTED_NAMES]) + (", …" if len(names) > MAX_LISTED_NAMES else "")


def _status_text(update: StatusUpdate) -> tuple[Status, str]:
    return update.status, update.error or update.message


def _status_from_row(recorded: RecordedExecution, state: ExecutionState) -> StatusSet:
    previous = state.statuses[-1].status if state.statuses else None
    time = max([recorded.created or utc_now(), *(update.time for update in state.statuses[-1:])])
    return StatusSet(
        update=StatusUpdate(
            status=recorded.status, message=recorded.status_detail, time=time, previous=previous or recorded.status
        )
    )


def _journal_from_catalog(connection: Connection, recorded: RecordedExecution) -> DownloadedJournal:
    """Return what the catalog's rows have of an execution without a journal."""
    source = _recorded_location(connection, recorded.execution_rid)
    events = (
        CreationStarted(
            rid=recorded.execution_rid, description=recorded.description, workflow_rid=recorded.workflow_rid
        ),
        *(InputRecorded(dataset=spec) for spec in recorded.list_input_datasets()),
        *(InputRecorded(asset=asset.rid) for asset in recorded.list_assets(Role.input)),
        Restored(source=source),
    )
    return DownloadedJournal(events, (), source)


def _recorded_location(connection: Connection, rid: RID) -> str:
    """Return host and folder of a run from its environment snapshot."""
    snapshots = [
        asset for asset in list_execution_assets(connection, rid, Role.output) if "Runtime_Env" in asset.asset_types
    ]
    if not snapshots:
        return "an unknown location"
    with scratch_folder(connection.folder) as folder:
        path = download_asset(connection, snapshots[-1], folder)
        try:
            snapshot = json.loads(path.read_bytes())
        except ValueError:
            snapshot = {}
    values = snapshot if isinstance(snapshot, dict) else {}
    environment = values.get("environment")
    host = environment.get("hostname") if isinstance(environment, dict) else None
    return f"{host or 'an unknown machine'}:{values.get('folder', '?')}"
