"""The root of all errors of DerivaML; its kinds are in ``deriva_ml_core.errors``."""

from __future__ import annotations

from deriva_ml_core.errors import DerivaMLException

__all__ = ["DerivaMLException"]
