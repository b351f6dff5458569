"""How the embedded catalog is made, opened and upgraded, and what it says where it cannot be."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from embedded_samples import in_child, open_to_all, small_disk, unprivileged

from deriva_ml_core.backends.embedded import open_catalog
from deriva_ml_core.backends.embedded.open import CATALOG_FILE_NAME
from deriva_ml_core.backends.sql import migrations
from deriva_ml_core.backends.sql.migrations import MIGRATIONS
from deriva_ml_core.client import DerivaML
from deriva_ml_core.default_schema import SCHEMA_VERSION
from deriva_ml_core.errors import CatalogCorrupt, CatalogTooNew, CatalogUnavailable, DerivaMLWarning
from deriva_ml_core.schema import Column, Table


def sql(file: Path, statement: str) -> object:
    connection = sqlite3.connect(file)
    try:
        found = connection.execute(statement).fetchone()
        connection.commit()
    finally:
        connection.close()
    return found and found[0]


def test_a_catalog_is_made_once(tmp_path: Path) -> None:
    """The first opening makes folder and catalog, the second finds what was written; nothing else is left there."""
    folder = tmp_path / "a" / "b c?d#e%20f&mode=ro"
    open_catalog(folder).insert("Dataset", [{"RID": "1-ABC"}])
    assert [row["RID"] for row in open_catalog(folder).select("Dataset")] == ["1-ABC"]
    assert {path.name for path in folder.iterdir()} <= {
        CATALOG_FILE_NAME,
        f"{CATALOG_FILE_NAME}.lock",
        f"{CATALOG_FILE_NAME}-wal",
        f"{CATALOG_FILE_NAME}-shm",
    }


def test_settings(tmp_path: Path) -> None:
    """Each commit is on the disk, readers never wait for a writer, and references are checked."""
    with open_catalog(tmp_path)._file.database.read_transaction() as connection:
        asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in asked]
    assert found == ["wal", 2, 1, 30_000]


def test_opening_needs_little(tmp_path: Path) -> None:
    """Opening a catalog that is there loads neither the file lock nor psutil, and no other heavy library."""
    open_catalog(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; from deriva_ml_core.backends.embedded import open_backend; "
        "open_backend(Path(sys.argv[1])).catalog.select('Workflow'); "
        "print({'filelock', 'psutil', 'git', 'ctypes', 'stamina', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def garbage(file: Path) -> None:
    file.write_bytes(b"this is no database at all, " * 1000)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    os.truncate(file, 4096 * 3)


def another(file: Path) -> None:
    file.unlink()
    sql(file, "CREATE TABLE t (a)")


def flipped(file: Path) -> None:
    sound = file.read_bytes()
    file.write_bytes(sound[:4096] + bytes(byte ^ 0xFF for byte in sound[4096:]))


def undescribed(file: Path) -> None:
    sql(file, "UPDATE _model SET tables = '[{}]'")


@pytest.mark.parametrize("damage", [garbage, empty, cut, another, flipped, undescribed])
def test_a_damaged_catalog(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A file that is no catalog, or is damaged, is named, with what to do; it is never written over."""
    open_catalog(tmp_path).close()
    damage(tmp_path / CATALOG_FILE_NAME)
    before = (tmp_path / CATALOG_FILE_NAME).read_bytes()
    with pytest.raises(CatalogCorrupt, match=r"catalog\.sqlite .*recover") as raised:
        open_catalog(tmp_path).select("Dataset")
    assert str(tmp_path / CATALOG_FILE_NAME) in str(raised.value)
    assert (tmp_path / CATALOG_FILE_NAME).read_bytes() == before


def test_a_newer_catalog(tmp_path: Path) -> None:
    """A catalog that a newer version wrote is refused, and says which version it has."""
    open_catalog(tmp_path).close()
    sql(tmp_path / CATALOG_FILE_NAME, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(CatalogTooNew, match=f"version {SCHEMA_VERSION + 1}"):
        open_catalog(tmp_path)


def to_2(connection: sa.Connection) -> None:
    migrations.add_tables(connection, [Table("Second", (Column("A"),))])


def to_3(connection: sa.Connection) -> None:
    migrations.add_tables(connection, [Table("Third", (Column("A"),))])
    connection.exec_driver_sql("INSERT INTO Second SELECT RID, RCT, RMT, RCB, RMB, 'moved' FROM Dataset")


def broken(connection: sa.Connection) -> None:
    to_3(connection)
    raise RuntimeError("the power went")


@pytest.fixture
def first_version(tmp_path: Path) -> Path:
    """A folder with a catalog as version 1 made it, in which somebody added a term and a dataset."""
    return catalog_of(1, tmp_path / "first")


def catalog_of(version: int, folder: Path) -> Path:
    """Make a catalog as a version made it."""
    folder.mkdir()
    connection = sqlite3.connect(folder / CATALOG_FILE_NAME)
    dump = Path(__file__).parent / f"catalog_version_{version}.sql"
    connection.executescript(dump.read_text(encoding="utf-8"))
    connection.close()
    return folder


def test_an_older_catalog_is_upgraded(first_version: Path) -> None:
    """An older catalog is brought up step by step, keeps its rows, and is then opened as it is."""
    tmp_path = first_version
    open_catalog(tmp_path, version=1).insert("Dataset", [{"RID": "1-ABC"}])
    catalog = open_catalog(tmp_path, migrations=(to_2, to_3), version=3)
    assert [row["A"] for row in catalog.select("Second", {"RID": "1-ABC"})] == ["moved"]
    assert catalog.select("Third") == []
    again = open_catalog(tmp_path, migrations=(broken, broken), version=3)
    assert len(again.select("Dataset")) == 2


def test_an_upgrade_is_whole(first_version: Path) -> None:
    """An upgrade that fails leaves the catalog as it was, and the next one does all of it."""
    tmp_path = first_version
    with pytest.raises(RuntimeError):
        open_catalog(tmp_path, migrations=(to_2, broken), version=3)
    assert "Second" not in open_catalog(tmp_path, version=1).model.tables
    assert "Third" in open_catalog(tmp_path, migrations=(to_2, to_3), version=3).model.tables


def test_two_upgrade_at_once(first_version: Path) -> None:
    """Of two that find an older catalog at once one upgrades it, and the other waits and finds that done."""
    tmp_path = first_version
    upgrades: list[str] = []

    def second(_: sa.Connection) -> None:
        upgrades.append("second")

    other = threading.Thread(target=lambda: open_catalog(tmp_path, migrations=(second,), version=2))

    def first(connection: sa.Connection) -> None:
        upgrades.append("first")
        other.start()
        other.join(0.5)  # it has seen the old version and cannot go on

    open_catalog(tmp_path, migrations=(first,), version=2)
    other.join()
    assert upgrades == ["first"]


def asset_types(folder: Path) -> dict[str, str]:
    return {row["Name"]: row["Description"] for row in open_catalog(folder).select("Asset_Type")}


def test_version_1_gets_the_terms_of_version_2(first_version: Path, tmp_path: Path) -> None:
    """A catalog that version 1 made has, once it is opened, what a new one has, and all that was in it."""
    found = asset_types(first_version)
    assert found.pop("Mine") == "A term of the user's own"
    assert found == asset_types(tmp_path / "new")
    assert [row["Description"] for row in open_catalog(first_version).select("Dataset")] == ["Made by version 1"]
    assert sql(first_version / CATALOG_FILE_NAME, "PRAGMA user_version") == SCHEMA_VERSION


def structure(folder: Path) -> list[tuple[str, ...]]:
    """All that SQLite was told to make in a catalog, and what it says of its tables."""
    connection = sqlite3.connect(folder / CATALOG_FILE_NAME)
    made: list[tuple[str, ...]] = connection.execute(
        "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    ).fetchall()
    connection.close()
    return made


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_each_version_becomes_as_a_new_one(version: int, tmp_path: Path) -> None:
    """A catalog of each earlier version has, once it is opened, the tables, indexes and triggers of a new one."""
    older, new = catalog_of(version, tmp_path / "older"), tmp_path / "new"
    found, wanted = open_catalog(older), open_catalog(new)
    assert found.model.tables == wanted.model.tables
    assert structure(older) == structure(new)
    assert sql(older / CATALOG_FILE_NAME, "PRAGMA user_version") == SCHEMA_VERSION


def test_version_2_gets_a_place_for_metrics(tmp_path: Path) -> None:
    """An execution that version 2 recorded is there, has no metrics, and can get some."""
    catalog = open_catalog(catalog_of(2, tmp_path / "older"))
    (execution,) = catalog.select("Execution")
    assert (execution["Description"], catalog.select("Execution_Metric")) == ("Made by version 2", [])
    row = {"Execution": execution["RID"], "Stage": "fit", "Name": "loss", "Last": 0.5, "Larger_Is_Better": False}
    assert catalog.insert("Execution_Metric", [row]) == 1


def test_a_table_of_that_name_stays(tmp_path: Path) -> None:
    """Somebody's own table Execution_Metric, with other columns, stays as it is, and the catalog opens."""
    folder = catalog_of(2, tmp_path / "older")
    open_catalog(folder, version=2).create_tables([Table("Execution_Metric", (Column("Theirs"),))])
    assert open_catalog(folder).model.table("Execution_Metric").column_names == {"Theirs"}


def test_a_term_that_was_there_stays(first_version: Path) -> None:
    """A term of a new version that somebody has added before keeps its own words."""
    row = {"Name": "Best_Checkpoint", "Description": "What we call best"}
    open_catalog(first_version, version=1).insert("Asset_Type", [row])
    assert asset_types(first_version)["Best_Checkpoint"] == "What we call best"
    assert "Last_Checkpoint" in asset_types(first_version)


OPEN = (
    "import sys; from pathlib import Path; from deriva_ml_core.backends.embedded import open_catalog; "
    "sys.stdin.readline(); catalog = open_catalog(Path(sys.argv[1])); "
    "print(len(catalog.select('Asset_Type', {'Name': ['Best_Checkpoint', 'Last_Checkpoint', 'Training_Curves']})))"
)


def test_processes_open_an_older_catalog_at_once(first_version: Path) -> None:
    """Each of them finds the new terms, and each term is there once."""
    command = [sys.executable, "-c", OPEN, str(first_version)]
    opened = [subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) for _ in range(4)]
    for process in opened:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=120) for process in opened] == [("3\n", "")] * 4


def test_killed_while_upgrading(first_version: Path) -> None:
    """A process that is killed in the middle leaves the older catalog, and the next one upgrades it."""
    code = (
        "import os, signal, sys; from pathlib import Path; from deriva_ml_core.backends.embedded import open_catalog; "
        "from deriva_ml_core.backends.sql.migrations import MIGRATIONS; "
        "die = lambda connection: (MIGRATIONS[0](connection), os.kill(os.getpid(), signal.SIGKILL)); "
        "open_catalog(Path(sys.argv[1]), migrations=(die,))"
    )
    done = subprocess.run([sys.executable, "-c", code, first_version], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (-9, "")
    assert sql(first_version / CATALOG_FILE_NAME, "PRAGMA user_version") == 1
    assert "Best_Checkpoint" not in {row["Name"] for row in open_catalog(first_version, version=1).select("Asset_Type")}
    assert "Best_Checkpoint" in asset_types(first_version)


def test_an_older_catalog_that_may_not_be_written() -> None:
    """It is read as it is, and the next who may write it upgrades it."""
    with open_to_all() as folder:
        connection = sqlite3.connect(folder / CATALOG_FILE_NAME)
        connection.executescript((Path(__file__).parent / "catalog_version_1.sql").read_text(encoding="utf-8"))
        connection.close()
        (folder / CATALOG_FILE_NAME).chmod(0o444)
        assert in_child(lambda: open_catalog(folder).select("Dataset"), user=unprivileged()) == ""  # type: ignore[arg-type, return-value]
        assert sql(folder / CATALOG_FILE_NAME, "PRAGMA user_version") == 1
        assert "Best_Checkpoint" in asset_types(folder)


def test_an_older_catalog_that_has_no_metrics() -> None:
    """Who may not write an older catalog, and wants it ordered by a metric, is told who adds the place for them."""
    with open_to_all() as folder:
        connection = sqlite3.connect(folder / CATALOG_FILE_NAME)
        connection.executescript((Path(__file__).parent / "catalog_version_2.sql").read_text(encoding="utf-8"))
        connection.close()
        (folder / CATALOG_FILE_NAME).chmod(0o444)
        client = f"file:{folder}"
        said = in_child(lambda: DerivaML(client).find_executions(sort="loss"), user=unprivileged())  # type: ignore[arg-type, return-value]
        assert "opening it once with this version" in said


def test_each_version_has_a_way_up() -> None:
    """There is one migration for each version before the present one."""
    assert len(MIGRATIONS) == SCHEMA_VERSION - 1


def test_what_a_killed_maker_left(tmp_path: Path) -> None:
    """A draft that a killed process left is nobody's catalog."""
    (tmp_path / ".catalog-killed").mkdir()
    (tmp_path / ".catalog-killed" / CATALOG_FILE_NAME).write_bytes(b"half")
    assert open_catalog(tmp_path).select("Dataset") == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """A file where the folder should be is said to be in the way."""
    (tmp_path / "x").write_text("")
    with pytest.raises(CatalogUnavailable, match="x"):
        open_catalog(tmp_path / "x" / "local")


def test_a_folder_that_cannot_be_written() -> None:
    """Neither making a catalog nor writing one works in a read-only folder, and both say so."""
    with open_to_all() as place:
        folder = place / "local"
        catalog = open_catalog(folder)
        catalog.insert("Dataset", [{"RID": "1-ABC"}])
        catalog.close()
        (place / "empty").mkdir()
        for path in (*folder.iterdir(), folder, place / "empty"):
            path.chmod(0o444 if path.is_file() else 0o555)
        try:
            made = in_child(lambda: open_catalog(place / "empty" / "local"), user=unprivileged())
            written = in_child(lambda: open_catalog(folder).insert("Dataset", [{}]), user=unprivileged())  # type: ignore[arg-type, return-value]
        finally:
            folder.chmod(0o755)
            (place / "empty").chmod(0o755)
    assert made.startswith("CatalogReadOnly: No catalog can be created in")
    assert "DERIVA_ML_HOME" in made
    assert written.startswith("CatalogReadOnly: The catalog")
    assert "DERIVA_ML_HOME" in written


def test_a_file_that_cannot_be_written() -> None:
    """A catalog whose file alone is read-only can be read, and a write says what to do."""
    with open_to_all() as folder:
        catalog = open_catalog(folder)
        catalog.close()
        (folder / CATALOG_FILE_NAME).chmod(0o444)
        assert in_child(lambda: open_catalog(folder).select("Dataset"), user=unprivileged()) == ""  # type: ignore[arg-type, return-value]
        said = in_child(lambda: open_catalog(folder).insert("Dataset", [{}]), user=unprivileged())  # type: ignore[arg-type, return-value]
    assert said.startswith("CatalogReadOnly")
    assert "writable for this user" in said


def test_no_room_to_make_a_catalog(tmp_path: Path) -> None:
    """Where the disk is full no catalog is made, and the next opening with room makes a whole one."""
    with small_disk(tmp_path / "disk", 200 * 1024) as disk:
        with pytest.raises(CatalogUnavailable, match="full"):
            open_catalog(disk / "local")
        assert not (disk / "local" / CATALOG_FILE_NAME).exists()
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        assert open_catalog(disk / "local").select("Dataset") == []


def test_no_room_to_write(tmp_path: Path) -> None:
    """Where the disk is full a write says so and writes nothing; with room the same call works."""
    with small_disk(tmp_path / "disk", 4 * 2**20) as disk:
        catalog = open_catalog(disk)
        rows = [{"Description": "x" * 1000} for _ in range(8000)]
        with pytest.raises(CatalogUnavailable, match=r"full.*Free some space"):
            catalog.insert("Dataset", rows)
        assert catalog.select("Dataset") == []
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert catalog.insert("Dataset", rows) == 8000
        catalog.close()


def test_on_a_network_file_system(tmp_path: Path) -> None:
    """On a network file system it warns and keeps no shared memory, in a new catalog and in one that had it."""
    for folder in (tmp_path / "new", tmp_path / "old"):
        if folder.name == "old":
            open_catalog(folder, mounts=[]).close()
        with pytest.warns(DerivaMLWarning, match=r"network file system \(nfs4\).*DERIVA_ML_HOME"):
            catalog = open_catalog(folder, mounts=[("/", "ext4"), (str(tmp_path), "nfs4")])
        catalog.insert("Dataset", [{"Description": "x"}])
        with catalog._file.database.read_transaction() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "delete"
        assert not (folder / f"{CATALOG_FILE_NAME}-shm").exists()
        assert len(catalog.select("Dataset")) == 1


def test_the_warning_is_said_once(tmp_path: Path) -> None:
    """A process is told once of a network file system."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        for _ in range(3):
            open_catalog(tmp_path, mounts=[("/", "nfs")])
    assert len(heard) == 1
