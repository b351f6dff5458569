"""Record ids and snapshots of the embedded catalog: numbers in Crockford's base 32, in groups of four."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from deriva_ml_core.definitions import split_rid
from deriva_ml_core.errors import InvalidRID

__all__ = [
    "CLOCK_DDL",
    "FIRST_RID",
    "advance_clock",
    "allocate_rids",
    "check_row_rid",
    "current_tick",
    "decode",
    "encode",
    "encode_range",
    "filter_unallocated_rids",
    "mark_rids_used",
    "read_last_tick",
    "rid_number",
    "snapshot_to_tick",
    "tick_to_iso",
    "tick_to_snapshot",
]


ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's: no I, L, O and U; https://www.crockford.com/base32.html."""

FIRST_RID = 32**4
"""The first number handed out, ``1-0000``; ``0000`` stays free for a dry run."""

_DIGIT_PAIRS = tuple(high + low for high in ALPHABET for low in ALPHABET)
_CROCKFORD_TO_BASE32HEX = str.maketrans(ALPHABET, "0123456789ABCDEFGHIJKLMNOPQRSTUV")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode(number: int) -> str:
    """Write a number, not below zero, in groups of four digits from the right: ``1-4A2C``."""
    group = _DIGIT_PAIRS[(number >> 10) & 1023] + _DIGIT_PAIRS[number & 1023]
    high = number >> 20
    return f"{encode(high)}-{group}" if high else group.lstrip("0") or "0"


def encode_range(first: int, end: int) -> list[str]:
    """What `encode` gives for each number from `first` up to, not including, `end`; neither below `FIRST_RID`."""
    written: list[str] = []
    while first < end:
        beginning = encode(first)[:-2]
        next_block = min(end, (first | 1023) + 1)
        written += [beginning + last for last in _DIGIT_PAIRS[first & 1023 : (first & 1023) + next_block - first]]
        first = next_block
    return written


def decode(text: str) -> int:
    """Read what `encode` wrote.

    Raises:
        InvalidRID: The text is not what `encode` would write for any number.
    """
    try:
        number = int(text.replace("-", "").translate(_CROCKFORD_TO_BASE32HEX), 32) if text.isascii() else -1
    except ValueError:
        number = -1
    if number < 0 or encode(number) != text:
        raise InvalidRID(f"{text!r} is not written in Crockford's base 32 in groups of four, such as '1-4A2C'.")
    return number


def rid_number(rid: str) -> int | None:
    """The number that the catalog's own counter would write this way; None where it never would."""
    try:
        return decode(rid)
    except InvalidRID:
        return None


def check_row_rid(rid: object) -> str:
    """Return a record id that a caller gave a new row, or raise `InvalidRID`."""
    if not isinstance(rid, str) or split_rid(rid)[1] is not None:
        raise InvalidRID(f"{rid!r} cannot be the RID of a row: give letters and digits in groups joined by '-'.")
    return rid


def current_tick() -> int:
    """Microseconds since 1970, by this machine's clock."""
    return (datetime.now(UTC) - _EPOCH) // _MICROSECOND


def tick_to_iso(tick: int) -> str:
    """A tick, microseconds since 1970, as ISO 8601 in UTC, so that texts and ticks have one order."""
    return (_EPOCH + timedelta(microseconds=tick)).isoformat(timespec="microseconds")


def tick_to_snapshot(tick: int) -> str:
    """The name of the state that a tick left behind."""
    return encode(tick)


def snapshot_to_tick(snapshot: str) -> int:
    """The tick of a snapshot.

    Raises:
        InvalidRID: The text is not a snapshot of an embedded catalog.
    """
    try:
        tick = decode(snapshot)
        tick_to_iso(tick)
    except (InvalidRID, OverflowError):
        raise InvalidRID(
            f"{snapshot!r} is not a snapshot of an embedded catalog: give what follows '@' in a RID or a citation."
        ) from None
    return tick


CLOCK_DDL = (
    "CREATE TABLE _clock (id INTEGER PRIMARY KEY CHECK (id = 1), tick INTEGER NOT NULL, time TEXT NOT NULL, "
    "rid INTEGER NOT NULL)",
    f"INSERT INTO _clock VALUES (1, 0, '{tick_to_iso(0)}', {FIRST_RID})",  # noqa: S608
    "CREATE TABLE _given (number INTEGER PRIMARY KEY)",
)
"""The statements that make the clock, and the numbers that the counter must leave out since a caller gave them."""


def read_last_tick(connection: sa.Connection) -> int:
    """The tick of the last write."""
    return int(connection.exec_driver_sql("SELECT tick FROM _clock").scalar_one())


def advance_clock(connection: sa.Connection) -> str:
    """Move the clock on, also where this machine's own went back, and return the time of this transaction."""
    following = max(read_last_tick(connection) + 1, current_tick())
    time = tick_to_iso(following)
    connection.exec_driver_sql("UPDATE _clock SET tick = ?, time = ?", (following, time))
    return time


def allocate_rids(connection: sa.Connection, count: int) -> list[str]:
    """New record ids, in ascending order."""
    rids: list[str] = []
    following = _read_next_rid_number(connection)
    while len(rids) < count:
        end = following + count - len(rids)
        given = {encode(number) for number in _read_used_rid_numbers(connection, following, end - 1)}
        rids += (rid for rid in encode_range(following, end) if rid not in given)
        following = end
    connection.exec_driver_sql("UPDATE _clock SET rid = ?", (following,))
    return rids


def filter_unallocated_rids(connection: sa.Connection, rids: Iterable[str]) -> list[str]:
    """Those of a caller's record ids that the counter has not given to anybody."""
    following = _read_next_rid_number(connection)
    return [rid for rid in rids if (number := rid_number(rid)) is None or number >= following]


def mark_rids_used(connection: sa.Connection, rids: Iterable[str]) -> None:
    """Have the counter leave these record ids out, for ever."""
    numbers = [(number,) for rid in rids if (number := rid_number(rid)) is not None and number < 2**63]
    if numbers:
        connection.exec_driver_sql("INSERT INTO _given VALUES (?) ON CONFLICT DO NOTHING", numbers)


def _read_next_rid_number(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT rid FROM _clock").scalar_one())


def _read_used_rid_numbers(connection: sa.Connection, first: int, last: int) -> set[int]:
    found = connection.exec_driver_sql("SELECT number FROM _given WHERE number BETWEEN ? AND ?", (first, last))
    return set(found.scalars())
