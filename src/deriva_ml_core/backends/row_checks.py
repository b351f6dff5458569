"""Checks of rows, columns and tables that every backend makes before it writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deriva_ml_core.definitions import split_rid
from deriva_ml_core.errors import ConfigurationError, DuplicateRow, InvalidRID, UnknownColumn
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel, Table

__all__ = ["check_columns", "check_row_rid", "check_row_updates", "check_writable", "table_exists"]

InputRow = Mapping[str, Any]


def check_row_rid(rid: object) -> str:
    """Return the RID of a row unchanged, or raise `InvalidRID`. A RID with a snapshot is invalid here."""
    if not isinstance(rid, str) or split_rid(rid)[1] is not None:
        raise InvalidRID(f"{rid!r} cannot be the RID of a row: use letters and digits in groups joined by '-'.")
    return rid


def check_columns(table: Table, names: Iterable[str]) -> None:
    """Raise `UnknownColumn`, naming the existing columns, unless the table has all these columns."""
    existing = table.column_names
    if unknown := [name for name in names if name not in existing and name not in SYSTEM_COLUMNS]:
        raise UnknownColumn(
            f"The table {table.name} has no column {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(sorted(existing))}, and {', '.join(SYSTEM_COLUMNS)}."
        )


def check_writable(table: Table, names: Sequence[str]) -> None:
    """Raise `UnknownColumn` for columns that do not exist or that only the catalog sets. ``RID`` is allowed."""
    check_columns(table, names)
    if fixed := [name for name in names if name in SYSTEM_COLUMNS and name != "RID"]:
        raise UnknownColumn(f"{', '.join(fixed)} of {table.name} cannot be set: the catalog sets it.")


def check_row_updates(table: Table, rows: Sequence[InputRow]) -> list[str]:
    """Check rows that change existing rows.

    Args:
        table: The table.
        rows: At least one row.

    Returns:
        The columns to change, without ``RID``.

    Raises:
        UnknownColumn: A column does not exist, or only the catalog sets it.
        ConfigurationError: The rows have different columns, or no ``RID``.
        InvalidRID: A value of ``RID`` is not a RID.
    """
    columns = [name for name in rows[0] if name != "RID"]
    check_writable(table, columns)
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ConfigurationError(
            f"Rows of one update must have the same columns; these rows of {table.name} do not. Update them separately."
        )
    if "RID" not in rows[0]:
        raise ConfigurationError(
            f"An update of {table.name} needs the RID of each row, and has only {', '.join(rows[0]) or 'no columns'}."
        )
    for row in rows:
        check_row_rid(row["RID"])
    return columns


def table_exists(model: CatalogModel, table: Table, *, ignore_case: bool = False) -> bool:
    """Whether the catalog already has this table, with the same columns and types.

    Args:
        model: The existing tables.
        table: The new table.
        ignore_case: Whether table names that differ only by case are the same name.

    Raises:
        DuplicateRow: A table of that name exists with other columns.
    """
    if ignore_case:
        existing = {name.casefold(): found for name, found in model.tables.items()}.get(table.name.casefold())
    else:
        existing = model.tables.get(table.name)
    if existing is None:
        return False
    if existing.name != table.name or _column_types(existing) != _column_types(table):
        raise DuplicateRow(
            f"The table {table.name!r} cannot be created: the catalog has {existing.name!r} with the columns "
            f"{', '.join(sorted(existing.column_names))}. Use that table, or choose another name."
        )
    return True


def _column_types(table: Table) -> dict[str, str]:
    return {column.name: column.type for column in table.columns}
