"""Read rows and the model from a SQL catalog, now or at a snapshot."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from deriva_ml_core.backend import NOT_NULL, AllOf, AnyOf, Comparison, Filter, InSubquery, Row, Where
from deriva_ml_core.backends.row_checks import check_columns
from deriva_ml_core.backends.sql.database import SqlDatabase
from deriva_ml_core.backends.sql.ddl import MappedTable, model_from_json
from deriva_ml_core.backends.sql.dialect import VALID_UNTIL, SqlDialect
from deriva_ml_core.backends.sql.identifiers import RidWatermark
from deriva_ml_core.schema import CatalogModel

__all__ = [
    "CatalogDatabase",
    "UnionBranch",
    "build_after_clause",
    "build_where_clause",
    "current_branches",
    "iter_pages",
    "locate",
    "map_tables",
    "read_model",
    "resolve_subqueries",
    "select",
    "snapshot_branches",
]


UnionBranch = tuple[sa.Table, sa.ColumnElement[bool]]
"""A SQL table, and the condition for its rows."""


class CatalogDatabase:
    """A catalog's database and its cached model.

    Args:
        database: The database.
        watermark: The highest allocated RID of a catalog in a file, which may be restored from a backup.
    """

    def __init__(self, database: SqlDatabase, watermark: RidWatermark | None = None) -> None:
        self.database = database
        self.watermark = watermark
        self._model_json = ""
        self._mapped_tables: dict[str, MappedTable] = {}
        self.index_names: frozenset[str] = frozenset()
        """Names of the indexes that queries choose from; a catalog of an earlier version may lack some."""
        self.refresh()
        self.read_index_names()

    def set_model(self, model: CatalogModel) -> None:
        """Replace the cached model."""
        self.model = model
        self._mapped_tables = map_tables(model, self.database.dialect)

    def read_index_names(self) -> None:
        """Read which indexes exist, after some were added."""
        with self.database.read_transaction() as connection:
            self.index_names = self.database.dialect.list_index_names(connection)

    def refresh(self) -> CatalogModel:
        """Read the model again. Compiled statements are reused if the model has not changed."""
        with self.database.read_transaction() as connection:
            description = _read_model_json(connection)
        if description != self._model_json or not self._mapped_tables:
            try:
                self.set_model(model_from_json(description))
            except ValueError as error:
                raise self.database.corruption(str(error)) from error
            self._model_json = description
        return self.model

    def mapped_table(self, name: str) -> MappedTable:
        """Return a table. The model is read again on a miss, since another process may have created the table."""
        if name not in self._mapped_tables:
            self.refresh().table(name)
        return self._mapped_tables[name]

    def mapped_tables(self) -> Mapping[str, MappedTable]:
        """Return all tables of the cached model."""
        return MappingProxyType(self._mapped_tables)


def map_tables(model: CatalogModel, dialect: SqlDialect) -> dict[str, MappedTable]:
    """Return all tables of a model by name."""
    return {name: MappedTable(table, dialect) for name, table in model.tables.items()}


def read_model(connection: sa.Connection) -> CatalogModel:
    """Read the model from the catalog."""
    return model_from_json(_read_model_json(connection))


def _read_model_json(connection: sa.Connection) -> str:
    description: str = connection.exec_driver_sql("SELECT tables FROM _model").scalar_one()
    return description


def current_branches(mapped: MappedTable) -> tuple[UnionBranch, ...]:
    """Return the branch of the current rows."""
    return ((mapped.rows, sa.true()),)


def snapshot_branches(mapped: MappedTable, time: str) -> tuple[UnionBranch, ...]:
    """Return the branches of the rows at a time: rows unchanged since, and rows changed or deleted later."""
    rows, history = mapped.rows.c, mapped.history.c
    return (
        (mapped.rows, rows["RMT"] <= time),
        (mapped.history, sa.and_(history["RMT"] <= time, history[VALID_UNTIL] > time)),
    )


class _Resolved(tuple[Any, ...]):
    """Conditions of one column, all of which must match: SQL subqueries and comparisons."""


def resolve_subqueries(
    where: Where, find_table: Callable[[str], MappedTable], branches: Callable[[MappedTable], Sequence[UnionBranch]]
) -> Where:
    """Replace each `InSubquery` of a condition by a SQL subquery.

    Args:
        where: The condition.
        find_table: Function that returns a table by name.
        branches: Function that returns the branches of a table, now or at a snapshot.
    """
    if isinstance(where, AnyOf):
        return AnyOf(tuple(_resolve_filter(each, find_table, branches) for each in where.filters))
    return _resolve_filter(where, find_table, branches)


def _resolve_filter(
    where: Filter, find_table: Callable[[str], MappedTable], branches: Callable[[MappedTable], Sequence[UnionBranch]]
) -> Filter:
    resolved: dict[str, Any] = {}
    for name, value in where.items():
        conditions = value.conditions if isinstance(value, AllOf) else (value,)
        is_resolved = any(isinstance(each, InSubquery) for each in conditions)
        resolved[name] = (
            _Resolved(
                _build_subquery(each, find_table, branches) if isinstance(each, InSubquery) else each
                for each in conditions
            )
            if is_resolved
            else value
        )
    return resolved


def _build_subquery(
    linked: InSubquery,
    find_table: Callable[[str], MappedTable],
    branches: Callable[[MappedTable], Sequence[UnionBranch]],
) -> sa.SelectBase:
    mapped = find_table(linked.table)
    where = resolve_subqueries(linked.where, find_table, branches)
    parts = [
        sa.select(rows.c[linked.column]).where(condition, build_where_clause(mapped, rows, where))
        for rows, condition in branches(mapped)
    ]
    return parts[0] if len(parts) == 1 else sa.union_all(*parts)


def select(
    connection: sa.Connection,
    mapped: MappedTable,
    branches: Sequence[UnionBranch],
    where: Where,
    *,
    order: Sequence[str],
    descending: bool = False,
    limit: int | None = None,
    after: Sequence[Any] = (),
) -> list[Row]:
    """Return the matching rows in order; see `Catalog.select`."""
    check_columns(mapped.table, order)
    names = [column.key for column in mapped.rows.c]
    parts = [
        sa.select(*(rows.c[name] for name in names))
        .where(condition, build_where_clause(mapped, rows, where))
        .where(build_after_clause(rows, order, after, descending=descending))
        for rows, condition in branches
    ]
    query: sa.Select[Any] | sa.CompoundSelect[Any] = parts[0] if len(parts) == 1 else sa.union_all(*parts)
    keys = [query.selected_columns[name] for name in order]
    query = query.order_by(*(key.desc() if descending else key for key in keys)).limit(limit)
    return [dict(zip(names, row, strict=True)) for row in mapped.dialect.fetch_rows(connection, query)]


def build_after_clause(
    rows: sa.FromClause, order: Sequence[str], after: Sequence[Any], *, descending: bool
) -> sa.ColumnElement[bool]:
    """Build the SQL expression that matches the rows after one, by its values of the columns of the order."""
    if not after:
        return sa.true()
    columns, values = sa.tuple_(*(rows.c[name] for name in order)), sa.tuple_(*after)
    return columns < values if descending else columns > values


def iter_pages(
    source: CatalogDatabase, mapped: MappedTable, branches: Sequence[UnionBranch], where: Where, size: int
) -> Iterator[list[Row]]:
    """Yield the matching rows by RID, in pages of at most `size`. Each page is a query of its own."""
    after: tuple[str, ...] = ()
    while True:
        with source.database.read_transaction() as connection:
            page = select(connection, mapped, branches, where, order=("RID",), limit=size, after=after)
        if page:
            yield page
        if len(page) < size:
            return
        after = (page[-1]["RID"],)


def locate(
    connection: sa.Connection, tables: Iterable[MappedTable], rids: Collection[str], time: str | None = None
) -> dict[str, str]:
    """Return the table of each RID that names a row.

    Args:
        connection: Connection to the catalog.
        tables: Tables to search.
        rids: The RIDs.
        time: Time of the snapshot, or None for now.
    """
    searched = list(tables)
    if not rids or not searched:
        return {}
    found = searched[0].dialect.locate(connection, [mapped.stored for mapped in searched], rids, time)
    return {row[0]: row[1] for row in found}


def build_where_clause(
    mapped: MappedTable, rows: sa.FromClause, where: Where, *, avoid_terms: bool = True
) -> sa.ColumnElement[bool]:
    """Build the SQL expression of a condition.

    Args:
        mapped: The table.
        rows: SQL table of the rows: the current ones, or the history.
        where: The condition.
        avoid_terms: Whether to prefer the indexes of other columns to those of columns of terms.
    """
    if isinstance(where, AnyOf):
        clauses = (_build_filter_clause(mapped, rows, each, avoid_terms=avoid_terms) for each in where.filters)
        return sa.or_(sa.false(), *clauses)
    return _build_filter_clause(mapped, rows, where, avoid_terms=avoid_terms)


def _build_filter_clause(
    mapped: MappedTable, rows: sa.FromClause, condition: Filter, *, avoid_terms: bool
) -> sa.ColumnElement[bool]:
    check_columns(mapped.table, condition.keys())
    is_avoided = avoid_terms and len(condition) > 1
    terms = {key.column for key in mapped.table.foreign_keys if key.to != "RID"} if is_avoided else set()
    columns = {name: mapped.dialect.avoid_index(rows.c[name]) if name in terms else rows.c[name] for name in condition}
    return sa.and_(
        sa.true(), *(_build_column_clause(mapped, columns[name], name, value) for name, value in condition.items())
    )


def _build_column_clause(
    mapped: MappedTable, column: sa.ColumnElement[Any], name: str, value: object
) -> sa.ColumnElement[bool]:
    if value is None:
        return column.is_(None)
    if value is NOT_NULL:
        return column.is_not(None)
    if isinstance(value, sa.SelectBase):
        return column.in_(value)
    if isinstance(value, (_Resolved, AllOf)):
        conditions = value.conditions if isinstance(value, AllOf) else value
        return sa.and_(sa.true(), *(_build_column_clause(mapped, column, name, each) for each in conditions))
    if isinstance(value, Comparison):
        return COMPARISONS[value.operator](column, value.value)
    if not isinstance(value, (tuple, list, set, frozenset)):
        return column == value
    values = mapped.dialect.in_values(column, list(_bind_values(mapped, name, value)))
    return sa.or_(values, column.is_(None)) if None in value else values


COMPARISONS: Mapping[str, Callable[[Any, Any], sa.ColumnElement[bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "!=": operator.ne,
}


def _bind_values(mapped: MappedTable, name: str, values: Collection[Any]) -> Iterator[Any]:
    processor = mapped.bind_processors.get(name)
    for value in values:
        if value is not None:
            yield processor(value) if processor else value
