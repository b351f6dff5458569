"""What Lightning asks by an entry point whenever a Trainer is made: light, since most are not ours to record."""

from __future__ import annotations

import sys

__all__ = ["callbacks"]


def callbacks() -> list[object]:
    """The callbacks that ``deriva_ml_lightning.autolog()`` adds; none where nobody has called it."""
    autolog = sys.modules.get("deriva_ml_lightning.autolog")
    return [] if autolog is None else list(autolog.added_callbacks())
