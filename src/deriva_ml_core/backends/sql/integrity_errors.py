"""Explain why a database refused rows: the row, column and value, and the remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from deriva_ml_core.backend import Where
from deriva_ml_core.backends.sql.ddl import MappedTable
from deriva_ml_core.backends.sql.queries import build_where_clause, locate
from deriva_ml_core.errors import ConfigurationError, DerivaMLException, DuplicateRow, RowInUse, UnknownRID
from deriva_ml_core.schema import ForeignKey

__all__ = ["explain_integrity_error", "explain_row_in_use"]

InputRow = Mapping[str, Any]
MappedTables = Mapping[str, MappedTable]


def explain_integrity_error(
    connection: sa.Connection,
    error: sa.exc.DBAPIError,
    mapped: MappedTable,
    tables: MappedTables,
    rows: Sequence[InputRow],
) -> DerivaMLException:
    """Return an error that explains why rows could not be written. The failed transaction has ended."""
    fault = mapped.dialect.describe_fault(error, mapped.table)
    match fault.kind:
        case "duplicate":
            return _duplicate_row_error(connection, mapped, fault.columns, rows)
        case "unknown reference":
            return _find_unknown_reference(connection, mapped, tables, rows) or RowInUse(
                f"The key of a row of {mapped.table.name} cannot change because other rows refer to it. Change them "
                "first."
            )
        case "missing value":
            return ConfigurationError(
                f"A row of {mapped.table.name} has no value for {', '.join(fault.columns)}, which is required. Add a "
                "value."
            )
        case "wrong type":
            return _type_mismatch_error(mapped, fault.columns, rows)


def _duplicate_row_error(
    connection: sa.Connection, mapped: MappedTable, key: Sequence[str], rows: Sequence[InputRow]
) -> DuplicateRow:
    name = mapped.table.name
    new = [tuple(row.get(column) for column in key) for row in rows]
    columns = mapped.rows.c
    query = sa.select(columns.RID, *(columns[column] for column in key))
    if key:
        query = query.where(mapped.dialect.in_values(columns[key[0]], list({values[0] for values in new})))
    existing = {tuple(row[1:]): row[0] for row in connection.execute(query.limit(None if key else 0))}
    for values in new:
        if values in existing:
            return DuplicateRow(
                f"{name} already has a row with {_format_key_values(key, values)}: {existing[values]}. "
                "Use that row, or another value."
            )
    return DuplicateRow(
        f"Two new rows of {name} have the same {' and '.join(key) or 'key'}. Use a different value for each."
    )


def _format_key_values(columns: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{column} = {value!r}" for column, value in zip(columns, values, strict=True))


def _find_unknown_reference(
    connection: sa.Connection, mapped: MappedTable, tables: MappedTables, rows: Sequence[InputRow]
) -> UnknownRID | None:
    for key in mapped.table.foreign_keys:
        values = dict.fromkeys(row[key.column] for row in rows if row.get(key.column) is not None)
        target = tables[key.table].rows.c[key.to]
        existing = set(
            connection.execute(sa.select(target).where(mapped.dialect.in_values(target, list(values)))).scalars()
        )
        for value in values:
            if value not in existing:
                return UnknownRID(_format_unknown_reference(connection, mapped, tables, key, value))
    return None


def _format_unknown_reference(
    connection: sa.Connection, mapped: MappedTable, tables: MappedTables, key: ForeignKey, value: object
) -> str:
    message = f"{mapped.table.name}.{key.column} = {value!r} is not the {key.to} of a row of {key.table}"
    if key.to != "RID":
        return f"{message}. Add that row first, or use an existing {key.to}."
    located = locate(connection, tables.values(), [str(value)])
    actual = f", but of a row of {located[str(value)]}" if str(value) in located else ""
    return f"{message}{actual}. Use the RID of a row of {key.table}."


def _type_mismatch_error(mapped: MappedTable, columns: Sequence[str], rows: Sequence[InputRow]) -> ConfigurationError:
    types = {column.name: column.type for column in mapped.table.columns}
    name = next(iter(columns), None) or _find_misfit(types, rows)
    values = list(dict.fromkeys(repr(row[name]) for row in rows if row.get(name) is not None))[:5]
    return ConfigurationError(
        f"{mapped.table.name}.{name} has the type {types.get(name, 'unknown')}. These values do not fit: "
        f"{', '.join(values)}. Convert them."
    )


def _find_misfit(types: Mapping[str, str], rows: Sequence[InputRow]) -> str:
    """Return the first column with a value that does not fit its type; the database does not report it."""
    for row in rows:
        for name, value in row.items():
            if value is not None and name in types and not _fits(types[name], value):
                return name
    return next((name for name in types if any(name in row for row in rows)), "")


def _fits(type_: str, value: object) -> bool:
    match type_:
        case "int2" | "int4" | "int8":
            return (isinstance(value, int) and -(2**63) <= value < 2**63) or (
                isinstance(value, float) and value.is_integer()
            )
        case "float4" | "float8":
            return isinstance(value, int | float)
        case "boolean":
            return value in (0, 1)
        case "date" | "timestamptz":
            return isinstance(value, date) or (isinstance(value, str) and _is_iso_time(value))
        case "text[]":
            return isinstance(value, list) and all(isinstance(item, str) and "\0" not in item for item in value)
        case "json" | "jsonb":
            return "\\u0000" not in json.dumps(value, default=str)
        case _:
            return isinstance(value, str) and "\0" not in value


def _is_iso_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def explain_row_in_use(connection: sa.Connection, mapped: MappedTable, tables: MappedTables, where: Where) -> RowInUse:
    """Return an error that names the row that prevents a deletion."""
    for name, other in tables.items():
        for key in other.table.foreign_keys:
            if key.table != mapped.table.name or key.cascade:
                continue
            targets = sa.select(mapped.rows.c[key.to]).where(build_where_clause(mapped, mapped.rows, where))
            reference = connection.execute(
                sa.select(other.rows.c.RID, other.rows.c[key.column])
                .where(other.rows.c[key.column].in_(targets))
                .limit(1)
            ).first()
            if reference is not None:
                return RowInUse(
                    f"{mapped.table.name} {reference[1]!r} cannot be deleted because {name} {reference[0]} refers to "
                    f"it by {key.column}. Change or delete that row first."
                )
    return RowInUse(
        f"Rows of {mapped.table.name} cannot be deleted because other rows refer to rows that would be deleted too."
    )
