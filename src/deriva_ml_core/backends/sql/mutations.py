"""How rows are written, within a transaction that is open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from getpass import getuser
from itertools import repeat
from os import getuid
from typing import Any

import sqlalchemy as sa

from deriva_ml_core.backends.sql import identifiers
from deriva_ml_core.backends.sql.ddl import MappedTable
from deriva_ml_core.backends.sql.identifiers import check_row_rid
from deriva_ml_core.backends.sql.queries import check_columns, locate
from deriva_ml_core.errors import ConfigurationError, DuplicateRow, UnknownColumn
from deriva_ml_core.schema import SYSTEM_COLUMNS

__all__ = ["insert", "require_rid", "update", "current_user"]

InputRow = Mapping[str, Any]


def current_user() -> str:
    """Who writes: the name of the operating system's user, or its number where it has no name."""
    try:
        return getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{getuid()}"


def require_rid(row: InputRow) -> str:
    """The record id of a row to change, or an error that says that there is none."""
    if "RID" not in row:
        raise ConfigurationError(f"A row to change gives no RID, only {', '.join(row) or 'nothing'}; add its RID.")
    return check_row_rid(row["RID"])


def insert(
    connection: sa.Connection,
    mapped: MappedTable,
    tables: Mapping[str, MappedTable],
    rows: Sequence[InputRow],
    *,
    skip_existing: bool,
) -> int:
    """Add rows of one table.

    Args:
        connection: With the transaction.
        mapped: The table.
        tables: All tables, since a record id names one row of the whole catalog.
        rows: What to add.
        skip_existing: Whether rows whose key is taken are passed over.

    Returns:
        How many were added.
    """
    given = [check_row_rid(row["RID"]) for row in rows if "RID" in row]
    time = identifiers.advance_clock(connection)
    _claim_rids(connection, mapped, tables, given)
    taken = identifiers.allocate_rids(connection, len(rows) - len(given))
    return sum(
        _insert_group(connection, mapped, time, rids, group, skip_existing=skip_existing)
        for rids, group in _group_by_columns(rows, _assign_rids(rows, taken) if given else taken)
    )


def _assign_rids(rows: Sequence[InputRow], new_rids: list[str]) -> list[str]:
    new = iter(new_rids)
    return [row["RID"] if "RID" in row else next(new) for row in rows]


def _group_by_columns(rows: Sequence[InputRow], rids: list[str]) -> Iterable[tuple[list[str], list[InputRow]]]:
    """The rows with their record ids, those that give the same columns together."""
    groups: dict[tuple[str, ...], tuple[list[str], list[InputRow]]] = defaultdict(lambda: ([], []))
    for rid, row in zip(rids, rows, strict=True):
        alike = groups[tuple(row)]
        alike[0].append(rid)
        alike[1].append(row)
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
    _check_writable(mapped, columns)
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
    who = current_user()
    return {"RCT": time, "RMT": time, "RCB": who, "RMB": who}


def _default_values(default: str, rids: list[str]) -> Iterable[str]:
    return (default.replace("{RID}", rid) for rid in rids) if "{RID}" in default else repeat(default)


def _bind_values(mapped: MappedTable, name: str, values: Iterable[Any]) -> Iterable[Any]:
    processor = mapped.bind_processors.get(name)
    return map(processor, values) if processor else values


def _executemany(connection: sa.Connection, statement: str, parameters: Iterable[tuple[Any, ...]]) -> int:
    # the driver's own executemany: SQLAlchemy's would look at each value again
    return int(connection.exec_driver_sql(statement, list(parameters)).rowcount)


def _check_writable(mapped: MappedTable, columns: Sequence[str]) -> None:
    check_columns(mapped, columns)
    if fixed := [name for name in columns if name in SYSTEM_COLUMNS]:
        raise UnknownColumn(f"{', '.join(fixed)} of {mapped.table.name} cannot be given: the catalog writes it itself.")


def _claim_rids(
    connection: sa.Connection, mapped: MappedTable, tables: Mapping[str, MappedTable], rids: Sequence[str]
) -> None:
    """Take record ids that the counter did not give, unless a row of another table has one."""
    strange = identifiers.filter_unallocated_rids(connection, rids)
    if not strange:
        return
    found = locate(connection, tables.values(), strange)
    for rid, table in found.items():
        if table != mapped.table.name:
            raise DuplicateRow(f"The RID {rid} is taken by a row of {table}; give another, or none.")
    identifiers.mark_rids_used(connection, strange)


def update(connection: sa.Connection, mapped: MappedTable, rows: Sequence[InputRow]) -> int:
    """Change rows, each of which gives its RID and the same columns; returns how many there were."""
    given = tuple(name for name in rows[0] if name != "RID")
    _check_writable(mapped, given)
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ConfigurationError(f"Rows to change in {mapped.table.name} at once give the same columns; these do not.")
    time = identifiers.advance_clock(connection)
    values: dict[str, Iterable[Any]] = {
        "RMT": repeat(time),
        "RMB": repeat(current_user()),
        **{name: _bind_values(mapped, name, [row[name] for row in rows]) for name in given},
    }
    order = mapped.sort_columns(values.keys())
    parameters = zip(*(values[name] for name in order), (require_rid(row) for row in rows), strict=False)
    return _executemany(connection, mapped.compile_update(order), parameters)
