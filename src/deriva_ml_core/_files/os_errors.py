"""Translate errors of the operating system into this package's errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deriva_ml_core.errors import CatalogReadOnly, DiskFull

__all__ = ["translate_os_errors"]


@contextmanager
def translate_os_errors(message: str, folder: Path) -> Iterator[None]:
    """Translate the error of a full or read-only disk into one that says what failed and what to do.

    Args:
        message: What failed if the block raises: ``Cannot register model.pt``.
        folder: The folder that the block writes to.

    Raises:
        DiskFull: The disk is full.
        CatalogReadOnly: The user has no permission to write there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and not isinstance(error, DiskFull):
            raise DiskFull(f"{message}: the disk of {folder} is full. Free some space and call again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CatalogReadOnly(
                f"{message}: {error}. Make {folder} writable for this user, or set DERIVA_ML_HOME to another folder."
            ) from error
        raise
