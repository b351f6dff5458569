"""Delete an execution with its details and output files, list what is in the trash, and restore it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from deriva_ml_core._files.locks import locked_folder
from deriva_ml_core.backend import Row, catalog_transaction
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, check_rid, status_from_row
from deriva_ml_core.deletion.selection import Selection, check_unused, order_for_deletion, select_rows
from deriva_ml_core.deletion.trash import TRASH_TIME, DeletionRecord, DeletionState, Trash
from deriva_ml_core.errors import (
    ExecutionRunning,
    NotInTrash,
    RowInUse,
    UnknownRID,
)
from deriva_ml_core.execution.exit_status import effective_status
from deriva_ml_core.execution.recorded import load_local_state
from deriva_ml_core.execution.run_lock import RESUME_LOCK_NAME, UPLOAD_LOCK_NAME
from deriva_ml_core.execution.tags import is_baseline_tag
from deriva_ml_core.journal.state import JOURNAL_FILENAME
from deriva_ml_core.schema import CatalogModel

__all__ = [
    "DeletedExecution",
    "DeletedRow",
    "Deletion",
    "delete_execution",
    "list_deleted_executions",
    "restore_deleted_execution",
    "settle_deletions",
]

BATCH_SIZE = 500
"""Rows that one request to a server deletes."""

LABEL_COLUMNS = ("Filename", "Name", "Tag", "Description", "Asset_Type", "Asset_Role", "Nested_Execution", "Dataset")
"""Columns that identify a row for people, the first one with a value."""


@dataclass(frozen=True, slots=True)
class DeletedRow:
    """A row that a deletion deletes.

    Args:
        table: Its table.
        rid: Its RID.
        label: A value that identifies it for people, such as the file's name.
    """

    table: str
    rid: str
    label: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """The deletion of an execution, done or planned.

    Args:
        execution: RID of the execution.
        description: Its description.
        is_done: Whether the rows are deleted; otherwise nothing was changed.
        rows: The rows, by table.
        files: Number of the output files and metadata files among them.
        bytes: Size of these files.
        shared: RIDs of its output files that stay, since another execution has them as outputs too.
        until: Time until which it can be restored, in UTC; None if the catalog has no trash.
        working_dir: Its working folder, if that stays on this machine.
    """

    execution: str
    description: str
    is_done: bool
    rows: tuple[DeletedRow, ...]
    files: int
    bytes: int
    shared: tuple[str, ...]
    until: datetime | None
    working_dir: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return the deletion as ``deriva-ml delete --json`` prints it."""
        return {
            **asdict(self),
            "rows": [asdict(row) for row in self.rows],
            "shared": list(self.shared),
        }


@dataclass(frozen=True, slots=True)
class DeletedExecution:
    """An execution in the trash.

    Args:
        execution: Its RID.
        description: Its description.
        deleted: When it was deleted, in UTC.
        until: Time until which it can be restored, in UTC.
        rows: Number of its rows.
    """

    execution: str
    description: str
    deleted: datetime
    until: datetime
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """Return the execution as ``deriva-ml delete --trash --json`` prints it."""
        return asdict(self)


def delete_execution(
    connection: Connection, rid: RID, *, outputs: bool, dry_run: bool, expected: Deletion | None
) -> Deletion:
    """Delete an execution; see ``DerivaML.delete_execution``."""
    check_rid(rid)
    if dry_run:
        selection = select_rows(connection, rid, outputs=outputs)
        _check_not_running(connection, selection)
        check_unused(connection, selection)
        return _describe(connection, selection, is_done=False)
    trash = Trash(connection)
    with trash.lock():
        settled = settle_deletions(connection, trash, rid)
        if rid in settled:  # an earlier call was interrupted, and is complete now
            return _describe(connection, settled[rid], is_done=True)
        with _exclude_other_processes(connection, rid):
            selection = select_rows(connection, rid, outputs=outputs)
            _check_not_running(connection, selection)
            check_unused(connection, selection)
            _check_expected(connection, selection, expected)
            return _delete(connection, trash, selection, outputs=outputs)


def list_deleted_executions(connection: Connection) -> list[DeletedExecution]:
    """Return the executions in the trash; see ``DerivaML.list_deleted_executions``."""
    trash = Trash(connection)
    if not trash.folder.is_dir():
        return []
    return [
        DeletedExecution(record.execution, record.description, record.deleted, record.until, len(record.rids))
        for record in trash.find_all()
        if record.state in (DeletionState.deleted, DeletionState.restoring)
    ]


def restore_deleted_execution(connection: Connection, rid: RID) -> None:
    """Restore an execution from the trash; see ``DerivaML.restore_deleted_execution``."""
    trash = Trash(connection)
    check_rid(rid)
    record = None
    if trash.folder.is_dir():
        with trash.lock():
            settle_deletions(connection, trash, rid)
            record = trash.find(rid)
            if record is not None and record.state is DeletionState.deleted:
                _restore(connection, trash, record)
                return
    if connection.catalog.select(MLTable.execution, {"RID": rid}):
        raise NotInTrash(f"Execution {rid} is not deleted, so there is nothing to restore.")
    reason = (
        f"it was deleted on {record.deleted:%Y-%m-%d}, and its rows were kept for {TRASH_TIME.days} days"
        if record is not None
        else "a catalog on a server has no trash"
        if not connection.address.is_embedded
        else f"`{connection.command('delete', '--trash')}` lists what is in it"
    )
    raise NotInTrash(f"Execution {rid} is not in the trash of {connection.catalog.name}: {reason}.")


def settle_deletions(connection: Connection, trash: Trash, rid: RID | None = None) -> dict[RID, Selection]:
    """Complete or undo the deletions and restorations that were interrupted; the lock of the trash is held.

    Args:
        connection: The catalog.
        trash: Its trash.
        rid: The execution whose interrupted deletion on a server is completed; others there wait for a call that names
            them, since their rows may be in use by now.

    Returns:
        The deletions that were completed, by execution.
    """
    completed = {}
    for record in trash.find_all():
        if record.state is DeletionState.restoring:
            _settle_restoration(connection, trash, record)
        elif record.state is DeletionState.deleting:
            is_present = bool(connection.catalog.select(MLTable.execution, {"RID": record.execution}))
            if connection.address.is_embedded and is_present:  # nothing was deleted: all rows go in one transaction
                trash.remove(record.execution)
                continue
            selection = Selection(record.execution, {name: dict(rows) for name, rows in record.rows.items()})
            if is_present:
                if record.execution != rid:
                    continue
                remaining = select_rows(connection, rid, outputs=record.has_outputs)
                check_unused(connection, remaining)
                _delete_rows(connection, remaining)
                _delete_rows(connection, selection)
            _confirm(connection, trash, record)
            completed[record.execution] = selection
    return completed


def _check_not_running(connection: Connection, selection: Selection) -> None:
    """Raise `ExecutionRunning` unless the run has ended, by its row or by the journal on this machine."""
    rid = selection.execution
    row = selection.rows[MLTable.execution][rid]
    status = status_from_row(row["Status"])
    state = load_local_state(connection, rid)
    if state is not None and state.is_resumed and state.running_since is not None:
        status = state.status  # the row may still have the status before the resume
    if status is not None and status.is_terminal:
        return
    current = None if state is None else effective_status(state)
    if current is not None and current[0].is_terminal:
        return
    if state is not None and state.process is not None and state.process.is_dead() is True:
        return
    raise ExecutionRunning(
        f"Execution {rid} is {row['Status'] or 'Created'}, and may be running. Wait for its end, or end it with "
        f"`{connection.command('abort', rid)}`, and delete it again."
    )


@contextmanager
def _exclude_other_processes(connection: Connection, rid: RID) -> Iterator[None]:
    """Let no other process upload files of the execution, or resume it."""
    folder = connection.working_folder(rid)
    with ExitStack() as locks:
        if (folder / JOURNAL_FILENAME).is_file():  # a lock would create the folder again
            for name in (RESUME_LOCK_NAME, UPLOAD_LOCK_NAME):
                if not locks.enter_context(locked_folder(folder / name, f"delete execution {rid}", blocking=False)):
                    raise ExecutionRunning(
                        f"Another process uploads or resumes execution {rid}: wait for its end, and delete it again."
                    )
        yield


def _check_expected(connection: Connection, selection: Selection, expected: Deletion | None) -> None:
    """Raise `RowInUse` if the rows are not those that the user has seen."""
    if expected is not None and {row.rid for row in expected.rows} != selection.rids:
        raise RowInUse(
            f"The rows of execution {selection.execution} changed after they were listed, and nothing was deleted. "
            f"List them again with `{connection.command('delete', selection.execution, '--dry-run')}`."
        )


def _delete(connection: Connection, trash: Trash, selection: Selection, *, outputs: bool) -> Deletion:
    row = selection.rows[MLTable.execution][selection.execution]
    record = DeletionRecord(
        execution=selection.execution,
        description=row.get("Description") or "",
        state=DeletionState.deleting,
        deleted=datetime.now(UTC),
        has_outputs=outputs,
        rows=selection.rows,
        rids=selection.rids,
    )
    trash.write(record)
    try:
        if connection.address.is_embedded:
            with catalog_transaction(connection.catalog):
                present = select_rows(connection, selection.execution, outputs=outputs)
                check_unused(connection, present)  # another process may refer to the rows since they were selected
                if present.rids != selection.rids:
                    raise RowInUse(
                        f"The rows of execution {selection.execution} changed while they were deleted, and nothing was "
                        "deleted. Delete it again."
                    )
                _delete_rows(connection, selection)
        else:
            _delete_rows(connection, selection)
    except Exception:
        if connection.address.is_embedded:  # nothing was deleted
            trash.remove(record.execution)
        raise
    _confirm(connection, trash, record)
    return _describe(connection, selection, is_done=True)


def _delete_rows(connection: Connection, selection: Selection) -> None:
    for table, rids in order_for_deletion(selection):
        for start in range(0, len(rids), BATCH_SIZE):
            connection.catalog.delete(table, {"RID": rids[start : start + BATCH_SIZE]})


def _confirm(connection: Connection, trash: Trash, record: DeletionRecord) -> None:
    """Record that the rows are deleted; the last step of a deletion."""
    if connection.address.is_embedded:
        trash.move_working_folder(record.execution)
        trash.write(replace(record, state=DeletionState.deleted))
    else:
        trash.remove(record.execution)


def _restore(connection: Connection, trash: Trash, record: DeletionRecord) -> None:
    rows = _adapt_rows(connection, record)
    trash.write(replace(record, state=DeletionState.restoring))
    try:
        with catalog_transaction(connection.catalog):
            for table, table_rows in rows.items():
                connection.catalog.restore(table, table_rows)  # type: ignore[attr-defined]
    except UnknownRID as error:
        trash.write(record)
        raise NotInTrash(
            f"Execution {record.execution} cannot be restored, since a row that it refers to was deleted too: {error} "
            "Restore the execution that made that row first."
        ) from error
    except Exception:  # nothing was inserted
        trash.write(record)
        raise
    _complete_restoration(trash, record)


def _settle_restoration(connection: Connection, trash: Trash, record: DeletionRecord) -> None:
    if connection.catalog.select(MLTable.execution, {"RID": record.execution}):
        _complete_restoration(trash, record)
    else:  # nothing was inserted: all rows are inserted in one transaction
        trash.write(replace(record, state=DeletionState.deleted))


def _complete_restoration(trash: Trash, record: DeletionRecord) -> None:
    trash.restore_working_folder(record.execution)
    trash.remove(record.execution)


def _adapt_rows(connection: Connection, record: DeletionRecord) -> dict[str, list[Row]]:
    """Return the rows to insert: those of files that are recorded again, and of baselines that moved, are left out.

    Raises:
        UnknownTable, UnknownColumn: The catalog lacks a table or a column of a row.
    """
    catalog = connection.catalog
    model = catalog.refresh()
    replaced: dict[RID, RID] = {}
    rows: dict[str, list[Row]] = {}
    for table, by_rid in record.rows.items():
        own = list(by_rid.values())
        if model.table(table).is_asset:
            present = {row["URL"]: row["RID"] for row in catalog.select(table, {"URL": [row["URL"] for row in own]})}
            replaced |= {row["RID"]: present[row["URL"]] for row in own if row["URL"] in present}
            own = [row for row in own if row["URL"] not in present]
        if table == MLTable.execution_tag:
            baselines = [row["Tag"] for row in own if is_baseline_tag(str(row["Tag"]))]
            taken = {row["Tag"] for row in catalog.select(table, {"Tag": baselines})} if baselines else set()
            own = [row for row in own if row["Tag"] not in taken]
        rows[table] = [_replace_rids(model, table, row, replaced) for row in own]
    return rows


def _replace_rids(model: CatalogModel, table: str, row: Row, replaced: Mapping[RID, RID]) -> Row:
    columns = {key.column for key in model.table(table).foreign_keys if key.to == "RID"}
    return {name: replaced.get(value, value) if name in columns else value for name, value in row.items()}


def _describe(connection: Connection, selection: Selection, *, is_done: bool) -> Deletion:
    model = connection.catalog.model
    row = selection.rows[MLTable.execution][selection.execution]
    files = [each for name, rows in selection.rows.items() if model.table(name).is_asset for each in rows.values()]
    folder = connection.working_folder(selection.execution)
    is_embedded = connection.address.is_embedded
    return Deletion(
        execution=selection.execution,
        description=row.get("Description") or "",
        is_done=is_done,
        rows=tuple(
            DeletedRow(name, rid, _label(each)) for name, rows in selection.rows.items() for rid, each in rows.items()
        ),
        files=len(files),
        bytes=sum(each["Length"] or 0 for each in files),
        shared=tuple(selection.shared),
        until=datetime.now(UTC) + TRASH_TIME if is_embedded else None,
        working_dir=str(folder) if not is_embedded and folder.is_dir() else None,
    )


def _label(row: Mapping[str, Any]) -> str:
    return next((str(row[name]) for name in LABEL_COLUMNS if row.get(name)), "")
