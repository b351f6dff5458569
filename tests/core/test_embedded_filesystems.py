"""Whether a folder lies on another machine's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.backends.embedded.database import detect_network_file_system, list_mounts

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
def test_the_nearest_mount_counts(folder: str, kind: str | None) -> None:
    """A folder lies on what is mounted nearest above it."""
    assert detect_network_file_system(Path(folder), MOUNTS) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "lustre", "gpfs", "ceph", "9p"])
def test_network_file_systems(kind: str) -> None:
    """Each file system that several machines write is known by its type."""
    assert detect_network_file_system(Path("/x"), [("/", "ext4"), ("/x", kind)]) == kind


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "apfs", "zfs", "tmpfs", "overlay", "fuse.portal", "fuseblk"])
def test_disks(kind: str) -> None:
    """A disk of this machine is none."""
    assert detect_network_file_system(Path("/x"), [("/", "nfs"), ("/x", kind)]) is None


def test_two_mounts_at_one_place() -> None:
    """Of two file systems at one place the one mounted last is seen."""
    assert detect_network_file_system(Path("/x"), [("/x", "nfs"), ("/x", "ext4")]) is None


def test_mounts_of_linux(tmp_path: Path) -> None:
    """Linux's list is read, with the spaces that it writes as numbers."""
    table = tmp_path / "mounts"
    table.write_text("/dev/vda / ext4 rw 0 0\nhost:/x /net/a\\040b nfs4 rw 0 0\n\n")
    assert list_mounts(table) == [("/", "ext4"), ("/net/a b", "nfs4")]


def test_mounts_elsewhere(tmp_path: Path) -> None:
    """Without that list psutil says where this machine's file systems are mounted."""
    assert "/" in dict(list_mounts(tmp_path / "none"))
