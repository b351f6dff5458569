"""The writes of a catalog as it was at a snapshot: each is refused, whichever backend keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from deriva_ml_core.errors import CatalogReadOnly

if TYPE_CHECKING:
    from deriva_ml_core.backend import Row, Where
    from deriva_ml_core.schema import Table

__all__ = ["ReadOnlyMixin"]


class ReadOnlyMixin:
    """What a catalog's snapshot does when it is written to."""

    @property
    def name(self) -> str:
        """What to call it in a message."""
        raise NotImplementedError

    def reserve(self, count: int) -> list[str]:
        self._raise_read_only()

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        self._raise_read_only()

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        self._raise_read_only()

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        self._raise_read_only()

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        self._raise_read_only()

    def delete(self, table: str, where: Where) -> int:
        self._raise_read_only()

    def create_tables(self, tables: Sequence[Table]) -> None:
        self._raise_read_only()

    def _raise_read_only(self) -> NoReturn:
        raise CatalogReadOnly(f"{self.name} is a snapshot, which nothing changes: write to the catalog itself.")
