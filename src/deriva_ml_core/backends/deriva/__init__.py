"""Backend on a Deriva server: rows in ERMrest, objects in Hatrac."""

from __future__ import annotations

from deriva_ml_core.backends.deriva.catalog import CatalogSnapshot, DerivaCatalog
from deriva_ml_core.backends.deriva.open import create_or_extend_catalog, open_backend
from deriva_ml_core.backends.deriva.store import DerivaStore

__all__ = ["CatalogSnapshot", "DerivaCatalog", "DerivaStore", "create_or_extend_catalog", "open_backend"]
