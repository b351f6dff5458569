"""What the user is told in passing: warnings at the user's own line, not at one of ours."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping

from deriva_ml_core.errors import DerivaMLWarning, NotReproducible

__all__ = ["REQUIRE_CLEAN_VARIABLE", "warn_not_reproducible", "is_own_module", "warn"]

REQUIRE_CLEAN_VARIABLE = "DERIVA_ML_REQUIRE_CLEAN"
"""The environment variable that makes an error of each doubt about what ran."""

_OWN_PACKAGES = frozenset({"deriva_ml", "deriva_ml_core", "deriva_ml_keras", "deriva_ml_lightning"})
_SKIPPED_PACKAGES = _OWN_PACKAGES | {"contextlib", "hydra_zen", "pluggy", "pydantic"}


def is_own_module(module: str) -> bool:
    """Whether a module's full name is one of this project."""
    return module.partition(".")[0] in _OWN_PACKAGES


def warn(message: str) -> None:
    """Warn, at the line of the user's code that called into ours."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in _SKIPPED_PACKAGES:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, DerivaMLWarning, stacklevel=level)


def warn_not_reproducible(message: str, environ: Mapping[str, str]) -> None:
    """Warn that the code that runs cannot be rebuilt, or raise it where ``DERIVA_ML_REQUIRE_CLEAN=1``.

    Raises:
        NotReproducible: The environment asks for it.
    """
    if environ.get(REQUIRE_CLEAN_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on"):
        raise NotReproducible(f"{message} ({REQUIRE_CLEAN_VARIABLE} is set, so this is an error.)")
    warn(message)
