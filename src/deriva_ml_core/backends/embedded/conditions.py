"""Conditions on rows, turned into SQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op

from deriva_ml_core.backend import FILLED, Condition, Either, Where
from deriva_ml_core.backends.embedded.tables import MappedTable
from deriva_ml_core.errors import UnknownColumn
from deriva_ml_core.schema import SYSTEM_COLUMNS

__all__ = ["check_columns", "criterion", "one_of"]


def check_columns(mapped: MappedTable, names: Collection[str]) -> None:
    """Raise `UnknownColumn`, naming the known ones, unless the table has all these columns."""
    known = mapped.table.column_names
    if unknown := [name for name in names if name not in known and name not in SYSTEM_COLUMNS]:
        listed = ", ".join(sorted(known))
        raise UnknownColumn(
            f"The table {mapped.table.name} has no column {', '.join(map(repr, unknown))}; it has {listed}, "
            f"and {', '.join(SYSTEM_COLUMNS)}."
        )


def criterion(mapped: MappedTable, rows: sa.FromClause, where: Where) -> sa.ColumnElement[bool]:
    """The SQL for which rows are meant.

    Args:
        mapped: The table.
        rows: Where its rows are taken from: the present ones, or its history.
        where: The condition.
    """
    if isinstance(where, Either):
        return sa.or_(sa.false(), *(_all(mapped, rows, condition) for condition in where.conditions))
    return _all(mapped, rows, where)


def _all(mapped: MappedTable, rows: sa.FromClause, condition: Condition) -> sa.ColumnElement[bool]:
    check_columns(mapped, condition.keys())
    terms = {key.column for key in mapped.table.foreign_keys if key.to != "RID"} if len(condition) > 1 else set()
    columns = {name: _unindexed(rows.c[name]) if name in terms else rows.c[name] for name in condition}
    return sa.and_(sa.true(), *(_one(mapped, columns[name], name, value) for name, value in condition.items()))


def _unindexed(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A column of terms, for whose index SQLite would leave a better one: many rows have the same term."""
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)


def _one(mapped: MappedTable, column: sa.ColumnElement[Any], name: str, value: object) -> sa.ColumnElement[bool]:
    if value is None:
        return column.is_(None)
    if value is FILLED:
        return column.is_not(None)
    if isinstance(value, sa.SelectBase):
        return column.in_(value)
    if not isinstance(value, (tuple, list, set, frozenset)):
        return column == value
    values = one_of(column, list(_bound(mapped, name, value)))
    return sa.or_(values, column.is_(None)) if None in value else values


def _bound(mapped: MappedTable, name: str, values: Collection[Any]) -> Iterator[Any]:
    processor = mapped.processors.get(name)
    for value in values:
        if value is not None:
            yield processor(value) if processor else value


def one_of(column: sa.ColumnElement[Any], values: Collection[Any]) -> sa.ColumnElement[bool]:
    """Whether the column has one of many values, all in one parameter, so that SQLite's limit on those is not met."""
    listed = sa.func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(sa.select(listed.c.value))
