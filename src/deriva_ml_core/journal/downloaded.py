"""Reads a journal that was downloaded from a catalog: statuses, inputs and times, but no files of its machine.

Anyone with write access to the catalog can have written such a journal. Its events must not cause a file to be read,
moved, uploaded or deleted, nor a process to be signalled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deriva_ml_core.definitions import RID
from deriva_ml_core.journal.events import parse_event
from deriva_ml_core.journal.state import (
    Created,
    CreationStarted,
    Event,
    ExecutionState,
    InputRecorded,
    ProcessAttached,
    RankFailed,
    Restored,
    Resumed,
    Started,
    StatusSet,
    Stopped,
)

__all__ = ["PORTABLE_EVENTS", "DownloadedJournal", "read_downloaded_journal"]

PORTABLE_EVENTS = (Created, Restored, ProcessAttached, Started, Resumed, RankFailed, Stopped, StatusSet)
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
        elif isinstance(event, (InputRecorded, *PORTABLE_EVENTS)):
            portable.append(event)
    if state.creation is None or state.creation.rid != execution:
        return None
    process = state.process or state.process_elsewhere
    source = f"{process.host if process else 'another machine'}:{state.creation.folder or 'its working folder'}"
    unsent = state.unsent_filenames()
    portable.append(Restored(source=source, unsent=unsent, records=tuple(state.own_record_rids())))
    return DownloadedJournal(tuple(portable), unsent, source)
