"""Translate errors of the operating system into this package's errors."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deriva_ml_core.errors import CatalogReadOnly, DiskFull, FileUnavailable

__all__ = ["translate_os_errors"]


@contextmanager
def translate_os_errors(message: str, folder: Path) -> Iterator[None]:
    """Translate errors of the operating system into ones that say what failed and what to do.

    Args:
        message: What failed if the block raises: ``Cannot register model.pt``.
        folder: The folder that the block writes to.

    Raises:
        DiskFull: The disk is full.
        CatalogReadOnly: The user has no permission to write there.
        FileUnavailable: Any other error, for example of a failing disk.
    """
    try:
        yield
    except (DiskFull, FileUnavailable, ConnectionError, TimeoutError):  # the last two are errors of a server
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{message}: the disk of {folder} is full. Free some space and call again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CatalogReadOnly(
                f"{message}: {error}. Make {folder} writable for this user, or set DERIVA_ML_HOME to another folder."
            ) from error
        raise FileUnavailable(f"{message}: {error}. Check the disk of {folder}, and call again.") from error
