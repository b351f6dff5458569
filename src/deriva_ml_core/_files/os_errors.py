"""A disk's refusals, in our words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deriva_ml_core.errors import CatalogReadOnly, DiskFull

__all__ = ["translate_os_errors"]


@contextmanager
def translate_os_errors(message: str, folder: Path) -> Iterator[None]:
    """Say of a disk that is full, or may not be written, what could not be done and what to do.

    Args:
        message: What is done in the block: ``model.pt cannot be registered``.
        folder: The folder where it is done.

    Raises:
        DiskFull: There is no room.
        CatalogReadOnly: This user may not write there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and not isinstance(error, DiskFull):
            raise DiskFull(f"{message}: the disk of {folder} is full. Free some space and call again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CatalogReadOnly(
                f"{message}: {error}. Let this user write in {folder}, or work in another place with DERIVA_ML_HOME."
            ) from error
        raise
