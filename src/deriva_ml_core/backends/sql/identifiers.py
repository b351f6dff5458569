"""RIDs and snapshots of the embedded catalog: numbers in Crockford's base 32, in groups of four digits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from deriva_ml_core.errors import InvalidRID

__all__ = [
    "CLOCK_DDL",
    "FIRST_RID",
    "advance_clock",
    "allocate_rids",
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
"""Crockford's alphabet, without I, L, O and U: https://www.crockford.com/base32.html."""

FIRST_RID = 32**4
"""The first allocated number, ``1-0000``. ``0000`` is reserved for dry runs."""

_DIGIT_PAIRS = tuple(high + low for high in ALPHABET for low in ALPHABET)
_CROCKFORD_TO_BASE32HEX = str.maketrans(ALPHABET, "0123456789ABCDEFGHIJKLMNOPQRSTUV")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode(number: int) -> str:
    """Format a number of at least 0, in groups of four digits from the right: ``1-4A2C``."""
    group = _DIGIT_PAIRS[(number >> 10) & 1023] + _DIGIT_PAIRS[number & 1023]
    high = number >> 20
    return f"{encode(high)}-{group}" if high else group.lstrip("0") or "0"


def encode_range(first: int, end: int) -> list[str]:
    """Return what `encode` returns for each number in ``range(first, end)``, with `first` at least `FIRST_RID`."""
    encoded: list[str] = []
    while first < end:
        prefix = encode(first)[:-2]
        next_block = min(end, (first | 1023) + 1)
        encoded += [prefix + digits for digits in _DIGIT_PAIRS[first & 1023 : (first & 1023) + next_block - first]]
        first = next_block
    return encoded


def decode(text: str) -> int:
    """Parse a text that `encode` wrote.

    Raises:
        InvalidRID: `encode` returns this text for no number.
    """
    try:
        number = int(text.replace("-", "").translate(_CROCKFORD_TO_BASE32HEX), 32) if text.isascii() else -1
    except ValueError:
        number = -1
    if number < 0 or encode(number) != text:
        raise InvalidRID(f"{text!r} is not a number in Crockford's base 32 in groups of four, such as '1-4A2C'.")
    return number


def rid_number(rid: str) -> int | None:
    """Return the number that `encode` writes as this RID, or None if there is none."""
    try:
        return decode(rid)
    except InvalidRID:
        return None


def current_tick() -> int:
    """Return the current time in microseconds since 1970."""
    return (datetime.now(UTC) - _EPOCH) // _MICROSECOND


def tick_to_iso(tick: int) -> str:
    """Format a tick (microseconds since 1970) as ISO 8601 in UTC. The texts sort in the order of the ticks."""
    return (_EPOCH + timedelta(microseconds=tick)).isoformat(timespec="microseconds")


def tick_to_snapshot(tick: int) -> str:
    """Return the snapshot after the write of a tick."""
    return encode(tick)


def snapshot_to_tick(snapshot: str) -> int:
    """Return the tick of a snapshot.

    Raises:
        InvalidRID: The text is not a snapshot of an embedded catalog.
    """
    try:
        tick = decode(snapshot)
        tick_to_iso(tick)
    except (InvalidRID, OverflowError):
        raise InvalidRID(
            f"{snapshot!r} is not a snapshot of an embedded catalog: use the text after '@' in a RID or a citation."
        ) from None
    return tick


CLOCK_DDL = (
    "CREATE TABLE _clock (id INTEGER PRIMARY KEY CHECK (id = 1), tick INTEGER NOT NULL, time TEXT NOT NULL, "
    "rid INTEGER NOT NULL)",
    f"INSERT INTO _clock VALUES (1, 0, '{tick_to_iso(0)}', {FIRST_RID})",  # noqa: S608
    "CREATE TABLE _given (number INTEGER PRIMARY KEY)",
)
"""Statements that create the clock, and the table of numbers that callers used and the counter must skip."""


def read_last_tick(connection: sa.Connection) -> int:
    """Return the tick of the last write."""
    return int(connection.exec_driver_sql("SELECT tick FROM _clock").scalar_one())


def advance_clock(connection: sa.Connection) -> str:
    """Advance the clock, even if the machine's clock went back, and return the time of this transaction."""
    tick = max(read_last_tick(connection) + 1, current_tick())
    time = tick_to_iso(tick)
    connection.exec_driver_sql("UPDATE _clock SET tick = ?, time = ?", (tick, time))
    return time


def allocate_rids(connection: sa.Connection, count: int) -> list[str]:
    """Allocate new RIDs, in ascending order."""
    rids: list[str] = []
    start = _read_next_rid_number(connection)
    while len(rids) < count:
        end = start + count - len(rids)
        used = {encode(number) for number in _read_used_rid_numbers(connection, start, end - 1)}
        rids += (rid for rid in encode_range(start, end) if rid not in used)
        start = end
    connection.exec_driver_sql("UPDATE _clock SET rid = ?", (start,))
    return rids


def filter_unallocated_rids(connection: sa.Connection, rids: Iterable[str]) -> list[str]:
    """Return those of a caller's RIDs that the counter has not allocated."""
    next_number = _read_next_rid_number(connection)
    return [rid for rid in rids if (number := rid_number(rid)) is None or number >= next_number]


def mark_rids_used(connection: sa.Connection, rids: Iterable[str]) -> None:
    """Exclude RIDs from future allocations."""
    numbers = [(number,) for rid in rids if (number := rid_number(rid)) is not None and number < 2**63]
    if numbers:
        connection.exec_driver_sql("INSERT INTO _given VALUES (?) ON CONFLICT DO NOTHING", numbers)


def _read_next_rid_number(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT rid FROM _clock").scalar_one())


def _read_used_rid_numbers(connection: sa.Connection, first: int, last: int) -> set[int]:
    numbers = connection.exec_driver_sql("SELECT number FROM _given WHERE number BETWEEN ? AND ?", (first, last))
    return set(numbers.scalars())
