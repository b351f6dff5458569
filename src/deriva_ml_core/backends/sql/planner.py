"""Planner for the first rows that match: it chooses the index to follow, so that a search takes no longer among many.

A row is found in one of three ways. A condition with few matches drives the search: its matches are looked up and
sorted. With more matches, the rows are read along the index of the order, and compared with the set of matches. With
many matches, the rows are read along that index and each condition is looked up for each row: the more rows match, the
sooner the first ones are found. SQLite itself collects all matches and sorts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import sqlalchemy as sa

from deriva_ml_core.backend import NOT_NULL, AllOf, AnyOf, Comparison, Filter, InSubquery, Row
from deriva_ml_core.backends.row_checks import check_columns
from deriva_ml_core.backends.sql.ddl import MappedTable, list_indexes
from deriva_ml_core.backends.sql.queries import build_after_clause, build_where_clause

__all__ = ["FirstRows", "Planner"]

MAX_LOOKED_UP = 1_500
"""Matches of a condition that are looked up one by one and sorted."""

MAX_SET = 4_000
"""Matches of a condition that are collected in a set; more are only counted up to here."""

MAX_MERGED = 32
"""Values of a column whose rows are read along one index, merged by the order."""


@dataclass(frozen=True, slots=True)
class FirstRows:
    """What is to be returned of the matching rows; see `Catalog.select`.

    Args:
        columns: Columns to sort by.
        descending: Whether to sort in descending order.
        limit: Maximum number of rows.
        after: Values of the columns after which to begin.
    """

    columns: tuple[str, ...]
    descending: bool
    limit: int
    after: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Index:
    """An index to follow.

    Args:
        name: Its name; empty for a key, which SQLite chooses itself.
        depth: Number of leading columns that a search fixes.
        prefix: These columns.
        covers: Whether it has all columns that are read.
    """

    name: str
    depth: int
    prefix: tuple[str, ...]
    covers: bool


class Planner:
    """Chooses and runs the query for the first matching rows of a table.

    Args:
        find_table: Function that returns a table by name.
        index_names: Names of the existing indexes.
    """

    def __init__(self, find_table: Callable[[str], MappedTable], index_names: frozenset[str]) -> None:
        self._find_table = find_table
        self._index_names = index_names
        self._aliases = (f"t{number}" for number in count())

    def select(
        self, connection: sa.Connection, mapped: MappedTable, where: Filter, first: FirstRows
    ) -> list[Row] | None:
        """Return the first matching rows; None if no index has their order.

        Args:
            connection: Connection to the catalog.
            mapped: The table.
            where: The condition.
            first: FirstRows and number of the rows.
        """
        check_columns(mapped.table, (*where, *first.columns))
        own, subqueries = _split_filter(where)
        if (sort_index := self._find_sort_index(connection, mapped, own, first)) is None:
            return None
        counts = [(self._count_matches(connection, each), column, each) for column, each in subqueries]
        counts.sort(key=lambda item: item[0])
        fewest = counts[0][0] if counts else MAX_SET + 1
        others = [(column, each) for _, column, each in counts]
        # a second condition is looked up for each match of the first in any case, and may leave none of them
        if fewest <= (MAX_SET if len(counts) > 1 else MAX_LOOKED_UP):
            column, driver = others.pop(0)
            index = self._find_index(mapped, own, column)
            keys = self._select_keys(mapped, own, others, first, index.name if index else "", (column, driver))
        elif fewest <= MAX_SET:
            driven = others.pop(0)
            keys = self._merge_keys(mapped, own, others, first, sort_index, driven)
        else:
            keys = self._merge_keys(mapped, own, others, first, sort_index, None)
        return self._fetch(connection, mapped, keys, first)

    def _fetch(
        self, connection: sa.Connection, mapped: MappedTable, keys: sa.Select[Any], first: FirstRows
    ) -> list[Row] | None:
        columns = list(mapped.rows.c)
        found = keys.subquery()
        sorting = [mapped.dialect.avoid_index(mapped.rows.c[name]) for name in first.columns]
        query = (
            sa.select(*columns)
            .where(mapped.rows.c.RID.in_(sa.select(found.c.RID)))
            .order_by(*(key.desc() if first.descending else key for key in sorting))
        )
        names = [column.key for column in columns]
        try:
            return [dict(zip(names, row, strict=True)) for row in mapped.dialect.fetch_rows(connection, query)]
        except sa.exc.OperationalError as error:
            if "no such index" in str(error):  # another program dropped it
                return None
            raise

    def _merge_keys(
        self,
        mapped: MappedTable,
        own: Filter,
        checks: Sequence[tuple[str, InSubquery]],
        first: FirstRows,
        index: _Index,
        driver: tuple[str, InSubquery] | None,
    ) -> sa.Select[Any]:
        """Return the keys of the first rows along an index: of each value of a listed column, merged by the order."""
        listed = next((name for name in index.prefix if _is_list(own[name])), None)
        alternatives = [own] if listed is None else [{**own, listed: value} for value in dict.fromkeys(own[listed])]
        parts = [self._select_keys(mapped, each, checks, first, index.name, driver) for each in alternatives]
        if len(parts) == 1:
            return parts[0]
        merged = sa.union_all(*(sa.select(*part.subquery().c) for part in parts)).subquery()
        keys = [merged.c[name] for name in first.columns]
        return (
            sa.select(merged.c.RID)
            .order_by(*(key.desc() if first.descending else key for key in keys))
            .limit(first.limit)
        )

    def _select_keys(
        self,
        mapped: MappedTable,
        own: Filter,
        checks: Sequence[tuple[str, InSubquery]],
        first: FirstRows,
        index: str,
        driver: tuple[str, InSubquery] | None,
    ) -> sa.Select[Any]:
        rows = mapped.rows.alias(next(self._aliases))
        query = sa.select(*(rows.c[name] for name in dict.fromkeys(("RID", *first.columns))))
        if index:
            query = query.with_hint(rows, _hint(mapped, index))
        query = query.where(
            build_where_clause(mapped, rows, own, avoid_terms=False),
            build_after_clause(rows, first.columns, first.after, descending=first.descending),
        )
        if driver is not None:
            query = query.where(rows.c[driver[0]].in_(self._select_matches(driver[1])))
        query = query.where(*(self._build_check(rows.c[column], subquery) for column, subquery in checks))
        keys = [rows.c[name] for name in first.columns]
        return query.order_by(*(key.desc() if first.descending else key for key in keys)).limit(first.limit)

    def _build_check(self, column: sa.ColumnElement[Any], subquery: InSubquery) -> sa.ColumnElement[bool]:
        """Return the expression that looks up whether a value matches a subquery."""
        mapped = self._find_table(subquery.table)
        rows = mapped.rows.alias(next(self._aliases))
        query: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(rows).correlate_except(rows)
        query = query.where(rows.c[subquery.column] == column)
        index = None
        alternatives = []
        for each in subquery.where.filters if isinstance(subquery.where, AnyOf) else (subquery.where,):
            own, nested = _split_filter(each)
            checks = [self._build_check(rows.c[name], inner) for name, inner in nested]
            alternatives.append(sa.and_(build_where_clause(mapped, rows, own, avoid_terms=False), *checks))
            index = self._find_index(mapped, own, subquery.column)
        if index is not None and index.name and len(alternatives) == 1:
            query = query.with_hint(rows, _hint(mapped, index.name))
        return query.where(sa.or_(sa.false(), *alternatives)).exists()

    def _select_matches(self, subquery: InSubquery, limit: int | None = None) -> sa.Select[Any]:
        """Return the query for the values that match a subquery with a filter, along an index."""
        mapped = self._find_table(subquery.table)
        assert not isinstance(subquery.where, AnyOf)
        parts = []
        for where in _split_inequality(subquery.where):
            own, nested = _split_filter(where)
            rows = mapped.rows.alias(next(self._aliases))
            query = sa.select(rows.c[subquery.column])
            index = self._find_index(mapped, where, None)
            if index is not None and index.name:
                query = query.with_hint(rows, _hint(mapped, index.name))
            query = query.where(build_where_clause(mapped, rows, own, avoid_terms=False))
            parts.append(query.where(*(rows.c[name].in_(self._select_matches(inner)) for name, inner in nested)))
        if len(parts) == 1:
            return parts[0].limit(limit)
        united = sa.union_all(*parts).subquery()
        return sa.select(united.c[subquery.column]).limit(limit)

    def _count_matches(self, connection: sa.Connection, subquery: InSubquery) -> int:
        """Return how many values match a subquery, up to more than a set may have, or if no index counts."""
        if isinstance(subquery.where, AnyOf):
            return MAX_SET + 1
        mapped = self._find_table(subquery.table)
        if self._find_index(mapped, subquery.where, None) is None:
            return MAX_SET + 1
        _, nested = _split_filter(subquery.where)
        if any(self._count_matches(connection, inner) > MAX_SET for _, inner in nested):
            return MAX_SET + 1
        matches = self._select_matches(subquery, MAX_SET + 1).subquery()
        try:
            return int(connection.execute(sa.select(sa.func.count()).select_from(matches)).scalar_one())
        except sa.exc.OperationalError as error:
            if "no such index" in str(error):
                return MAX_SET + 1
            raise

    def _list_indexes(self, mapped: MappedTable) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the existing indexes with their columns. Each ends with the RID; a key has an empty name."""
        for columns in (("RID",), *mapped.table.keys):
            yield "", columns
        for name, columns in list_indexes(mapped.table).items():
            if name in self._index_names:
                yield name, columns if "RID" in columns else (*columns, "RID")

    def _find_index(self, mapped: MappedTable, where: Filter, column: str | None) -> _Index | None:
        """Return the index that finds the rows of a filter, and of a value of a column, with the fewest steps."""
        fixed = {name for name, value in where.items() if _is_fixed(value) or _has_subquery(value)}
        fixed |= {column} if column else set()
        ranges = {name for name, value in where.items() if _is_range(value)}
        best: _Index | None = None
        for name, columns in self._list_indexes(mapped):
            depth = next((place for place, each in enumerate(columns) if each not in fixed), len(columns))
            if column is not None and column not in columns[:depth]:
                continue
            has_range = depth < len(columns) and columns[depth] in ranges
            prefix = columns[: depth + has_range]
            if not prefix:
                continue
            covers = bool(name or columns != ("RID",)) and {*where, *fixed} <= {*columns}
            if best is None or (len(prefix), covers) > (best.depth, best.covers):
                best = _Index(name, len(prefix), prefix, covers)
        return best

    def _find_sort_index(
        self, connection: sa.Connection, mapped: MappedTable, own: Filter, first: FirstRows
    ) -> _Index | None:
        """Return the index that has the rows in order, of all rows or of those with fixed values of some columns."""
        found: list[_Index] = []
        for name, columns in self._list_indexes(mapped):
            for depth in range(len(columns)):
                prefix = columns[:depth]
                is_sorted = columns[depth : depth + len(first.columns)] == first.columns
                if is_sorted and self._is_mergeable(own, prefix) and (name or columns == ("RID",)):
                    found.append(_Index(name, depth, prefix, {*own} <= {*columns}))
        if not found:
            return None
        deepest = max(index.depth for index in found)
        # of several indexes with the same leading columns, in any order, one that has all columns
        by_prefix = {
            frozenset(index.prefix): index
            for index in sorted(found, key=lambda index: index.covers)
            if index.depth == deepest
        }
        found = list(by_prefix.values())
        if len(found) == 1 or not first.columns:
            return found[0]

        def count_rows(index: _Index) -> int:
            where = {name: own[name] for name in index.prefix}
            return self._count_matches(connection, InSubquery(mapped.table.name, where))

        return min(found, key=count_rows)

    def _is_mergeable(self, own: Filter, prefix: Sequence[str]) -> bool:
        lists = [name for name in prefix if name in own and _is_list(own[name])]
        return (
            all(name in own and _is_fixed(own[name]) for name in prefix)
            and len(lists) <= 1
            and all(len(own[name]) <= MAX_MERGED for name in lists)
        )


def _hint(mapped: MappedTable, index: str) -> str:
    return f"INDEXED BY {mapped.dialect.quote(index)}"


def _split_filter(where: Filter) -> tuple[dict[str, Any], list[tuple[str, InSubquery]]]:
    """Return the conditions of a filter without subqueries, and the subqueries with their columns."""
    own: dict[str, Any] = {}
    subqueries: list[tuple[str, InSubquery]] = []
    for name, value in where.items():
        conditions = value.conditions if isinstance(value, AllOf) else (value,)
        subqueries += [(name, each) for each in conditions if isinstance(each, InSubquery)]
        kept = tuple(each for each in conditions if not isinstance(each, InSubquery))
        if isinstance(value, AllOf) and kept:
            own[name] = kept[0] if len(kept) == 1 else AllOf(kept)
        elif kept:
            own[name] = next(iter(value)) if _is_list(value) and len(value) == 1 else value
    return own, subqueries


def _split_inequality(where: Filter) -> Iterator[Filter]:
    """Yield filters that together match a filter: for a value that differs, those below it and those above it."""
    for name, value in where.items():
        if isinstance(value, Comparison) and value.operator == "!=":
            yield {**where, name: Comparison("<", value.value)}
            yield {**where, name: Comparison(">", value.value)}
            return
    yield where


def _is_list(value: object) -> bool:
    return isinstance(value, (tuple, list, set, frozenset))


def _is_fixed(value: object) -> bool:
    """Whether a condition is that a column has a value, or one of some values."""
    return not (value is None or value is NOT_NULL or isinstance(value, (Comparison, AllOf, InSubquery)))


def _has_subquery(value: object) -> bool:
    conditions = value.conditions if isinstance(value, AllOf) else (value,)
    return any(isinstance(each, InSubquery) for each in conditions)


def _is_range(value: object) -> bool:
    """Whether a condition is that a column's value is within bounds."""
    if isinstance(value, AllOf):
        return all(_is_range(each) for each in value.conditions)
    return value is NOT_NULL or (isinstance(value, Comparison) and value.operator != "!=")
