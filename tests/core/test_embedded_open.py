"""Creation, opening and migration of the embedded catalog, and the errors of each."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path

import pytest
import sqlalchemy as sa
from embedded_samples import run_in_child, small_disk, unprivileged_user, world_writable_folder

from deriva_ml_core.backends.embedded import open_catalog
from deriva_ml_core.backends.embedded.open import CATALOG_FILE_NAME
from deriva_ml_core.backends.sql import migrations
from deriva_ml_core.backends.sql.dialect import SqlDialect
from deriva_ml_core.backends.sql.migrations import MIGRATIONS
from deriva_ml_core.client import DerivaML
from deriva_ml_core.default_schema import SCHEMA_VERSION
from deriva_ml_core.errors import CatalogCorrupt, CatalogTooNew, CatalogUnavailable, DerivaMLWarning
from deriva_ml_core.schema import Column, Table


def run_sql(file: Path, statement: str) -> object:
    connection = sqlite3.connect(file)
    try:
        found = connection.execute(statement).fetchone()
        connection.commit()
    finally:
        connection.close()
    return found and found[0]


def test_catalog_is_created_once(tmp_path: Path) -> None:
    """The first opening creates folder and catalog, the second opens them, and no other file is left."""
    folder = tmp_path / "a" / "b c?d#e%20f&mode=ro"
    open_catalog(folder).insert("Dataset", [{"RID": "1-ABC"}])
    assert [row["RID"] for row in open_catalog(folder).select("Dataset")] == ["1-ABC"]
    assert {path.name for path in folder.iterdir()} <= {
        ".gitignore",
        CATALOG_FILE_NAME,
        f"{CATALOG_FILE_NAME}.lock",
        f"{CATALOG_FILE_NAME}-wal",
        f"{CATALOG_FILE_NAME}-shm",
    }


def test_new_catalog_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is on the disk before it gets its name, then the name, and then the names of the new folders."""
    flushed = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    folder = tmp_path / "new" / "catalog"
    open_catalog(folder).close()
    draft, *folders = flushed
    assert draft.startswith(f"{folder}/.catalog-")
    assert draft.endswith(f"/{CATALOG_FILE_NAME}")
    assert folders == [str(folder), str(folder.parent), str(tmp_path)]


def test_sqlite_settings(tmp_path: Path) -> None:
    """Commits are flushed to disk, readers do not wait for a writer, and foreign keys are checked."""
    with open_catalog(tmp_path)._source.database.read_transaction() as connection:
        asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in asked]
    assert found == ["wal", 2, 1, 30_000]


def test_opening_loads_few_modules(tmp_path: Path) -> None:
    """Opening an existing catalog does not load filelock, psutil or other heavy modules."""
    open_catalog(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; from deriva_ml_core.backends.embedded import open_backend; "
        "open_backend(Path(sys.argv[1])).catalog.select('Workflow'); "
        "print({'filelock', 'psutil', 'git', 'ctypes', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def overwrite_with_garbage(file: Path) -> None:
    file.write_bytes(b"this is no database at all, " * 1000)


def truncate_to_empty(file: Path) -> None:
    file.write_bytes(b"")


def truncate(file: Path) -> None:
    os.truncate(file, 4096 * 3)


def replace_by_other_database(file: Path) -> None:
    file.unlink()
    run_sql(file, "CREATE TABLE t (a)")


def flip_bits(file: Path) -> None:
    sound = file.read_bytes()
    file.write_bytes(sound[:4096] + bytes(byte ^ 0xFF for byte in sound[4096:]))


def remove_model(file: Path) -> None:
    run_sql(file, "UPDATE _model SET tables = '[{}]'")


@pytest.mark.parametrize(
    "damage", [overwrite_with_garbage, truncate_to_empty, truncate, replace_by_other_database, flip_bits, remove_model]
)
def test_damaged_catalog(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """A damaged file raises with its path and the remedy, and is never overwritten."""
    open_catalog(tmp_path).close()
    damage(tmp_path / CATALOG_FILE_NAME)
    before = (tmp_path / CATALOG_FILE_NAME).read_bytes()
    with pytest.raises(CatalogCorrupt, match=r"catalog\.sqlite .*recover") as raised:
        open_catalog(tmp_path).select("Dataset")
    assert str(tmp_path / CATALOG_FILE_NAME) in str(raised.value)
    assert (tmp_path / CATALOG_FILE_NAME).read_bytes() == before


def test_newer_catalog(tmp_path: Path) -> None:
    """A catalog of a newer version is refused, and the error states its version."""
    open_catalog(tmp_path).close()
    run_sql(tmp_path / CATALOG_FILE_NAME, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(CatalogTooNew, match=f"version {SCHEMA_VERSION + 1}"):
        open_catalog(tmp_path)


def migrate_to_2(connection: sa.Connection, dialect: SqlDialect) -> None:
    migrations.add_tables(connection, [Table("Second", (Column("A"),))], dialect)


def migrate_to_3(connection: sa.Connection, dialect: SqlDialect) -> None:
    migrations.add_tables(connection, [Table("Third", (Column("A"),))], dialect)
    connection.exec_driver_sql("INSERT INTO Second SELECT RID, RCT, RMT, RCB, RMB, 'moved' FROM Dataset")


def fail_in_migration(connection: sa.Connection, dialect: SqlDialect) -> None:
    migrate_to_3(connection, dialect)
    raise RuntimeError("the power went")


@pytest.fixture
def version_1_folder(tmp_path: Path) -> Path:
    """Return a folder with a catalog of version 1, to which a user added a term and a dataset."""
    return create_old_catalog(1, tmp_path / "first")


def create_old_catalog(version: int, folder: Path) -> Path:
    """Create a catalog of an earlier version."""
    folder.mkdir()
    connection = sqlite3.connect(folder / CATALOG_FILE_NAME)
    dump = Path(__file__).parent / f"catalog_version_{version}.sql"
    connection.executescript(dump.read_text(encoding="utf-8"))
    connection.close()
    return folder


def test_older_catalog_is_migrated(version_1_folder: Path) -> None:
    """An older catalog is migrated step by step and keeps its rows, and is not migrated again."""
    tmp_path = version_1_folder
    open_catalog(tmp_path, version=1).insert("Dataset", [{"RID": "1-ABC"}])
    catalog = open_catalog(tmp_path, migrations=(migrate_to_2, migrate_to_3), version=3)
    assert [row["A"] for row in catalog.select("Second", {"RID": "1-ABC"})] == ["moved"]
    assert catalog.select("Third") == []
    again = open_catalog(tmp_path, migrations=(fail_in_migration, fail_in_migration), version=3)
    assert len(again.select("Dataset")) == 2


def test_failed_migration_is_rolled_back(version_1_folder: Path) -> None:
    """A failed migration leaves the catalog unchanged, and the next opening migrates it completely."""
    tmp_path = version_1_folder
    with pytest.raises(RuntimeError):
        open_catalog(tmp_path, migrations=(migrate_to_2, fail_in_migration), version=3)
    assert "Second" not in open_catalog(tmp_path, version=1).model.tables
    assert "Third" in open_catalog(tmp_path, migrations=(migrate_to_2, migrate_to_3), version=3).model.tables


def test_concurrent_migrations(version_1_folder: Path) -> None:
    """If two threads open an older catalog, one migrates it and the other waits."""
    tmp_path = version_1_folder
    upgrades: list[str] = []

    def second(_: sa.Connection, dialect: SqlDialect) -> None:
        upgrades.append("second")

    other = threading.Thread(target=lambda: open_catalog(tmp_path, migrations=(second,), version=2))

    def first(connection: sa.Connection, dialect: SqlDialect) -> None:
        upgrades.append("first")
        other.start()
        other.join(0.5)  # it has seen the old version and cannot go on

    open_catalog(tmp_path, migrations=(first,), version=2)
    other.join()
    assert upgrades == ["first"]


def asset_types(folder: Path) -> dict[str, str]:
    return {row["Name"]: row["Description"] for row in open_catalog(folder).select("Asset_Type")}


def test_version_1_gets_new_terms(version_1_folder: Path, tmp_path: Path) -> None:
    """A migrated catalog of version 1 has the terms of a new catalog, and its own rows."""
    found = asset_types(version_1_folder)
    assert found.pop("Mine") == "A term of the user's own"
    assert found == asset_types(tmp_path / "new")
    assert [row["Description"] for row in open_catalog(version_1_folder).select("Dataset")] == ["Made by version 1"]
    assert run_sql(version_1_folder / CATALOG_FILE_NAME, "PRAGMA user_version") == SCHEMA_VERSION


def sqlite_schema(folder: Path) -> list[tuple[str, ...]]:
    """Return SQLite's schema of a catalog."""
    connection = sqlite3.connect(folder / CATALOG_FILE_NAME)
    made: list[tuple[str, ...]] = connection.execute(
        "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    ).fetchall()
    connection.close()
    return made


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_migrated_catalog_equals_new_catalog(version: int, tmp_path: Path) -> None:
    """A migrated catalog of each earlier version has the tables, indexes and triggers of a new one."""
    older, new = create_old_catalog(version, tmp_path / "older"), tmp_path / "new"
    found, wanted = open_catalog(older), open_catalog(new)
    assert found.model.tables == wanted.model.tables
    assert sqlite_schema(older) == sqlite_schema(new)
    assert run_sql(older / CATALOG_FILE_NAME, "PRAGMA user_version") == SCHEMA_VERSION


def test_version_2_gets_metrics_table(tmp_path: Path) -> None:
    """An execution of version 2 is readable, has no metrics, and can get some."""
    catalog = open_catalog(create_old_catalog(2, tmp_path / "older"))
    (execution,) = catalog.select("Execution")
    assert (execution["Description"], catalog.select("Execution_Metric")) == ("Made by version 2", [])
    row = {"Execution": execution["RID"], "Stage": "fit", "Name": "loss", "Last": 0.5, "Larger_Is_Better": False}
    assert catalog.insert("Execution_Metric", [row]) == 1


def test_migration_keeps_user_table(tmp_path: Path) -> None:
    """A user's table Execution_Metric with other columns stays unchanged, and the catalog opens."""
    folder = create_old_catalog(2, tmp_path / "older")
    open_catalog(folder, version=2).create_tables([Table("Execution_Metric", (Column("Theirs"),))])
    assert open_catalog(folder).model.table("Execution_Metric").column_names == {"Theirs"}


def test_migration_keeps_user_term(version_1_folder: Path) -> None:
    """A user's term with the name of a new standard term keeps its description."""
    row = {"Name": "Best_Checkpoint", "Description": "What we call best"}
    open_catalog(version_1_folder, version=1).insert("Asset_Type", [row])
    assert asset_types(version_1_folder)["Best_Checkpoint"] == "What we call best"
    assert "Last_Checkpoint" in asset_types(version_1_folder)


OPEN = (
    "import sys; from pathlib import Path; from deriva_ml_core.backends.embedded import open_catalog; "
    "sys.stdin.readline(); catalog = open_catalog(Path(sys.argv[1])); "
    "print(len(catalog.select('Asset_Type', {'Name': ['Best_Checkpoint', 'Last_Checkpoint', 'Training_Curves']})))"
)


def test_concurrent_processes_migrate_once(version_1_folder: Path) -> None:
    """If several processes open an older catalog, each sees the new terms exactly once."""
    command = [sys.executable, "-c", OPEN, str(version_1_folder)]
    opened = [subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) for _ in range(4)]
    for process in opened:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate() for process in opened] == [("3\n", "")] * 4


def test_killed_during_migration(version_1_folder: Path) -> None:
    """A process killed during a migration leaves the older catalog, which the next one migrates."""
    code = (
        "import os, signal, sys; from pathlib import Path; from deriva_ml_core.backends.embedded import open_catalog; "
        "from deriva_ml_core.backends.sql.migrations import MIGRATIONS; "
        "die = lambda connection, dialect: (MIGRATIONS[0](connection, dialect), os.kill(os.getpid(), signal.SIGKILL)); "
        "open_catalog(Path(sys.argv[1]), migrations=(die,))"
    )
    done = subprocess.run([sys.executable, "-c", code, version_1_folder], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-9, "")
    assert run_sql(version_1_folder / CATALOG_FILE_NAME, "PRAGMA user_version") == 1
    assert "Best_Checkpoint" not in {
        row["Name"] for row in open_catalog(version_1_folder, version=1).select("Asset_Type")
    }
    assert "Best_Checkpoint" in asset_types(version_1_folder)


def test_read_only_older_catalog() -> None:
    """A read-only older catalog is readable, and is migrated by the next process that can write it."""
    with world_writable_folder() as folder:
        connection = sqlite3.connect(folder / CATALOG_FILE_NAME)
        connection.executescript((Path(__file__).parent / "catalog_version_1.sql").read_text(encoding="utf-8"))
        connection.close()
        (folder / CATALOG_FILE_NAME).chmod(0o444)
        assert run_in_child(lambda: open_catalog(folder).select("Dataset"), user=unprivileged_user()) == ""  # type: ignore[arg-type, return-value]
        assert run_sql(folder / CATALOG_FILE_NAME, "PRAGMA user_version") == 1
        assert "Best_Checkpoint" in asset_types(folder)


def test_sort_without_metrics_table() -> None:
    """Sorting by a metric in a read-only older catalog raises with the way to add the table."""
    with world_writable_folder() as folder:
        connection = sqlite3.connect(folder / CATALOG_FILE_NAME)
        connection.executescript((Path(__file__).parent / "catalog_version_2.sql").read_text(encoding="utf-8"))
        connection.close()
        (folder / CATALOG_FILE_NAME).chmod(0o444)
        client = f"file:{folder}"
        message = run_in_child(lambda: DerivaML(client).find_executions(sort="loss"), user=unprivileged_user())  # type: ignore[arg-type, return-value]
        assert "open the catalog once with this version" in message


def test_one_migration_per_version() -> None:
    """There is one migration for each version before the current one."""
    assert len(MIGRATIONS) == SCHEMA_VERSION - 1


def test_leftover_draft_is_ignored(tmp_path: Path) -> None:
    """An incomplete catalog of a killed process is ignored."""
    (tmp_path / ".catalog-killed").mkdir()
    (tmp_path / ".catalog-killed" / CATALOG_FILE_NAME).write_bytes(b"half")
    assert open_catalog(tmp_path).select("Dataset") == []


def test_folder_is_a_file(tmp_path: Path) -> None:
    """A file at the path of the folder raises with its name."""
    (tmp_path / "x").write_text("")
    with pytest.raises(CatalogUnavailable, match="x"):
        open_catalog(tmp_path / "x" / "local")


def test_read_only_folder() -> None:
    """Creating a catalog in a read-only folder, and writing to one, raise with the remedy."""
    with world_writable_folder() as place:
        folder = place / "local"
        catalog = open_catalog(folder)
        catalog.insert("Dataset", [{"RID": "1-ABC"}])
        catalog.close()
        (place / "empty").mkdir()
        for path in (*folder.iterdir(), folder, place / "empty"):
            path.chmod(0o444 if path.is_file() else 0o555)
        try:
            made = run_in_child(lambda: open_catalog(place / "empty" / "local"), user=unprivileged_user())
            written = run_in_child(lambda: open_catalog(folder).insert("Dataset", [{}]), user=unprivileged_user())  # type: ignore[arg-type, return-value]
        finally:
            folder.chmod(0o755)
            (place / "empty").chmod(0o755)
    assert made.startswith("CatalogReadOnly: No catalog can be created in")
    assert "DERIVA_ML_HOME" in made
    assert written.startswith("CatalogReadOnly: The catalog")
    assert "DERIVA_ML_HOME" in written


def test_read_only_file() -> None:
    """A catalog with a read-only file can be read, and a write raises with the remedy."""
    with world_writable_folder() as folder:
        catalog = open_catalog(folder)
        catalog.close()
        (folder / CATALOG_FILE_NAME).chmod(0o444)
        assert run_in_child(lambda: open_catalog(folder).select("Dataset"), user=unprivileged_user()) == ""  # type: ignore[arg-type, return-value]
        message = run_in_child(lambda: open_catalog(folder).insert("Dataset", [{}]), user=unprivileged_user())  # type: ignore[arg-type, return-value]
    assert message.startswith("CatalogReadOnly")
    assert "writable for this user" in message


def test_disk_full_on_creation(tmp_path: Path) -> None:
    """No catalog is created on a full disk, and the next opening with free space creates a complete one."""
    with small_disk(tmp_path / "disk", 200 * 1024) as disk:
        with pytest.raises(CatalogUnavailable, match="full"):
            open_catalog(disk / "local")
        assert not (disk / "local" / CATALOG_FILE_NAME).exists()
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        assert open_catalog(disk / "local").select("Dataset") == []


@pytest.mark.parametrize("size", range(700, 2300, 200))
def test_nearly_full_disk_on_creation(tmp_path: Path, size: int) -> None:
    """On a disk of any size (kB), a catalog is created completely or not at all."""
    with small_disk(tmp_path / "disk", size * 1024) as disk:
        folder = disk / "local"
        try:
            open_catalog(folder).close()
        except CatalogUnavailable:
            left = {path.name for path in folder.iterdir()}
            if CATALOG_FILE_NAME not in left:  # else it is complete, and only SQLite's files next to it found no room
                assert left == {".gitignore", f"{CATALOG_FILE_NAME}.lock"}
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        catalog = open_catalog(folder)
        assert len(catalog.select("Asset_Type")) == 19
        catalog.close()
        assert run_sql(folder / CATALOG_FILE_NAME, "PRAGMA integrity_check") == "ok"
        assert run_sql(folder / CATALOG_FILE_NAME, "PRAGMA journal_mode") == "wal"


FAIL_ONE_CALL = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* Fail the n-th write or flush of a file of a catalog with EIO; n is in the environment. */
static int fails(int descriptor) {
    static int calls = 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, "/catalog.sqlite") || strstr(path, ".lock")) return 0;
    if (++calls != atoi(getenv("FAIL_CALL"))) return 0;
    fprintf(stderr, "failed\\n");
    errno = EIO;
    return 1;
}
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
ssize_t write(int d, const void *b, size_t n) { return fails(d) ? -1 : REAL(write)(d, b, n); }
ssize_t pwrite(int d, const void *b, size_t n, off_t o) { return fails(d) ? -1 : REAL(pwrite)(d, b, n, o); }
ssize_t pwrite64(int d, const void *b, size_t n, off64_t o) { return fails(d) ? -1 : REAL(pwrite64)(d, b, n, o); }
int fsync(int d) { return fails(d) ? -1 : REAL(fsync)(d); }
int fdatasync(int d) { return fails(d) ? -1 : REAL(fdatasync)(d); }
int ftruncate(int d, off_t n) { return fails(d) ? -1 : REAL(ftruncate)(d, n); }
int ftruncate64(int d, off64_t n) { return fails(d) ? -1 : REAL(ftruncate64)(d, n); }
"""

CREATE = """
import sys
from pathlib import Path
from deriva_ml_core.backends.embedded import open_catalog
from deriva_ml_core.errors import CatalogUnavailable
for folder in sys.stdin:
    try:
        open_catalog(Path(folder.strip())).close()
    except CatalogUnavailable:
        print("refused", flush=True)
    else:
        print("created", flush=True)
"""


@pytest.fixture(scope="module")
def one_failing_call(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that lets one file call of a preloading process fail."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler, or the system does not preload libraries")
    folder = tmp_path_factory.mktemp("library")
    (folder / "fail.c").write_text(FAIL_ONE_CALL)
    command = [compiler, "-shared", "-fPIC", "-o", folder / "fail.so", folder / "fail.c", "-ldl"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode:
        pytest.skip(f"the library cannot be compiled here: {compiled.stderr}")
    return folder / "fail.so"


def test_one_io_error_on_creation(tmp_path: Path, one_failing_call: Path) -> None:
    """If one write or flush fails while a catalog is created, the next opening has a complete catalog."""
    outcomes = set()
    for call in chain(range(1, 4), count(4, 70)):
        folder = tmp_path / str(call) / "local"
        environment = os.environ | {"LD_PRELOAD": str(one_failing_call), "FAIL_CALL": str(call)}
        done = subprocess.run(
            [sys.executable, "-c", CREATE], input=f"{folder}\n", env=environment, capture_output=True, text=True
        )
        outcomes.add(done.stdout)
        assert done.stdout in ("created\n", "refused\n"), done.stderr
        catalog = open_catalog(folder)
        assert len(catalog.select("Asset_Type")) == 19
        catalog.close()
        assert run_sql(folder / CATALOG_FILE_NAME, "PRAGMA integrity_check") == "ok"
        if "failed" not in done.stderr:
            break
    assert "refused\n" in outcomes


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_leftover_of_a_missing_database_is_refused(tmp_path: Path, suffix: str) -> None:
    """A file that SQLite left next to a catalog that is gone is named in the error, and never used for a new one."""
    leftover = tmp_path / f"{CATALOG_FILE_NAME}{suffix}"
    leftover.write_bytes(b"left")
    with pytest.raises(CatalogCorrupt, match=rf"catalog\.sqlite is missing.*catalog\.sqlite{suffix}.*Move") as raised:
        open_catalog(tmp_path)
    assert str(leftover) in str(raised.value)
    assert not (tmp_path / CATALOG_FILE_NAME).exists()
    assert leftover.read_bytes() == b"left"
    leftover.rename(tmp_path / "away")
    assert len(open_catalog(tmp_path).select("Asset_Type")) == 19


def test_wal_of_a_moved_catalog_is_not_replayed(tmp_path: Path) -> None:
    """Without its database file, the rows in the write-ahead log of a killed process wait for that file."""
    code = (
        "import os, sys; from pathlib import Path; from deriva_ml_core.backends.embedded import open_catalog; "
        "open_catalog(Path(sys.argv[1])).insert('Dataset', [{'RID': '1-ABC'}]); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    file, away = tmp_path / CATALOG_FILE_NAME, tmp_path / "away.sqlite"
    assert (tmp_path / f"{CATALOG_FILE_NAME}-wal").stat().st_size > 0
    file.rename(away)
    with pytest.raises(CatalogCorrupt, match="put it back"):
        open_catalog(tmp_path)
    away.rename(file)
    assert [row["RID"] for row in open_catalog(tmp_path).select("Dataset")] == ["1-ABC"]


def test_disk_full_on_write(tmp_path: Path) -> None:
    """A write to a full disk raises and writes nothing, and succeeds with free space."""
    with small_disk(tmp_path / "disk", 4 * 2**20) as disk:
        catalog = open_catalog(disk)
        rows = [{"Description": "x" * 1000} for _ in range(8000)]
        with pytest.raises(CatalogUnavailable, match=r"full.*Free some space"):
            catalog.insert("Dataset", rows)
        assert catalog.select("Dataset") == []
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert catalog.insert("Dataset", rows) == 8000
        catalog.close()


def test_network_file_system(tmp_path: Path) -> None:
    """On a network file system, opening warns, and new and existing catalogs use no shared memory."""
    for folder in (tmp_path / "new", tmp_path / "old"):
        if folder.name == "old":
            open_catalog(folder, mounts=[]).close()
        with pytest.warns(DerivaMLWarning, match=r"network file system \(nfs4\).*DERIVA_ML_HOME"):
            catalog = open_catalog(folder, mounts=[("/", "ext4"), (str(tmp_path), "nfs4")])
        catalog.insert("Dataset", [{"Description": "x"}])
        with catalog._source.database.read_transaction() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "delete"
        assert not (folder / f"{CATALOG_FILE_NAME}-shm").exists()
        assert len(catalog.select("Dataset")) == 1


def test_network_warning_is_shown_once(tmp_path: Path) -> None:
    """The warning about a network file system is shown once per process."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            open_catalog(tmp_path, mounts=[("/", "nfs")])
    assert len(shown) == 1
