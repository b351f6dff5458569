"""The trash of an embedded catalog: records of deleted executions, which can be restored for a time.

Each deletion has a folder ``trash/<RID>`` with the record ``deletion.json``, which has the deleted rows, and with the
working folder of the execution. The record is written before the first step and after the last one, so that a deletion
that was killed is undone or completed by the next one. A catalog on a server has such a record only until then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from deriva_ml_core._files.atomic import delete_leftover, is_leftover, rename_for_deletion, write_atomic
from deriva_ml_core._files.locks import locked_folder
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._files.permissions import create_folder
from deriva_ml_core.backend import Row
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, check_rid
from deriva_ml_core.errors import DerivaMLException, MalformedData

__all__ = ["RECORD_NAME", "TRASH_TIME", "DeletionRecord", "DeletionState", "Trash"]

TRASH_TIME = timedelta(days=30)
"""Time for which a deleted execution can be restored."""

RECORD_NAME = "deletion.json"
WORKING_NAME = "working"
FORMAT = 1


class DeletionState(StrEnum):
    """Step of a deletion that has begun last."""

    deleting = "deleting"
    deleted = "deleted"
    restoring = "restoring"
    expired = "expired"


@dataclass(frozen=True)
class DeletionRecord:
    """The record of a deletion.

    Args:
        execution: RID of the execution.
        description: Description of the execution.
        state: The step that has begun last.
        deleted: When the deletion began, in UTC.
        has_outputs: Whether its output files are deleted too.
        rows: The deleted rows by table and RID, in an order in which they can be inserted; empty once it has expired.
        rids: The RIDs of all deleted rows.
    """

    execution: RID
    description: str
    state: DeletionState
    deleted: datetime
    has_outputs: bool = True
    rows: Mapping[str, Mapping[RID, Row]] = field(default_factory=dict)
    rids: frozenset[RID] = frozenset()

    @property
    def until(self) -> datetime:
        """Time until which it can be restored."""
        return self.deleted + TRASH_TIME

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(
            {
                "format": FORMAT,
                "execution": self.execution,
                "description": self.description,
                "state": self.state,
                "deleted": self.deleted.isoformat(),
                "outputs": self.has_outputs,
                "rows": {table: list(rows.values()) for table, rows in self.rows.items()},
                "rids": sorted(self.rids),
            },
            ensure_ascii=True,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> DeletionRecord:
        """Return the record in a text of `to_json`.

        Raises:
            ValueError: The text is no such record.
        """
        values = json.loads(text)
        try:
            if values["format"] != FORMAT:
                raise ValueError(f"its format is {values['format']!r}")
            return cls(
                execution=check_rid(values["execution"]),
                description=str(values["description"]),
                state=DeletionState(values["state"]),
                deleted=datetime.fromisoformat(values["deleted"]).astimezone(UTC),
                has_outputs=bool(values["outputs"]),
                rows={
                    str(table): {check_rid(row["RID"]): dict(row) for row in rows}
                    for table, rows in values["rows"].items()
                },
                rids=frozenset(map(check_rid, values["rids"])),
            )
        except (KeyError, TypeError, AttributeError, DerivaMLException) as error:
            raise ValueError(f"it is no record of a deletion ({error!r})") from error


class Trash:
    """The records of deletions in the folder of a catalog.

    Args:
        connection: The catalog.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.folder = connection.folder / "trash"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process at a time delete, restore or remove executions."""
        with translate_os_errors(f"Cannot create {self.folder}", self.folder.parent):
            create_folder(self.folder, self._connection.folder)
        with locked_folder(self.folder / "lock", "delete or restore executions"):
            yield

    def find(self, rid: RID) -> DeletionRecord | None:
        """Return the record of an execution, or None if it has none.

        Raises:
            MalformedData: The record is damaged.
        """
        path = self._record_path(rid)
        try:
            with translate_os_errors(f"Cannot read {path}", path):
                content = path.read_bytes() if path.is_file() else None
            return None if content is None else DeletionRecord.from_json(content)
        except ValueError as error:
            raise MalformedData(
                f"The record {path} of a deleted execution cannot be read: {error}. Restore it from a backup, or "
                f"delete the folder {path.parent} to give up what is in it."
            ) from error

    def find_all(self) -> list[DeletionRecord]:
        """Return all records, the newest deletion first.

        Raises:
            MalformedData: A record is damaged.
        """
        paths = sorted(self.folder.glob(f"*/{RECORD_NAME}")) if self.folder.is_dir() else []
        paths = [path for path in paths if not is_leftover(path.parent.name)]
        records = [record for path in paths if (record := self.find(path.parent.name)) is not None]
        return sorted(records, key=lambda record: record.deleted, reverse=True)

    def write(self, record: DeletionRecord) -> None:
        """Write a record; it is on the disk when this returns."""
        path = self._record_path(record.execution)
        with translate_os_errors(f"Cannot write {path}", path.parent):
            create_folder(path.parent, self._connection.folder)
            write_atomic(path, record.to_json(), durable=True)

    def remove(self, rid: RID) -> None:
        """Remove the record of an execution, and a working folder that is still in the trash."""
        folder = self._record_path(rid).parent
        with translate_os_errors(f"Cannot remove {folder}", folder):
            renamed = rename_for_deletion(folder)
            if renamed is not None:
                delete_leftover(renamed)

    def expire(self, record: DeletionRecord) -> None:
        """Give up the rows and the working folder of an execution; the RIDs of the rows stay on record."""
        self.write(replace(record, state=DeletionState.expired, rows={}))
        with translate_os_errors(f"Cannot remove {self.working_path(record.execution)}", self.folder):
            renamed = rename_for_deletion(self.working_path(record.execution))
            if renamed is not None:
                delete_leftover(renamed)

    def move_working_folder(self, rid: RID) -> None:
        """Move the working folder of an execution to the trash; repeating it changes nothing.

        A working folder on another disk stays where it is.
        """
        _rename(self._connection.working_folder(rid), self.working_path(rid))

    def restore_working_folder(self, rid: RID) -> None:
        """Move the working folder of an execution back; repeating it changes nothing."""
        _rename(self.working_path(rid), self._connection.working_folder(rid))

    def working_path(self, rid: RID) -> Path:
        """Return the path of an execution's working folder in the trash."""
        return self._record_path(rid).with_name(WORKING_NAME)

    def _record_path(self, rid: RID) -> Path:
        return self.folder / check_rid(rid) / RECORD_NAME


def _rename(source: Path, target: Path) -> None:
    import errno

    if not source.is_dir() or target.exists():
        return
    with translate_os_errors(f"Cannot move {source} to {target}", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(source, target)  # noqa: PTH104 - Path.rename would be the same
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
