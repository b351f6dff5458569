"""Statuses, RIDs, and the names of tables and vocabularies."""

from __future__ import annotations

from deriva_ml_core.definitions import RID, MLAsset, MLTable, MLVocab, Status

__all__ = ["MLAsset", "MLTable", "MLVocab", "RID", "Status"]
