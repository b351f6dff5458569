"""Folders and their permissions: private by default, and as open as a folder that a group shares. Git ignores them."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["adopt_permissions", "create_folder", "current_umask", "is_shared_with_group", "object_mode"]

GITIGNORE = "*\n"
"""Text of the file ``.gitignore`` in new folders: git ignores everything in them, and the file itself."""

PRIVATE_FOLDER_MODE = 0o700
READ_BITS = 0o444

_UMASK_LINE = re.compile(rb"^Umask:\s*([0-7]+)", re.M)


def object_mode(original: int) -> int:
    """Return the mode of an object: the read bits of the original that the umask allows, and the owner's.

    Args:
        original: Mode of the file that is stored.
    """
    return original & ~current_umask() & READ_BITS | stat.S_IRUSR


def current_umask() -> int:
    """Return the umask of this process."""
    if (found := _UMASK_LINE.search(_read_process_status())) is not None:
        return int(found[1], 8)
    # other systems can only return the umask by setting one; files that other threads create meanwhile are private
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _read_process_status() -> bytes:
    """Return the start of Linux's status file of this process, or nothing on other systems."""
    try:
        descriptor = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def create_folder(folder: Path, root: Path) -> None:
    """Create a folder and the missing ones above it. Existing folders stay as they are.

    A new folder inside one that a group shares takes its group and mode. Otherwise the root, and new folders above it,
    are private to this user, and folders below the root have the mode that the umask allows.

    Git ignores the new root, or the new folder in an existing root: otherwise a catalog in a repository would be an
    uncommitted change of the code.

    Args:
        folder: The folder.
        root: The outermost folder of a catalog: `folder` itself, or a folder above it.
    """
    missing, existing = [], folder
    while not existing.is_dir():
        missing.append(existing)
        existing = existing.parent
    for path in reversed(missing):
        mode = 0o777 if path != root and path.is_relative_to(root) else PRIVATE_FOLDER_MODE
        try:
            path.mkdir(mode=mode)
        except FileExistsError:
            if not path.is_dir():
                raise
            continue  # another process created it
        adopt_permissions(path)
        is_outside = path == folder and not path.is_relative_to(root)
        if path == root or is_outside or (path.parent == root and not _is_hidden_from_git(root)):
            _hide_from_git(path)


def _is_hidden_from_git(folder: Path) -> bool:
    try:
        return (folder / ".gitignore").read_bytes() == GITIGNORE.encode()
    except OSError:
        return False


def _hide_from_git(folder: Path) -> None:
    """Write the file ``.gitignore`` into a new folder."""
    with suppress(OSError):  # the folder can be used without it
        file = folder / ".gitignore"
        file.write_text(GITIGNORE, encoding="utf-8")
        adopt_permissions(file)


def adopt_permissions(path: Path) -> None:
    """Give a new file or folder the group and mode of its folder, if a group shares that folder."""
    if not is_shared_with_group(path.parent):
        return
    parent, own = path.parent.stat(), path.stat()
    mode = stat.S_IMODE(parent.st_mode) & 0o2775
    try:
        if own.st_gid != parent.st_gid:
            os.chown(path, -1, parent.st_gid)
        path.chmod(mode if stat.S_ISDIR(own.st_mode) else mode & 0o666)
    except PermissionError:
        pass  # the user is not in the group, so the path stays private


def is_shared_with_group(folder: Path) -> bool:
    """Whether a group works in a folder: the group may write, and it is not the user's own private group.

    A folder that everybody may write, such as ``/tmp``, is shared only if its set-group-ID bit names the group.
    """
    status = folder.stat()
    if not status.st_mode & stat.S_IWGRP:
        return False
    if status.st_mode & stat.S_ISGID:
        return True
    return not status.st_mode & stat.S_IWOTH and not _is_private_group(status.st_gid)


def _is_private_group(gid: int) -> bool:
    """Whether a group is the user's own: it has the user's name, as useradd creates it (``USERGROUPS_ENAB``)."""
    import grp
    import pwd

    with suppress(KeyError):  # a user or group without an entry, as in a container
        return gid == os.getegid() and grp.getgrgid(gid).gr_name == pwd.getpwuid(os.geteuid()).pw_name
    return False
