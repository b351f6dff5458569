"""Which backend answers for an address: the embedded one, for none and for ``file:<folder>``, else a server."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from deriva_ml_core.backend import Backend
from deriva_ml_core.errors import ConfigurationError, UnknownAddress
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl

__all__ = ["connect", "create_catalog", "embedded_folder"]

HOME = "DERIVA_ML_HOME"
"""The environment variable that names the folder of the embedded catalog's own; ``~/.deriva-ml`` without it."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@hookimpl(trylast=True)
def connect(address: Address) -> Backend | None:
    """Open the embedded catalog, or one on a Deriva server.

    Raises:
        UnknownAddress: The scheme is nobody's, or the server has no such catalog.
        ConfigurationError: A catalog's number is given for an embedded catalog, which has none, or none for a server.
        CatalogUnavailable: The server cannot be reached.
    """
    folder = embedded_folder(address.hostname)
    if folder is None:
        from deriva_ml_core.backends.remote import open_backend as open_remote

        return open_remote(address, home())
    if address.catalog_id is not None:
        raise ConfigurationError(
            f"The embedded catalog in {folder} has no number, and {address.catalog_id!r} was given: leave it out, or "
            "name a server."
        )
    from deriva_ml_core.backends.embedded import open_backend

    return open_backend(folder)


@hookimpl(trylast=True)
def create_catalog(address: Address, project_name: str, acls: Mapping[str, Sequence[str]] | None) -> str:
    """Make a catalog on a Deriva server.

    Raises:
        ConfigurationError: The address is an embedded catalog's, which is made when it is opened.
    """
    folder = embedded_folder(address.hostname)
    if folder is not None:
        raise ConfigurationError(
            f"The embedded catalog in {folder} is made when it is first opened, with DerivaML(...): name a server to "
            "make a catalog there."
        )
    from deriva_ml_core.backends.remote import create_on_server

    return create_on_server(address, project_name, acls)


def home() -> Path:
    """The folder under which all that we keep on this machine lies."""
    return Path(os.environ.get(HOME) or "~/.deriva-ml").expanduser().absolute()


def embedded_folder(hostname: str | None) -> Path | None:
    """The folder of an embedded catalog; None where a server is named.

    Args:
        hostname: None or empty for the default one, ``file:<folder>`` (relative to the working directory, absolute,
            with ``~``, or as a URL ``file:///…``), or anything else.

    Raises:
        UnknownAddress: It has a scheme that is neither ``file``, ``https`` nor ``http``.
    """
    if not hostname:
        return home() / "local"
    if hostname.startswith("file:"):
        return _folder(hostname)
    scheme = _SCHEME.match(hostname)
    if scheme and scheme[1].lower() not in ("http", "https"):
        raise UnknownAddress(
            f"Nothing answers for {hostname!r}: give a server's host name or https://<host>, file:<folder> for an "
            "embedded catalog in a folder, or nothing for the one in DERIVA_ML_HOME."
        )
    return None


def _folder(address: str) -> Path:
    named = address.removeprefix("file:")
    if named.startswith("//"):
        host, _, path = named[2:].partition("/")
        if host not in ("", "localhost"):
            raise UnknownAddress(f"{address!r} names another machine; give a folder of this one, as file:///<folder>.")
        named = unquote(f"/{path}")
    if not named:
        raise UnknownAddress(f"{address!r} names no folder; give file:<folder>.")
    return Path(os.path.normpath(Path(named).expanduser().absolute()))
