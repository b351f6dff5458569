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

from deriva_ml_core.backends.embedded import open_catalog, tabling
from deriva_ml_core.backends.embedded.opening import FILE, MIGRATIONS
from deriva_ml_core.errors import CatalogCorrupt, CatalogTooNew, CatalogUnavailable, DerivaMLWarning
from deriva_ml_core.schema import Column, Table
from deriva_ml_core.standard import SCHEMA_VERSION


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
    assert {path.name for path in folder.iterdir()} <= {FILE, f"{FILE}.lock", f"{FILE}-wal", f"{FILE}-shm"}


def test_settings(tmp_path: Path) -> None:
    """Each commit is on the disk, readers never wait for a writer, and references are checked."""
    with open_catalog(tmp_path)._file.database.reading() as connection:
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
    damage(tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(CatalogCorrupt, match=r"catalog\.sqlite .*recover") as raised:
        open_catalog(tmp_path).select("Dataset")
    assert str(tmp_path / FILE) in str(raised.value)
    assert (tmp_path / FILE).read_bytes() == before


def test_a_newer_catalog(tmp_path: Path) -> None:
    """A catalog that a newer version wrote is refused, and says which version it has."""
    open_catalog(tmp_path).close()
    sql(tmp_path / FILE, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(CatalogTooNew, match=f"version {SCHEMA_VERSION + 1}"):
        open_catalog(tmp_path)


def to_2(connection: sa.Connection) -> None:
    tabling.add_tables(connection, [Table("Second", (Column("A"),))])


def to_3(connection: sa.Connection) -> None:
    tabling.add_tables(connection, [Table("Third", (Column("A"),))])
    connection.exec_driver_sql("INSERT INTO Second SELECT RID, RCT, RMT, RCB, RMB, 'moved' FROM Dataset")


def broken(connection: sa.Connection) -> None:
    to_3(connection)
    raise RuntimeError("the power went")


def test_an_older_catalog_is_upgraded(tmp_path: Path) -> None:
    """An older catalog is brought up step by step, keeps its rows, and is then opened as it is."""
    open_catalog(tmp_path).insert("Dataset", [{"RID": "1-ABC"}])
    catalog = open_catalog(tmp_path, migrations=(to_2, to_3), version=3)
    assert [row["A"] for row in catalog.select("Second", {"RID": "1-ABC"})] == ["moved"]
    assert catalog.select("Third") == []
    again = open_catalog(tmp_path, migrations=(broken, broken), version=3)
    assert len(again.select("Dataset")) == 1


def test_an_upgrade_is_whole(tmp_path: Path) -> None:
    """An upgrade that fails leaves the catalog as it was, and the next one does all of it."""
    open_catalog(tmp_path).close()
    with pytest.raises(RuntimeError):
        open_catalog(tmp_path, migrations=(to_2, broken), version=3)
    assert "Second" not in open_catalog(tmp_path).model.tables
    assert "Third" in open_catalog(tmp_path, migrations=(to_2, to_3), version=3).model.tables


def test_two_upgrade_at_once(tmp_path: Path) -> None:
    """Of two that find an older catalog at once one upgrades it, and the other waits and finds that done."""
    open_catalog(tmp_path).close()
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


def test_each_version_has_a_way_up() -> None:
    """There is one migration for each version before the present one."""
    assert len(MIGRATIONS) == SCHEMA_VERSION - 1


def test_what_a_killed_maker_left(tmp_path: Path) -> None:
    """A draft that a killed process left is nobody's catalog."""
    (tmp_path / ".catalog-killed").mkdir()
    (tmp_path / ".catalog-killed" / FILE).write_bytes(b"half")
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
    assert made.startswith("CatalogReadOnly: No catalog can be made in")
    assert "DERIVA_ML_HOME" in made
    assert written.startswith("CatalogReadOnly: The catalog")
    assert "DERIVA_ML_HOME" in written


def test_a_file_that_cannot_be_written() -> None:
    """A catalog whose file alone is read-only can be read, and a write says what to do."""
    with open_to_all() as folder:
        catalog = open_catalog(folder)
        catalog.close()
        (folder / FILE).chmod(0o444)
        assert in_child(lambda: open_catalog(folder).select("Dataset"), user=unprivileged()) == ""  # type: ignore[arg-type, return-value]
        said = in_child(lambda: open_catalog(folder).insert("Dataset", [{}]), user=unprivileged())  # type: ignore[arg-type, return-value]
    assert said.startswith("CatalogReadOnly")
    assert "let this user write" in said


def test_no_room_to_make_a_catalog(tmp_path: Path) -> None:
    """Where the disk is full no catalog is made, and the next opening with room makes a whole one."""
    with small_disk(tmp_path / "disk", 200 * 1024) as disk:
        with pytest.raises(CatalogUnavailable, match="full"):
            open_catalog(disk / "local")
        assert not (disk / "local" / FILE).exists()
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        assert open_catalog(disk / "local").select("Dataset") == []


def test_no_room_to_write(tmp_path: Path) -> None:
    """Where the disk is full a write says so and writes nothing; with room the same call works."""
    with small_disk(tmp_path / "disk", 4 * 2**20) as disk:
        catalog = open_catalog(disk)
        rows = [{"Description": "x" * 1000} for _ in range(8000)]
        with pytest.raises(CatalogUnavailable, match=r"full.*free some space"):
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
        with catalog._file.database.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "delete"
        assert not (folder / f"{FILE}-shm").exists()
        assert len(catalog.select("Dataset")) == 1


def test_the_warning_is_said_once(tmp_path: Path) -> None:
    """A process is told once of a network file system."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        for _ in range(3):
            open_catalog(tmp_path, mounts=[("/", "nfs")])
    assert len(heard) == 1
