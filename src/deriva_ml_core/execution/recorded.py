"""What catalog and journal tell of an execution: how it went, what went in, what came out, what belongs to it."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from deriva_ml_core.assets.lookup import list_execution_assets
from deriva_ml_core.assets.retry import RetryingStore
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import list_input_datasets
from deriva_ml_core.definitions import RID, MLTable, Role, Status, status_from_row
from deriva_ml_core.execution.row_sync import list_metrics
from deriva_ml_core.journal.journal import load_state
from deriva_ml_core.journal.state import JOURNAL_FILENAME, ExecutionState
from deriva_ml_core.models import Asset, DatasetSpec, ExecutionInfo, MetricSummary, StatusUpdate, UploadOptions
from deriva_ml_core.schema import asset_execution_table_name

__all__ = [
    "JOURNAL_FILENAME",
    "RecordedExecution",
    "download_journal",
    "download_state",
    "effective_status",
    "load_local_state",
    "lookup_execution",
]


class RecordedExecution:
    """An execution as it was recorded; reading it changes nothing.

    Args:
        connection: Where it is recorded.
        row: Its row of the table Execution.
    """

    def __init__(self, connection: Connection, row: dict[str, Any]) -> None:
        self._connection = connection
        self._row = row

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.execution_rid} {self.status} {self.description!r}>"

    def _repr_html_(self) -> str:
        from deriva_ml_core.execution.html_repr import render_html

        return render_html(self, self._load_state)

    @property
    def connection(self) -> Connection:
        """The catalog, the store and the plugins where it is recorded."""
        return self._connection

    @property
    def execution_rid(self) -> RID:
        """Its record id."""
        return str(self._row["RID"])

    @property
    def workflow_rid(self) -> RID | None:
        """The record id of the workflow that it ran."""
        return self._row.get("Workflow")

    @property
    def description(self) -> str:
        """What it was for."""
        return self._row.get("Description") or ""

    @property
    def working_dir(self) -> Path:
        """The folder that it works in on this machine, whether or not it is there."""
        return self._connection.working_folder(self.execution_rid)

    @property
    def status(self) -> Status:
        """Its state; one whose process has died without a word is Aborted, though its row may say Running."""
        return self._current_status()[0]

    @property
    def status_detail(self) -> str:
        """The words beside its state."""
        return self._current_status()[1]

    @property
    def duration(self) -> str | None:
        """How long it ran, such as ``0.0H 1.0min 2.3456sec``; None before its end."""
        return self._row.get("Duration")

    @property
    def created(self) -> datetime | None:
        """When its row was made, in UTC."""
        text = self._row.get("RCT")
        return datetime.fromisoformat(text) if text else None

    @property
    def start_time(self) -> datetime | None:
        """When it began to run, in UTC; None before that, and where the journal is not at hand."""
        return self._load_state().start_time

    @property
    def stop_time(self) -> datetime | None:
        """When it ended, in UTC; None before that, and where the journal is not at hand."""
        return self._load_state().stop_time

    @cached_property
    def url(self) -> str:
        """Its citation, which names it outside this catalog."""
        return self._connection.catalog.cite(self.execution_rid)

    @property
    def info(self) -> ExecutionInfo:
        """All of this as one frozen value."""
        story = self._load_state()
        status, detail = self._current_status()
        return ExecutionInfo(
            rid=self.execution_rid,
            url=self.url,
            description=self.description,
            workflow_rid=self.workflow_rid,
            status=status,
            status_detail=detail,
            datasets=tuple(story.datasets.values()),
            assets=tuple(story.assets),
            working_dir=self.working_dir,
            created=self.created,
            start_time=story.start_time,
            stop_time=story.stop_time,
        )

    def list_statuses(self) -> list[StatusUpdate]:
        """Every status that it had, in order: from its journal here, or from the copy in the catalog.

        Returns:
            The statuses; none where the run left no journal.
        """
        return list(self._load_state().statuses)

    def list_metrics(self) -> list[MetricSummary]:
        """Where each metric stands of which its statuses told: the last and the best value, as the catalog has them.

        Returns:
            The metrics; none where the run told of none, ran before catalogs had them, or the catalog has no place.
        """
        return list_metrics(self._connection, [self.execution_rid]).get(self.execution_rid, [])

    def list_assets(self, asset_role: Role | str | None = None) -> list[Asset]:
        """The assets that went in and came out.

        Args:
            asset_role: ``Input`` or ``Output``; None for both.
        """
        return list_execution_assets(
            self._connection, self.execution_rid, None if asset_role is None else Role(asset_role)
        )

    def list_input_datasets(self) -> list[DatasetSpec]:
        """The datasets that went in, each with the version that was taken."""
        return list_input_datasets(self._connection, self.execution_rid)

    def list_output_datasets(self) -> list[DatasetSpec]:
        """The dataset versions that it made."""
        rows = self._select(MLTable.dataset_version, {"Execution": self.execution_rid})
        return [DatasetSpec(rid=row["Dataset"], version=row["Version"]) for row in rows]

    def list_nested_executions(self, recurse: bool = False) -> list[RecordedExecution]:
        """The executions nested in this one, in their sequence.

        Args:
            recurse: Whether those nested in them follow, level by level.
        """
        return self._list_related("Execution", "Nested_Execution", recurse)

    def list_parent_executions(self, recurse: bool = False) -> list[RecordedExecution]:
        """The executions that this one is nested in.

        Args:
            recurse: Whether those that they are nested in follow, level by level.
        """
        return self._list_related("Nested_Execution", "Execution", recurse)

    def _list_related(self, from_column: str, to_column: str, recurse: bool) -> list[RecordedExecution]:
        found: dict[RID, None] = {}
        level = [self.execution_rid]
        while level:
            links = self._select(MLTable.nested_execution, {from_column: level})
            links.sort(key=lambda link: (link["Sequence"] is None, link["Sequence"], link["RCT"], link["RID"]))
            level = [
                link[to_column]
                for link in links
                if link[to_column] not in found and link[to_column] != self.execution_rid
            ]
            found.update(dict.fromkeys(level))
            if not recurse:
                break
        rows = {row["RID"]: row for row in self._select(MLTable.execution, {"RID": list(found)})}
        return [RecordedExecution(self._connection, rows[rid]) for rid in found if rid in rows]

    def _select(self, table: str, where: dict[str, Any]) -> list[dict[str, Any]]:
        if any(value == [] for value in where.values()):
            return []
        return self._connection.catalog.select(table, where)

    def _load_state(self) -> ExecutionState:
        story = load_local_state(self._connection, self.execution_rid)
        if story is None:
            story = download_state(self._connection, self.execution_rid)
        return story or ExecutionState()

    def _current_status(self) -> tuple[Status, str]:
        """The row's state and words, unless it has not ended there and this machine knows more."""
        text, detail = self._row["Status"], self._row.get("Status_Detail") or ""
        status = status_from_row(text)
        if status is None:  # written by another program
            status, detail = Status.pending, ": ".join(filter(None, (f"Unknown status {text!r}", detail)))
        if status.is_terminal:
            return status, detail
        return effective_status(load_local_state(self._connection, self.execution_rid)) or (status, detail)


def lookup_execution(connection: Connection, rid: RID) -> RecordedExecution:
    """Return a recorded execution.

    Args:
        connection: The catalog.
        rid: The execution's RID.

    Raises:
        UnknownRID, WrongTable: The RID is not that of an execution.
    """
    return RecordedExecution(connection, connection.require_row(MLTable.execution, rid))


def effective_status(state: ExecutionState | None) -> tuple[Status, str] | None:
    """The state and words at a journal's end, judged by whether the process that wrote it still lives.

    Returns:
        None where the journal tells no state: there is none, or the execution is just being created.
    """
    if state is None:
        return None
    if _has_dead_process(state):
        assert state.process is not None
        if state.failures:
            from deriva_ml_core.execution.exit_status import root_cause

            if (guilty := root_cause(state.failures)) is not None:
                return Status.failed, guilty
        what = "run" if state.is_created else "creation"
        last_words = f"; its last: {state.statuses[-1].message or state.status}" if state.statuses else ""
        where = f"process {state.process.pid} on {state.process.host}"
        return Status.aborted, f"The {what} ended without a word ({where}){last_words}"
    if not state.statuses:
        return None
    last = state.statuses[-1]
    return last.status, last.error or last.message


def _has_dead_process(state: ExecutionState) -> bool:
    """Whether the process has ended that ran the execution, or that was about to create it.

    One that was created and has not begun may still be run by another process.
    """
    if state.status.is_terminal or state.process is None:
        return False
    is_at_rest = state.is_created and state.start_time is None and state.status is Status.created
    return not is_at_rest and state.process.is_dead() is True


def load_local_state(connection: Connection, rid: RID) -> ExecutionState | None:
    """What the journal in the execution's working folder tells; None where there is none on this machine."""
    path = connection.working_folder(rid) / JOURNAL_FILENAME
    return load_state(path) if path.is_file() else None


def download_state(connection: Connection, rid: RID) -> ExecutionState | None:
    """What the newest copy of the journal in the catalog tells; None where none was kept."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / JOURNAL_FILENAME
        return load_state(path) if download_journal(connection, rid, path) else None


def download_journal(connection: Connection, rid: RID, target: Path) -> bool:
    """Bring the newest copy of an execution's journal from the store; False where none was kept."""
    catalog = connection.catalog
    links = catalog.select(asset_execution_table_name("Execution_Metadata"), {"Execution": rid})
    if not links:
        return False
    where = {"RID": [link["Execution_Metadata"] for link in links], "Filename": JOURNAL_FILENAME}
    rows = catalog.select("Execution_Metadata", where, order=("RCT",), descending=True, limit=1)
    for row in rows:
        RetryingStore(connection.store).get(
            row["URL"], target, length=row["Length"], md5=row["MD5"], options=UploadOptions()
        )
    return bool(rows)
