"""Parses the lines of a journal: those of a local one, and those of one that was downloaded from a catalog.

Anyone with write access to the catalog can have written a downloaded journal. Its events must not cause a file to be
read, moved, uploaded or deleted, nor a process to be signalled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from deriva_ml_core.definitions import RID
from deriva_ml_core.journal.state import (
    BestCorrected,
    Created,
    CreationStarted,
    Event,
    ExecutionState,
    Forgotten,
    InputRecorded,
    KeptInPlace,
    MarkedImmutable,
    ParametersSet,
    ProcessAttached,
    RankFailed,
    Recorded,
    Restored,
    Resumed,
    Staged,
    Started,
    StatusSet,
    Stopped,
    Stored,
    TransferNoted,
    TypesAdded,
    TypesLinked,
    TypesRemoved,
)

__all__ = ["PORTABLE_EVENTS", "DownloadedJournal", "parse_event", "read_downloaded_journal"]

_AnyEvent = Annotated[
    CreationStarted
    | Created
    | Restored
    | InputRecorded
    | ProcessAttached
    | Started
    | Resumed
    | RankFailed
    | Stopped
    | StatusSet
    | ParametersSet
    | BestCorrected
    | Staged
    | MarkedImmutable
    | KeptInPlace
    | TypesAdded
    | TypesLinked
    | TypesRemoved
    | TransferNoted
    | Stored
    | Recorded
    | Forgotten,
    Field(discriminator="event"),
]


@cache
def _event_adapter() -> TypeAdapter[Any]:
    return TypeAdapter(_AnyEvent)


def parse_event(line: bytes) -> Event | None:
    """Return the event of a line; None for an empty or torn line and for an event of a newer version."""
    try:
        event: Event = _event_adapter().validate_json(line)
    except ValidationError:
        return None
    return event


PORTABLE_EVENTS = (Created, Restored, ProcessAttached, Started, Resumed, RankFailed, Stopped, StatusSet, ParametersSet)
"""Events that mean the same in every catalog and on every machine."""


@dataclass(frozen=True)
class DownloadedJournal:
    """What a downloaded journal says.

    Args:
        events: Its statuses, inputs and times; the last event says that they were downloaded.
        unsent: Names of registered files that were not uploaded.
        source: Host and folder of the run, for messages.
    """

    events: tuple[Event, ...]
    unsent: tuple[str, ...]
    source: str

    @property
    def state(self) -> ExecutionState:
        """The state that the events reduce to."""
        state = ExecutionState()
        for event in self.events:
            event.apply(state)
        return state


def read_downloaded_journal(lines: Iterable[bytes], execution: RID) -> DownloadedJournal | None:
    """Read the lines of a downloaded file; None if it is no journal of this execution.

    Args:
        lines: The lines.
        execution: RID of the execution. A file of the same name can be the journal of another one.
    """
    state, portable = ExecutionState(), list[Event]()
    for line in lines:
        if (event := parse_event(line)) is None:
            continue
        try:
            event.apply(state)
        except TypeError:  # times with and without a time zone
            continue
        if isinstance(event, CreationStarted):
            portable.append(event.model_copy(update={"folder": ""}))
        elif isinstance(event, (InputRecorded, BestCorrected, *PORTABLE_EVENTS)):
            portable.append(event)
    if state.creation is None or state.creation.rid != execution:
        return None
    process = state.process or state.process_elsewhere
    source = f"{process.host if process else 'another machine'}:{state.creation.folder or 'its working folder'}"
    unsent = state.unsent_filenames()
    portable.append(Restored(source=source, unsent=unsent, records=tuple(state.own_record_rids())))
    return DownloadedJournal(tuple(portable), unsent, source)
