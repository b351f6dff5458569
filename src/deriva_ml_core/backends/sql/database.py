"""The protocol of a SQL database: its transactions, and its errors as those of this package."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import sqlalchemy as sa

from deriva_ml_core.backends.sql.dialect import SqlDialect
from deriva_ml_core.errors import CatalogCorrupt

__all__ = ["SqlDatabase"]


class SqlDatabase(Protocol):
    """A database with one writer at a time, also among processes, so that times and RIDs have the order of the commits.

    Every method is thread-safe and works after a fork. Errors of the driver are raised as those of this package, except
    `SqlDialect.write_errors`.
    """

    @property
    def dialect(self) -> SqlDialect:
        """The SQL of this database."""

    @property
    def name(self) -> str:
        """Name of the catalog in messages: its folder or address, without secrets."""

    @property
    def uri(self) -> str:
        """URI of the catalog, for citations."""

    def read_transaction(self) -> AbstractContextManager[sa.Connection]:
        """Open a transaction that reads; within a `joint_transaction` it is a part of that one."""

    def write_transaction(self) -> AbstractContextManager[sa.Connection]:
        """Open the only transaction that writes. It is rolled back if the block raises.

        Within a `joint_transaction` it is a part of that one, which an error must then end too.
        """

    def joint_transaction(
        self, explain: Callable[[sa.Connection, sa.exc.DBAPIError], Exception]
    ) -> AbstractContextManager[None]:
        """Make all transactions that this thread opens in the block one. It is rolled back if the block raises.

        Args:
            explain: Function that returns the error to raise if a row refers to no other row at the end. It can read
                the rows that are not written then.
        """

    @property
    def is_joint(self) -> bool:
        """Whether this thread has opened a `joint_transaction`."""

    def corruption(self, detail: str) -> CatalogCorrupt:
        """Return the error for a database whose description of its tables cannot be read."""

    def close(self) -> None:
        """Close all connections. The next call opens them again."""
