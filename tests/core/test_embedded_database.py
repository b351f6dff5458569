"""The database file: one that vanishes or is replaced while it is open, and detection of network file systems."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from deriva_ml_core.backends.embedded.database import Database, detect_network_file_system, list_mounts
from deriva_ml_core.errors import CatalogUnavailable

MOUNTS = [("/", "ext4"), ("/home", "nfs4"), ("/home/local", "xfs"), ("/scratch", "lustre"), ("/net/a b", "fuse.sshfs")]


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/x", None),
        ("/home", "nfs4"),
        ("/home/me/.deriva-ml", "nfs4"),
        ("/home/local/x", None),
        ("/homestead", None),
        ("/scratch/x/../y", "lustre"),
        ("/net/a b/c", "fuse.sshfs"),
    ],
)
def test_nearest_mount(folder: str, kind: str | None) -> None:
    """The nearest mount point above a folder determines its file system."""
    assert detect_network_file_system(Path(folder), MOUNTS) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "lustre", "gpfs", "ceph", "9p"])
def test_network_file_systems(kind: str) -> None:
    """Each network file system is recognised by its type."""
    assert detect_network_file_system(Path("/x"), [("/", "ext4"), ("/x", kind)]) == kind


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "apfs", "zfs", "tmpfs", "overlay", "fuse.portal", "fuseblk"])
def test_local_file_systems(kind: str) -> None:
    """Local file systems are not network file systems."""
    assert detect_network_file_system(Path("/x"), [("/", "nfs"), ("/x", kind)]) is None


def test_repeated_mount_point() -> None:
    """Of two mounts at the same mount point, the last one counts."""
    assert detect_network_file_system(Path("/x"), [("/x", "nfs"), ("/x", "ext4")]) is None


def test_list_mounts_on_linux(tmp_path: Path) -> None:
    """Linux's list is parsed, with escaped spaces."""
    table = tmp_path / "mounts"
    table.write_text("/dev/vda / ext4 rw 0 0\nhost:/x /net/a\\040b nfs4 rw 0 0\n\n")
    assert list_mounts(table) == [("/", "ext4"), ("/net/a b", "nfs4")]


def test_list_mounts_without_linux(tmp_path: Path) -> None:
    """Without Linux's list, psutil returns the mount points."""
    assert "/" in dict(list_mounts(tmp_path / "none"))


def test_vanished_file_is_not_written(tmp_path: Path) -> None:
    """A file that was moved away while it was open is not written any more; another one in its place is."""
    file, moved = tmp_path / "catalog.sqlite", tmp_path / "moved.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE word (text)")
    database = Database(file, journal_mode="DELETE")

    def insert(text: str) -> None:
        with database.write_transaction() as connection:
            connection.exec_driver_sql("INSERT INTO word VALUES (?)", (text,))

    def words(path: Path) -> list[str]:
        with closing(sqlite3.connect(path)) as connection:
            return [text for (text,) in connection.execute("SELECT text FROM word")]

    insert("first")
    file.rename(moved)
    with pytest.raises(CatalogUnavailable, match="Check that it exists"):
        insert("second")
    assert not file.exists()
    file.write_bytes(moved.read_bytes())
    insert("third")
    assert words(moved) == ["first"]
    assert words(file) == ["first", "third"]
    database.close()
