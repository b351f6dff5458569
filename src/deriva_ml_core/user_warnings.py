"""What the user is told in passing: warnings at the user's own line, not at one of ours."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from deriva_ml_core._frames import user_stacklevel
from deriva_ml_core.errors import DerivaMLWarning, NotReproducible

__all__ = [
    "REQUIRE_CLEAN_VARIABLE",
    "find_conflicting_distribution",
    "warn",
    "warn_conflicting_distribution",
    "warn_not_reproducible",
]


REQUIRE_CLEAN_VARIABLE = "DERIVA_ML_REQUIRE_CLEAN"
"""The environment variable that makes an error of each doubt about what ran."""


def warn(message: str) -> None:
    """Warn with `DerivaMLWarning` at the user's line that called this software."""
    warnings.warn(message, DerivaMLWarning, stacklevel=user_stacklevel())


def warn_not_reproducible(message: str, environ: Mapping[str, str]) -> None:
    """Warn that the code that runs cannot be rebuilt, or raise it where ``DERIVA_ML_REQUIRE_CLEAN=1``.

    Raises:
        NotReproducible: The environment asks for it.
    """
    if environ.get(REQUIRE_CLEAN_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on"):
        raise NotReproducible(f"{message} ({REQUIRE_CLEAN_VARIABLE} is set, so this is an error.)")
    warn(message)


def find_conflicting_distribution(folders: Iterable[str]) -> Path | None:
    """Look for an installed distribution ``deriva-ml``.

    Args:
        folders: Where distributions are installed, as in ``sys.path``; an empty text is the current folder.

    Returns:
        The folder that holds its metadata; None where it is not installed.
    """
    # importlib.metadata would do, but importing it costs more than most of this package
    found = (metadata for folder in folders for metadata in Path(folder).glob("deriva_ml[-.]*-info"))
    return next(found, None)


def warn_conflicting_distribution() -> None:
    """Warn where ``deriva-ml`` is installed beside this distribution, for both bring the package ``deriva_ml``."""
    if found := find_conflicting_distribution(sys.path):
        warn(
            f"The distribution deriva-ml is installed beside deriva-ml-core ({found}), and both bring the package "
            "deriva_ml: what `import deriva_ml` gives depends on which was installed last. Keep one of them in an "
            "environment: `pip uninstall deriva-ml`, then `pip install --force-reinstall --no-deps deriva-ml-core`. "
            "Imports from deriva_ml_core are never mixed."
        )
