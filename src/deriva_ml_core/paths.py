"""Folders of embedded catalogs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from deriva_ml_core.errors import ConfigurationError, UnknownAddress

__all__ = [
    "CATALOG_FILENAME",
    "embedded_catalog_folder",
    "expand_home",
    "find_current_folder",
    "home_folder",
    "is_postgres_address",
    "leads_nowhere",
    "list_own_paths",
    "require_current_folder",
    "to_absolute_path",
]

CATALOG_FILENAME = "catalog.sqlite"
"""File name of an embedded catalog in its folder."""

_DATABASE_SUFFIXES = ("", "-wal", "-shm", "-journal", ".lock")
_OTHER_NAMES = ("catalog.rids", "cache", "executions", "notebooks", "objects", "pushed", "rendezvous", "trash")

HOME_VARIABLE = "DERIVA_ML_HOME"
"""Environment variable with the home folder. Default ``~/.deriva-ml``."""

_POSTGRES_PATTERN = re.compile(r"(?i)postgres(?:ql)?://")
_SCHEME_PATTERN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_postgres_address(hostname: str | None) -> bool:
    """Whether an address names a PostgreSQL database."""
    return hostname is not None and _POSTGRES_PATTERN.match(hostname) is not None


def home_folder() -> Path:
    """Return the folder of all files that this software stores on this machine.

    Raises:
        ConfigurationError: The default is used, and this user has no home folder; or the folder is relative, and the
            current folder was deleted.
    """
    return to_absolute_path(expand_home(Path(os.environ.get(HOME_VARIABLE) or "~/.deriva-ml")))


def expand_home(path: Path) -> Path:
    """Return a path with ``~`` or ``~user`` at its start replaced by the home folder.

    Raises:
        ConfigurationError: The user has no home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigurationError(
            f"The folder {path} is not known: HOME is not set, and the system has no entry for this user. Set "
            f"{HOME_VARIABLE} to a folder that this user may write, or name a folder without ~."
        ) from error


def find_current_folder() -> Path | None:
    """Return the current folder of this process; None if it was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return None


def leads_nowhere(path: str | os.PathLike[str]) -> bool:
    """Whether a path is relative, and the current folder was deleted."""
    return not Path(path).is_absolute() and find_current_folder() is None


def require_current_folder(path: str | os.PathLike[str]) -> None:
    """Raise if a path leads nowhere.

    Raises:
        ConfigurationError: The path is relative, and the current folder was deleted.
    """
    if leads_nowhere(path):
        raise ConfigurationError(
            f"The path {os.fspath(path)} leads nowhere, since the current folder was deleted. Change to another "
            "folder, or name an absolute path."
        )


def to_absolute_path(path: str | os.PathLike[str]) -> Path:
    """Return a path from the root; links stay as they are.

    Raises:
        ConfigurationError: The path is relative, and the current folder was deleted.
    """
    require_current_folder(path)
    return Path(path).absolute()


def list_own_paths(folder: Path) -> list[Path]:
    """Return the paths that this software uses in the folder of a catalog, which can contain files of the user too."""
    return [folder / name for name in (*(CATALOG_FILENAME + each for each in _DATABASE_SUFFIXES), *_OTHER_NAMES)]


def embedded_catalog_folder(hostname: str | None) -> Path | None:
    """Return the folder of an embedded catalog, or None for the address of a server.

    Args:
        hostname: None or empty for the default catalog, ``file:<folder>`` (relative to the current directory, absolute,
            with ``~``, or a URL ``file:///…``), or the address of a server.

    Raises:
        UnknownAddress: The address has a scheme other than ``file``, ``https`` and ``http``, or names no folder of this
            machine.
    """
    if not hostname:
        return home_folder() / "local"
    if hostname.startswith("file:"):
        return _parse_file_address(hostname)
    scheme = _SCHEME_PATTERN.match(hostname)
    if scheme and scheme[1].lower() not in ("http", "https", "postgres", "postgresql"):
        raise UnknownAddress(
            f"No backend serves {_redact_address(hostname)!r}. Use a server's host name or https://<host>, "
            "postgresql://<host>/<database>, file:<folder> for an embedded catalog, or no address for the catalog in "
            "DERIVA_ML_HOME."
        )
    return None


def _parse_file_address(address: str) -> Path:
    folder = address.removeprefix("file:")
    if folder.startswith("//"):
        host, _, path = folder[2:].partition("/")
        if host not in ("", "localhost"):
            raise UnknownAddress(
                f"{_redact_address(address)!r} names another machine. Use a folder of this machine: file:///<folder>."
            )
        folder = unquote(f"/{path}")
    if not folder:
        raise UnknownAddress(f"{address!r} names no folder. Use file:<folder>.")
    return Path(os.path.normpath(to_absolute_path(expand_home(Path(folder)))))


def _redact_address(address: str) -> str:
    from deriva_ml_core.redaction import redact_address  # many patterns to compile

    return redact_address(address)
