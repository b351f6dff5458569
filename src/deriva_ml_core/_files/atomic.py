"""Write files that appear complete or not at all, and remove the leftovers of killed processes.

A file is written under a temporary name in the target's folder and then renamed. The temporary name is
``.<32 hex digits>.part``, followed by the target's own suffixes where a writer chooses the format by them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from uuid import uuid4

from deriva_ml_core._files.locks import is_locked, lock_file
from deriva_ml_core._files.os_errors import translate_os_errors

__all__ = [
    "atomic_path",
    "copy_atomic",
    "delete_leftover",
    "is_leftover",
    "iter_leftovers",
    "open_new",
    "partial_path",
    "publish_new",
    "remove_leftovers",
    "rename_for_deletion",
    "scratch_folder",
    "sync_path",
    "try_reflink",
    "temporary_folder",
    "write_atomic",
]

FICLONE = 0x40049409
"""Request to share the bytes of a file: ``_IOW(0x94, 9, int)`` in linux/fs.h, see ioctl_ficlone(2)."""

_PARTIAL_NAME = re.compile(
    r"\.[0-9a-f]{32}\.part(\..*)?"
    # names of earlier versions
    r"|\.[0-9a-f]{32}-part(\..*)?"
    r"|\.writing-training(\.json|_curves\.png)"
    r"|\.\d+\.json\.\d+"
)


def partial_path(target: Path, *, keep_suffix: bool = False) -> Path:
    """Return a new temporary name in the folder of a file.

    Args:
        target: The final path.
        keep_suffix: Whether the name ends like the target's, for writers that choose the format by the suffix.
    """
    suffix = "".join(target.suffixes[-2:]) if keep_suffix else ""
    return target.with_name(f".{uuid4().hex}.part{suffix}")


@contextmanager
def atomic_path(target: Path, *, durable: bool = False, keep_suffix: bool = False) -> Iterator[Path]:
    """Yield a temporary path; what the block writes there is renamed to the target, replacing an existing file.

    If the block raises, the temporary file or folder is deleted and the target stays as it was.

    Args:
        target: The final path; its folder must exist.
        durable: Whether content and name must be on the disk (fsync) before this returns. Costs milliseconds a file.
        keep_suffix: As for `partial_path`.
    """
    partial = partial_path(target, keep_suffix=keep_suffix)
    try:
        yield partial
        if durable:
            _sync_tree(partial)
        partial.replace(target)
        if durable:
            sync_path(target.parent)
    finally:
        delete_leftover(partial)


def write_atomic(target: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a file; text is encoded as UTF-8.

    Args:
        target: The file; its folder must exist.
        content: What it holds afterwards.
        durable: As for `atomic_path`.
    """
    with atomic_path(target, durable=durable) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def publish_new(draft: Path, target: Path) -> None:
    """Rename a complete file to a new name; a file that exists there stays, and the draft is deleted.

    A file system without hard links replaces a file that appears in the same moment.
    """
    try:
        target.hardlink_to(draft)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if not target.exists():
            draft.replace(target)
    draft.unlink(missing_ok=True)
    sync_path(target.parent)


def copy_atomic(source: Path, target: Path, *, durable: bool = False) -> None:
    """Copy a file's bytes; the copy is locked while it grows, as a large one takes long.

    The copy has the mode of the source, as far as the umask allows, and is writable by its owner.

    Args:
        source: The file to copy.
        target: The copy; its folder must exist.
        durable: As for `atomic_path`.
    """
    from shutil import copyfile

    mode = source.stat().st_mode & 0o777 | 0o600
    with atomic_path(target, durable=durable) as partial, open_new(partial, mode) as file:
        lock_file(file)
        with source.open("rb", buffering=0) as original:
            is_cloned = try_reflink(original, file)
        if not is_cloned:
            copyfile(source, partial)


def try_reflink(source: FileIO, target: FileIO) -> bool:
    """Let a new file share the bytes of another one on disk, as Btrfs, XFS and others can; each can change later.

    Args:
        source: The file to clone, open for reading.
        target: An empty file, open for writing.

    Returns:
        Whether the target has the bytes of the source now; otherwise it is still empty.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
    except OSError:  # another file system, one without reflinks, or one that refuses this file
        return False
    return True


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder inside another, on the same file system; it is deleted afterwards."""
    folder = partial_path(parent / "folder")
    folder.mkdir()
    try:
        yield folder
    finally:
        delete_leftover(folder)


@contextmanager
def scratch_folder(fallback: Path) -> Iterator[Path]:
    """Yield a new folder for files that are needed for a moment; it is deleted afterwards.

    Args:
        fallback: The folder to create it in if the system has no folder for temporary files that this user may write.

    Raises:
        FileUnavailable, CatalogReadOnly: The fallback cannot be written either.
    """
    import tempfile

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        with translate_os_errors(f"Cannot create a temporary folder in {fallback}", fallback):
            folder = partial_path(fallback / "folder")
            folder.mkdir()
        try:
            yield folder
        finally:
            delete_leftover(folder)
    else:
        with tempfile.TemporaryDirectory(prefix="deriva-ml-") as name:
            yield Path(name)


def rename_for_deletion(path: Path) -> Path | None:
    """Rename a file or folder to a temporary name, so that it is gone at once and can be deleted in the background.

    Returns:
        The new path, which `remove_leftovers` deletes if nothing else does. None if the path does not exist.
    """
    renamed = partial_path(path)
    try:
        path.rename(renamed)
    except FileNotFoundError:
        return None
    return renamed


def is_leftover(name: str) -> bool:
    """Whether a file or folder name is a temporary name of this module, in its present or an earlier form."""
    return _PARTIAL_NAME.fullmatch(name) is not None


def iter_leftovers(folder: Path) -> Iterator[Path]:
    """Yield the temporary files and folders anywhere below a folder that no process has locked."""
    for parent, folders, files in os.walk(folder):
        for name in [name for name in folders if is_leftover(name)]:
            folders.remove(name)
            yield Path(parent, name)
        for path in (Path(parent, name) for name in files if is_leftover(name)):
            with suppress(FileNotFoundError):
                if not is_locked(path):
                    yield path


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders anywhere below a folder that no process has locked."""
    for path in iter_leftovers(folder):
        delete_leftover(path)


def open_new(path: Path, mode: int) -> FileIO:
    """Create a file for writing, without a buffer.

    Args:
        path: The file, which must not exist.
        mode: Its permissions, which the umask restricts.
    """
    return FileIO(path, "xb", opener=lambda name, flags: os.open(name, flags, mode))


def sync_path(path: Path) -> None:
    """Return when a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(path: Path) -> None:
    for parent, _, files in os.walk(path):
        for name in files:
            sync_path(Path(parent, name))
        sync_path(Path(parent))
    if not path.is_dir():
        sync_path(path)


def delete_leftover(path: Path) -> None:
    """Delete a temporary file or folder; it may be gone already."""
    try:
        path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):  # Linux and macOS report a folder differently
        from shutil import rmtree

        rmtree(path, ignore_errors=True)  # another process may be deleting it
