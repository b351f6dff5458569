"""Entry point that Lightning calls for each new Trainer; it imports nothing heavy, since most are not recorded."""

from __future__ import annotations

import sys

__all__ = ["callbacks"]


def callbacks() -> list[object]:
    """Return the callbacks that ``deriva_ml_lightning.autolog()`` adds; none unless it was called."""
    autolog = sys.modules.get("deriva_ml_lightning.autolog")
    return [] if autolog is None else list(autolog.added_callbacks())
