"""The events of a journal, and the state they reduce to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from deriva_ml_core._text import escape_surrogates
from deriva_ml_core.definitions import RID, MLAsset, Status
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.metric_modes import update_summaries
from deriva_ml_core.models import BestCorrection, DatasetSpec, MetricSummary, StagedAsset, StatusUpdate, StoredObject

__all__ = [
    "JOURNAL_FILENAME",
    "BestCorrected",
    "Created",
    "CreationStarted",
    "Event",
    "ExecutionState",
    "FileStamp",
    "FileState",
    "Forgotten",
    "InputRecorded",
    "KeptInPlace",
    "MarkedImmutable",
    "ParametersSet",
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
    """Size in bytes and modification time in nanoseconds of a file, to detect changes."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    size: int
    mtime_ns: int

    @classmethod
    def from_path(cls, path: Path) -> FileStamp | None:
        """Return the stamp of a file; None if it does not exist."""
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(size=stat.st_size, mtime_ns=stat.st_mtime_ns)


TRAINING_FILES = frozenset({"media.jsonl", "metrics.jsonl", "training.json", "training_curves.png"})
"""Names of the files that describe all trainings of an execution."""


@dataclass
class FileState:
    """State of one registered file."""

    asset: StagedAsset
    transfer_note: JsonValue | None = None
    stored: StoredObject | None = None
    stored_stamp: FileStamp | None = None
    rid: RID | None = None
    is_forgotten: bool = False
    immutable_stamp: FileStamp | None = None
    """Stamp of the file when it was marked as immutable."""
    is_kept: bool = False
    """Whether it stays in its place after the upload."""
    added_types: tuple[str, ...] = ()
    """Types added after its registration."""
    removed_types: tuple[str, ...] = ()
    """Types that were removed, and that the catalog may still have."""

    @property
    def is_written(self) -> bool:
        """Whether the file exists. A link may still lead to the former place of a moved original."""
        asset = self.asset
        is_moved = asset.original is not None and asset.path.is_symlink() and asset.original.exists()
        return is_moved or asset.path.exists()

    @property
    def is_pending_record(self) -> bool:
        """Whether it is a metadata file that is not uploaded yet; the journal's own copy follows the last upload."""
        return self.asset.record and self.rid is None and self.asset.filename != JOURNAL_FILENAME

    @property
    def is_own_record(self) -> bool:
        """Whether it describes the run: a metadata file, or a training file in the top of the working folder."""
        asset = self.asset
        folders = asset.path.parents  # <working folder>/outputs/<table>/<name>
        is_in_working_folder = asset.original is not None and len(folders) > 2 and asset.original.parent == folders[2]
        return asset.record or (asset.table == MLAsset.execution_metadata and is_in_working_folder)

    @property
    def has_one_row(self) -> bool:
        """Whether one row describes all versions of it: the journal, or a training file, which grows with each fit."""
        if self.asset.record:
            return self.asset.filename == JOURNAL_FILENAME
        return self.asset.filename in TRAINING_FILES and self.is_own_record


JOURNAL_FILENAME = "journal.jsonl"
"""File name of the journal in the working folder and of its copy in the catalog."""


def utc_now() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)


@dataclass
class ExecutionState:
    """The state that a journal's events reduce to; a repeated event changes nothing."""

    creation: CreationStarted | None = None
    is_created: bool = False
    is_restored: bool = False
    restored_statuses: int = 0
    """Number of the statuses that were downloaded from the catalog."""
    datasets: dict[tuple[RID, str | None], DatasetSpec] = field(default_factory=dict)
    assets: dict[RID, None] = field(default_factory=dict)
    process: ProcessIdentity | None = None
    process_elsewhere: ProcessIdentity | None = None
    """The process that a downloaded journal names, only to be shown."""
    start_time: datetime | None = None
    stop_time: datetime | None = None
    running_since: datetime | None = None
    running_since_monotonic: float | None = None
    """The same time by the monotonic clock of the machine's boot; None in journals of earlier versions."""
    run_time: timedelta = timedelta()
    """Total run time: the sum of all intervals from a start to its stop."""
    is_resumed: bool = False
    """Whether it was resumed after its end, so that a terminal status of its row may be outdated."""
    statuses: list[StatusUpdate] = field(default_factory=list)
    """All statuses; the newest ones if `max_statuses` is set."""
    status_count: int = 0
    """Number of all statuses."""
    max_statuses: int | None = None
    """Maximum number of statuses to hold, since a long run may report millions; None for all."""
    metrics: dict[tuple[str, str], MetricSummary] = field(default_factory=dict)
    """The metrics reported with the statuses, by stage and name."""
    parameters: dict[str, JsonValue] = field(default_factory=dict)
    """The parameters by name, each with its first value."""
    failures: list[RankFailed] = field(default_factory=list)
    best_corrections: list[BestCorrection] = field(default_factory=list)
    """All corrections of the best checkpoint, in order."""
    valid_best_correction: BestCorrection | None = None
    """The last correction; None after a resume, since a resumed training chooses the best checkpoint itself."""
    files: dict[str, FileState] = field(default_factory=dict)
    latest_keys: dict[tuple[str, str, bool], str] = field(default_factory=dict)
    keys_by_path: dict[str, list[str]] = field(default_factory=dict)
    """Keys of the registered files at each path, and of those whose original has it, in order of registration."""
    pending_keys: dict[str, None] = field(default_factory=dict)
    unlinked_keys: dict[str, None] = field(default_factory=dict)
    """Keys of files with added or removed types, of which the catalog may not know yet."""
    keys_by_added_type: dict[str, dict[str, None]] = field(default_factory=dict)
    """Keys of the files to which a type was added after their registration, by type."""
    is_journal_copy_outdated: bool = False
    """Whether files were recorded, or the end of the run, that the stored copy of this journal does not contain."""
    unsent_elsewhere: tuple[str, ...] = ()
    """Names of the files that a downloaded journal lists as not uploaded."""
    records_elsewhere: tuple[RID, ...] = ()
    """RIDs of the files that describe the run, as a downloaded journal lists them."""

    @property
    def status(self) -> Status:
        """The current status."""
        return self.statuses[-1].status if self.statuses else Status.created

    def elapsed_run_time(self) -> timedelta:
        """Return the total run time, up to now if it is running."""
        if self.running_since is None:
            return self.run_time
        is_comparable = self.process is not None and self.process.is_of_this_boot()
        return self.run_time + self._interval_until(utc_now(), time.monotonic() if is_comparable else None)

    def _interval_until(self, stop_time: datetime, stop_monotonic: float | None) -> timedelta:
        """Return the time since the last start, by the monotonic clock if both ends have a reading of it."""
        assert self.running_since is not None
        start = self.running_since_monotonic
        if start is not None and stop_monotonic is not None and stop_monotonic >= start:
            return timedelta(seconds=stop_monotonic - start)
        return max(stop_time - self.running_since, timedelta())

    def pending_files(self) -> list[FileState]:
        """Return the registered files that are not uploaded or not recorded yet, in order of registration."""
        return [self.files[key] for key in list(self.pending_keys)]  # a copy, since other threads add keys

    @property
    def has_local_statuses(self) -> bool:
        """Whether a status was set on this machine, not only downloaded from the catalog."""
        return self.status_count > self.restored_statuses

    def unsent_filenames(self) -> tuple[str, ...]:
        """Return the names of the files that are not uploaded, here or where the run was before."""
        pending = (file for file in self.pending_files() if not file.asset.record or file.is_pending_record)
        return (*self.unsent_elsewhere, *(file.asset.filename for file in pending))

    def own_record_rids(self) -> dict[RID, None]:
        """Return the RIDs of the uploaded files that describe the run, such as its configuration, oldest first."""
        rids = [file.rid for file in list(self.files.values()) if file.rid is not None and file.is_own_record]
        return dict.fromkeys((*self.records_elsewhere, *rids))

    def find_latest_file(self, table: str, filename: str, *, record: bool = False) -> FileState | None:
        """Return the file last registered under a name; None if there is none."""
        key = self.latest_keys.get((table, filename, record))
        return None if key is None else self.files[key]

    def find_recorded_version(self, file: FileState) -> FileState | None:
        """Return the newest other version of a file that has a row; None if there is none."""
        versions = (self.files[key] for key in reversed(self.keys_by_path.get(os.fspath(file.asset.path), ())))
        name = (file.asset.table, file.asset.filename, file.asset.record)
        return next(
            (
                each
                for each in versions
                if each.rid is not None
                and each.asset.key != file.asset.key
                and (each.asset.table, each.asset.filename, each.asset.record) == name
            ),
            None,
        )


class Event(BaseModel):
    """One line of a journal; unknown fields of newer versions are ignored.

    An event that names a file is skipped if the state does not have the file: its registration was downloaded or its
    line is damaged.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    time: AwareDatetime = Field(default_factory=utc_now)

    def apply(self, state: ExecutionState) -> None:
        """Apply this event to the state."""

    def to_stored(self, folder: Path) -> Event:  # noqa: ARG002
        """Return the event as the journal in a working folder stores it: with relative paths of files in the folder."""
        return self

    def from_stored(self, folder: Path, state: ExecutionState) -> Event:  # noqa: ARG002
        """Return a stored event with absolute paths.

        Args:
            folder: The working folder. It may have been moved since the event was written.
            state: The state before the event.
        """
        return self


class CreationStarted(Event):
    """The intent to create the execution, with the values of its row.

    The folder is where the execution was created. It only shows people where its files were.
    """

    event: Literal["creating"] = "creating"
    rid: RID
    description: str = ""
    workflow_rid: RID | None = None
    folder: str = ""
    dry_run: bool = False

    def apply(self, state: ExecutionState) -> None:
        state.creation = self


class Created(Event):
    """Row and inputs are in the catalog, and the metadata files are staged."""

    event: Literal["created"] = "created"

    def apply(self, state: ExecutionState) -> None:
        state.is_created = True


class Restored(Event):
    """The journal was rebuilt from the catalog, on another machine or after the folder was lost.

    The events before it were downloaded. They yield statuses, inputs and times, but no files and no process.

    Args:
        source: Host and folder of the run before, for messages.
        unsent: Names of the registered files that were not uploaded there.
        records: RIDs of the uploaded files that describe the run.
    """

    event: Literal["restored"] = "restored"
    source: str
    unsent: tuple[str, ...] | None = None
    records: tuple[RID, ...] | None = None

    def apply(self, state: ExecutionState) -> None:
        state.is_restored = True
        state.restored_statuses = state.status_count
        state.unsent_elsewhere = state.unsent_filenames() if self.unsent is None else self.unsent
        state.records_elsewhere = tuple(dict.fromkeys((*state.own_record_rids(), *(self.records or ()))))
        state.files, state.latest_keys, state.keys_by_path = {}, {}, {}
        state.pending_keys, state.unlinked_keys, state.keys_by_added_type = {}, {}, {}
        state.is_journal_copy_outdated = False
        state.process_elsewhere, state.process = state.process or state.process_elsewhere, None


class InputRecorded(Event):
    """A dataset or an asset was recorded as an input."""

    event: Literal["input"] = "input"
    dataset: DatasetSpec | None = None
    asset: RID | None = None

    def apply(self, state: ExecutionState) -> None:
        if self.dataset is not None:
            state.datasets[self.dataset.rid, self.dataset.version] = self.dataset
        if self.asset is not None:
            state.assets[self.asset] = None


class ProcessAttached(Event):
    """A process runs the execution from now on."""

    event: Literal["lease"] = "lease"
    lease: ProcessIdentity

    def apply(self, state: ExecutionState) -> None:
        before, state.process = state.process, self.lease
        if before is not None and (before.host, before.boot_id) != (self.lease.host, self.lease.boot_id):
            state.running_since_monotonic = None  # each boot has a monotonic clock of its own


class Started(Event):
    """The run started.

    Args:
        monotonic: The same time in seconds of the machine's monotonic clock.
    """

    event: Literal["start"] = "start"
    monotonic: float | None = None

    def apply(self, state: ExecutionState) -> None:
        state.start_time, state.stop_time = state.start_time or self.time, None
        if state.running_since is None:
            state.running_since, state.running_since_monotonic = self.time, self.monotonic


class Resumed(Event):
    """The run was resumed after its end."""

    event: Literal["resumed"] = "resumed"

    def apply(self, state: ExecutionState) -> None:
        state.is_resumed, state.valid_best_correction = True, None
        state.failures.clear()


class RankFailed(Event):
    """A rank above 0 failed; that rank writes the event."""

    event: Literal["rank_failed"] = "rank_failed"
    rank: int
    host: str
    error: str

    def apply(self, state: ExecutionState) -> None:
        state.failures.append(self)


class Stopped(Event):
    """The run ended.

    Args:
        monotonic: The same time in seconds of the machine's monotonic clock, if the process that started the run
            writes the event.
    """

    event: Literal["stop"] = "stop"
    monotonic: float | None = None

    def apply(self, state: ExecutionState) -> None:
        state.stop_time = self.time
        if state.running_since is not None:
            state.run_time += state._interval_until(self.time, self.monotonic)
            state.running_since = state.running_since_monotonic = None


class StatusSet(Event):
    """A status was set."""

    event: Literal["status"] = "status"
    update: StatusUpdate

    def apply(self, state: ExecutionState) -> None:
        state.statuses.append(self.update)
        state.status_count += 1
        if state.max_statuses is not None:
            del state.statuses[: -state.max_statuses]
        if (progress := self.update.progress) is not None and progress.metrics:
            state.metrics |= update_summaries(state.metrics, progress)
        if self.update.status.is_terminal:
            state.is_resumed, state.is_journal_copy_outdated = False, True


class BestCorrected(Event):
    """Another checkpoint was named as the best, after the run."""

    event: Literal["best_corrected"] = "best_corrected"
    correction: BestCorrection

    def apply(self, state: ExecutionState) -> None:
        state.best_corrections.append(self.correction)
        state.valid_best_correction, state.is_journal_copy_outdated = self.correction, True


class ParametersSet(Event):
    """Parameters were recorded. The first value of a name counts; later ones are only in the journal."""

    event: Literal["parameters"] = "parameters"
    parameters: dict[str, JsonValue]

    def apply(self, state: ExecutionState) -> None:
        new = {name: value for name, value in self.parameters.items() if name not in state.parameters}
        state.parameters = {**state.parameters, **new}


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
            for path in {asset.path, asset.original or asset.path}:
                state.keys_by_path.setdefault(os.fspath(path), []).append(asset.key)

    def to_stored(self, folder: Path) -> Staged:
        prefix = f"{folder}/"
        return self._map_paths(lambda path: _remove_prefix(path, prefix))

    def from_stored(self, folder: Path, state: ExecutionState) -> Staged:
        # earlier versions stored absolute paths
        former = self._find_former_folder(state) if self.asset.path.is_absolute() else ""
        if former == str(folder):
            return self
        return self._map_paths(lambda path: folder / (_remove_prefix(path, f"{former}/") if former else path))

    def _map_paths(self, change: Callable[[Path], Path]) -> Staged:
        asset = self.asset
        original = None if asset.original is None else change(asset.original)
        paths = {"path": change(asset.path), "original": original}
        return self.model_copy(update={"asset": asset.model_copy(update=paths)})

    def _find_former_folder(self, state: ExecutionState) -> str:
        """Return the working folder in which the absolute path of an event was; empty if it cannot be told."""
        asset, parts = self.asset, self.asset.path.parts
        end = ("outputs", asset.table, *asset.filename.split("/"))
        if not asset.record and tuple(map(escape_surrogates, parts[-len(end) :])) == end:
            return str(Path(*parts[: -len(end)]))
        return state.creation.folder if state.creation else ""


def _remove_prefix(path: Path, prefix: str) -> Path:
    text = str(path)
    return Path(text.removeprefix(prefix)) if text.startswith(prefix) else path


class MarkedImmutable(Event):
    """A staged file was marked as immutable, with its stamp at that time."""

    event: Literal["sealed"] = "sealed"
    key: str
    file_time: FileStamp

    def apply(self, state: ExecutionState) -> None:
        if (file := state.files.get(self.key)) is not None:
            file.immutable_stamp = self.file_time


class KeptInPlace(Event):
    """A staged file is to stay in its place after the upload."""

    event: Literal["kept"] = "kept"
    key: str

    def apply(self, state: ExecutionState) -> None:
        if (file := state.files.get(self.key)) is not None:
            file.is_kept = True


class TypesAdded(Event):
    """Types were added to a file."""

    event: Literal["typed"] = "typed"
    key: str
    types: tuple[str, ...]

    def apply(self, state: ExecutionState) -> None:
        if (file := state.files.get(self.key)) is None:
            return
        added = tuple(name for name in self.types if name not in file.asset.asset_types)
        file.asset = file.asset.model_copy(update={"asset_types": (*file.asset.asset_types, *added)})
        file.added_types += added
        file.removed_types = tuple(name for name in file.removed_types if name not in self.types)
        for name in added:
            state.keys_by_added_type.setdefault(name, {})[self.key] = None
        state.unlinked_keys[self.key] = None


class TypesRemoved(Event):
    """Added types were removed from a file."""

    event: Literal["untyped"] = "untyped"
    key: str
    types: tuple[str, ...]

    def apply(self, state: ExecutionState) -> None:
        if (file := state.files.get(self.key)) is None:
            return
        remaining = tuple(name for name in file.asset.asset_types if name not in self.types)
        file.asset = file.asset.model_copy(update={"asset_types": remaining})
        file.added_types = tuple(name for name in file.added_types if name not in self.types)
        for name in self.types:
            state.keys_by_added_type.get(name, {}).pop(self.key, None)
        if file.stored is not None or file.rid is not None:  # its row may have the types
            file.removed_types += self.types
            state.unlinked_keys[self.key] = None


class TypesLinked(Event):
    """Types that were added to files are in the catalog, and removed ones are not."""

    event: Literal["types_linked"] = "types_linked"
    types: dict[str, tuple[str, ...]]
    removed: dict[str, tuple[str, ...]] = Field(default_factory=dict)

    def apply(self, state: ExecutionState) -> None:
        for key, types in self.types.items():
            if (file := state.files.get(key)) is None:
                continue
            file.removed_types = tuple(name for name in file.removed_types if name not in self.removed.get(key, ()))
            if file.added_types == types and not file.removed_types:  # more may have been added meanwhile
                state.unlinked_keys.pop(key, None)


class TransferNoted(Event):
    """The store's note on an interrupted transfer, used to resume it."""

    event: Literal["note"] = "note"
    key: str
    note: JsonValue

    def apply(self, state: ExecutionState) -> None:
        if (file := state.files.get(self.key)) is None:
            return
        file.transfer_note = self.note
        if file.rid is None:  # a transfer that starts after an earlier one was stored is of rewritten bytes
            file.stored = file.stored_stamp = None


class Stored(Event):
    """The bytes are on the store's disk; the stamp of the file if it stayed in place."""

    event: Literal["stored"] = "stored"
    key: str
    object: StoredObject
    file_time: FileStamp | None = None

    def apply(self, state: ExecutionState) -> None:
        if (file := state.files.get(self.key)) is None:
            return
        file.stored, file.stored_stamp = self.object, self.file_time
        if file.asset.record and file.asset.filename == JOURNAL_FILENAME:
            state.is_journal_copy_outdated = False


class Recorded(Event):
    """Rows and links are in the catalog; the RIDs by key."""

    event: Literal["recorded"] = "recorded"
    rids: dict[str, RID]

    def apply(self, state: ExecutionState) -> None:
        recorded = {key: file for key in self.rids if (file := state.files.get(key)) is not None}
        for key, file in recorded.items():
            file.rid = self.rids[key]
            state.pending_keys.pop(key, None)
        if any(not file.asset.record for file in recorded.values()):
            state.is_journal_copy_outdated = True


class Forgotten(Event):
    """A registered file was unregistered and is not uploaded."""

    event: Literal["forgotten"] = "forgotten"
    key: str

    def apply(self, state: ExecutionState) -> None:
        if (file := state.files.get(self.key)) is None:
            return
        file.is_forgotten = True
        state.pending_keys.pop(self.key, None)
        state.unlinked_keys.pop(self.key, None)
