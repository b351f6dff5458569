"""How the embedded catalog is opened, made on first use, and brought up to the present version."""

from __future__ import annotations

import errno
import logging
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

from deriva_ml_core.addresses import CATALOG_FILE
from deriva_ml_core.backends.embedded import clock, tabling, writing
from deriva_ml_core.backends.embedded.catalog import EmbeddedCatalog
from deriva_ml_core.backends.embedded.database import Database, corruption
from deriva_ml_core.backends.embedded.durability import sync_path
from deriva_ml_core.backends.embedded.filesystems import network_file_system, present_mounts
from deriva_ml_core.backends.embedded.reading import CatalogFile
from deriva_ml_core.backends.embedded.tables import MappedTable
from deriva_ml_core.backends.embedded.upgrading import MIGRATIONS, Migration
from deriva_ml_core.errors import (
    CatalogCorrupt,
    CatalogReadOnly,
    CatalogTooNew,
    CatalogUnavailable,
    DerivaMLException,
    DerivaMLWarning,
)
from deriva_ml_core.standard import SCHEMA_VERSION, TERMS, standard_tables

__all__ = ["APPLICATION_ID", "FILE", "open_catalog"]

FILE = CATALOG_FILE

APPLICATION_ID = 0x6472766D
"""SQLite's mark of whose file it is: ``drvm``."""

log = logging.getLogger(__name__)


def open_catalog(
    folder: Path,
    *,
    migrations: Sequence[Migration] = MIGRATIONS,
    version: int = SCHEMA_VERSION,
    mounts: Iterable[tuple[str, str]] | None = None,
) -> EmbeddedCatalog:
    """Open the catalog in a folder; it is made if there is none, and upgraded if it is older and may be written.

    Args:
        folder: Where ``catalog.sqlite`` lies.
        migrations: What brings a catalog from each version before `version` to the next, from 1.
        version: The version that this software writes.
        mounts: Where file systems are mounted, and their types; None to ask this machine.

    Raises:
        CatalogTooNew: A newer version of this software wrote it.
        CatalogCorrupt: The file is no catalog, or damaged.
        CatalogReadOnly: There is none, and the folder may not be written.
        CatalogUnavailable: The folder cannot be made, or its disk is full.
    """
    file = folder / FILE
    journal = _journal(folder, present_mounts() if mounts is None else mounts)
    if not file.exists():
        _make(folder, journal)
    database = Database(file, journal=journal)
    if (found := _version(database)) > version:
        raise CatalogTooNew(
            f"The catalog {file} has version {found} and this software knows versions up to {version}: "
            "install the deriva-ml-core that wrote it, or a newer one."
        )
    if found < version:
        # who may not write it reads it as it is: no version took away what an earlier one had
        with suppress(CatalogReadOnly):
            _upgrade(database, migrations, version)
    return EmbeddedCatalog(CatalogFile(database, folder))


def _journal(folder: Path, mounts: Iterable[tuple[str, str]]) -> str:
    kind = network_file_system(folder, mounts)
    if kind is None:
        return "WAL"
    warnings.warn(
        f"{folder} lies on a network file system ({kind}): its catalog is kept with slower and less certain locks. "
        "Set DERIVA_ML_HOME to a folder on a disk of this machine.",
        DerivaMLWarning,
        stacklevel=3,
    )
    return "DELETE"


def _version(database: Database) -> int:
    with database.reading() as connection:
        mark = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if mark != APPLICATION_ID or version < 1:
        raise CatalogCorrupt(corruption(database.file, "it is not a file of this software"))
    return version


def _make(folder: Path, journal: str) -> None:
    """Make the catalog beside its place and rename it there, so that nobody ever sees half of one."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{FILE}.lock"):
            if (folder / FILE).exists():
                return
            for left in folder.glob(".catalog-*"):  # by a process that was killed here
                rmtree(left)
            with TemporaryDirectory(prefix=".catalog-", dir=folder) as workshop:
                draft = Path(workshop) / FILE
                draft.touch()
                _furnish(Database(draft, journal=journal), journal)
                draft.replace(folder / FILE)
            sync_path(folder)
    except OSError as error:
        raise _unmade(folder, error) from error


def _unmade(folder: Path, error: OSError) -> DerivaMLException:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return CatalogReadOnly(
            f"No catalog can be made in {folder} ({error.strerror}): let this user write there, or choose another "
            "place with DERIVA_ML_HOME."
        )
    return CatalogUnavailable(
        f"No catalog can be made in {folder}: {error}. Mend that, or choose another place with DERIVA_ML_HOME."
    )


def _furnish(database: Database, journal: str) -> None:
    database.run_alone(f"PRAGMA journal_mode = {journal}")
    with database.writing() as connection:
        for statement in (*clock.CREATION, *tabling.CREATION):
            connection.exec_driver_sql(statement)
        model = tabling.add_tables(connection, standard_tables())
        tables = {name: MappedTable(table) for name, table in model.tables.items()}
        for vocabulary, terms in TERMS.items():
            rows = [{"Name": name, "Description": description} for name, description in terms.items()]
            writing.insert(connection, tables[vocabulary], tables, rows, skip_existing=False)
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
    database.close()


def _upgrade(database: Database, migrations: Sequence[Migration], version: int) -> None:
    with database.writing() as connection:
        # another process may have done it while this one waited
        found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
        for migration in migrations[found - 1 : version - 1]:
            migration(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {version}")
    log.info("The catalog %s was brought from version %d to %d.", database.file, found, version)
