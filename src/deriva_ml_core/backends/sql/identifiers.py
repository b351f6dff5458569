"""RIDs and snapshots of a SQL catalog: numbers in Crockford's base 32, in groups of four digits."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from deriva_ml_core._files.permissions import adopt_permissions
from deriva_ml_core.errors import InvalidRID

__all__ = [
    "CLOCK_DDL",
    "FIRST_RID",
    "WATERMARK_FILE_NAME",
    "RidWatermark",
    "advance_clock",
    "allocate_rids",
    "current_tick",
    "decode",
    "encode",
    "encode_range",
    "filter_unallocated_rids",
    "mark_rids_used",
    "read_last_tick",
    "read_next_rid_number",
    "rid_number",
    "snapshot_to_tick",
    "tick_to_iso",
    "tick_to_snapshot",
]


ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's alphabet, without I, L, O and U: https://www.crockford.com/base32.html."""

FIRST_RID = 32**4
"""The first allocated number, ``1-0000``. ``0000`` is reserved for dry runs."""

WATERMARK_FILE_NAME = "catalog.rids"
"""Name of the file with the highest allocated RID, in the catalog's folder."""

_DIGIT_PAIRS = tuple(high + low for high in ALPHABET for low in ALPHABET)
_CROCKFORD_TO_BASE32HEX = str.maketrans(ALPHABET, "0123456789ABCDEFGHIJKLMNOPQRSTUV")
log = logging.getLogger(__name__)

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
            f"{snapshot!r} is not a snapshot of this catalog: use the text after '@' in a RID or a citation."
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
    return int(connection.execute(_READ_TICK).scalar_one())


def advance_clock(connection: sa.Connection) -> str:
    """Advance the clock, even if the machine's clock went back, and return the time of this transaction."""
    tick = max(read_last_tick(connection) + 1, current_tick())
    time = tick_to_iso(tick)
    connection.execute(_SET_CLOCK, {"tick": tick, "time": time})
    return time


def allocate_rids(connection: sa.Connection, count: int) -> list[str]:
    """Allocate new RIDs, in ascending order."""
    rids: list[str] = []
    start = read_next_rid_number(connection)
    while len(rids) < count:
        end = start + count - len(rids)
        used = {encode(number) for number in _read_used_rid_numbers(connection, start, end - 1)}
        rids += (rid for rid in encode_range(start, end) if rid not in used)
        start = end
    _set_next_rid_number(connection, start)
    return rids


def filter_unallocated_rids(connection: sa.Connection, rids: Iterable[str]) -> list[str]:
    """Return those of a caller's RIDs that the counter has not allocated."""
    next_number = read_next_rid_number(connection)
    return [rid for rid in rids if (number := rid_number(rid)) is None or number >= next_number]


def mark_rids_used(connection: sa.Connection, rids: Iterable[str]) -> None:
    """Exclude RIDs from future allocations."""
    numbers = [{"number": number} for rid in rids if (number := rid_number(rid)) is not None and number < 2**63]
    if numbers:
        connection.execute(_MARK_USED, numbers)


def read_next_rid_number(connection: sa.Connection) -> int:
    """Return the first number that the counter has not allocated."""
    return int(connection.execute(_READ_RID).scalar_one())


def _set_next_rid_number(connection: sa.Connection, number: int) -> None:
    connection.execute(_SET_RID, {"rid": number})


def _read_used_rid_numbers(connection: sa.Connection, first: int, last: int) -> set[int]:
    return set(connection.execute(_READ_USED, {"first": first, "last": last}).scalars())


_READ_TICK = sa.text("SELECT tick FROM _clock")
_SET_CLOCK = sa.text("UPDATE _clock SET tick = :tick, time = :time")
_READ_RID = sa.text("SELECT rid FROM _clock")
_SET_RID = sa.text("UPDATE _clock SET rid = :rid")
_MARK_USED = sa.text("INSERT INTO _given VALUES (:number) ON CONFLICT DO NOTHING")
_READ_USED = sa.text("SELECT number FROM _given WHERE number BETWEEN :first AND :last")


class _Watermark(NamedTuple):
    next_number: int
    is_copy: bool
    """Whether the file was copied, or overwritten by a copy."""


MAX_CHANGE_DELAY = 60 * 10**9
"""Nanoseconds after the last write of a watermark from which a change of its inode is a copy over it."""


def _write_watermark(descriptor: int, next_number: int) -> None:
    """Write a number, the file's inode, and the time of this write, which becomes the file's modification time."""
    os.pwrite(descriptor, b"%020d %020d %020d\n" % (next_number, os.fstat(descriptor).st_ino, 0), 0)
    status = os.fstat(descriptor)  # the file system's own clock, also on another machine
    os.pwrite(descriptor, b"%020d" % status.st_mtime_ns, 42)
    try:
        os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        is_marked = os.fstat(descriptor).st_mtime_ns == status.st_mtime_ns
    except OSError:  # another user's file
        is_marked = False
    if not is_marked:
        os.pwrite(descriptor, b"%020d" % 0, 42)


def _is_copy(status: os.stat_result, inode: int, written: int = 0) -> bool:
    """Whether the file is a copy, or was overwritten by one; a copy that preserves times changes the inode later."""
    if inode != status.st_ino:
        return True
    is_changed = status.st_mtime_ns != written or status.st_ctime_ns - written > MAX_CHANGE_DELAY
    return bool(written) and is_changed


class RidWatermark:
    """The highest allocated RID, in a file next to the catalog's.

    After an older catalog file was restored from a backup, its counter is behind. The RIDs of the rows that the restore
    removed may be cited elsewhere, so they must not be allocated again. The counter then continues in another group of
    four digits. It does so too if this file was copied or overwritten: the whole folder may be a restored backup.

    Args:
        folder: The catalog's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / WATERMARK_FILE_NAME
        self._executions = folder / "executions"
        self._has_warned = False

    def advance_counter(self, connection: sa.Connection) -> int:
        """Move the counter behind all RIDs that may have been allocated, if the catalog's file is older than they are.

        Args:
            connection: Connection with an open write transaction.

        Returns:
            The counter as it was before.
        """
        number, highest = read_next_rid_number(connection), 0
        stored = self._read()
        if stored is None:  # a catalog of an earlier version, or a restored one
            highest = self._find_highest_working_folder(connection)
        elif stored.is_copy or stored.next_number > number:
            highest = stored.next_number
        if highest:
            start = (max(number, highest) // FIRST_RID + 2) * FIRST_RID
            log.info("%s was restored or copied: new RIDs start at %s.", self._file.parent, encode(start))
            _set_next_rid_number(connection, start)
        return number

    def record(self, next_number: int) -> None:
        """Store the first number that is not allocated.

        The file need not be flushed to disk. If a crash of the machine loses the last numbers, the next group of four
        digits is far behind them.

        Args:
            next_number: The number, as committed in the catalog.
        """
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if not os.fstat(descriptor).st_size:
                    adopt_permissions(self._file)
                _write_watermark(descriptor, next_number)
            finally:
                os.close(descriptor)
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                log.warning("Failed to write %s; do not restore the catalog from a backup: %s", self._file, error)

    def _read(self) -> _Watermark | None:
        try:
            with self._file.open("rb", buffering=0) as file:
                next_number, *mark = map(int, file.read(64).split())
                return _Watermark(next_number, is_copy=_is_copy(os.fstat(file.fileno()), *mark))
        except (OSError, ValueError):  # missing, not readable for this user, or damaged
            return None

    def _find_highest_working_folder(self, connection: sa.Connection) -> int:
        """Return the number after the highest working folder of an execution that the catalog lacks; 0 if none is."""
        number = read_next_rid_number(connection)
        try:
            names = os.listdir(self._executions)  # noqa: PTH208 - names, not paths
        except OSError:
            return 0
        numbers = [each for name in names if (each := rid_number(name)) is not None and number <= each < 2**62]
        used = _read_used_rid_numbers(connection, min(numbers), max(numbers)) if numbers else set()
        return max((each + 1 for each in numbers if each not in used), default=0)
