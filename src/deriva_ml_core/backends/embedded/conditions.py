"""Conditions on rows, turned into SQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op

from deriva_ml_core.backend import NOT_NULL, AnyOf, Filter, Where
from deriva_ml_core.backends.embedded.tables import MappedTable
from deriva_ml_core.errors import UnknownColumn
from deriva_ml_core.schema import SYSTEM_COLUMNS

__all__ = ["check_columns", "build_where_clause", "build_in_clause"]


def check_columns(mapped: MappedTable, names: Collection[str]) -> None:
    """Raise `UnknownColumn`, naming the known ones, unless the table has all these columns."""
    known = mapped.table.column_names
    if unknown := [name for name in names if name not in known and name not in SYSTEM_COLUMNS]:
        listed = ", ".join(sorted(known))
        raise UnknownColumn(
            f"The table {mapped.table.name} has no column {', '.join(map(repr, unknown))}; it has {listed}, "
            f"and {', '.join(SYSTEM_COLUMNS)}."
        )


def build_where_clause(mapped: MappedTable, rows: sa.FromClause, where: Where) -> sa.ColumnElement[bool]:
    """The SQL for which rows are meant.

    Args:
        mapped: The table.
        rows: Where its rows are taken from: the present ones, or its history.
        where: The condition.
    """
    if isinstance(where, AnyOf):
        return sa.or_(sa.false(), *(_build_filter_clause(mapped, rows, condition) for condition in where.filters))
    return _build_filter_clause(mapped, rows, where)


def _build_filter_clause(mapped: MappedTable, rows: sa.FromClause, condition: Filter) -> sa.ColumnElement[bool]:
    check_columns(mapped, condition.keys())
    terms = {key.column for key in mapped.table.foreign_keys if key.to != "RID"} if len(condition) > 1 else set()
    columns = {name: _disable_index(rows.c[name]) if name in terms else rows.c[name] for name in condition}
    return sa.and_(
        sa.true(), *(_build_column_clause(mapped, columns[name], name, value) for name, value in condition.items())
    )


def _disable_index(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A column of terms, for whose index SQLite would leave a better one: many rows have the same term."""
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)


def _build_column_clause(
    mapped: MappedTable, column: sa.ColumnElement[Any], name: str, value: object
) -> sa.ColumnElement[bool]:
    if value is None:
        return column.is_(None)
    if value is NOT_NULL:
        return column.is_not(None)
    if isinstance(value, sa.SelectBase):
        return column.in_(value)
    if not isinstance(value, (tuple, list, set, frozenset)):
        return column == value
    values = build_in_clause(column, list(_bind_values(mapped, name, value)))
    return sa.or_(values, column.is_(None)) if None in value else values


def _bind_values(mapped: MappedTable, name: str, values: Collection[Any]) -> Iterator[Any]:
    processor = mapped.bind_processors.get(name)
    for value in values:
        if value is not None:
            yield processor(value) if processor else value


def build_in_clause(column: sa.ColumnElement[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
    """Whether the column has one of many values, all in one parameter, so that SQLite's limit on those is not met."""
    listed = sa.func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(sa.select(listed.c.value))
