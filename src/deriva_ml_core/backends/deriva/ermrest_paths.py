"""Paths of ERMrest requests: filters and sort order, split so that a server accepts each path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import product
from typing import Any
from urllib.parse import quote

from deriva_ml_core.backend import NOT_NULL, AllOf, AnyOf, Comparison, Filter, Where
from deriva_ml_core.backends.row_checks import check_columns
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.schema import Table

__all__ = ["filter_paths", "quote_segment", "sort_modifier", "table_path"]

MAX_FILTER_LENGTH = 3000
"""Bytes of a decoded filter; a server answers decoded paths over about 4,000 bytes with an HTML 404."""

MAX_QUOTED_FILTER_LENGTH = 6000
"""Bytes of an encoded filter; Apache accepts request lines of at most 8,190 bytes."""

_OPERATORS = {"<": "lt", "<=": "leq", ">": "gt", ">=": "geq"}
"""Operators of ERMrest; see its documentation of resource names."""

EMPTY_TEXT_PREDICATE = "::regexp::%5E%24"
"""Predicate for an empty text, since ``=`` requires a value."""


def quote_segment(text: str) -> str:
    """Return a name or value encoded as part of a path."""
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{text!r} is not Unicode text; use another value.") from error


def table_path(table: Table) -> str:
    """Return a table's name in a path."""
    return f"{quote_segment(table.schema)}:{quote_segment(table.name)}"


def sort_modifier(order: Sequence[str], *, descending: bool = False, after: Sequence[Any] = ()) -> str:
    """Return the part of a path that sorts the rows, and begins after a row with certain values of these columns."""
    keys = ",".join(quote_segment(column) + ("::desc::" if descending else "") for column in order)
    begin = f"@after({','.join(_quote_value(value) for value in after)})" if after else ""
    return f"@sort({keys}){begin}" if keys else ""


def filter_paths(table: Table, where: Where) -> list[str]:
    """Return filters that together select the rows: ``""`` for all rows, none if no row can match.

    If `where` is an `AnyOf`, several filters can select the same row.
    """
    conditions = where.filters if isinstance(where, AnyOf) else (where,)
    for condition in conditions:
        check_columns(table, condition)
    pieces = [piece for condition in conditions for piece in _split_filter(condition)]
    if "" in pieces:
        return [""]
    return list(_join_alternatives(pieces))


def _split_filter(condition: Filter) -> Iterator[str]:
    fixed = [_equality_predicate(column, value) for column, value in condition.items() if not _is_collection(value)]
    listed = [(column, value) for column, value in condition.items() if _is_collection(value)]
    max_length = MAX_FILTER_LENGTH - sum(_filter_lengths(part)[0] for part in fixed)
    if max_length < 0:
        raise ConfigurationError(
            f"The condition on {', '.join(condition)} is too long: its values have over {MAX_FILTER_LENGTH} bytes. "
            "Use shorter values."
        )
    portions = [_membership_predicates(column, value, max_length // len(listed)) for column, value in listed]
    for combination in product(*portions):
        yield "&".join([*fixed, *combination])


def _is_collection(value: object) -> bool:
    return isinstance(value, (tuple, list, set, frozenset))


def _equality_predicate(column: str, value: object) -> str:
    if value is None:
        return f"{quote_segment(column)}::null::"
    if value is NOT_NULL:
        return f"!({quote_segment(column)}::null::)"
    if isinstance(value, Comparison):
        return _comparison_predicate(column, value)
    if isinstance(value, AllOf):
        return "&".join(_equality_predicate(column, each) for each in value.conditions)
    text = _quote_value(value)
    return f"{quote_segment(column)}={text}" if text else f"{quote_segment(column)}{EMPTY_TEXT_PREDICATE}"


def _comparison_predicate(column: str, comparison: Comparison) -> str:
    if comparison.operator == "!=":  # of an empty column it is neither true nor false, so that does not match
        return f"!({_equality_predicate(column, comparison.value)})"
    return f"{quote_segment(column)}::{_OPERATORS[comparison.operator]}::{_quote_value(comparison.value)}"


def _quote_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):  # a datetime too
        return quote_segment(value.isoformat())
    if isinstance(value, (str, int, float)):
        return quote_segment(str(value))
    raise ConfigurationError(f"{value!r} cannot be used in a condition: use text, a number, a bool, a time, or None.")


def _membership_predicates(column: str, values: Iterable[Any], max_length: int) -> list[str]:
    """Return predicates of which one holds if the column has one of the values."""
    distinct = dict.fromkeys(values)
    special = [_equality_predicate(column, value) for value in distinct if value is None or value == ""]
    texts = [_quote_value(value) for value in distinct if value is not None and value != ""]
    predicates = [_any_predicate(column, batch) for batch in _batch_by_length(texts, max_length - len(column) - 10)]
    return [*predicates, *special]


def _any_predicate(column: str, texts: list[str]) -> str:
    return (
        f"{quote_segment(column)}={texts[0]}" if len(texts) == 1 else f"{quote_segment(column)}=any({','.join(texts)})"
    )


def _batch_by_length(texts: Iterable[str], max_length: int) -> Iterator[list[str]]:
    batch: list[str] = []
    length = quoted_length = 0
    for text in texts:
        size = _filter_lengths(text)
        if batch and (length + size[0] + 1 > max_length or quoted_length + size[1] + 1 > MAX_QUOTED_FILTER_LENGTH):
            yield batch
            batch, length, quoted_length = [], 0, 0
        batch.append(text)
        length, quoted_length = length + size[0] + 1, quoted_length + size[1] + 1
    if batch:
        yield batch


def _filter_lengths(text: str) -> tuple[int, int]:
    """Return the bytes of an encoded text: decoded, and encoded."""
    return len(text) - 2 * text.count("%"), len(text)


def _join_alternatives(predicates: Iterable[str]) -> Iterator[str]:
    """Yield filters that each combine as many alternatives as their length allows."""
    for batch in _batch_by_length(dict.fromkeys(predicates), MAX_FILTER_LENGTH):
        grouped = (f"({piece})" if "&" in piece else piece for piece in batch)
        yield ";".join(grouped) if len(batch) > 1 else batch[0]
