"""Add tables to a catalog, and migrate catalogs of earlier versions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import sqlalchemy as sa

from deriva_ml_core.backends.row_checks import table_exists
from deriva_ml_core.backends.sql import identifiers, mutations
from deriva_ml_core.backends.sql.ddl import compile_added_columns, compile_ddl, model_to_json
from deriva_ml_core.backends.sql.dialect import SqlDialect
from deriva_ml_core.backends.sql.queries import map_tables, read_model
from deriva_ml_core.definitions import MLTable, MLVocab
from deriva_ml_core.errors import ConfigurationError, DuplicateRow, UnknownTable
from deriva_ml_core.schema import SYSTEM_COLUMNS, CatalogModel, Column, ForeignKey, Table

__all__ = ["MIGRATIONS", "MODEL_DDL", "Migration", "add_columns", "add_tables"]


MODEL_DDL = (
    "CREATE TABLE _model (id INTEGER PRIMARY KEY CHECK (id = 1), tables TEXT NOT NULL)",
    "INSERT INTO _model VALUES (1, '[]')",
)
"""Statements that create the table that stores the model."""


def add_tables(connection: sa.Connection, tables: Sequence[Table], dialect: SqlDialect) -> CatalogModel:
    """Create those tables that do not exist.

    Args:
        connection: Connection with an open write transaction.
        tables: Tables to create. They may refer to each other.
        dialect: The SQL of the database.

    Returns:
        All tables of the catalog.

    Raises:
        DuplicateRow: A table of that name exists with other columns.
        UnknownTable: A foreign key refers to a table that does not exist.
        ConfigurationError: A name is invalid, or a foreign key refers to columns that are not a key.
    """
    existing = read_model(connection)
    # SQLite does not distinguish names by case, and a catalog can move from one database to another
    new = [table for table in tables if not table_exists(existing, table, ignore_case=True)]
    model = CatalogModel({**existing.tables, **{table.name: table for table in new}})
    if not new:
        return existing
    for table in new:
        _check_names(table)
        _check_references(model, table)
    identifiers.advance_clock(connection)
    for statement in compile_ddl(new, existing, dialect):
        connection.exec_driver_sql(statement)
    write_model(connection, model)
    return model


def add_columns(
    connection: sa.Connection, declared: Sequence[Table], added: Collection[tuple[str, str]], dialect: SqlDialect
) -> CatalogModel:
    """Add the columns of later versions that existing tables lack.

    A user's table of the same name, which lacks other columns too, stays unchanged.

    Args:
        connection: Connection with an open write transaction.
        declared: Standard tables with all their columns.
        added: Columns, as table and name, that later versions added.
        dialect: The SQL of the database.

    Returns:
        All tables of the catalog.
    """
    existing = read_model(connection)
    changed: dict[str, Table] = {}
    for table in declared:
        current = existing.tables.get(table.name)
        if current is None:
            continue
        new = tuple(column for column in table.columns if column.name not in current.column_names)
        if new and all((table.name, column.name) in added for column in new):
            for statement in compile_added_columns(current, new, dialect):
                connection.exec_driver_sql(statement)
            changed[table.name] = replace(current, columns=(*current.columns, *new))
    if not changed:
        return existing
    model = CatalogModel({**existing.tables, **changed})
    write_model(connection, model)
    return model


def write_model(connection: sa.Connection, model: CatalogModel) -> None:
    """Write the model to the catalog."""
    connection.execute(sa.text("UPDATE _model SET tables = :tables"), {"tables": model_to_json(model)})


def _check_names(table: Table) -> None:
    name = table.name
    if not name.strip() or "\0" in name or name.startswith(("_", "sqlite_")) or name.endswith("__history"):
        raise ConfigurationError(f"{name!r} is not a valid table name. Use a name that begins with a letter.")
    names = [column.name.casefold() for column in table.columns] + [name.casefold() for name in SYSTEM_COLUMNS]
    if any(not name.strip() or "\0" in name or name.startswith("__") for name in names):
        raise ConfigurationError(f"A column of {name!r} has an invalid name. Use names that begin with a letter.")
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(
            f"The table {name!r} has the column {', '.join(duplicates)} twice. Names that differ only by case are the "
            f"same, and {', '.join(SYSTEM_COLUMNS)} are reserved."
        )


def _check_references(model: CatalogModel, table: Table) -> None:
    for column in [*(column for key in table.keys for column in key), *(key.column for key in table.foreign_keys)]:
        if column not in table.column_names:
            raise ConfigurationError(f"A key of {table.name!r} names the column {column!r}, which does not exist.")
    for key in table.foreign_keys:
        if key.table not in model.tables:
            raise UnknownTable(
                f"{table.name}.{key.column} refers to the table {key.table!r}, which does not exist. Create it first."
            )
        if key.to != "RID" and (key.to,) not in model.tables[key.table].keys:
            raise ConfigurationError(f"{table.name}.{key.column} refers to {key.table}.{key.to}, which is not unique.")


Migration = Callable[[sa.Connection, SqlDialect], None]
"""Migrates a catalog to the next version, within the transaction of the connection."""

VERSION_2_ASSET_TYPES: Mapping[str, str] = {
    "Best_Checkpoint": "The best checkpoint of a training, by the metric that it watched",
    "Last_Checkpoint": "The last checkpoint of a training",
    "Training_Curves": "A picture of a training's metrics by epoch",
}


def _migrate_to_2(connection: sa.Connection, dialect: SqlDialect) -> None:
    """Add the asset types of checkpoints and curves. Existing terms stay unchanged."""
    tables = map_tables(read_model(connection), dialect)
    rows = [{"Name": name, "Description": description} for name, description in VERSION_2_ASSET_TYPES.items()]
    mutations.insert(connection, tables[MLVocab.asset_type], tables, rows, skip_existing=True)


VERSION_3_METRICS_TABLE = Table(
    MLTable.execution_metric,
    (
        Column("Execution", nullok=False),
        Column("Stage", nullok=False, comment="fit, validate, test or predict"),
        Column("Name", nullok=False),
        Column("Last", "float8", comment="The newest value; empty where that is no finite number"),
        Column("Best", "float8", comment="The best finite value"),
        Column("Best_At", "int4", comment="The epoch of the best value, from 1"),
        Column("Larger_Is_Better", "boolean", nullok=False),
    ),
    keys=(("Execution", "Stage", "Name"),),
    foreign_keys=(ForeignKey("Execution", MLTable.execution, cascade=True),),
    comment="Where each metric of an execution stands, so that executions can be ordered by it",
)
"""The table in version 3. Later versions may change it."""


def _migrate_to_3(connection: sa.Connection, dialect: SqlDialect) -> None:
    """Add the table of metrics. A user's table of that name stays unchanged."""
    with suppress(DuplicateRow):
        add_tables(connection, [VERSION_3_METRICS_TABLE], dialect)


VERSION_4_PARAMETERS_TABLE = Table(
    MLTable.execution_parameter,
    (
        Column("Execution", nullok=False),
        Column("Name", nullok=False, comment="Nested settings are joined with dots, as in optimizer.lr"),
        Column("Value", nullok=False, comment="A text as it is, any other value as JSON; cut at 500 characters"),
        Column("Number", "float8", comment="The value if it is a finite number"),
    ),
    keys=(("Execution", "Name"),),
    foreign_keys=(ForeignKey("Execution", MLTable.execution, cascade=True),),
    comment="The settings of each execution, so that executions can be found and compared by them",
)
"""The table in version 4. Later versions may change it."""


def _migrate_to_4(connection: sa.Connection, dialect: SqlDialect) -> None:
    """Add the table of parameters. A user's table of that name stays unchanged."""
    with suppress(DuplicateRow):
        add_tables(connection, [VERSION_4_PARAMETERS_TABLE], dialect)


VERSION_5_TAGS_TABLE = Table(
    MLTable.execution_tag,
    (
        Column("Execution", nullok=False),
        Column("Tag", nullok=False, comment="One line without commas, of at most 100 characters"),
    ),
    keys=(("Execution", "Tag"),),
    foreign_keys=(ForeignKey("Execution", MLTable.execution, cascade=True),),
    comment="Words that users attach to executions, so that these can be found by them",
)
"""The table in version 5. Later versions may change it."""


def _migrate_to_5(connection: sa.Connection, dialect: SqlDialect) -> None:
    """Add the table of tags. A user's table of that name stays unchanged."""
    with suppress(DuplicateRow):
        add_tables(connection, [VERSION_5_TAGS_TABLE], dialect)


MIGRATIONS: tuple[Migration, ...] = (_migrate_to_2, _migrate_to_3, _migrate_to_4, _migrate_to_5)
"""Migrations from version 1 to 2, from 2 to 3, and so on: one per version before the current one."""
