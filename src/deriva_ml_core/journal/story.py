"""The lines of a journal, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.journal.filestory import FileStory, FileTime
from deriva_ml_core.journal.lease import Lease
from deriva_ml_core.models import DatasetSpec, MetricSummary, StagedAsset, StatusUpdate, StoredObject
from deriva_ml_core.scores import summed_up

__all__ = [
    "JOURNAL",
    "Created",
    "Creating",
    "Event",
    "FileStory",
    "FileTime",
    "Forgotten",
    "Input",
    "Leased",
    "Noted",
    "RankFailed",
    "Recorded",
    "Restored",
    "Resumed",
    "Sealed",
    "Staged",
    "Started",
    "StatusSet",
    "Stopped",
    "Stored",
    "Story",
    "Typed",
    "TypesLinked",
    "Untyped",
    "now",
]

JOURNAL = "journal.jsonl"
"""The journal's name in the working folder, and that of the copy in the catalog."""


def now() -> datetime:
    """The present time, in UTC."""
    return datetime.now(UTC)


@dataclass
class Story:
    """What a journal's lines add up to; a line that stands twice changes nothing."""

    creating: Creating | None = None
    created: bool = False
    restored: bool = False
    datasets: dict[tuple[RID, str | None], DatasetSpec] = field(default_factory=dict)
    assets: dict[RID, None] = field(default_factory=dict)
    lease: Lease | None = None
    start: datetime | None = None
    stop: datetime | None = None
    begun: datetime | None = None
    spent: timedelta = timedelta()
    """How long it ran, of all the times that it ran, each from its start to its stop."""
    resumed: bool = False
    """Whether it was begun again after its end, so that what its row says of an end may be old."""
    statuses: list[StatusUpdate] = field(default_factory=list)
    metrics: dict[tuple[str, str], MetricSummary] = field(default_factory=dict)
    """Where each metric stands of which the statuses told, by stage and name."""
    failures: list[RankFailed] = field(default_factory=list)
    files: dict[str, FileStory] = field(default_factory=dict)
    newest: dict[tuple[str, str, bool], str] = field(default_factory=dict)
    unsent: dict[str, None] = field(default_factory=dict)
    unlinked: dict[str, None] = field(default_factory=dict)
    """The files to which types were added that the catalog may not know yet."""
    sent_since_copy: bool = False
    """Whether files were recorded of which no stored copy of this journal tells."""

    @property
    def status(self) -> Status:
        """The present state."""
        return self.statuses[-1].status if self.statuses else Status.created

    def open_files(self) -> list[FileStory]:
        """The registered files that are still to be sent or recorded, in the order of their registration."""
        return [self.files[key] for key in list(self.unsent)]  # other threads add to it meanwhile

    def newest_of(self, table: str, filename: str, *, record: bool = False) -> FileStory | None:
        """The file that was last registered under a name, None where none was."""
        key = self.newest.get((table, filename, record))
        return None if key is None else self.files[key]


class Event(BaseModel):
    """One line of a journal; fields that a newer version added are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    time: datetime = Field(default_factory=now)

    def tell(self, story: Story) -> None:
        """Add this line to the story."""


class Creating(Event):
    """The intent to make the execution's row, with all that is needed to know what it was to be."""

    event: Literal["creating"] = "creating"
    rid: RID
    description: str = ""
    workflow_rid: RID | None = None
    folder: str = ""
    dry_run: bool = False

    def tell(self, story: Story) -> None:
        story.creating = self


class Created(Event):
    """The row, its inputs and its own records are in the catalog."""

    event: Literal["created"] = "created"

    def tell(self, story: Story) -> None:
        story.created = True


class Restored(Event):
    """This journal was put together, on another machine or after its folder was lost, from what the catalog holds."""

    event: Literal["restored"] = "restored"
    source: str

    def tell(self, story: Story) -> None:
        story.restored = True


class Input(Event):
    """A dataset or an asset went in."""

    event: Literal["input"] = "input"
    dataset: DatasetSpec | None = None
    asset: RID | None = None

    def tell(self, story: Story) -> None:
        if self.dataset is not None:
            story.datasets[self.dataset.rid, self.dataset.version] = self.dataset
        if self.asset is not None:
            story.assets[self.asset] = None


class Leased(Event):
    """The process that now runs the execution."""

    event: Literal["lease"] = "lease"
    lease: Lease

    def tell(self, story: Story) -> None:
        story.lease = self.lease


class Started(Event):
    """The run began."""

    event: Literal["start"] = "start"

    def tell(self, story: Story) -> None:
        story.start, story.stop = story.start or self.time, None
        story.begun = story.begun or self.time


class Resumed(Event):
    """The run goes on after its end."""

    event: Literal["resumed"] = "resumed"

    def tell(self, story: Story) -> None:
        story.resumed = True
        story.failures.clear()


class RankFailed(Event):
    """A process of a rank above zero failed; it says so itself."""

    event: Literal["rank_failed"] = "rank_failed"
    rank: int
    host: str
    error: str

    def tell(self, story: Story) -> None:
        story.failures.append(self)


class Stopped(Event):
    """The run ended."""

    event: Literal["stop"] = "stop"

    def tell(self, story: Story) -> None:
        story.stop = self.time
        if story.begun is not None:
            story.spent += self.time - story.begun
            story.begun = None


class StatusSet(Event):
    """A status."""

    event: Literal["status"] = "status"
    update: StatusUpdate

    def tell(self, story: Story) -> None:
        story.statuses.append(self.update)
        if (progress := self.update.progress) is not None and progress.metrics:
            story.metrics |= summed_up(story.metrics, progress)
        story.resumed = story.resumed and not self.update.status.ended


class Staged(Event):
    """A file was registered."""

    event: Literal["staged"] = "staged"
    asset: StagedAsset

    def tell(self, story: Story) -> None:
        asset = self.asset
        if asset.key not in story.files:
            story.files[asset.key] = FileStory(asset)
            story.newest[asset.table, asset.filename, asset.record] = asset.key
            story.unsent[asset.key] = None


class Sealed(Event):
    """Nobody will write to a staged file in place any more; what it looked like then."""

    event: Literal["sealed"] = "sealed"
    key: str
    file_time: FileTime

    def tell(self, story: Story) -> None:
        story.files[self.key].sealed = self.file_time


class Typed(Event):
    """A file got further types."""

    event: Literal["typed"] = "typed"
    key: str
    types: tuple[str, ...]

    def tell(self, story: Story) -> None:
        file = story.files[self.key]
        added = tuple(each for each in self.types if each not in file.asset.asset_types)
        file.asset = file.asset.model_copy(update={"asset_types": (*file.asset.asset_types, *added)})
        file.added_types += added
        story.unlinked[self.key] = None


class Untyped(Event):
    """A file that is not sent yet lost types that it got after its registration."""

    event: Literal["untyped"] = "untyped"
    key: str
    types: tuple[str, ...]

    def tell(self, story: Story) -> None:
        file = story.files[self.key]
        kept = tuple(each for each in file.asset.asset_types if each not in self.types)
        file.asset = file.asset.model_copy(update={"asset_types": kept})
        file.added_types = tuple(each for each in file.added_types if each not in self.types)


class TypesLinked(Event):
    """The types that were added to files are in the catalog."""

    event: Literal["types_linked"] = "types_linked"
    types: dict[str, tuple[str, ...]]

    def tell(self, story: Story) -> None:
        for key, types in self.types.items():
            if story.files[key].added_types == types:  # otherwise more were added meanwhile
                story.unlinked.pop(key, None)


class Noted(Event):
    """What a store needs to know of a file's half-done transfer."""

    event: Literal["note"] = "note"
    key: str
    note: JsonValue

    def tell(self, story: Story) -> None:
        story.files[self.key].note = self.note


class Stored(Event):
    """The bytes are in the store; what the file looked like then, where it stayed in its place."""

    event: Literal["stored"] = "stored"
    key: str
    object: StoredObject
    file_time: FileTime | None = None

    def tell(self, story: Story) -> None:
        file = story.files[self.key]
        file.stored, file.file_time = self.object, self.file_time
        if file.asset.record and file.asset.filename == JOURNAL:
            story.sent_since_copy = False


class Recorded(Event):
    """The rows and links are in the catalog: the row's id by key."""

    event: Literal["recorded"] = "recorded"
    rids: dict[str, RID]

    def tell(self, story: Story) -> None:
        for key, rid in self.rids.items():
            story.files[key].rid = rid
            story.unsent.pop(key, None)
        if any(not story.files[key].asset.record for key in self.rids):
            story.sent_since_copy = True


class Forgotten(Event):
    """A registered file is not to be uploaded any more."""

    event: Literal["forgotten"] = "forgotten"
    key: str

    def tell(self, story: Story) -> None:
        story.files[self.key].forgotten = True
        story.unsent.pop(self.key, None)
        story.unlinked.pop(self.key, None)
