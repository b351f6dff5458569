"""Converts values of catalog rows; a value of an unexpected form is an error that names the row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from deriva_ml_core.definitions import check_rid
from deriva_ml_core.errors import InvalidRID, MalformedData

__all__ = ["check_row", "convert_rows", "convert_values", "list_valid_rows", "malformed_value", "parse_row_time"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = TypeVar("Row", bound=Mapping[str, Any])

MAX_SHOWN_CHARACTERS = 60
"""Characters of a value that an error shows."""


def check_row(table: str, row: Row) -> Row:
    """Return a row unchanged, or raise `MalformedData` if its RID is none."""
    try:
        check_rid(row["RID"])
    except InvalidRID as error:
        raise malformed_value(table, row["RID"], "RID", row["RID"]) from error
    return row


def list_valid_rows(table: str, rows: Iterable[Row]) -> list[Row]:
    """Return the rows that have a RID; another one is left out, and a warning names it."""
    return list(convert_rows(lambda row: check_row(table, row), rows))


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
