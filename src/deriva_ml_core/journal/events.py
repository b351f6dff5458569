"""Parses the lines of a journal."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from deriva_ml_core.journal.state import (
    Created,
    CreationStarted,
    Event,
    Forgotten,
    InputRecorded,
    MarkedImmutable,
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

__all__ = ["parse_event"]

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
    | Staged
    | MarkedImmutable
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
