"""Embedded backend: a SQLite catalog in a folder, with its objects there or in another store."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from deriva_ml_core import default_schema
from deriva_ml_core.backend import Backend, Catalog
from deriva_ml_core.backends.embedded.open import CATALOG_FILE_NAME, open_catalog
from deriva_ml_core.backends.folder.store import FolderStore
from deriva_ml_core.backends.sql.catalog import CatalogSnapshot, SqlCatalog
from deriva_ml_core.errors import UnknownAddress
from deriva_ml_core.schema import CatalogModel, Table

__all__ = [
    "CatalogSnapshot",
    "FolderStore",
    "SqlCatalog",
    "create_with_store",
    "open_backend",
    "open_catalog",
]


def open_backend(folder: Path, store: str | None = None) -> Backend:
    """Open the catalog and the store in a folder. Both are created if they do not exist.

    Args:
        folder: An absolute path.
        store: Address of the catalog's store if it is not in the folder, which confirms its first use.

    Raises:
        UnconfirmedStore: The catalog has its objects in a store that this user has not confirmed.
        StoreConflict: The catalog has its objects elsewhere than in `store`.
    """
    if store is not None and not (folder / CATALOG_FILE_NAME).exists():
        address = f"file:{folder}"
        raise UnknownAddress(
            f"{folder} has no catalog; create one with DerivaML.create({address!r}, store=...) or "
            f"`deriva-ml init --host {shlex.quote(address)} --store ADDRESS`."
        )
    embedded = open_catalog(folder)
    catalog: Catalog = embedded
    if any(column not in table.column_names for table, column in _added_columns(catalog.model)):
        from deriva_ml_core.backends.compatibility import adapt_catalog  # a read-only catalog of an earlier version

        catalog = adapt_catalog(catalog)
    kept = embedded.store_address
    if kept is None and store is None:
        return Backend(catalog, FolderStore(folder), folder)
    from deriva_ml_core.backends.named_store import open_named_store

    named_store = open_named_store(kept, f"file:{folder}", store)
    return Backend(catalog, named_store, folder, has_remote_store=not str(kept).startswith("file:"))


def create_with_store(folder: Path, store: str) -> None:
    """Create a catalog in a folder that has its objects in another store. An existing one with that store stays.

    Args:
        folder: An absolute path.
        store: Address of the store.

    Raises:
        StoreConflict: There is a catalog with another store.
        UnknownAddress: The store does not exist.
        AccessRefused, LoginRequired: The user may not write to the store.
    """
    from deriva_ml_core.backends.named_store import check_same_store, confirm_store, prepare_store

    address = prepare_store(store)
    catalog = open_catalog(folder, store=address)
    check_same_store(catalog.store_address, address, f"file:{folder}")
    catalog.close()
    confirm_store(address)


def _added_columns(model: CatalogModel) -> Iterator[tuple[Table, str]]:
    """Yield the columns of later versions, each with its existing table."""
    for name, column in default_schema.ADDED_COLUMNS:
        if (table := model.tables.get(name)) is not None:
            yield table, column
