"""Optional dependencies: name the extra that installs what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deriva_ml_core._frames import is_own_module
from deriva_ml_core.errors import MissingDependency

__all__ = ["require_extra"]


@contextmanager
def require_extra(extra: str, subject: str) -> Iterator[None]:
    """Turn a missing package that the block imports into an error that names the extra.

    Args:
        extra: The extra of this distribution that installs the package: ``deriva``.
        subject: What needs it, as the subject of the message: ``A catalog on a Deriva server``.

    Raises:
        MissingDependency: The package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or is_own_module(error.name):
            raise
        package = error.name.partition(".")[0]
        raise MissingDependency(
            f"{subject} needs the package {package!r}: run pip install 'deriva-ml-core[{extra}]'."
        ) from error
