"""PostgreSQL backend: the rows of a catalog in a database, and its objects in a store that the catalog names."""

from __future__ import annotations

from pathlib import Path

from deriva_ml_core.backend import Backend
from deriva_ml_core.backends.named_store import check_same_store, confirm_store, open_named_store, prepare_store
from deriva_ml_core.backends.postgres.address import parse_address
from deriva_ml_core.backends.postgres.open import create_catalog, open_catalog

__all__ = ["create_backend", "open_backend"]


def open_backend(uri: str, home: Path, store: str | None) -> Backend:
    """Open the catalog in a database, and its store.

    Args:
        uri: URI of the database.
        home: Parent folder of the folders for working folders and downloads.
        store: Address that the catalog's store is expected to have, which confirms its first use.

    Raises:
        StoreConflict: The catalog has its objects elsewhere than in `store`.
        UnconfirmedStore: The catalog has its objects in a store that this user has not confirmed.
        UnknownAddress: The database has no catalog.
    """
    address = parse_address(uri)
    catalog = open_catalog(address)
    objects = open_named_store(catalog.store_address, address.printable, store)
    return Backend(catalog, objects, home / "postgresql" / address.folder_name, has_remote_store=True)


def create_backend(uri: str, store: str) -> None:
    """Create a catalog in a database, with its objects in a store. An existing one with that store stays.

    Args:
        uri: URI of the database, which exists.
        store: Address of the store.

    Raises:
        StoreConflict: The database has a catalog with another store.
        UnknownAddress: The store does not exist.
        AccessRefused, LoginRequired: The user may not create a schema in the database, or not write to the store.
    """
    address, store_address = parse_address(uri), prepare_store(store)
    create_catalog(address, store_address)
    catalog = open_catalog(address)
    check_same_store(catalog.store_address, store_address, address.printable)
    catalog.close()
    confirm_store(store_address)
