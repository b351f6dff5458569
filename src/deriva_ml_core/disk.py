"""A disk's refusals, in our words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deriva_ml_core.errors import CatalogReadOnly, StoreFull

__all__ = ["explained"]


@contextmanager
def explained(what: str, place: Path) -> Iterator[None]:
    """Say of a disk that is full, or may not be written, what could not be done and what to do.

    Args:
        what: What is done in the block: ``model.pt cannot be registered``.
        place: The folder where it is done.

    Raises:
        StoreFull: There is no room.
        CatalogReadOnly: This user may not write there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and not isinstance(error, StoreFull):
            raise StoreFull(f"{what}: the disk of {place} is full. Free some space and call again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CatalogReadOnly(
                f"{what}: {error}. Let this user write in {place}, or work in another place with DERIVA_ML_HOME."
            ) from error
        raise
