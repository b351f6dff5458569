"""The folders that addresses of embedded catalogs name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from deriva_ml_core.errors import UnknownAddress

__all__ = ["CATALOG_FILENAME", "embedded_catalog_folder", "home_folder"]

CATALOG_FILENAME = "catalog.sqlite"
"""The file of an embedded catalog in its folder."""

HOME_VARIABLE = "DERIVA_ML_HOME"
"""The environment variable that names the folder of the embedded catalog's own; ``~/.deriva-ml`` without it."""

_SCHEME_PATTERN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def home_folder() -> Path:
    """The folder under which all that we keep on this machine lies."""
    return Path(os.environ.get(HOME_VARIABLE) or "~/.deriva-ml").expanduser().absolute()


def embedded_catalog_folder(hostname: str | None) -> Path | None:
    """The folder of an embedded catalog; None where a server is named.

    Args:
        hostname: None or empty for the default one, ``file:<folder>`` (relative to the working directory, absolute,
            with ``~``, or as a URL ``file:///…``), or anything else.

    Raises:
        UnknownAddress: It has a scheme that is neither ``file``, ``https`` nor ``http``.
    """
    if not hostname:
        return home_folder() / "local"
    if hostname.startswith("file:"):
        return _parse_file_address(hostname)
    scheme = _SCHEME_PATTERN.match(hostname)
    if scheme and scheme[1].lower() not in ("http", "https"):
        raise UnknownAddress(
            f"Nothing answers for {hostname!r}: give a server's host name or https://<host>, file:<folder> for an "
            "embedded catalog in a folder, or nothing for the one in DERIVA_ML_HOME."
        )
    return None


def _parse_file_address(address: str) -> Path:
    named = address.removeprefix("file:")
    if named.startswith("//"):
        host, _, path = named[2:].partition("/")
        if host not in ("", "localhost"):
            raise UnknownAddress(f"{address!r} names another machine; give a folder of this one, as file:///<folder>.")
        named = unquote(f"/{path}")
    if not named:
        raise UnknownAddress(f"{address!r} names no folder; give file:<folder>.")
    return Path(os.path.normpath(Path(named).expanduser().absolute()))
