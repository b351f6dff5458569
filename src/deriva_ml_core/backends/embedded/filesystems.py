"""Whether a folder lies on another machine's disk, where SQLite cannot share memory between processes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["detect_network_file_system", "list_mounts"]

NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\w*|afpfs|ncpfs|afs|coda|9p|lustre|gpfs|beegfs\w*|ceph|glusterfs|orangefs|pvfs2|ocfs2|gfs2?|"
    r"panfs|webdav|davfs\d?|fuse\.(sshfs|glusterfs|ceph|davfs\d?|s3fs|rclone|smbnetfs|curlftpfs|gvfsd-fuse|mfs|juicefs)"
)
"""The types of file systems, as Linux and macOS name them, that several machines write."""


def detect_network_file_system(folder: Path, mounts: Iterable[tuple[str, str]]) -> str | None:
    """The type of the network file system that a folder lies on; None where it lies on a disk of this machine.

    Args:
        folder: It need not exist yet.
        mounts: Where each file system is mounted, and its type; of two at one place the later counts.
    """
    place = folder.resolve()
    kinds = {Path(mount): kind for mount, kind in mounts}
    kind = next((kinds[above] for above in (place, *place.parents) if above in kinds), "")
    return kind if NETWORK_FILE_SYSTEMS.fullmatch(kind) else None


def list_mounts(mounts_file: Path = Path("/proc/self/mounts")) -> list[tuple[str, str]]:
    """Where each file system of this machine is mounted, and its type.

    Args:
        mounts_file: Linux's own list; without one psutil is asked, which takes longer to import than a catalog to open.
    """
    try:
        lines = mounts_file.read_text(errors="surrogateescape").splitlines()
    except OSError:
        from psutil import disk_partitions

        return [(partition.mountpoint, partition.fstype) for partition in disk_partitions(all=True)]
    return [(_unescape_mount_point(fields[1]), fields[2]) for line in lines if len(fields := line.split(" ")) > 2]


def _unescape_mount_point(mount: str) -> str:
    # the kernel writes spaces and the like as \040
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), mount)
