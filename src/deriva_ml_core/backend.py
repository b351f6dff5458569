"""What a backend must be able to do: rows in a catalog, bytes in a store, and the pair of both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from deriva_ml_core._deprecation import deprecated_attributes, deprecated_names
from deriva_ml_core.errors import CatalogReadOnly, DuplicateRow

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.definitions import TransferMode
    from deriva_ml_core.models import StoredObject, UploadOptions
    from deriva_ml_core.schema import CatalogModel, Table

__all__ = [
    "NOT_NULL",
    "AnyOf",
    "Backend",
    "Catalog",
    "Filter",
    "InSubquery",
    "ObjectStore",
    "ReadOnlyMixin",
    "Row",
    "Where",
    "order_rows_by_key",
]


Row = dict[str, Any]
"""A row by column: str, int, float, bool, None, or list[str]; times are ISO 8601 texts in UTC."""

Filter = Mapping[str, Any]
"""Columns and the value that each must have; a tuple, list, set or frozenset of values: one of them; None: empty;
`NOT_NULL`: not empty; for one column of `select`'s, `InSubquery`: it names a row for which another condition holds."""


class NotNull(Enum):
    """The kind of `NOT_NULL`."""

    not_null = "filled"


NOT_NULL = NotNull.not_null
"""As the value in a condition: whatever there is, but something."""


@dataclass(frozen=True, slots=True)
class InSubquery:
    """As the value in a condition: the record id of a row of another table.

    Args:
        table: The other table, of which the column is a foreign key.
        where: Which of its rows; it names no linked rows in its turn.
    """

    table: str
    where: Filter


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Rows for which at least one of the conditions holds."""

    filters: tuple[Filter, ...]

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes({"conditions": "filters"})


Where = Filter | AnyOf
"""Which rows; an empty mapping means all."""


class Catalog(Protocol):
    """Tables and rows; it knows nothing of workflows, executions or datasets.

    Every method may be called from several threads and after a fork. A call that fails has written nothing, except
    where `insert` says how far it came.
    """

    @property
    def name(self) -> str:
        """What to call this catalog in a message: its folder or its address."""

    @property
    def model(self) -> CatalogModel:
        """The tables, read once and kept; `refresh` reads them again."""

    def refresh(self) -> CatalogModel:
        """Read the tables again, as another process may have added some."""

    def snapshot(self) -> str:
        """The name of the catalog's present state, under which `at` will always find it."""

    def at(self, snapshot: str) -> Catalog:
        """The catalog as it was at a snapshot; every write raises `CatalogReadOnly`."""

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        """The URL that names a row outside this catalog, as it is now or as it was at a snapshot."""

    def reserve(self, count: int) -> list[str]:
        """Record ids that `insert` will take in rows' ``RID``, given to nobody else, now or later."""

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        """Add rows, all or none of each batch of 10,000.

        Args:
            table: The table.
            rows: Their columns; a ``RID`` only if it was reserved. The rows need not have the same columns.
            skip_existing: Whether a row whose key (or RID) is taken is passed over instead of raising, which makes a
                repeated insert safe.

        Returns:
            How many rows were added.

        Raises:
            UnknownTable, UnknownColumn: Of the table or of a row's columns.
            DuplicateRow: A key is taken, and `skip_existing` is not set.
            UnknownRID: A foreign key names no row.
        """

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        """Add those rows whose key is not taken yet, as `insert` does with `skip_existing`, and tell what is there.

        Args:
            table: The table.
            rows: Their columns.
            key: A column of texts that is a key of the table, or ``RID``; each row gives it.

        Returns:
            For each row, in their order, the complete row that has its key now.
        """

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        """Add one row unless one matches, in one step that no other process can come between.

        Returns:
            The oldest row that matches, or the new one; and whether it is new.
        """

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Change rows: each gives its RID and the columns to change, the same columns in all.

        Returns:
            How many rows were changed: fewer than given where a RID names no row of the table.
        """

    def delete(self, table: str, where: Where) -> int:
        """Delete the rows that match, and by cascade the links to them; returns how many matched."""

    def select(
        self,
        table: str,
        where: Where = ...,
        *,
        order: Sequence[str] = ("RID",),
        descending: bool = False,
        limit: int | None = None,
    ) -> list[Row]:
        """The rows that match, complete, in that order; a condition on many thousand values is asked in portions.

        Where rows that are empty in a column to sort by come, is the backend's own.
        """

    def pages(self, table: str, where: Where = ..., *, size: int = 2000) -> Iterator[list[Row]]:
        """The rows that match, by RID, in pages of at most `size`, so that memory stays flat."""

    def locate(self, rids: Sequence[str], tables: Sequence[str] = ()) -> dict[str, str]:
        """The table of each record id; ids that name nothing are left out.

        Args:
            rids: Record ids without snapshots.
            tables: The tables to look in; none means all.
        """

    def create_tables(self, tables: Sequence[Table]) -> None:
        """Add tables, all or none; those that exist already with the same columns are left as they are.

        Raises:
            DuplicateRow: A table of that name exists with other columns.
        """

    def close(self) -> None:
        """Let go of connections; the next call opens them again."""


class ObjectStore(Protocol):
    """Bytes under URLs; it knows neither executions nor rows.

    Every method may be called from several threads and after a fork.
    """

    @property
    def preferred_concurrency(self) -> int:
        """How many files it takes at once with profit: 1 where one after the other is as fast, or it does not say."""

    def put(
        self,
        table: str,
        filename: str,
        file: Path,
        *,
        handover: TransferMode,
        options: UploadOptions,
        resume: JsonValue | None = None,
        note: Callable[[JsonValue], None] = ...,
    ) -> StoredObject:
        """Store a file's bytes as they are now, under ``/hatrac/<table>/<md5>.<filename>:<version>``.

        Args:
            table: The asset table, which names the folder.
            filename: The name, sub-folders included.
            file: The file. A link is followed.
            handover: What the store may do with the file itself. A store that cannot share or move it, since it is
                on another disk or machine, copies it; moved is what is gone from its place afterwards.
            options: Timeouts and chunk size.
            resume: What `note` was last given for this file, also in a process before this one. A file that is gone
                because the store took it is then found by this.
            note: Called before each step that could not be repeated without knowing that it had begun.

        Raises:
            FileNotFoundError: There is no such file, and it was not stored before.
            StoreUnavailable: It may succeed later.
        """

    def sync(self) -> None:
        """Return when everything that was put is on the disk; rows are written only after it."""

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:
        """Bring an object to `target`, going on where an interrupted call stopped, and check length and MD5.

        Raises:
            ChecksumMismatch: The object's bytes are not those; nothing is left at `target`.
            StoreUnavailable: It may succeed later.
        """

    def verify(self, url: str, *, length: int, md5: str) -> None:
        """Read an object where it lies and raise `ChecksumMismatch`, naming it, if its bytes are not those."""

    def source(self, url: str) -> str:
        """The full URL that a bag's ``fetch.txt`` names an object by."""

    def close(self) -> None:
        """Let go of connections; the next call opens them again."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The rows and the bytes of one catalog.

    Args:
        catalog: The rows.
        store: The bytes.
        folder: Where executions' working folders and the cache of downloads lie: on the store's own file system, where
            it has one.
    """

    catalog: Catalog
    store: ObjectStore
    folder: Path


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


class ReadOnlyMixin:
    """What a catalog's snapshot does when it is written to."""

    @property
    def name(self) -> str:
        """What to call it in a message."""
        raise NotImplementedError

    def reserve(self, count: int) -> list[str]:  # noqa: ARG002
        self._raise_read_only()

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:  # noqa: ARG002
        self._raise_read_only()

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:  # noqa: ARG002
        self._raise_read_only()

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:  # noqa: ARG002
        self._raise_read_only()

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:  # noqa: ARG002
        self._raise_read_only()

    def delete(self, table: str, where: Where) -> int:  # noqa: ARG002
        self._raise_read_only()

    def create_tables(self, tables: Sequence[Table]) -> None:  # noqa: ARG002
        self._raise_read_only()

    def _raise_read_only(self) -> NoReturn:
        raise CatalogReadOnly(f"{self.name} is a snapshot, which nothing changes: write to the catalog itself.")


__getattr__ = deprecated_names(
    __name__,
    {
        "FILLED": "NOT_NULL",
        "Condition": "Filter",
        "Linked": "InSubquery",
        "Either": "AnyOf",
    },
)
