"""A journal's lines, read."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from deriva_ml_core.journal.story import (
    Created,
    Creating,
    Event,
    Forgotten,
    Input,
    Leased,
    Noted,
    RankFailed,
    Recorded,
    Restored,
    Resumed,
    Sealed,
    Staged,
    Started,
    StatusSet,
    Stopped,
    Stored,
    Typed,
    TypesLinked,
    Untyped,
)

__all__ = ["parse_line"]

_AnyEvent = Annotated[
    Creating
    | Created
    | Restored
    | Input
    | Leased
    | Started
    | Resumed
    | RankFailed
    | Stopped
    | StatusSet
    | Staged
    | Sealed
    | Typed
    | TypesLinked
    | Untyped
    | Noted
    | Stored
    | Recorded
    | Forgotten,
    Field(discriminator="event"),
]


@cache
def _reader() -> TypeAdapter[Any]:
    return TypeAdapter(_AnyEvent)


def parse_line(line: bytes) -> Event | None:
    """The event of a line; None for an empty or torn one, and for a kind that a newer version added."""
    try:
        event: Event = _reader().validate_json(line)
    except ValidationError:
        return None
    return event
