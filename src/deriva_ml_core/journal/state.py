"""The lines of a journal, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.metric_modes import update_summaries
from deriva_ml_core.models import DatasetSpec, MetricSummary, StagedAsset, StatusUpdate, StoredObject

__all__ = [
    "JOURNAL_FILENAME",
    "Created",
    "CreationStarted",
    "Event",
    "ExecutionState",
    "FileStamp",
    "FileState",
    "Forgotten",
    "InputRecorded",
    "MarkedImmutable",
    "ProcessAttached",
    "RankFailed",
    "Recorded",
    "Restored",
    "Resumed",
    "Staged",
    "Started",
    "StatusSet",
    "Stopped",
    "Stored",
    "TransferNoted",
    "TypesAdded",
    "TypesLinked",
    "TypesRemoved",
    "utc_now",
]


class FileStamp(BaseModel):
    """Size in bytes and modification time in nanoseconds of a file: whether it has changed since."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    size: int
    mtime_ns: int

    @classmethod
    def from_path(cls, path: Path) -> FileStamp | None:
        """Those of a file, None where there is none."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(size=found.st_size, mtime_ns=found.st_mtime_ns)


@dataclass
class FileState:
    """What became of one registered file so far."""

    asset: StagedAsset
    transfer_note: JsonValue | None = None
    stored: StoredObject | None = None
    stored_stamp: FileStamp | None = None
    rid: RID | None = None
    is_forgotten: bool = False
    immutable_stamp: FileStamp | None = None
    """What it looked like when it was said that nobody writes to it in place any more."""
    added_types: tuple[str, ...] = ()
    """Those of its types that came after its registration."""


JOURNAL_FILENAME = "journal.jsonl"
"""The journal's name in the working folder, and that of the copy in the catalog."""


def utc_now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)


@dataclass
class ExecutionState:
    """What a journal's lines add up to; a line that stands twice changes nothing."""

    creation: CreationStarted | None = None
    is_created: bool = False
    is_restored: bool = False
    datasets: dict[tuple[RID, str | None], DatasetSpec] = field(default_factory=dict)
    assets: dict[RID, None] = field(default_factory=dict)
    process: ProcessIdentity | None = None
    start_time: datetime | None = None
    stop_time: datetime | None = None
    running_since: datetime | None = None
    run_time: timedelta = timedelta()
    """How long it ran, of all the times that it ran, each from its start to its stop."""
    is_resumed: bool = False
    """Whether it was begun again after its end, so that what its row says of an end may be old."""
    statuses: list[StatusUpdate] = field(default_factory=list)
    metrics: dict[tuple[str, str], MetricSummary] = field(default_factory=dict)
    """Where each metric stands of which the statuses told, by stage and name."""
    failures: list[RankFailed] = field(default_factory=list)
    files: dict[str, FileState] = field(default_factory=dict)
    latest_keys: dict[tuple[str, str, bool], str] = field(default_factory=dict)
    pending_keys: dict[str, None] = field(default_factory=dict)
    unlinked_keys: dict[str, None] = field(default_factory=dict)
    """The files to which types were added that the catalog may not know yet."""
    is_journal_copy_outdated: bool = False
    """Whether files were recorded of which no stored copy of this journal tells."""

    @property
    def status(self) -> Status:
        """The present state."""
        return self.statuses[-1].status if self.statuses else Status.created

    def pending_files(self) -> list[FileState]:
        """The registered files that are still to be sent or recorded, in the order of their registration."""
        return [self.files[key] for key in list(self.pending_keys)]  # other threads add to it meanwhile

    def find_latest_file(self, table: str, filename: str, *, record: bool = False) -> FileState | None:
        """The file that was last registered under a name, None where none was."""
        key = self.latest_keys.get((table, filename, record))
        return None if key is None else self.files[key]


class Event(BaseModel):
    """One line of a journal; fields that a newer version added are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    time: datetime = Field(default_factory=utc_now)

    def apply(self, state: ExecutionState) -> None:
        """Add this line to the story."""


class CreationStarted(Event):
    """The intent to make the execution's row, with all that is needed to know what it was to be."""

    event: Literal["creating"] = "creating"
    rid: RID
    description: str = ""
    workflow_rid: RID | None = None
    folder: str = ""
    dry_run: bool = False

    def apply(self, state: ExecutionState) -> None:
        state.creation = self


class Created(Event):
    """The row, its inputs and its own records are in the catalog."""

    event: Literal["created"] = "created"

    def apply(self, state: ExecutionState) -> None:
        state.is_created = True


class Restored(Event):
    """This journal was put together, on another machine or after its folder was lost, from what the catalog holds."""

    event: Literal["restored"] = "restored"
    source: str

    def apply(self, state: ExecutionState) -> None:
        state.is_restored = True


class InputRecorded(Event):
    """A dataset or an asset went in."""

    event: Literal["input"] = "input"
    dataset: DatasetSpec | None = None
    asset: RID | None = None

    def apply(self, state: ExecutionState) -> None:
        if self.dataset is not None:
            state.datasets[self.dataset.rid, self.dataset.version] = self.dataset
        if self.asset is not None:
            state.assets[self.asset] = None


class ProcessAttached(Event):
    """The process that now runs the execution."""

    event: Literal["lease"] = "lease"
    lease: ProcessIdentity

    def apply(self, state: ExecutionState) -> None:
        state.process = self.lease


class Started(Event):
    """The run began."""

    event: Literal["start"] = "start"

    def apply(self, state: ExecutionState) -> None:
        state.start_time, state.stop_time = state.start_time or self.time, None
        state.running_since = state.running_since or self.time


class Resumed(Event):
    """The run goes on after its end."""

    event: Literal["resumed"] = "resumed"

    def apply(self, state: ExecutionState) -> None:
        state.is_resumed = True
        state.failures.clear()


class RankFailed(Event):
    """A process of a rank above zero failed; it says so itself."""

    event: Literal["rank_failed"] = "rank_failed"
    rank: int
    host: str
    error: str

    def apply(self, state: ExecutionState) -> None:
        state.failures.append(self)


class Stopped(Event):
    """The run ended."""

    event: Literal["stop"] = "stop"

    def apply(self, state: ExecutionState) -> None:
        state.stop_time = self.time
        if state.running_since is not None:
            state.run_time += self.time - state.running_since
            state.running_since = None


class StatusSet(Event):
    """A status."""

    event: Literal["status"] = "status"
    update: StatusUpdate

    def apply(self, state: ExecutionState) -> None:
        state.statuses.append(self.update)
        if (progress := self.update.progress) is not None and progress.metrics:
            state.metrics |= update_summaries(state.metrics, progress)
        state.is_resumed = state.is_resumed and not self.update.status.is_terminal


class Staged(Event):
    """A file was registered."""

    event: Literal["staged"] = "staged"
    asset: StagedAsset

    def apply(self, state: ExecutionState) -> None:
        asset = self.asset
        if asset.key not in state.files:
            state.files[asset.key] = FileState(asset)
            state.latest_keys[asset.table, asset.filename, asset.record] = asset.key
            state.pending_keys[asset.key] = None


class MarkedImmutable(Event):
    """Nobody will write to a staged file in place any more; what it looked like then."""

    event: Literal["sealed"] = "sealed"
    key: str
    file_time: FileStamp

    def apply(self, state: ExecutionState) -> None:
        state.files[self.key].immutable_stamp = self.file_time


class TypesAdded(Event):
    """A file got further types."""

    event: Literal["typed"] = "typed"
    key: str
    types: tuple[str, ...]

    def apply(self, state: ExecutionState) -> None:
        file = state.files[self.key]
        added = tuple(each for each in self.types if each not in file.asset.asset_types)
        file.asset = file.asset.model_copy(update={"asset_types": (*file.asset.asset_types, *added)})
        file.added_types += added
        state.unlinked_keys[self.key] = None


class TypesRemoved(Event):
    """A file that is not sent yet lost types that it got after its registration."""

    event: Literal["untyped"] = "untyped"
    key: str
    types: tuple[str, ...]

    def apply(self, state: ExecutionState) -> None:
        file = state.files[self.key]
        kept = tuple(each for each in file.asset.asset_types if each not in self.types)
        file.asset = file.asset.model_copy(update={"asset_types": kept})
        file.added_types = tuple(each for each in file.added_types if each not in self.types)


class TypesLinked(Event):
    """The types that were added to files are in the catalog."""

    event: Literal["types_linked"] = "types_linked"
    types: dict[str, tuple[str, ...]]

    def apply(self, state: ExecutionState) -> None:
        for key, types in self.types.items():
            if state.files[key].added_types == types:  # otherwise more were added meanwhile
                state.unlinked_keys.pop(key, None)


class TransferNoted(Event):
    """What a store needs to know of a file's half-done transfer."""

    event: Literal["note"] = "note"
    key: str
    note: JsonValue

    def apply(self, state: ExecutionState) -> None:
        state.files[self.key].transfer_note = self.note


class Stored(Event):
    """The bytes are in the store; what the file looked like then, where it stayed in its place."""

    event: Literal["stored"] = "stored"
    key: str
    object: StoredObject
    file_time: FileStamp | None = None

    def apply(self, state: ExecutionState) -> None:
        file = state.files[self.key]
        file.stored, file.stored_stamp = self.object, self.file_time
        if file.asset.record and file.asset.filename == JOURNAL_FILENAME:
            state.is_journal_copy_outdated = False


class Recorded(Event):
    """The rows and links are in the catalog: the row's id by key."""

    event: Literal["recorded"] = "recorded"
    rids: dict[str, RID]

    def apply(self, state: ExecutionState) -> None:
        for key, rid in self.rids.items():
            state.files[key].rid = rid
            state.pending_keys.pop(key, None)
        if any(not state.files[key].asset.record for key in self.rids):
            state.is_journal_copy_outdated = True


class Forgotten(Event):
    """A registered file is not to be uploaded any more."""

    event: Literal["forgotten"] = "forgotten"
    key: str

    def apply(self, state: ExecutionState) -> None:
        state.files[self.key].is_forgotten = True
        state.pending_keys.pop(self.key, None)
        state.unlinked_keys.pop(self.key, None)
