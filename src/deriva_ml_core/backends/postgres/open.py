"""Create a catalog in a PostgreSQL database, open it, and migrate it to the current version."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import NamedTuple

import sqlalchemy as sa

from deriva_ml_core import default_schema
from deriva_ml_core.backends.postgres.address import PostgresAddress
from deriva_ml_core.backends.postgres.database import SCHEMA, Database
from deriva_ml_core.backends.postgres.dialect import POSTGRES
from deriva_ml_core.backends.sql import mutations
from deriva_ml_core.backends.sql.catalog import SqlCatalog
from deriva_ml_core.backends.sql.ddl import compile_replaced_triggers
from deriva_ml_core.backends.sql.identifiers import FIRST_RID, tick_to_iso
from deriva_ml_core.backends.sql.migrations import MIGRATIONS, Migration, add_columns, add_tables
from deriva_ml_core.backends.sql.queries import CatalogDatabase, map_tables
from deriva_ml_core.backends.sql.store_address import write_store_address
from deriva_ml_core.default_schema import DEFAULT_TERMS, SCHEMA_VERSION, default_tables
from deriva_ml_core.errors import AccessRefused, CatalogTooNew, UnknownAddress

__all__ = ["create_catalog", "open_catalog"]

OLDEST_WRITER = 4
"""The oldest version of this software, by its version of the tables, that may write to the catalogs of this version."""

STATE_DDL = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    "CREATE TABLE _catalog (id integer PRIMARY KEY CHECK (id = 1), version integer NOT NULL, "
    "min_reader integer NOT NULL, min_writer integer NOT NULL)",
    "CREATE TABLE _clock (id integer PRIMARY KEY CHECK (id = 1), tick bigint NOT NULL, time timestamptz NOT NULL, "
    "rid bigint NOT NULL)",
    f"INSERT INTO _clock VALUES (1, 0, '{tick_to_iso(0)}', {FIRST_RID})",  # noqa: S608
    "CREATE TABLE _given (number bigint PRIMARY KEY)",
    "CREATE TABLE _model (id integer PRIMARY KEY CHECK (id = 1), tables text NOT NULL)",
    "INSERT INTO _model VALUES (1, '[]')",
    """CREATE FUNCTION _set_user() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW."RMB" := session_user;
    IF TG_OP = 'INSERT' THEN NEW."RCB" := session_user; ELSE NEW."RCB" := OLD."RCB"; NEW."RCT" := OLD."RCT"; END IF;
    RETURN NEW; END $$""",
)
"""Statements that create the schema, the tables with the state of the catalog, and a function for its triggers."""

log = logging.getLogger(__name__)


class CatalogState(NamedTuple):
    """The version of a catalog, and of the software that can use it.

    Args:
        version: The version of its tables.
        min_reader: The oldest version of this software that can read it.
        min_writer: The oldest version of this software that may write to it.
    """

    version: int
    min_reader: int
    min_writer: int


def create_catalog(address: PostgresAddress, store: str) -> None:
    """Create the tables and terms of a catalog in an empty database. An existing catalog stays as it is.

    Args:
        address: The database.
        store: Address of the object store that a new catalog gets.

    Raises:
        AccessRefused: The user may not create a schema in the database.
        CatalogUnavailable: The server cannot be reached.
    """
    with closing(Database(address)) as database, database.schema_transaction() as connection:
        if _read_state(connection) is not None:
            return
        for statement in STATE_DDL:
            connection.exec_driver_sql(statement)
        model = add_tables(connection, default_tables(), POSTGRES)
        tables = map_tables(model, POSTGRES)
        for vocabulary, terms in DEFAULT_TERMS.items():
            rows = [{"Name": name, "Description": description} for name, description in terms.items()]
            mutations.insert(connection, tables[vocabulary], tables, rows, skip_existing=False)
        connection.execute(
            sa.text("INSERT INTO _catalog VALUES (1, :version, :oldest, :oldest)"),
            {"version": SCHEMA_VERSION, "oldest": OLDEST_WRITER},
        )
        write_store_address(connection, store)


def open_catalog(
    address: PostgresAddress, *, migrations: Sequence[Migration] = MIGRATIONS, version: int = SCHEMA_VERSION
) -> SqlCatalog:
    """Open the catalog in a database. It is migrated if it is older, and the user may do that.

    Args:
        address: The database.
        migrations: One function per version before `version`, from 1, that migrates to the next version.
        version: The version that this software writes.

    Raises:
        CatalogTooNew: A newer version of this software has changed it, so that this one cannot read it.
        CatalogUnavailable: The server cannot be reached.
        LoginRequired: The server refuses the user.
        UnknownAddress: The database has no catalog.
    """
    database = Database(address)
    with database.read_transaction() as connection:
        state = _read_state(connection)
    if state is None:
        database_uri = address.printable
        raise UnknownAddress(
            f"The database {database_uri} has no catalog. Create one with DerivaML.create({database_uri!r}, store=...) "
            f"or `deriva-ml init --host {shlex.quote(database_uri)} --store ADDRESS`."
        )
    if version < max(state.min_reader, state.min_writer):
        raise CatalogTooNew(
            f"The catalog {address.printable} has version {state.version}, which software for version {version} cannot "
            "write. Install the newest deriva-ml-core."
        )
    if state.version < version:
        # the owner migrates it; others read and write it as it is, since no version removed what an earlier one had
        with suppress(AccessRefused):
            _migrate(database, migrations, version)
    return SqlCatalog(CatalogDatabase(database))


def _read_state(connection: sa.Connection) -> CatalogState | None:
    """Return the state of the catalog in a database; None if it has no catalog."""
    if connection.exec_driver_sql(f"SELECT to_regclass('{SCHEMA}._catalog')").scalar_one() is None:
        return None
    row = connection.exec_driver_sql(f"SELECT version, min_reader, min_writer FROM {SCHEMA}._catalog").one()  # noqa: S608
    return CatalogState(*row)


def _migrate(database: Database, migrations: Sequence[Migration], version: int) -> None:
    with database.schema_transaction() as connection:
        state = _read_state(connection)  # another process may have migrated it while this one waited for the lock
        assert state is not None
        if state.version >= version:
            return
        connection.exec_driver_sql("SELECT tick FROM _clock FOR UPDATE")
        for migration in migrations[state.version - 1 : version - 1]:
            migration(connection, POSTGRES)
        model = add_columns(connection, default_tables(), default_schema.ADDED_COLUMNS, POSTGRES)
        for table in model.tables.values():
            for statement in compile_replaced_triggers(table, POSTGRES):
                connection.exec_driver_sql(statement)
        connection.execute(sa.text("UPDATE _catalog SET version = :version"), {"version": version})
    log.info("Migrated the catalog %s from version %d to %d.", database.name, state.version, version)
