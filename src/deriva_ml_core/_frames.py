"""Stack frames: which belong to this software, and where the user's code called it."""

from __future__ import annotations

import sys

__all__ = ["is_own_module", "user_stacklevel"]

_OWN_PACKAGES = frozenset({"deriva_ml", "deriva_ml_core", "deriva_ml_keras", "deriva_ml_lightning"})
_SKIPPED_PACKAGES = _OWN_PACKAGES | {"contextlib", "functools", "hydra_zen", "pluggy", "pydantic"}


def is_own_module(module: str) -> bool:
    """Whether a module, by its full name, belongs to this software."""
    return module.partition(".")[0] in _OWN_PACKAGES


def user_stacklevel() -> int:
    """Return the ``stacklevel`` with which the caller's ``warnings.warn`` names the user's line."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in _SKIPPED_PACKAGES:
        frame, level = frame.f_back, level + 1
    return level
