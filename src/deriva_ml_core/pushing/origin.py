"""Where a copied row came from: a name that is the row's own for ever, and the words that say it at the target.

A record id alone would not do: every catalog counts its own, and two laptops have the same paths. With the microsecond
in which the row was made it is told from all others, also after its catalog was moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from deriva_ml_core.backend import Catalog

__all__ = ["description_with_source", "creation_time", "global_row_id"]


def creation_time(row: Mapping[str, Any]) -> str:
    """When a row was made, in UTC, to the microsecond."""
    return datetime.fromisoformat(row["RCT"]).astimezone(UTC).isoformat(timespec="microseconds")


def global_row_id(row: Mapping[str, Any]) -> str:
    """What names a row among all rows of all catalogs."""
    return f"{row['RID']}@{creation_time(row)}"


def description_with_source(text: str | None, catalog: Catalog, row: Mapping[str, Any]) -> str:
    """A copy's description: the row's own, and where it came from."""
    source = f"Copied from {catalog.cite(row['RID'])}, made {creation_time(row)}"
    return f"{text}\n\n{source}" if text else source
