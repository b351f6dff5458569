"""The client that a command asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML

__all__ = ["open_client"]


def open_client(host: str | None, catalog: str | None, *, create_missing: bool = False) -> DerivaML:
    """Open the catalog that the command line names, the embedded one where it names none.

    Args:
        host: A server, or ``file:<folder>``; None for the default embedded catalog, which is made on first use.
        catalog: The catalog's number on that server.
        create_missing: Whether a folder that is named and has no catalog gets one.

    Raises:
        UnknownAddress: No backend answers for it, or the folder has no catalog.
    """
    from deriva_ml_core.client import DerivaML

    if host and not create_missing:
        _check_catalog_exists(host)
    return DerivaML(host, catalog)


def _check_catalog_exists(host: str) -> None:
    """Refuse a folder that was mistyped, in which a catalog would be made that nobody asked for."""
    from deriva_ml_core.addresses import CATALOG_FILENAME, embedded_catalog_folder
    from deriva_ml_core.errors import UnknownAddress

    folder = embedded_catalog_folder(host)
    if folder is not None and not (folder / CATALOG_FILENAME).exists():
        raise UnknownAddress(f"There is no catalog in {folder}: `deriva-ml init --host {host}` makes one.")
