"""A PostgreSQL database: connections, transactions, and translation of PostgreSQL's errors."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, local
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from deriva_ml_core.backends.postgres.address import PostgresAddress
from deriva_ml_core.backends.postgres.dialect import POSTGRES, error_code
from deriva_ml_core.errors import (
    AccessRefused,
    CatalogCorrupt,
    CatalogReadOnly,
    CatalogUnavailable,
    ConfigurationError,
    DerivaMLException,
    LoginRequired,
)

__all__ = ["SCHEMA", "Database"]

SCHEMA = "deriva_ml"
"""The schema of the database that has all tables of the catalog."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for a connection to one of the server's addresses."""

LOCK_TIMEOUT = 120
"""Seconds to wait for other processes that are writing."""

IDLE_TIMEOUT = 60
"""Seconds after which the server ends a transaction whose process sends nothing, so that the others can write."""

LOCK_CLOCK = f"SELECT tick FROM {SCHEMA}._clock FOR UPDATE"  # noqa: S608
"""Statement that lets one transaction write at a time."""

FIND_OWNER = (
    "SELECT r.rolname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba "
    "WHERE d.datname = current_database() AND r.rolname <> session_user AND pg_has_role(session_user, r.oid, 'MEMBER')"
)
"""Query for the owner of the database, if the user may act as that role."""

MISFIT_CODES = ("42804", "42846", "42883")
"""Codes of values whose type cannot be converted to that of their column."""

REFUSED_LOGIN = r'role ".*" does not exist|authentication failed|no password supplied|no pg_hba\.conf entry'
UNKNOWN_DATABASE = r'FATAL: +database ".*" does not exist'

MAX_CONNECTIONS = 10
"""Connections of a process that stay open; each thread that reads or writes uses one."""


class _Joint(local):
    """The connection of this thread's open `joint_transaction`."""

    connection: sa.Connection | None = None


class Database:
    """A database on a PostgreSQL server.

    Writers wait for each other at the row of the clock, which each transaction locks first. So times and RIDs have the
    order of the commits, no writer has to be repeated, and none can wait for another in a circle.

    Args:
        address: The address.
    """

    dialect = POSTGRES

    def __init__(self, address: PostgresAddress) -> None:
        self.address = address
        self.name = self.uri = address.printable
        self._engine: sa.Engine | None = None
        self._pid = os.getpid()
        self._lock = Lock()
        self._joint = _Joint()
        self._left_engines: list[sa.Engine] = []
        """Engines of the processes that forked this one, which use their connections."""

    @contextmanager
    def read_transaction(self) -> Iterator[sa.Connection]:
        """Open a connection for one statement that reads, in one round trip.

        Within a `joint_transaction` it is a part of that one.
        """
        if (joint := self._joint.connection) is not None:
            with self._translate_errors():
                yield joint
            return
        with self._translate_errors(), self._get_engine().connect() as connection:
            yield connection

    @contextmanager
    def write_transaction(self) -> Iterator[sa.Connection]:
        """Open the only transaction that writes. It is rolled back if the block raises.

        Within a `joint_transaction` it is a part of that one, which an error must then end too.
        """
        if (joint := self._joint.connection) is not None:
            with self._translate_errors(is_write=True):
                yield joint
            return
        with self._translate_errors(is_write=True), self._begin(LOCK_CLOCK) as connection:
            yield connection
            connection.exec_driver_sql("COMMIT")

    @contextmanager
    def schema_transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction that creates or migrates the catalog; those of other processes wait for it."""
        with self._translate_errors(), self._begin(f"SELECT pg_advisory_xact_lock(hashtext('{SCHEMA}'))") as connection:
            yield connection
            connection.exec_driver_sql("COMMIT")

    @property
    def is_joint(self) -> bool:
        """Whether this thread has opened a `joint_transaction`."""
        return self._joint.connection is not None

    @contextmanager
    def joint_transaction(self, explain: Callable[[sa.Connection, sa.exc.DBAPIError], Exception]) -> Iterator[None]:
        """Make all transactions that this thread opens in the block one. It is rolled back if the block raises.

        Args:
            explain: Function that returns the error to raise if a row refers to no other row at the end. It can read
                the rows that are not written then.
        """
        if self.is_joint:
            yield
            return
        with self._translate_errors(), self._begin(LOCK_CLOCK) as connection:
            self._joint.connection = connection
            try:
                yield
            finally:
                self._joint.connection = None
            connection.exec_driver_sql("SAVEPOINT checked")
            try:
                connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
            except sa.exc.IntegrityError as error:
                connection.exec_driver_sql("ROLLBACK TO SAVEPOINT checked")
                raise explain(connection, error) from error
            connection.exec_driver_sql("COMMIT")

    def corruption(self, detail: str) -> CatalogCorrupt:
        """Return the error for a catalog whose description of its tables cannot be read."""
        return CatalogCorrupt(f"The catalog {self.name} is damaged ({detail}). Restore it from a backup.")

    def close(self) -> None:
        """Close all connections. The next call opens them again."""
        with self._lock:
            if self._engine is not None and self._pid == os.getpid():
                self._engine.dispose()

    @contextmanager
    def _begin(self, lock: str) -> Iterator[sa.Connection]:
        """Begin a transaction and take its lock, in one round trip."""
        with self._get_engine().connect() as connection:
            try:
                connection.exec_driver_sql(f"BEGIN; {lock}")
                yield connection
            except BaseException:
                _roll_back(connection)
                raise

    def _get_engine(self) -> sa.Engine:
        engine = self._engine
        if engine is not None and self._pid == os.getpid():
            return engine
        if self._pid != os.getpid():  # the lock may be held by a thread that this process does not have
            self._lock, self._joint = Lock(), _Joint()
        with self._lock:
            if self._engine is None or self._pid != os.getpid():
                if self._engine is not None:
                    self._left_engines.append(self._engine)
                self._engine = sa.create_engine(
                    "postgresql+psycopg://",
                    creator=self._connect,
                    isolation_level="AUTOCOMMIT",
                    pool_size=MAX_CONNECTIONS,
                    max_overflow=-1,
                    pool_use_lifo=True,
                )
                sa.event.listen(self._engine, "checkout", _check_open)
                self._pid = os.getpid()
            return self._engine

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        options = {
            "search_path": SCHEMA,
            "TimeZone": "UTC",
            "lock_timeout": f"{LOCK_TIMEOUT}s",
            "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT}s",
        }
        connection = psycopg.connect(
            self.address.conninfo,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT,
            application_name="deriva-ml",
            options=" ".join(f"-c {name}={value}" for name, value in options.items()),
        )
        # tables of one user then belong to all who may act as the owner; the session keeps the user's own name
        if owner := connection.execute(FIND_OWNER).fetchone():
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(owner[0])))
        return connection

    @contextmanager
    def _translate_errors(self, *, is_write: bool = False) -> Iterator[None]:
        try:
            yield
        except (sa.exc.StatementError, psycopg.Error) as error:
            if is_write and _is_refused_row(error):
                raise  # the catalog knows the rows and explains the error
            raise _translate_error(error, self.name) from error


def _check_open(connection: psycopg.Connection[object], *_: object) -> None:
    """Let the pool replace a connection that the server has closed meanwhile, which asking the server would cost."""
    if connection.closed or select.select([connection.fileno()], [], [], 0)[0]:
        raise sa.exc.DisconnectionError


def _is_refused_row(error: Exception) -> bool:
    """Whether the server, or the driver before it, refused the values of a row."""
    code = error_code(error)
    return isinstance(error, POSTGRES.write_errors) and (code[:2] in ("", "22", "23") or code in MISFIT_CODES)


def _roll_back(connection: sa.Connection) -> None:
    try:
        connection.exec_driver_sql("ROLLBACK")
    except (sa.exc.SQLAlchemyError, psycopg.Error):
        connection.invalidate()  # the server is gone, and has rolled back


def _translate_error(error: Exception, name: str) -> DerivaMLException:
    code, detail = error_code(error), str(getattr(error, "orig", None) or error).strip()
    first_line = detail.partition("\n")[0]
    # before a login, the driver has only the text
    if code.startswith("28") or re.search(REFUSED_LOGIN, detail):
        return LoginRequired(
            f"The server of the catalog {name} refused the login ({first_line}). Check the user, and its password in "
            "~/.pgpass or PGPASSFILE."
        )
    if code == "42501":
        return AccessRefused(f"The catalog {name} refused this to this user ({first_line}). Ask its owner for a role.")
    if code == "25006":
        return CatalogReadOnly(f"The catalog {name} is read-only ({first_line}).")
    if code == "53100":
        return CatalogUnavailable(f"The disk of the catalog {name} is full, and nothing was written.")
    if code in ("55P03", "57014"):
        return CatalogUnavailable(
            f"Another process is still writing to the catalog {name}. Try again when it has ended."
        )
    if code == "3D000" or re.search(UNKNOWN_DATABASE, detail):
        return ConfigurationError(f"The server of {name} has no such database ({first_line}).")
    if code and not code.startswith(("08", "25", "40", "53", "57", "58")):
        return ConfigurationError(f"The catalog {name} cannot do this: {first_line}.")
    return CatalogUnavailable(f"The catalog {name} cannot be reached ({first_line}). Try again.")
