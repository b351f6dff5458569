"""Protocols of a backend: a catalog of rows, and a store of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from deriva_ml_core._deprecation import deprecated_attributes, deprecated_names
from deriva_ml_core.errors import CatalogReadOnly, DuplicateRow

if TYPE_CHECKING:
    from pydantic import JsonValue

    from deriva_ml_core.definitions import TransferMode
    from deriva_ml_core.models import StoredObject, UploadOptions
    from deriva_ml_core.schema import CatalogModel, Table

__all__ = [
    "ALL_ROWS",
    "NOT_NULL",
    "AllOf",
    "AnyOf",
    "Backend",
    "Catalog",
    "Comparison",
    "Filter",
    "InSubquery",
    "ObjectStore",
    "ReadOnlyMixin",
    "Row",
    "StoreCheck",
    "Where",
    "catalog_transaction",
    "check_store",
    "order_rows_by_key",
]


Row = dict[str, Any]
"""A row: values by column name.

Values are str, int, float, bool, None, list[str] or JSON values. Times are ISO 8601 texts in UTC.
"""

Filter = Mapping[str, Any]
"""A condition on columns. All columns must match.

A value matches equal values, and a tuple, list, set or frozenset each of its values. None matches empty columns, and
`NOT_NULL` all others. A `Comparison` matches values with an order, and an `AllOf` what all of its conditions match.
`InSubquery`, alone or in an `AllOf`, is allowed in `Catalog.select` only.
"""


class NotNull(Enum):
    """Type of `NOT_NULL`."""

    not_null = "filled"


NOT_NULL = NotNull.not_null
"""Value in a condition that matches columns with any value."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Value in a condition that compares a column with a value. Empty columns never match.

    Args:
        operator: How the column relates to the value.
        value: The value, of the column's type.
    """

    operator: Literal["<", "<=", ">", ">=", "!="]
    value: str | float


@dataclass(frozen=True, slots=True)
class InSubquery:
    """Value in a condition that matches the RIDs of matching rows of another table, or values of another column there.

    Args:
        table: The other table.
        where: Condition on the rows of that table. It may have another `InSubquery`.
        column: The column of that table whose values match.
    """

    table: str
    where: Filter | AnyOf
    column: str = "RID"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Value in a condition that matches what all of these conditions match."""

    conditions: tuple[InSubquery | Comparison, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Condition that matches rows for which at least one of the filters matches."""

    filters: tuple[Filter, ...]

    if not TYPE_CHECKING:
        __getattr__ = deprecated_attributes({"conditions": "filters"})


Where = Filter | AnyOf
"""A condition on rows. An empty mapping matches all rows."""

ALL_ROWS: Where = MappingProxyType({})
"""Condition that matches every row."""


class Catalog(Protocol):
    """Tables and rows. A catalog does not know workflows, executions or datasets.

    Every method must be thread-safe and work after a fork. A failed call has written nothing, except that `insert`
    reports the batches before the error.
    """

    @property
    def name(self) -> str:
        """Name of the catalog in messages: its folder or address."""

    @property
    def model(self) -> CatalogModel:
        """The tables, cached. `refresh` reads them again."""

    def refresh(self) -> CatalogModel:
        """Read the tables again, because another process may have added some."""

    def snapshot(self) -> str:
        """Return the snapshot of the current state, to be passed to `at`. The state of a snapshot never changes."""

    def at(self, snapshot: str) -> Catalog:
        """Return the catalog at a snapshot. Every write to it raises `CatalogReadOnly`."""

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        """Return the citation URL of a row, now or at a snapshot."""

    def reserve(self, count: int) -> list[str]:
        """Reserve RIDs for `insert`. They are unique and never allocated again."""

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        """Insert rows in batches of 10,000. Each batch is inserted completely or not at all.

        Args:
            table: Name of the table.
            rows: Rows to insert, with a ``RID`` only if it was reserved. Rows can have different columns.
            skip_existing: Whether to skip rows whose key or RID exists, instead of raising. This makes a repeated
                insert safe.

        Returns:
            Number of inserted rows.

        Raises:
            UnknownTable, UnknownColumn: The table or a column does not exist.
            DuplicateRow: A key exists, and `skip_existing` is not set.
            UnknownRID: A foreign key refers to no row.
        """

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        """Insert the rows whose key does not exist, and return the rows of all keys.

        Args:
            table: Name of the table.
            rows: Rows to insert.
            key: A text column that is a key of the table, or ``RID``. Every row has a value for it.

        Returns:
            For each row, in the same order, the complete row that has its key now.
        """

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        """Insert one row unless a row matches the condition, atomically.

        Returns:
            The oldest matching row or the new row, and whether it is new.
        """

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Update rows. Each has its RID and the columns to change, and all have the same columns.

        Returns:
            Number of updated rows. Rows whose RID does not exist in the table are not counted.
        """

    def delete(self, table: str, where: Where) -> int:
        """Delete the matching rows and, by cascade, the associations to them. Return the number of matching rows."""

    def select(
        self,
        table: str,
        where: Where = ...,
        *,
        order: Sequence[str] = ("RID",),
        descending: bool = False,
        limit: int | None = None,
        after: Sequence[Any] = (),
    ) -> list[Row]:
        """Return the matching rows with all columns, in order. A condition can list many thousand values.

        Args:
            table: Name of the table.
            where: Condition on the rows.
            order: Columns to sort by. The backend decides whether empty values come first or last. Empty for any order.
            descending: Whether to sort in descending order.
            limit: Maximum number of rows. None for all.
            after: Values of the columns of `order`. Only rows that follow them in that order are returned, so that a
                next page begins where the last one ended. Empty for all rows.
        """

    def pages(self, table: str, where: Where = ..., *, size: int = 2000) -> Iterator[list[Row]]:
        """Yield the matching rows by RID, in pages of at most `size`, so that memory use stays constant."""

    def locate(self, rids: Sequence[str], tables: Sequence[str] = ()) -> dict[str, str]:
        """Return the table of each RID. RIDs without a row are left out.

        Args:
            rids: RIDs without snapshots.
            tables: Names of the tables to search. Empty for all tables.
        """

    def create_tables(self, tables: Sequence[Table]) -> None:
        """Create tables, all or none. Tables that exist with the same columns stay unchanged.

        Raises:
            DuplicateRow: A table of that name exists with other columns.
        """

    def close(self) -> None:
        """Close all connections. The next call opens them again."""


class ObjectStore(Protocol):
    """Objects (bytes) by URL. A store does not know executions or rows.

    Every method must be thread-safe and work after a fork.
    """

    @property
    def preferred_concurrency(self) -> int:
        """Number of files to send in parallel. 1 if parallel transfers are not faster."""

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
        """Store the current bytes of a file under ``/hatrac/<table>/<md5>.<filename>:<version>``.

        Args:
            table: The asset table, which names the folder.
            filename: File name, with sub-folders separated by ``/``.
            file: The file. Symbolic links are followed.
            handover: What the store may do with the file. A store that cannot hard-link or move it, because it is on
                another disk or machine, copies it. A file counts as moved if it is gone from its place afterwards.
            options: Timeouts and chunk size.
            resume: The last argument of `note` for this file, possibly from an earlier process. It identifies a file
                that the store has already moved.
            note: Called before each step that cannot be repeated without knowing that it has started.

        Raises:
            FileNotFoundError: The file does not exist, and was not stored before.
            StoreUnavailable: The store cannot be reached. The same call may succeed later.
        """

    def sync(self) -> None:
        """Wait until all stored objects are on disk. Rows are only written afterwards."""

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:
        """Download an object, and verify its length and MD5. An interrupted download resumes.

        Args:
            url: URL of the object.
            target: Path of the downloaded file. An existing file is replaced.
            length: Expected number of bytes.
            md5: Expected MD5, 32 hex digits.
            options: Timeouts and chunk size.

        Raises:
            ChecksumMismatch: The object's bytes differ. Nothing is left at `target`.
            StoreUnavailable: The store cannot be reached. The same call may succeed later.
        """

    def verify(self, url: str, *, length: int, md5: str) -> None:
        """Read an object in the store, and raise `ChecksumMismatch` with its URL if its bytes differ."""

    def source(self, url: str) -> str:
        """Return the full URL of an object, for a bag's ``fetch.txt``."""

    def close(self) -> None:
        """Close all connections. The next call opens them again."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Catalog and object store, as returned by the hook ``connect``.

    Args:
        catalog: The catalog.
        store: The object store.
        folder: Folder for working folders and the cache of downloads. If the store is on this machine, use the same
            file system, so that files can be moved into the store.
        has_remote_store: Whether files are sent over a network, so that a run must not wait for them. The store of a
            server counts as remote in any case.
    """

    catalog: Catalog
    store: ObjectStore
    folder: Path
    has_remote_store: bool = False


@dataclass(frozen=True, slots=True)
class StoreCheck:
    """Result of one check of a store.

    Args:
        message: What was found.
        remedy: What to do. Empty if nothing is wrong.
        is_error: Whether the store cannot be used as it is.
    """

    message: str
    remedy: str = ""
    is_error: bool = False


def check_store(store: ObjectStore) -> list[StoreCheck]:
    """Check that a store can be used, if the store can be checked: whether it has a method ``check``.

    Args:
        store: The store.
    """
    check: Callable[[], list[StoreCheck]] = getattr(store, "check", list)
    return check()


@contextmanager
def catalog_transaction(catalog: Catalog) -> Iterator[None]:
    """Write everything in the block or nothing, if the catalog can.

    A catalog that can has a method `transaction`, which returns such a context manager; an error must leave the block.
    On others each write in the block is a separate transaction.

    Args:
        catalog: The catalog.
    """
    with getattr(catalog, "transaction", nullcontext)():
        yield


def order_rows_by_key(table: str, key: str, key_values: Sequence[Any], rows: Iterable[Row]) -> list[Row]:
    """Return the row of each key value, in order.

    Raises:
        DuplicateRow: A row is missing: `insert` skipped it because another of its keys exists.
    """
    rows_by_key = {row[key]: row for row in rows}
    for value in key_values:
        if value not in rows_by_key:
            raise DuplicateRow(
                f"The row of {table} with {key} = {value!r} was not inserted because another of its keys exists. "
                "Use another value for that key."
            )
    return [rows_by_key[value] for value in key_values]


class ReadOnlyMixin:
    """Mixin for catalog snapshots. Every write raises `CatalogReadOnly`."""

    @property
    def name(self) -> str:
        """Name of the snapshot in messages."""
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
        raise CatalogReadOnly(f"{self.name} is a snapshot, which is read-only. Write to the catalog itself.")


__getattr__ = deprecated_names(
    __name__,
    {
        "FILLED": "NOT_NULL",
        "Condition": "Filter",
        "Linked": "InSubquery",
        "Either": "AnyOf",
    },
)
