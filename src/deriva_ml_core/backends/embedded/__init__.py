"""Embedded backend: a SQLite catalog and a folder store in one folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deriva_ml_core import default_schema
from deriva_ml_core.backend import Backend, Catalog
from deriva_ml_core.backends.embedded.open import open_catalog
from deriva_ml_core.backends.folder.store import FolderStore
from deriva_ml_core.backends.sql.catalog import CatalogSnapshot, SqlCatalog
from deriva_ml_core.schema import CatalogModel, Table

__all__ = ["CatalogSnapshot", "SqlCatalog", "FolderStore", "open_backend", "open_catalog"]


def open_backend(folder: Path) -> Backend:
    """Open the catalog and the store in a folder. Both are created if they do not exist.

    Args:
        folder: An absolute path.
    """
    catalog: Catalog = open_catalog(folder)
    if any(column not in table.column_names for table, column in _added_columns(catalog.model)):
        from deriva_ml_core.backends.compatibility import adapt_catalog  # a read-only catalog of an earlier version

        catalog = adapt_catalog(catalog)
    return Backend(catalog, FolderStore(folder), folder)


def _added_columns(model: CatalogModel) -> Iterator[tuple[Table, str]]:
    """Yield the columns of later versions, each with its existing table."""
    for name, column in default_schema.ADDED_COLUMNS:
        if (table := model.tables.get(name)) is not None:
            yield table, column
