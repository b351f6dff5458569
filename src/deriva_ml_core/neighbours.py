"""Who else in this environment brings the import name ``deriva_ml``: the distribution ``deriva-ml``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from deriva_ml_core.notices import warn

__all__ = ["find_conflicting_distribution", "warn_conflicting_distribution"]


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
