"""Built-in plugin that selects the backend: the embedded catalog, or a Deriva server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deriva_ml_core._lazy import require_extra
from deriva_ml_core.backend import Backend
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.models import Address
from deriva_ml_core.paths import embedded_catalog_folder, home_folder, is_postgres_address
from deriva_ml_core.plugins.manager import hookimpl

__all__ = ["connect", "create_catalog"]


@hookimpl(trylast=True)
def connect(address: Address) -> Backend | None:
    """Open the embedded catalog (no address, or ``file:<folder>``), or one in PostgreSQL or on a Deriva server.

    Raises:
        UnknownAddress: The scheme is unknown, or the server has no such catalog.
        ConfigurationError: A catalog number was passed for an embedded catalog, or none for a server.
        CatalogUnavailable: The server cannot be reached.
    """
    if is_postgres_address(address.hostname):
        _refuse_number(address)
        with require_extra("postgres", "A catalog in PostgreSQL"):
            from deriva_ml_core.backends.postgres import open_backend as open_postgres

        return open_postgres(str(address.hostname), home_folder(), address.store)
    folder = embedded_catalog_folder(address.hostname)
    if folder is None:
        _refuse_store(address)
        with require_extra("deriva", "A catalog on a Deriva server"):
            from deriva_ml_core.backends.deriva import open_backend as open_remote

        return open_remote(address, home_folder())
    if address.catalog_id is not None:
        raise ConfigurationError(
            f"The embedded catalog in {folder} has no catalog number, but {address.catalog_id!r} was passed. Leave it "
            "out, or name a server."
        )
    from deriva_ml_core.backends.embedded import open_backend

    return open_backend(folder, address.store)


@hookimpl(trylast=True)
def create_catalog(address: Address, project_name: str, acls: Mapping[str, Sequence[str]] | None) -> str:
    """Create a catalog on a Deriva server or in PostgreSQL, or an embedded one that has its files in another store.

    Returns:
        The catalog's number. Empty for a catalog that has none because it is not on a Deriva server.

    Raises:
        ConfigurationError: The address names an embedded catalog without a store, which is created when it is opened,
            or a database without a store.
        StoreConflict: There is a catalog with another store.
    """
    if is_postgres_address(address.hostname):
        _refuse_number(address)
        _create_in_postgres(address, acls)
        return ""
    folder = embedded_catalog_folder(address.hostname)
    if folder is not None and address.store is not None:
        from deriva_ml_core.backends.embedded import create_with_store

        create_with_store(folder, address.store)
        return ""
    if folder is not None:
        raise ConfigurationError(
            f"The embedded catalog in {folder} is created when DerivaML(...) first opens it. To create a catalog on a "
            "server, name the server; to keep the files of a new embedded catalog elsewhere, name the store."
        )
    _refuse_store(address)
    with require_extra("deriva", "A catalog on a Deriva server"):
        from deriva_ml_core.backends.deriva import create_or_extend_catalog

    return create_or_extend_catalog(address, project_name, acls)


def _create_in_postgres(address: Address, acls: Mapping[str, Sequence[str]] | None) -> None:
    if acls:
        raise ConfigurationError(
            f"{address.printable_hostname} is a PostgreSQL database, whose roles have the rights. Leave acls out."
        )
    if address.store is None:
        raise ConfigurationError(
            f"The catalog in {address.printable_hostname} needs a store for its files: s3://<bucket>/<prefix>, or "
            "file:<folder> for a folder that all users share."
        )
    with require_extra("postgres", "A catalog in PostgreSQL"):
        from deriva_ml_core.backends.postgres import create_backend

    create_backend(str(address.hostname), address.store)


def _refuse_number(address: Address) -> None:
    if address.catalog_id is not None:
        raise ConfigurationError(
            f"The catalog in {address.printable_hostname} has no number, but {address.catalog_id!r} was passed. Leave "
            "it out."
        )


def _refuse_store(address: Address) -> None:
    if address.store is not None:
        raise ConfigurationError(
            f"{address.printable_hostname} is a Deriva server, which has its own object store. Leave the store out."
        )
