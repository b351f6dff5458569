"""ERMrest's paths: which rows are meant, in what order; each short enough for a server to take it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import product
from typing import Any
from urllib.parse import quote

from deriva_ml_core.backend import NOT_NULL, AnyOf, Filter, Where
from deriva_ml_core.backends.row_checks import check_columns
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.schema import Table

__all__ = ["filter_paths", "quote_segment", "sort_modifier", "table_path"]

MAX_FILTER_LENGTH = 3000
"""Bytes of a filter, decoded: a decoded path beyond about 4,000 is answered with an HTML 404."""

MAX_QUOTED_FILTER_LENGTH = 6000
"""Bytes of a filter, as it is sent: a request line has at most 8,190 for Apache."""

EMPTY_TEXT_PREDICATE = "::regexp::%5E%24"
"""What an empty text matches; ``=`` needs a value."""


def quote_segment(text: str) -> str:
    """A name or value as a part of a path."""
    try:
        return quote(text, safe="")
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"{text!r} is not Unicode text; give another value.") from error


def table_path(table: Table) -> str:
    """A table as a path names it."""
    return f"{quote_segment(table.schema)}:{quote_segment(table.name)}"


def sort_modifier(order: Sequence[str], *, descending: bool = False) -> str:
    """The part of a path that sorts."""
    keys = ",".join(quote_segment(column) + ("::desc::" if descending else "") for column in order)
    return f"@sort({keys})" if keys else ""


def filter_paths(table: Table, where: Where) -> list[str]:
    """The filters that together mean these rows: ``""`` for all rows, none at all where no row can match.

    A row may be meant by several of them where `where` is an `Either`.
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
    room = MAX_FILTER_LENGTH - sum(_filter_lengths(part)[0] for part in fixed)
    if room < 0:
        raise ConfigurationError(
            f"The condition on {', '.join(condition)} is too long to be asked: its values have over "
            f"{MAX_FILTER_LENGTH} bytes."
        )
    portions = [_membership_predicates(column, value, room // len(listed)) for column, value in listed]
    for combination in product(*portions):
        yield "&".join([*fixed, *combination])


def _is_collection(value: object) -> bool:
    return isinstance(value, (tuple, list, set, frozenset))


def _equality_predicate(column: str, value: object) -> str:
    if value is None:
        return f"{quote_segment(column)}::null::"
    if value is NOT_NULL:
        return f"!({quote_segment(column)}::null::)"
    text = _quote_value(value)
    return f"{quote_segment(column)}={text}" if text else f"{quote_segment(column)}{EMPTY_TEXT_PREDICATE}"


def _quote_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):  # a datetime too
        return quote_segment(value.isoformat())
    if isinstance(value, (str, int, float)):
        return quote_segment(str(value))
    raise ConfigurationError(f"{value!r} cannot be asked for: give text, a number, a truth, a time, or None.")


def _membership_predicates(column: str, values: Iterable[Any], max_length: int) -> list[str]:
    """Alternatives that together mean that the column has one of the values."""
    given = dict.fromkeys(values)
    apart = [_equality_predicate(column, value) for value in given if value is None or value == ""]
    texts = [_quote_value(value) for value in given if value is not None and value != ""]
    found = [_any_predicate(column, portion) for portion in _batch_by_length(texts, max_length - len(column) - 10)]
    return [*found, *apart]


def _any_predicate(column: str, texts: list[str]) -> str:
    return (
        f"{quote_segment(column)}={texts[0]}" if len(texts) == 1 else f"{quote_segment(column)}=any({','.join(texts)})"
    )


def _batch_by_length(texts: Iterable[str], max_length: int) -> Iterator[list[str]]:
    portion: list[str] = []
    plain = quoted = 0
    for text in texts:
        size = _filter_lengths(text)
        if portion and (plain + size[0] + 1 > max_length or quoted + size[1] + 1 > MAX_QUOTED_FILTER_LENGTH):
            yield portion
            portion, plain, quoted = [], 0, 0
        portion.append(text)
        plain, quoted = plain + size[0] + 1, quoted + size[1] + 1
    if portion:
        yield portion


def _filter_lengths(text: str) -> tuple[int, int]:
    """A quoted text's bytes: decoded, and as it is sent."""
    return len(text) - 2 * text.count("%"), len(text)


def _join_alternatives(predicates: Iterable[str]) -> Iterator[str]:
    """As many alternatives in one filter as it takes."""
    for portion in _batch_by_length(dict.fromkeys(predicates), MAX_FILTER_LENGTH):
        grouped = (f"({piece})" if "&" in piece else piece for piece in portion)
        yield ";".join(grouped) if len(portion) > 1 else portion[0]
