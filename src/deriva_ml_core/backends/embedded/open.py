"""Open the embedded catalog, create it on first use, and migrate it to the current version."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import sqlalchemy as sa

from deriva_ml_core import default_schema
from deriva_ml_core._files.atomic import sync_path
from deriva_ml_core._files.permissions import create_folder, is_shared_with_group
from deriva_ml_core.backends.embedded.database import (
    Database,
    corruption_message,
    detect_network_file_system,
    list_mounts,
)
from deriva_ml_core.backends.embedded.dialect import SQLITE
from deriva_ml_core.backends.sql import identifiers, migrations, mutations
from deriva_ml_core.backends.sql.catalog import BATCH_SIZE, SqlCatalog
from deriva_ml_core.backends.sql.ddl import (
    REPLACED_INDEXES,
    compile_index,
    compile_replaced_triggers,
    list_indexes,
)
from deriva_ml_core.backends.sql.migrations import MIGRATIONS, Migration, add_columns
from deriva_ml_core.backends.sql.queries import CatalogDatabase, map_tables, read_model
from deriva_ml_core.backends.sql.store_address import write_store_address
from deriva_ml_core.default_schema import DEFAULT_TERMS, SCHEMA_VERSION, default_tables, parameters_table
from deriva_ml_core.definitions import MLAsset, MLTable, Role
from deriva_ml_core.errors import (
    CatalogCorrupt,
    CatalogReadOnly,
    CatalogTooNew,
    CatalogUnavailable,
    DerivaMLException,
)
from deriva_ml_core.parameter_values import (
    MAX_FILE_BYTES,
    PARAMETER_FILES,
    encode_value,
    limit_parameters,
    read_parameter_file,
)
from deriva_ml_core.paths import CATALOG_FILENAME
from deriva_ml_core.schema import Table, asset_execution_table_name
from deriva_ml_core.user_warnings import warn

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["APPLICATION_ID", "CATALOG_FILE_NAME", "open_catalog"]

CATALOG_FILE_NAME = CATALOG_FILENAME

APPLICATION_ID = 0x6472766D
"""SQLite application id of a catalog: ``drvm``."""

SIDE_FILE_SUFFIXES = ("-wal", "-shm", "-journal")
"""Suffixes of the files that SQLite keeps next to a database (https://www.sqlite.org/tempfiles.html)."""

PARAMETERS_VERSION = 4
"""The version that has the table of parameters."""

log = logging.getLogger(__name__)


def open_catalog(
    folder: Path,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    version: int = SCHEMA_VERSION,
    mounts: Iterable[tuple[str, str]] | None = None,
    store: str | None = None,
) -> SqlCatalog:
    """Open the catalog in a folder. It is created if missing, and migrated if it is older and writable.

    Args:
        folder: Folder of ``catalog.sqlite``.
        migrations: One function per version before `version`, from 1, that migrates to the next version.
        version: The version that this software writes.
        mounts: Mount points and types of file systems. None to read them from this machine.
        store: Address of the object store that a new catalog gets. None for the folder itself.

    Raises:
        CatalogTooNew: A newer version of this software wrote the catalog.
        CatalogCorrupt: The file is damaged or not a catalog, or it is missing and files of SQLite for it are left.
        CatalogReadOnly: There is no catalog, and the folder is read-only.
        CatalogUnavailable: The folder cannot be created or entered, or its disk is full.
    """
    file = folder / CATALOG_FILE_NAME
    journal = _choose_journal_mode(folder, list_mounts() if mounts is None else mounts)
    if not _exists(file):
        _create_catalog(folder, journal, store)
    database = Database(file, journal_mode=journal)
    if (found := _read_version(database)) > version:
        raise CatalogTooNew(
            f"The catalog {file} has version {found}, and this software supports versions up to {version}. "
            "Install the deriva-ml-core that wrote it, or a newer one."
        )
    if found < version:
        # a read-only catalog is read as it is: no version removed what an earlier one had
        with suppress(CatalogReadOnly):
            _migrate(database, migrations, version)
    catalog_database = CatalogDatabase(database, identifiers.RidWatermark(folder))
    if missing := _list_missing_indexes(catalog_database):
        with suppress(CatalogReadOnly, CatalogUnavailable):  # searches then take longer
            _add_indexes(catalog_database, missing)
    return SqlCatalog(catalog_database)


def _list_missing_indexes(catalog: CatalogDatabase) -> list[tuple[Table, str]]:
    """Return the indexes of this version that a catalog of an earlier one lacks, each with its table."""
    return [
        (table, name)
        for table in catalog.model.tables.values()
        if table.name in set(MLTable)
        for name in list_indexes(table)
        if name not in catalog.index_names
    ]


def _add_indexes(catalog: CatalogDatabase, missing: Sequence[tuple[Table, str]]) -> None:
    """Add indexes, each in a transaction of its own, and drop those that they replace.

    SQLite itself keeps indexes complete, so that earlier versions go on reading and writing.
    """
    log.info("Adding %d indexes to the catalog %s, once.", len(missing), catalog.database.name)
    for table, name in missing:
        with catalog.database.write_transaction() as connection:
            connection.exec_driver_sql(compile_index(table, name, SQLITE))
    with catalog.database.write_transaction() as connection:
        for name in sorted({name for table, _ in missing for name in REPLACED_INDEXES.get(table.name, ())}):
            connection.exec_driver_sql(f"DROP INDEX IF EXISTS {SQLITE.quote(name)}")
    catalog.read_index_names()


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except PermissionError as error:
        raise CatalogUnavailable(
            f"The catalog {file} cannot be reached by this user ({error.strerror}). Ask its owner for access to the "
            "folder, or use another folder with DERIVA_ML_HOME."
        ) from error


def _choose_journal_mode(folder: Path, mounts: Iterable[tuple[str, str]]) -> str:
    kind = detect_network_file_system(folder, mounts)
    if kind is None:
        return "WAL"
    warn(
        f"{folder} is on a network file system ({kind}), where locks are slower and less reliable. "
        "Set DERIVA_ML_HOME to a folder on a local disk."
    )
    return "DELETE"


def _read_version(database: Database) -> int:
    with database.read_transaction() as connection:
        mark = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if mark != APPLICATION_ID or version < 1:
        raise CatalogCorrupt(corruption_message(database.file, "this software did not write it"))
    return version


def _create_catalog(folder: Path, journal_mode: str, store: str | None) -> None:
    """Create the catalog under a temporary name and rename it, so that no process sees an incomplete file.

    Raises:
        CatalogCorrupt: Files of a missing database are left, which SQLite would apply to the new one.
    """
    from filelock import FileLock

    try:
        new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
        create_folder(folder, root=folder)
        with FileLock(folder / f"{CATALOG_FILE_NAME}.lock"):
            if (folder / CATALOG_FILE_NAME).exists():
                return
            _check_no_side_files(folder / CATALOG_FILE_NAME)
            for leftover in folder.glob(".catalog-*"):  # of a process that was killed here
                rmtree(leftover)
            # the next holder of the lock finds this name without walking the whole folder
            with TemporaryDirectory(prefix=".catalog-", dir=folder) as temporary:
                draft = Path(temporary) / CATALOG_FILE_NAME
                draft.touch()
                _initialize_schema(draft, journal_mode, store)
                _share_with_group(draft, folder)
                sync_path(draft)
                draft.replace(folder / CATALOG_FILE_NAME)
            sync_path(folder)
            for path in new_folders:
                with suppress(PermissionError):  # a parent may allow to create folders and not to list them
                    sync_path(path.parent)
    except OSError as error:
        raise _creation_error(folder, error) from error


def _share_with_group(file: Path, folder: Path) -> None:
    """Give the database the group and mode of a folder that a group shares, so that the others can write it."""
    if is_shared_with_group(folder):
        status = folder.stat()
        with suppress(PermissionError):  # the user is not in the group
            os.chown(file, -1, status.st_gid)
            file.chmod(status.st_mode & 0o664)


def _creation_error(folder: Path, error: OSError) -> DerivaMLException:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return CatalogReadOnly(
            f"No catalog can be created in {folder} ({error.strerror}). Make the folder writable for this user, or use "
            "another folder with DERIVA_ML_HOME."
        )
    return CatalogUnavailable(
        f"No catalog can be created in {folder}: {error}. Fix that, or use another folder with DERIVA_ML_HOME."
    )


def _check_no_side_files(file: Path) -> None:
    if left := _list_side_files(file):
        raise CatalogCorrupt(
            f"{file} is missing, and {', '.join(map(str, left))} still belongs to it. If the catalog was moved away or "
            "deleted by mistake, put it back. Move these files away to start with an empty catalog."
        )


def _list_side_files(file: Path) -> list[Path]:
    paths = (file.with_name(f"{file.name}{suffix}") for suffix in SIDE_FILE_SUFFIXES)
    return [path for path in paths if path.exists()]


def _initialize_schema(file: Path, journal_mode: str, store: str | None) -> None:
    """Write tables and terms to an empty file. All of it is in that file afterwards.

    Raises:
        CatalogUnavailable: The disk is full or failed.
    """
    # With a rollback journal, a commit returns when the file is complete. With a write-ahead log, SQLite copies the log
    # into the file when it closes it, ignores errors of that, and leaves the log, which the renaming would lose.
    database = Database(file, journal_mode="DELETE")
    with database.write_transaction() as connection:
        for statement in (*identifiers.CLOCK_DDL, *migrations.MODEL_DDL):
            connection.exec_driver_sql(statement)
        model = migrations.add_tables(connection, default_tables(), SQLITE)
        tables = map_tables(model, SQLITE)
        for vocabulary, terms in DEFAULT_TERMS.items():
            rows = [{"Name": name, "Description": description} for name, description in terms.items()]
            mutations.insert(connection, tables[vocabulary], tables, rows, skip_existing=False)
        if store is not None:
            write_store_address(connection, store)
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
    # the file stores the mode, and the log is still empty
    database.execute_autocommit(f"PRAGMA journal_mode = {journal_mode}")
    database.close()
    if left := _list_side_files(file):
        raise CatalogUnavailable(
            f"The disk of the catalog {file} failed, and {', '.join(path.name for path in left)} could not be merged "
            "into it. Check the disk, and try again."
        )


def _migrate(database: Database, migrations: Sequence[Migration], version: int) -> None:
    with database.write_transaction() as connection:
        # another process may have migrated it while this one waited for the lock
        found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        for migration in migrations[found - 1 : version - 1]:
            migration(connection, SQLITE)
        if found < PARAMETERS_VERSION <= version:
            _fill_parameters(connection, database.file.parent)
        model = add_columns(connection, default_tables(), default_schema.ADDED_COLUMNS, SQLITE)
        for table in model.tables.values():
            for statement in compile_replaced_triggers(table, SQLITE):
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"PRAGMA user_version = {version}")
    log.info("Migrated the catalog %s from version %d to %d.", database.file, found, version)


def _fill_parameters(connection: sa.Connection, folder: Path) -> None:
    """Add the parameters of earlier executions, from their configuration and training files in the store.

    A file that is missing or damaged is left out.
    """
    tables = map_tables(read_model(connection), SQLITE)
    table = tables.get(MLTable.execution_parameter)
    metadata = tables.get(MLAsset.execution_metadata)
    links = tables.get(asset_execution_table_name(MLAsset.execution_metadata))
    if table is None or metadata is None or links is None or table.table.column_names < parameters_table().column_names:
        return
    query = (
        sa.select(links.rows.c.Execution, metadata.rows.c.Filename, metadata.rows.c.MD5)
        .join(metadata.rows, links.rows.c[MLAsset.execution_metadata] == metadata.rows.c.RID)
        .where(links.rows.c.Asset_Role == Role.output, metadata.rows.c.Filename.in_(PARAMETER_FILES))
        .order_by(metadata.rows.c.Filename, metadata.rows.c.RCT.desc())  # the newest training.json has all fits
    )
    parameters: dict[str, dict[str, JsonValue]] = {}
    for rid, filename, md5 in connection.execute(query):
        known = parameters.setdefault(rid, {})
        found = _read_parameters(folder / "objects", str(md5), filename)
        known |= {name: value for name, value in limit_parameters(found, known)[0].items() if name not in known}
    rows = [
        {"Execution": rid, "Name": name, "Value": text, "Number": number}
        for rid, values in parameters.items()
        for name, value in values.items()
        for text, number in (encode_value(value),)
    ]
    for start in range(0, len(rows), BATCH_SIZE):
        mutations.insert(connection, table, tables, rows[start : start + BATCH_SIZE], skip_existing=True)


def _read_parameters(objects: Path, md5: str, filename: str) -> dict[str, JsonValue]:
    if not re.fullmatch("[0-9a-f]{32}", md5):  # a row is data, and must not name a path elsewhere
        return {}
    file = objects / md5[:2] / md5
    try:
        return read_parameter_file(filename, file.read_bytes()) if file.stat().st_size <= MAX_FILE_BYTES else {}
    except OSError:
        return {}
