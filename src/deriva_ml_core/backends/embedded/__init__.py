"""Embedded backend: a SQLite catalog and a folder store in one folder."""

from __future__ import annotations

from pathlib import Path

from deriva_ml_core.backend import Backend
from deriva_ml_core.backends.embedded.open import open_catalog
from deriva_ml_core.backends.folder.store import FolderStore
from deriva_ml_core.backends.sql.catalog import CatalogSnapshot, EmbeddedCatalog

__all__ = ["CatalogSnapshot", "EmbeddedCatalog", "FolderStore", "open_backend", "open_catalog"]


def open_backend(folder: Path) -> Backend:
    """Open the catalog and the store in a folder. Both are created if they do not exist.

    Args:
        folder: An absolute path.
    """
    return Backend(open_catalog(folder), FolderStore(folder), folder)
