"""Warnings that point at the user's line of code, not at a line of this package."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from deriva_ml_core._frames import user_stacklevel
from deriva_ml_core._text import parse_flag
from deriva_ml_core.errors import DerivaMLWarning, NotReproducible

__all__ = [
    "REQUIRE_CLEAN_VARIABLE",
    "find_conflicting_distribution",
    "warn",
    "warn_conflicting_distribution",
    "warn_not_reproducible",
]


REQUIRE_CLEAN_VARIABLE = "DERIVA_ML_REQUIRE_CLEAN"
"""The environment variable that turns each warning about reproducibility into an error."""


def warn(message: str) -> None:
    """Issue a `DerivaMLWarning` at the user's line that called this package."""
    try:
        warnings.warn(message, DerivaMLWarning, stacklevel=user_stacklevel())
    except Warning:  # a filter of the user makes it an error
        raise
    except Exception:  # noqa: BLE001 - standard error is closed, or an object that raises anything
        return


def warn_not_reproducible(message: str, environ: Mapping[str, str]) -> None:
    """Warn that the running code cannot be rebuilt, or raise if ``DERIVA_ML_REQUIRE_CLEAN=1``.

    Raises:
        NotReproducible: The environment variable is set.
    """
    if parse_flag(environ.get(REQUIRE_CLEAN_VARIABLE)):
        raise NotReproducible(f"{message} ({REQUIRE_CLEAN_VARIABLE} makes this an error.)")
    warn(message)


def find_conflicting_distribution(folders: Iterable[str]) -> Path | None:
    """Find an installed distribution ``deriva-ml``.

    Args:
        folders: The folders to search, as in ``sys.path``; an empty text is the current folder.

    Returns:
        The folder of its metadata, or None if it is not installed.
    """
    # importing importlib.metadata takes longer than importing most of this package
    matches = (metadata for folder in folders for metadata in Path(folder).glob("deriva_ml[-.]*-info"))
    return next(matches, None)


def warn_conflicting_distribution() -> None:
    """Warn if ``deriva-ml`` is installed too, as both distributions contain the package ``deriva_ml``."""
    if found := find_conflicting_distribution(sys.path):
        warn(
            f"The distributions deriva-ml ({found}) and deriva-ml-core are both installed, and both contain the "
            "package deriva_ml: `import deriva_ml` loads the one installed last. Keep one of them in an environment: "
            "`pip uninstall deriva-ml`, then `pip install --force-reinstall --no-deps deriva-ml-core`. "
            "Imports from deriva_ml_core are not affected."
        )
