"""A column that a later version adds to a standard table reaches the catalogs of earlier versions."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from embedded_samples import run_in_child, unprivileged_user, world_writable_folder

from deriva_ml_core import DerivaML, default_schema
from deriva_ml_core.backends.embedded.dialect import SQLITE
from deriva_ml_core.backends.embedded.open import CATALOG_FILE_NAME, open_catalog
from deriva_ml_core.backends.sql.dialect import SqlDialect
from deriva_ml_core.backends.sql.migrations import MIGRATIONS, add_columns
from deriva_ml_core.default_schema import SCHEMA_VERSION, default_tables
from deriva_ml_core.schema import Column, Table

HOST, SECONDS = Column("Host"), Column("Seconds", "float8")
ADDED = frozenset({("Execution", "Host"), ("Execution", "Seconds")})
NEXT_VERSION = SCHEMA_VERSION + 1


def do_nothing(connection: sa.Connection, dialect: SqlDialect) -> None:
    """Migrate nothing but the columns, which every migration adds."""


def with_new_columns(tables: tuple[Table, ...]) -> tuple[Table, ...]:
    return tuple(
        replace(table, columns=(*table.columns, HOST, SECONDS)) if table.name == "Execution" else table
        for table in tables
    )


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declare two more columns of Execution, as the next version of the schema would."""
    present = default_schema._execution_tables()
    monkeypatch.setattr(default_schema, "_execution_tables", lambda: with_new_columns(present))
    monkeypatch.setattr(default_schema, "ADDED_COLUMNS", ADDED)


def create_old_catalog(version: int, folder: Path) -> Path:
    """Create a catalog of an earlier version with one execution; return its folder."""
    folder.mkdir()
    if version < SCHEMA_VERSION:
        connection = sqlite3.connect(folder / CATALOG_FILE_NAME)
        script = Path(__file__).parent / f"catalog_version_{version}.sql"
        connection.executescript(script.read_text(encoding="utf-8"))
        connection.close()
    catalog = open_catalog(folder, version=version)
    catalog.insert("Execution", [{"Description": "old"}])
    catalog.close()
    return folder


def open_next(folder: Path):
    return open_catalog(folder, migrations=(*MIGRATIONS, do_nothing), version=NEXT_VERSION)


@pytest.mark.parametrize("version", range(1, NEXT_VERSION))
def test_old_catalog_gets_columns(version: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Old rows have no value in the new columns; new values, their history and their checks are as in a new catalog."""
    folder = create_old_catalog(version, tmp_path / "catalog")
    request.getfixturevalue("next_version")
    catalog = open_next(folder)
    assert catalog.model.table("Execution").columns[-2:] == (HOST, SECONDS)
    (row,) = catalog.select("Execution", {"Description": "old"})
    assert (row["Host"], row["Seconds"]) == (None, None)
    before = catalog.snapshot()
    catalog.update("Execution", [{"RID": row["RID"], "Host": "node-1", "Seconds": 1.5}])
    between = catalog.snapshot()
    catalog.update("Execution", [{"RID": row["RID"], "Host": "node-2"}])
    (now,) = catalog.select("Execution", {"Host": "node-2"})
    assert (now["Description"], now["Seconds"]) == ("old", 1.5)
    assert [each["Host"] for each in catalog.at(before).select("Execution", {"RID": row["RID"]})] == [None]
    assert [each["Host"] for each in catalog.at(between).select("Execution", {"RID": row["RID"]})] == ["node-1"]
    catalog.delete("Execution", {"RID": row["RID"]})
    assert [each["Host"] for each in catalog.at(between).select("Execution", {"RID": row["RID"]})] == ["node-1"]
    with pytest.raises(Exception, match="Seconds"):
        catalog.insert("Execution", [{"Seconds": "a text"}])
    assert open_next(folder).model.tables == open_next(tmp_path / "new").model.tables


def test_user_table_stays(tmp_path: Path) -> None:
    """A user's table with the name of a standard one, which lacks its other columns too, gets no column."""
    catalog = open_catalog(tmp_path)
    catalog.create_tables([Table("Sample", (Column("Name"),))])
    declared = Table("Sample", (Column("Name"), Column("Kind"), HOST))
    with catalog._source.database.write_transaction() as connection:
        model = add_columns(connection, [declared], {("Sample", "Host")}, SQLITE)
    assert model.table("Sample").column_names == {"Name"}


def test_current_catalog_stays(tmp_path: Path) -> None:
    """A catalog that has all declared columns stays as it is."""
    catalog = open_catalog(tmp_path)
    with catalog._source.database.write_transaction() as connection:
        assert add_columns(connection, default_tables(), ADDED, SQLITE).tables == catalog.model.tables


KILLED = """
import os, signal, sys
from pathlib import Path
from dataclasses import replace
from deriva_ml_core import DerivaML, default_schema
from deriva_ml_core.schema import Column
from deriva_ml_core.backends.embedded import open as opening
present = default_schema._execution_tables()
default_schema._execution_tables = lambda: tuple(
    replace(t, columns=(*t.columns, Column("Host"))) if t.name == "Execution" else t for t in present
)
from deriva_ml_core.backends.sql.migrations import MIGRATIONS, add_columns
default_schema.ADDED_COLUMNS = frozenset({("Execution", "Host")})
def add_and_die(connection, tables, added, dialect):
    assert "Host" in add_columns(connection, tables, added, dialect).table("Execution").column_names
    os.kill(os.getpid(), signal.SIGKILL)
opening.add_columns = add_and_die
nothing = lambda connection, dialect: None
opening.open_catalog(Path(sys.argv[1]), migrations=(*MIGRATIONS, nothing), version=len(MIGRATIONS) + 2)
"""


def test_killed_while_columns_are_added(tmp_path: Path) -> None:
    """A process that is killed after the statements leaves the catalog of the earlier version."""
    folder = create_old_catalog(SCHEMA_VERSION, tmp_path / "catalog")
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    assert "Host" not in open_catalog(folder).model.table("Execution").column_names


def test_read_only_catalog_without_the_column(request: pytest.FixtureRequest) -> None:
    """A user who cannot migrate an earlier catalog reads the column as empty."""
    with world_writable_folder() as folder:
        create_old_catalog(SCHEMA_VERSION, folder / "catalog")
        (folder / "catalog" / CATALOG_FILE_NAME).chmod(0o444)
        (folder / "catalog").chmod(0o777)
        request.getfixturevalue("next_version")

        def read() -> None:
            (row,) = DerivaML(f"file:{folder / 'catalog'}").connection.catalog.select("Execution")
            assert (row["Description"], row["Host"], row["Seconds"]) == ("old", None, None)

        assert run_in_child(read, user=unprivileged_user()) == ""
