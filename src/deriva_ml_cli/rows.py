"""Rows of one table, newest first, page by page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deriva_ml_core.backend import Where

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["RowPage", "find_rows"]


@dataclass(frozen=True, slots=True)
class RowPage:
    """Some of the rows that match, and whether there are more."""

    rows: tuple[Mapping[str, Any], ...]
    has_more: bool


def find_rows(
    ml: DerivaML, table: str, where: Where, *, text: str | None, columns: Sequence[str], limit: int, page: int
) -> RowPage:
    """Find rows of a table, newest first.

    Args:
        ml: The catalog.
        table: The table.
        where: Which rows.
        text: What one of `columns` must hold, in capitals or not; None for whatever they hold.
        columns: Where the text is looked for.
        limit: How many a page has.
        page: Which page, from 1.
    """
    wanted = asked = limit * page + 1
    order = ("RCT", "RID")
    while True:
        found = ml.connection.catalog.select(table, where, order=order, descending=True, limit=asked)
        small = (text or "").casefold()
        matching = [row for row in found if any(small in str(row[name] or "").casefold() for name in columns)]
        if len(found) < asked or len(matching) >= wanted:
            kept = matching[:wanted]
            return RowPage(tuple(kept[wanted - 1 - limit : wanted - 1]), len(kept) == wanted)
        asked *= 4
