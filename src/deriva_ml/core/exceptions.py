"""The base class of all errors; the specific classes are in `deriva_ml_core.errors`."""

from __future__ import annotations

from deriva_ml_core.errors import DerivaMLException

__all__ = ["DerivaMLException"]
