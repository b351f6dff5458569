"""The catalog's one clock and one counter of record ids, moved on inside each write transaction."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from deriva_ml_core.backends.embedded.identifiers import (
    FIRST_RID,
    current_tick,
    encode,
    encode_range,
    rid_number,
    tick_to_iso,
)

__all__ = ["CLOCK_DDL", "mark_rids_used", "filter_unallocated_rids", "read_last_tick", "allocate_rids", "advance_clock"]

CLOCK_DDL = (
    "CREATE TABLE _clock (id INTEGER PRIMARY KEY CHECK (id = 1), tick INTEGER NOT NULL, time TEXT NOT NULL, "
    "rid INTEGER NOT NULL)",
    f"INSERT INTO _clock VALUES (1, 0, '{tick_to_iso(0)}', {FIRST_RID})",
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
