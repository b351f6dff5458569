"""Values that describe datasets and their versions."""

from __future__ import annotations

from deriva_ml_core.datasets import DatasetVersion, VersionPart
from deriva_ml_core.models import DatasetSpec

__all__ = ["DatasetSpec", "DatasetVersion", "VersionPart"]
