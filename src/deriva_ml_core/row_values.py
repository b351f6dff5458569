"""Converts values of catalog rows; a value of an unexpected form is an error that names the row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from deriva_ml_core.errors import MalformedData

__all__ = ["convert_rows", "convert_values", "malformed_value", "parse_row_time"]

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_SHOWN_CHARACTERS = 60
"""Characters of a value that an error shows."""


def parse_row_time(table: str, row: Mapping[str, Any], column: str = "RCT") -> datetime | None:
    """Return the time in a row's column, in UTC; None if it has none. A time without a zone is in UTC.

    Raises:
        MalformedData: The value is not an ISO 8601 time.
    """
    value = row.get(column)
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise malformed_value(table, row["RID"], column, value) from error


def convert_values(table: str, rid: object, convert: Callable[[], T]) -> T:
    """Return the result of a conversion by pydantic.

    Args:
        table: The row's table.
        rid: The row's RID.
        convert: Function that builds a model from the row's values.

    Raises:
        MalformedData: A value has an unexpected form.
    """
    try:
        return convert()
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        raise malformed_value(table, rid, ".".join(map(str, details["loc"])), details["input"]) from error


def malformed_value(table: str, rid: object, column: str, value: object) -> MalformedData:
    """Return the error for a value of an unexpected form."""
    shown = repr(value)
    shown = shown if len(shown) <= MAX_SHOWN_CHARACTERS else f"{shown[:MAX_SHOWN_CHARACTERS]}..."
    return MalformedData(f"{table} {rid} has an unexpected value in {column}: {shown}. Correct that row.")


def convert_rows(convert: Callable[[Any], T], rows: Iterable[Any]) -> Iterator[T]:
    """Yield converted rows; a malformed one is left out, and a warning names it.

    Args:
        convert: Function of a row that raises `MalformedData` for a malformed one.
        rows: The rows.
    """
    for row in rows:
        try:
            yield convert(row)
        except MalformedData as error:
            log.warning("A row is left out: %s", error)
