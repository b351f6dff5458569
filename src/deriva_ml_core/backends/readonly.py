"""The writes of a catalog as it was at a snapshot: each is refused, whichever backend keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from deriva_ml_core.errors import CatalogReadOnly

if TYPE_CHECKING:
    from deriva_ml_core.backend import Row, Where
    from deriva_ml_core.schema import Table

__all__ = ["ReadOnly"]


class ReadOnly:
    """What a catalog's snapshot does when it is written to."""

    @property
    def name(self) -> str:
        """What to call it in a message."""
        raise NotImplementedError

    def reserve(self, count: int) -> list[str]:  # noqa: ARG002
        self._refuse()

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:  # noqa: ARG002
        self._refuse()

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:  # noqa: ARG002
        self._refuse()

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:  # noqa: ARG002
        self._refuse()

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:  # noqa: ARG002
        self._refuse()

    def delete(self, table: str, where: Where) -> int:  # noqa: ARG002
        self._refuse()

    def create_tables(self, tables: Sequence[Table]) -> None:  # noqa: ARG002
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise CatalogReadOnly(f"{self.name} is a snapshot, which nothing changes: write to the catalog itself.")
