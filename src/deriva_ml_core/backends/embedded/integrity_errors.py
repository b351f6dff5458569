"""Why SQLite refused rows: which row, which column, which value, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from deriva_ml_core.backend import Where
from deriva_ml_core.backends.embedded.database import error_code
from deriva_ml_core.backends.sql.ddl import MappedTable
from deriva_ml_core.backends.sql.queries import build_in_clause, build_where_clause, locate
from deriva_ml_core.errors import ConfigurationError, DerivaMLException, DuplicateRow, RowInUse, UnknownRID
from deriva_ml_core.schema import ForeignKey

__all__ = ["explain_integrity_error", "explain_row_in_use"]

InputRow = Mapping[str, Any]
MappedTables = Mapping[str, MappedTable]


def explain_integrity_error(
    connection: sa.Connection,
    error: sa.exc.IntegrityError,
    mapped: MappedTable,
    tables: MappedTables,
    rows: Sequence[InputRow],
) -> DerivaMLException:
    """Say why rows could not be written; the transaction that tried is over."""
    code, said = error_code(error), str(error.orig).partition(": ")[2]
    if code in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
        return _duplicate_row_error(connection, mapped, said, rows)
    if code == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return _find_unknown_reference(connection, mapped, tables, rows) or RowInUse(
            f"The key of a row of {mapped.table.name} cannot change, since other rows refer to it; change those first."
        )
    if code == "SQLITE_CONSTRAINT_NOTNULL":
        return ConfigurationError(
            f"A row gives no {said.removeprefix(mapped.table.name + '.')} "
            f"for {mapped.table.name}, where it may not be empty; add it."
        )
    return _type_mismatch_error(mapped, said, rows)


def _duplicate_row_error(
    connection: sa.Connection, mapped: MappedTable, detail: str, rows: Sequence[InputRow]
) -> DuplicateRow:
    name = mapped.table.name
    keys = {", ".join(f"{name}.{column}" for column in key): key for key in (("RID",), *mapped.table.keys)}
    key = keys.get(detail, ())
    given = [tuple(row.get(column) for column in key) for row in rows]
    shown = mapped.rows.c
    query = sa.select(shown.RID, *(shown[column] for column in key))
    if key:
        query = query.where(build_in_clause(shown[key[0]], list({values[0] for values in given})))
    existing = {tuple(row[1:]): row[0] for row in connection.execute(query.limit(None if key else 0))}
    for values in given:
        if values in existing:
            return DuplicateRow(
                f"{name} has a row with {_format_key_values(key, values)} already: {existing[values]}. "
                "Use that one, or give another value."
            )
    return DuplicateRow(f"Two rows given for {name} have the same {' and '.join(key) or detail}; give each its own.")


def _format_key_values(columns: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{column} = {value!r}" for column, value in zip(columns, values, strict=True))


def _find_unknown_reference(
    connection: sa.Connection, mapped: MappedTable, tables: MappedTables, rows: Sequence[InputRow]
) -> UnknownRID | None:
    for key in mapped.table.foreign_keys:
        wanted = dict.fromkeys(row[key.column] for row in rows if row.get(key.column) is not None)
        named = tables[key.table].rows.c[key.to]
        known = set(connection.execute(sa.select(named).where(build_in_clause(named, list(wanted)))).scalars())
        for value in wanted:
            if value not in known:
                return UnknownRID(_format_unknown_reference(connection, mapped, tables, key, value))
    return None


def _format_unknown_reference(
    connection: sa.Connection, mapped: MappedTable, tables: MappedTables, key: ForeignKey, value: object
) -> str:
    message = f"{mapped.table.name}.{key.column} = {value!r} names no row of {key.table}"
    if key.to != "RID":
        return f"{message} by its {key.to}; add that first, or give one that is there."
    found = locate(connection, tables.values(), [str(value)])
    where = f", but one of {found[str(value)]}" if str(value) in found else ""
    return f"{message}{where}; give the RID of a row of {key.table}."


def _type_mismatch_error(mapped: MappedTable, column_name: str, rows: Sequence[InputRow]) -> ConfigurationError:
    types = {column.name: column.type for column in mapped.table.columns}
    values = list(dict.fromkeys(repr(row[column_name]) for row in rows if row.get(column_name) is not None))[:5]
    return ConfigurationError(
        f"{mapped.table.name}.{column_name} takes values of type {types.get(column_name, 'another')}; "
        f"what was given ({', '.join(values)}) does not fit."
    )


def explain_row_in_use(connection: sa.Connection, mapped: MappedTable, tables: MappedTables, where: Where) -> RowInUse:
    """Say who refers to rows that therefore could not be deleted."""
    for name, other in tables.items():
        for key in other.table.foreign_keys:
            if key.table != mapped.table.name or key.cascade:
                continue
            meant = sa.select(mapped.rows.c[key.to]).where(build_where_clause(mapped, mapped.rows, where))
            found = connection.execute(
                sa.select(other.rows.c.RID, other.rows.c[key.column])
                .where(other.rows.c[key.column].in_(meant))
                .limit(1)
            ).first()
            if found is not None:
                return RowInUse(
                    f"{mapped.table.name} {found[1]!r} cannot be deleted, since {name} {found[0]} refers to it by "
                    f"{key.column}; change or delete that first."
                )
    return RowInUse(
        f"Rows of {mapped.table.name} cannot be deleted, since other rows refer to what would go with them."
    )
