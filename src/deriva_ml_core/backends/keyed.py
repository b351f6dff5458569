"""Rows by their key, for whichever backend has just added those that were missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from deriva_ml_core.errors import DuplicateRow

if TYPE_CHECKING:
    from deriva_ml_core.backend import Row

__all__ = ["order_rows_by_key"]


def order_rows_by_key(table: str, key: str, key_values: Sequence[Any], rows: Iterable[Row]) -> list[Row]:
    """The row of each wanted key, in that order.

    Raises:
        DuplicateRow: One is not there, so it was passed over for another key of it that is taken.
    """
    found = {row[key]: row for row in rows}
    for value in key_values:
        if value not in found:
            raise DuplicateRow(
                f"{table} takes no row with {key} = {value!r}: another of its keys is taken. Give another value there."
            )
    return [found[value] for value in key_values]
