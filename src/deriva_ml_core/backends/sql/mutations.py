"""Insert and update rows within an open transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from getpass import getuser
from itertools import repeat
from os import getuid
from typing import Any

import sqlalchemy as sa

from deriva_ml_core.backends.row_checks import check_columns, check_row_rid, check_row_updates, check_writable
from deriva_ml_core.backends.sql import identifiers
from deriva_ml_core.backends.sql.ddl import MappedTable
from deriva_ml_core.backends.sql.queries import locate
from deriva_ml_core.errors import DuplicateRow

__all__ = ["current_user", "insert", "restore", "update"]

InputRow = Mapping[str, Any]


def current_user() -> str:
    """Return the name of the operating system's user, or ``uid-<number>`` if it has no name."""
    try:
        return getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{getuid()}"


def insert(
    connection: sa.Connection,
    mapped: MappedTable,
    tables: Mapping[str, MappedTable],
    rows: Sequence[InputRow],
    *,
    skip_existing: bool,
) -> int:
    """Insert rows into one table.

    Args:
        connection: Connection with an open write transaction.
        mapped: The table.
        tables: All tables, because a RID is unique in the whole catalog.
        rows: Rows to insert. Rows without a ``RID`` get a new one.
        skip_existing: Whether to skip rows whose key exists.

    Returns:
        Number of inserted rows.
    """
    existing_rids = [check_row_rid(row["RID"]) for row in rows if "RID" in row]
    time = identifiers.advance_clock(connection)
    _claim_rids(connection, mapped, tables, existing_rids)
    new_rids = identifiers.allocate_rids(connection, len(rows) - len(existing_rids))
    return sum(
        _insert_group(connection, mapped, time, rids, group, skip_existing=skip_existing)
        for rids, group in _group_by_columns(rows, _assign_rids(rows, new_rids) if existing_rids else new_rids)
    )


def restore(connection: sa.Connection, mapped: MappedTable, rows: Sequence[InputRow]) -> int:
    """Insert rows that were deleted, with the RIDs, creation times and creators that they had.

    A row whose key exists is left out. The snapshots between deletion and restoration stay without the rows.

    Args:
        connection: Connection with an open write transaction.
        mapped: The table.
        rows: Complete rows of the table, as `queries.select` returned them.

    Returns:
        Number of inserted rows.
    """
    if not rows:
        return 0
    check_columns(mapped.table, rows[0])
    time = identifiers.advance_clock(connection)
    kept = [name for name in rows[0] if name not in ("RMT", "RMB")]
    values: dict[str, Iterable[Any]] = {
        "RMT": repeat(time),
        "RMB": repeat(current_user()),
        **{name: _bind_values(mapped, name, [row[name] for row in rows]) for name in kept},
    }
    order = mapped.sort_columns(values.keys())
    statement = mapped.compile_insert(order) + " ON CONFLICT DO NOTHING"
    return _executemany(connection, statement, zip(*(values[name] for name in order), strict=False))


def _assign_rids(rows: Sequence[InputRow], new_rids: list[str]) -> list[str]:
    new = iter(new_rids)
    return [row["RID"] if "RID" in row else next(new) for row in rows]


def _group_by_columns(rows: Sequence[InputRow], rids: list[str]) -> Iterable[tuple[list[str], list[InputRow]]]:
    """Group rows that have the same columns, each group with its RIDs."""
    groups: dict[tuple[str, ...], tuple[list[str], list[InputRow]]] = defaultdict(lambda: ([], []))
    for rid, row in zip(rids, rows, strict=True):
        group = groups[tuple(row)]
        group[0].append(rid)
        group[1].append(row)
    return groups.values()


def _insert_group(
    connection: sa.Connection,
    mapped: MappedTable,
    time: str,
    rids: list[str],
    rows: list[InputRow],
    *,
    skip_existing: bool,
) -> int:
    columns = [name for name in rows[0] if name != "RID"]
    check_writable(mapped.table, columns)
    values: dict[str, Iterable[Any]] = {
        "RID": rids,
        **{name: repeat(value) for name, value in _system_values(time).items()},
        **{name: _default_values(default, rids) for name, default in mapped.defaults.items()},
        **{name: _bind_values(mapped, name, [row[name] for row in rows]) for name in columns},
    }
    order = mapped.sort_columns(values.keys())
    statement = mapped.compile_insert(order) + (" ON CONFLICT DO NOTHING" if skip_existing else "")
    return _executemany(connection, statement, zip(*(values[name] for name in order), strict=False))


def _system_values(time: str) -> dict[str, str]:
    user = current_user()
    return {"RCT": time, "RMT": time, "RCB": user, "RMB": user}


def _default_values(default: str, rids: list[str]) -> Iterable[str]:
    return (default.replace("{RID}", rid) for rid in rids) if "{RID}" in default else repeat(default)


def _bind_values(mapped: MappedTable, name: str, values: Iterable[Any]) -> Iterable[Any]:
    processor = mapped.bind_processors.get(name)
    return map(processor, values) if processor else values


def _executemany(connection: sa.Connection, statement: str, parameters: Iterable[tuple[Any, ...]]) -> int:
    # the driver's executemany is faster: SQLAlchemy's would process each value again
    return int(connection.exec_driver_sql(statement, list(parameters)).rowcount)


def _claim_rids(
    connection: sa.Connection, mapped: MappedTable, tables: Mapping[str, MappedTable], rids: Sequence[str]
) -> None:
    """Mark RIDs that the counter did not allocate as used. Raise if a row of another table has one."""
    unallocated = identifiers.filter_unallocated_rids(connection, rids)
    if not unallocated:
        return
    for rid, table in locate(connection, tables.values(), unallocated).items():
        if table != mapped.table.name:
            raise DuplicateRow(f"The RID {rid} belongs to a row of {table}. Use another RID, or omit it.")
    identifiers.mark_rids_used(connection, unallocated)


def update(connection: sa.Connection, mapped: MappedTable, rows: Sequence[InputRow]) -> int:
    """Update rows by RID and return how many exist. All rows have the same columns; of a RID the last row counts."""
    columns = check_row_updates(mapped.table, rows)
    rows = list({row["RID"]: row for row in rows}.values())
    time = identifiers.advance_clock(connection)
    values: dict[str, Iterable[Any]] = {
        "RMT": repeat(time),
        "RMB": repeat(current_user()),
        **{name: _bind_values(mapped, name, [row[name] for row in rows]) for name in columns},
    }
    order = mapped.sort_columns(values.keys())
    parameters = zip(*(values[name] for name in order), (row["RID"] for row in rows), strict=False)
    return _executemany(connection, mapped.compile_update(order), parameters)
