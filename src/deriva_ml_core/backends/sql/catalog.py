"""Catalog in a SQL database, with snapshots and concurrent writers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import local
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from deriva_ml_core.backend import ALL_ROWS, AnyOf, Catalog, ReadOnlyMixin, Row, Where, order_rows_by_key
from deriva_ml_core.backends.sql import identifiers, mutations, queries
from deriva_ml_core.backends.sql.ddl import MappedTable
from deriva_ml_core.backends.sql.identifiers import snapshot_to_tick, tick_to_iso, tick_to_snapshot
from deriva_ml_core.backends.sql.integrity_errors import explain_integrity_error, explain_row_in_use
from deriva_ml_core.backends.sql.migrations import add_tables
from deriva_ml_core.backends.sql.planner import FirstRows, Planner
from deriva_ml_core.backends.sql.queries import CatalogDatabase, UnionBranch, build_where_clause
from deriva_ml_core.backends.sql.store_address import read_store_address
from deriva_ml_core.definitions import check_rid
from deriva_ml_core.errors import ConfigurationError, DerivaMLException, RowInUse, UnknownRID, UnknownVersion
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel, Table

__all__ = ["BATCH_SIZE", "CatalogSnapshot", "SqlCatalog"]

BATCH_SIZE = 10_000
"""Rows per transaction."""


class _ReadableCatalog:
    """Read operations, now or at a snapshot."""

    _snapshot_time: str | None = None
    """Time of the snapshot, or None for now."""

    def __init__(self, source: CatalogDatabase) -> None:
        self._source = source

    @property
    def name(self) -> str:
        return self._source.database.name

    @property
    def model(self) -> CatalogModel:
        return self._source.model

    def refresh(self) -> CatalogModel:
        return self._source.refresh()

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        """Return the URI of the catalog with the RID as its fragment: ``file:///…/catalog.sqlite#1-4A2C@…``."""
        return f"{self._source.database.uri}#{check_rid(rid)}" + (f"@{snapshot}" if snapshot else "")

    def select(
        self,
        table: str,
        where: Where = ALL_ROWS,
        *,
        order: Sequence[str] = ("RID",),
        descending: bool = False,
        limit: int | None = None,
        after: Sequence[Any] = (),
    ) -> list[Row]:
        mapped = self._source.mapped_table(table)
        with self._source.database.read_transaction() as connection:
            if limit is not None and where and not isinstance(where, AnyOf) and self._can_plan:
                planner = Planner(self._source.mapped_table, self._source.index_names)
                first = FirstRows(tuple(order), descending, limit, tuple(after))
                if (rows := planner.select(connection, mapped, where, first)) is not None:
                    return rows
            return queries.select(
                connection,
                mapped,
                self._union_branches(mapped),
                queries.resolve_subqueries(where, self._source.mapped_table, self._union_branches),
                order=order,
                descending=descending,
                limit=limit,
                after=after,
            )

    @property
    def _can_plan(self) -> bool:
        """Whether queries for the first rows choose their index."""
        return self._snapshot_time is None and bool(self._source.index_names)

    def pages(self, table: str, where: Where = ALL_ROWS, *, size: int = 2000) -> Iterator[list[Row]]:
        mapped = self._source.mapped_table(table)
        if size < 1:
            raise ConfigurationError(f"A page must have at least one row, not {size}.")
        return queries.iter_pages(self._source, mapped, self._union_branches(mapped), where, size)

    def locate(self, rids: Sequence[str], tables: Sequence[str] = ()) -> dict[str, str]:
        if not tables:
            self._source.refresh()
        searched = [self._source.mapped_table(name) for name in tables or self._source.mapped_tables()]
        with self._source.database.read_transaction() as connection:
            return queries.locate(connection, searched, rids, self._snapshot_time)

    def close(self) -> None:
        self._source.database.close()

    def _union_branches(self, mapped: MappedTable) -> Sequence[UnionBranch]:
        return (
            queries.current_branches(mapped)
            if self._snapshot_time is None
            else queries.snapshot_branches(mapped, self._snapshot_time)
        )


class _JointWrites(local):
    """The tables and rows that this thread's open `transaction` has written, to explain an error at its end."""

    def __init__(self) -> None:
        self.rows: list[tuple[MappedTable, Sequence[Mapping[str, Any]]]] = []


class SqlCatalog(_ReadableCatalog):
    """Catalog in a SQL database.

    Args:
        source: The open database, migrated to the current version.
    """

    def __init__(self, source: CatalogDatabase) -> None:
        super().__init__(source)
        self._write_errors = source.database.dialect.write_errors
        self._joint_writes = _JointWrites()

    @property
    def store_address(self) -> str | None:
        """Address of the object store that the catalog keeps; None if its backend decides."""
        with self._source.database.read_transaction() as connection:
            return read_store_address(connection)

    def snapshot(self) -> str:
        with self._source.database.read_transaction() as connection:
            return tick_to_snapshot(identifiers.read_last_tick(connection))

    def at(self, snapshot: str) -> CatalogSnapshot:
        """Return the catalog at a snapshot.

        Raises:
            InvalidRID: The text is not a snapshot.
            UnknownVersion: The snapshot is later than the last change, so its contents may still change.
        """
        tick = snapshot_to_tick(snapshot)
        with self._source.database.read_transaction() as connection:
            if tick > (latest := identifiers.read_last_tick(connection)):
                raise UnknownVersion(
                    f"The catalog {self.name} has no snapshot {snapshot!r}: its latest is "
                    f"{tick_to_snapshot(latest)!r}. Check whether the snapshot belongs to another catalog."
                )
        return CatalogSnapshot(self._source, snapshot)

    def reserve(self, count: int) -> list[str]:
        with self._numbering_transaction() as connection:
            return identifiers.allocate_rids(connection, count)

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        mapped = self._source.mapped_table(table)
        added = 0
        for start in range(0, len(rows), BATCH_SIZE):
            batch = rows[start : start + BATCH_SIZE]
            try:
                with self._numbering_transaction() as connection:
                    new = mutations.insert(
                        connection, mapped, self._source.mapped_tables(), batch, skip_existing=skip_existing
                    )
                    self._note_write(mapped, batch)
                added += new
            except self._write_errors as error:
                raise self._explain_integrity_error(error, mapped, batch, added) from error
        return added

    def insert_missing(self, table: str, rows: Sequence[Mapping[str, Any]], key: str) -> list[Row]:
        self.insert(table, rows, skip_existing=True)
        key_values = [row[key] for row in rows]
        return order_rows_by_key(table, key, key_values, self.select(table, {key: key_values}))

    def insert_unless(self, table: str, where: Where, row: Mapping[str, Any]) -> tuple[Row, bool]:
        mapped = self._source.mapped_table(table)
        try:
            with self._numbering_transaction() as connection:
                oldest = queries.select(
                    connection, mapped, queries.current_branches(mapped), where, order=("RCT", "RID"), limit=1
                )
                if oldest:
                    return oldest[0], False
                rid = row["RID"] if "RID" in row else identifiers.allocate_rids(connection, 1)[0]
                new = {**row, "RID": rid}
                mutations.insert(connection, mapped, self._source.mapped_tables(), [new], skip_existing=False)
                added = queries.select(
                    connection, mapped, queries.current_branches(mapped), {"RID": rid}, order=("RID",)
                )
                self._note_write(mapped, [new])
        except self._write_errors as error:
            raise self._explain_integrity_error(error, mapped, [row]) from error
        return added[0], True

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        mapped = self._source.mapped_table(table)
        if not rows:
            return 0
        try:
            with self._source.database.write_transaction() as connection:
                self._note_write(mapped, rows)
                return mutations.update(connection, mapped, rows)
        except self._write_errors as error:
            raise self._explain_integrity_error(error, mapped, rows) from error

    def delete(self, table: str, where: Where) -> int:
        mapped = self._source.mapped_table(table)
        try:
            with self._source.database.write_transaction() as connection:
                identifiers.advance_clock(connection)
                matching = build_where_clause(mapped, mapped.rows, where)
                return int(connection.execute(sa.delete(mapped.rows).where(matching)).rowcount)
        except self._write_errors as error:
            with self._source.database.read_transaction() as connection:
                raise explain_row_in_use(connection, mapped, self._source.mapped_tables(), where) from error

    def restore(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert rows that were deleted, with the RIDs, creation times and creators that they had.

        Args:
            table: Name of the table.
            rows: The complete rows, as `select` returned them. A row whose key exists is left out.

        Returns:
            Number of inserted rows.

        Raises:
            UnknownTable, UnknownColumn: The table or a column does not exist any more.
            UnknownRID: A row refers to a row that does not exist any more.
        """
        mapped = self._source.mapped_table(table)
        try:
            with self._source.database.write_transaction() as connection:
                self._note_write(mapped, rows)
                return mutations.restore(connection, mapped, rows)
        except self._write_errors as error:
            raise self._explain_integrity_error(error, mapped, rows) from error

    def iter_texts(self) -> Iterator[tuple[str, bool, str]]:
        """Yield the texts of all present and past rows, to find out what names an object.

        Yields:
            RID of the row, whether the row is a present one, and the texts of its columns, joined.
        """
        self._source.refresh()
        for mapped in self._source.mapped_tables().values():
            for rows, is_present in ((mapped.rows, True), (mapped.history, False)):
                with self._source.database.read_transaction() as connection:
                    for row in connection.execute(_select_texts(rows)):
                        yield row[0], is_present, row[1]

    def create_tables(self, tables: Sequence[Table]) -> None:
        with self._source.database.write_transaction() as connection:
            model = add_tables(connection, tables, self._source.database.dialect)
        self._source.set_model(model)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything that this thread writes in the block, or nothing if an error leaves it."""
        try:
            with self._source.database.joint_transaction(self._explain_broken_reference):
                yield
        finally:
            if not self._source.database.is_joint:
                self._joint_writes.rows = []

    def _note_write(self, mapped: MappedTable, rows: Sequence[Mapping[str, Any]]) -> None:
        if self._source.database.is_joint:
            self._joint_writes.rows.append((mapped, rows))

    def _explain_broken_reference(self, connection: sa.Connection, error: sa.exc.DBAPIError) -> DerivaMLException:
        """Return the error for the first write of a transaction with a row that refers to no other row."""
        tables = self._source.mapped_tables()
        for mapped, rows in self._joint_writes.rows:
            explained = explain_integrity_error(connection, error, mapped, tables, rows)
            if isinstance(explained, UnknownRID):
                return explained
        return RowInUse(f"A row of {self.name} cannot change because other rows refer to it. Change those first.")

    @contextmanager
    def _numbering_transaction(self) -> Iterator[sa.Connection]:
        """Open a write transaction that may allocate RIDs: none that was allocated before a restore of the file."""
        with self._source.database.write_transaction() as connection:
            if self._source.watermark is None:
                yield connection
                return
            before = self._source.watermark.advance_counter(connection)
            yield connection
            after = identifiers.read_next_rid_number(connection)
        if after != before:
            self._source.watermark.record(after)

    def _explain_integrity_error(
        self,
        error: sa.exc.DBAPIError,
        mapped: MappedTable,
        rows: Sequence[Mapping[str, Any]],
        added: int = 0,
    ) -> DerivaMLException:
        with self._source.database.read_transaction() as connection:
            explained = explain_integrity_error(connection, error, mapped, self._source.mapped_tables(), rows)
        return type(explained)(f"{explained} The {added} rows before this batch were added.") if added else explained


def _select_texts(rows: sa.Table) -> sa.Select[Any]:
    """Return the query for the RID and all other values of each row, as one text."""
    values = [sa.cast(column, sa.Text) for column in rows.c if column.name not in SYSTEM_COLUMNS]
    text: sa.ColumnElement[str] = sa.literal("")
    for value in values:
        text = text.concat(" ").concat(sa.func.coalesce(value, ""))
    return sa.select(rows.c.RID, text)


class CatalogSnapshot(_ReadableCatalog, ReadOnlyMixin):
    """Read-only catalog at a snapshot. Tables that were created later are empty.

    Args:
        source: The catalog's database.
        snapshot: The snapshot.
    """

    def __init__(self, source: CatalogDatabase, snapshot: str) -> None:
        super().__init__(source)
        self._snapshot = snapshot
        self._snapshot_time = tick_to_iso(snapshot_to_tick(snapshot))

    @property
    def name(self) -> str:
        return f"{super().name}@{self._snapshot}"

    def cite(self, rid: str, snapshot: str | None = None) -> str:
        """Return the URI of a row at this snapshot, or at another one."""
        return super().cite(rid, snapshot or self._snapshot)

    def snapshot(self) -> str:
        return self._snapshot

    def at(self, snapshot: str) -> CatalogSnapshot:
        return SqlCatalog(self._source).at(snapshot)


if TYPE_CHECKING:
    _catalog_protocol_check: type[Catalog] = SqlCatalog
    _snapshot_protocol_check: type[Catalog] = CatalogSnapshot
