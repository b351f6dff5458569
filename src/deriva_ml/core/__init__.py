"""The client and shared definitions."""

from __future__ import annotations

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import RID, MLAsset, MLTable, MLVocab, Status
from deriva_ml_core.errors import DerivaMLException

__all__ = ["DerivaML", "DerivaMLException", "MLAsset", "MLTable", "MLVocab", "RID", "Status"]
