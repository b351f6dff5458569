"""An open catalog with its object store, plugins and settings."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import pluggy

from deriva_ml_core.backend import Backend, Catalog, ObjectStore
from deriva_ml_core.definitions import check_rid
from deriva_ml_core.errors import PluginError, UnknownAddress, UnknownRID, UnknownTerm, WrongTable
from deriva_ml_core.models import Address
from deriva_ml_core.paths import home_folder, list_own_paths
from deriva_ml_core.plugins import plugin_manager
from deriva_ml_core.plugins.notifications import DEFAULT_EXIT_TIMEOUT

__all__ = ["Connection", "TermCache", "open_connection"]


class TermCache:
    """Cache of the terms of a catalog's vocabularies. A vocabulary is read again on a miss.

    Args:
        catalog: The catalog.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._cache: dict[str, frozenset[str]] = {}
        self._lock = Lock()

    def require(self, vocabulary: str, names: Iterable[str]) -> None:
        """Raise `UnknownTerm`, naming the existing terms, unless the vocabulary has all these terms."""
        required = set(names)
        if required - self._cache.get(vocabulary, frozenset()) and (missing := required - self.reload(vocabulary)):
            existing = ", ".join(sorted(self._cache[vocabulary])) or "none"
            raise UnknownTerm(
                f"The vocabulary {vocabulary} has no term {', '.join(map(repr, sorted(missing)))}; it has {existing}. "
                f"Add one with ml.add_term({str(vocabulary)!r}, name, description)."
            )

    def cached_terms(self, vocabulary: str) -> frozenset[str]:
        """Return the terms of a vocabulary when it was last read."""
        return self._cache.get(vocabulary) or self.reload(vocabulary)

    def reload(self, vocabulary: str) -> frozenset[str]:
        """Read all terms of a vocabulary, and return them."""
        table = self._catalog.model.vocabulary(vocabulary).name
        names = frozenset(row["Name"] for row in self._catalog.select(table))
        with self._lock:
            self._cache[vocabulary] = names
        return names


def open_connection(
    address: Address,
    plugins: pluggy.PluginManager | None = None,
    *,
    clean_execution_dir: bool = True,
    exit_timeout: float = DEFAULT_EXIT_TIMEOUT,
) -> Connection:
    """Open the catalog at an address through the hook ``connect``.

    Args:
        address: Address of the catalog.
        plugins: Plugin manager. By default the process's own.
        clean_execution_dir: Whether uploads remove uploaded files from the staging folders by default.
        exit_timeout: Maximum seconds to wait at the end of a run for background writes and plugins.

    Raises:
        UnknownAddress: No plugin serves this address.
        PluginError: The catalog of a plugin lacks methods of the `Catalog` protocol.
    """
    plugins = plugins or plugin_manager()
    backend = plugins.hook.connect(address=address)
    if backend is None:
        raise UnknownAddress(
            f"No backend serves {address.printable_hostname!r}. Use DerivaML() or DerivaML('file:<folder>') for an "
            "embedded catalog, or DerivaML('server.org', '1') for a catalog on a Deriva server. Other addresses need a "
            "plugin; list_plugins() lists the installed plugins, and whether 'connect' is disabled."
        )
    _check_catalog_methods(backend.catalog)
    return Connection(
        address=address,
        backend=backend,
        plugins=plugins,
        clean_execution_dir=clean_execution_dir,
        exit_timeout=exit_timeout,
    )


def _check_catalog_methods(catalog: Catalog) -> None:
    """Raise `PluginError` for a catalog that was written for an earlier, smaller protocol."""
    methods = [name for name in dir(Catalog) if not name.startswith("_") and callable(getattr(Catalog, name))]
    if missing := [name for name in methods if not hasattr(catalog, name)]:
        raise PluginError(
            f"The catalog {type(catalog).__qualname__} of {type(catalog).__module__} has no {', '.join(missing)}: its "
            "plugin was written for another version. Install a newer plugin, or add the missing methods; "
            "deriva_ml_core.testing.CatalogContract tests them."
        )


@dataclass(frozen=True)
class Connection:
    """An open catalog with its object store, plugins and settings.

    A connection can be pickled: it is opened again in the other process, with the plugins of that process.

    Args:
        address: Address of the catalog.
        backend: Catalog, object store and folder.
        plugins: Plugin manager.
        clean_execution_dir: Whether uploads remove uploaded files from the staging folders by default.
        exit_timeout: Maximum seconds to wait at the end of a run for background writes and plugins.

    Attributes:
        terms: Cache of the catalog's vocabularies.
    """

    address: Address
    backend: Backend
    plugins: pluggy.PluginManager
    clean_execution_dir: bool = True
    exit_timeout: float = DEFAULT_EXIT_TIMEOUT
    terms: TermCache = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", TermCache(self.backend.catalog))

    def __reduce__(self) -> tuple[Callable[..., Connection], tuple[Address, bool, float]]:
        return _reopen_connection, (self.address, self.clean_execution_dir, self.exit_timeout)

    @property
    def catalog(self) -> Catalog:
        """The catalog."""
        return self.backend.catalog

    @property
    def store(self) -> ObjectStore:
        """The object store."""
        return self.backend.store

    @property
    def has_remote_store(self) -> bool:
        """Whether files are sent over a network, so that a run must not wait for them."""
        return self.backend.has_remote_store or not self.address.is_embedded

    @property
    def folder(self) -> Path:
        """Folder for working folders and downloads."""
        return self.backend.folder

    @property
    def call(self) -> str:
        """Python call that opens this catalog, for messages. A login that was passed is left out."""
        arguments = [repr(value) for value in (self._hostname, self.address.catalog_id) if value is not None]
        if self.address.working_dir is not None:
            arguments.append(f"working_dir={str(self.address.working_dir)!r}")
        return f"DerivaML({', '.join(arguments)})"

    def command(self, *words: str) -> str:
        """Return a command line of ``deriva-ml`` with the options that name this catalog, for messages.

        Args:
            words: The subcommand and its arguments.
        """
        options = {"--host": self._hostname, "--catalog": self.address.catalog_id}
        named = (part for option, value in options.items() if value is not None for part in (option, value))
        return shlex.join(["deriva-ml", *words, *named])

    @property
    def _hostname(self) -> str | None:
        """The host name, with the absolute path of a folder; None for the default catalog."""
        if not self.address.hostname:
            return None
        return f"file:{self.folder}" if self.address.is_embedded else self.address.printable_hostname

    def working_folder(self, rid: str) -> Path:
        """Return the working folder of an execution on this machine.

        Raises:
            InvalidRID: A catalog's row names an execution by a text that is not an RID, and may lead elsewhere.
        """
        return (self.address.working_dir or self.folder) / "executions" / check_rid(rid)

    @property
    def own_paths(self) -> list[Path]:
        """The files and folders that this software uses: those of the catalog, and the home folder."""
        folders = dict.fromkeys((self.folder, self.address.working_dir))
        return [home_folder(), *(path for each in folders if each is not None for path in list_own_paths(each))]

    def require_row(self, table: str, rid: str) -> dict[str, object]:
        """Return a row by its RID.

        Args:
            table: Name of the table.
            rid: RID of the row.

        Raises:
            UnknownRID: No row has this RID.
            WrongTable: The RID belongs to a row of another table, which the message names.
        """
        if rows := self.catalog.select(table, {"RID": rid}):
            return rows[0]
        located = self.catalog.locate([rid])
        if rid in located:
            raise WrongTable(f"{rid} is a row of {located[rid]}, not of {table}. Use the RID of a row of {table}.")
        raise UnknownRID(f"No row of {self.catalog.name} has the RID {rid}. Use the RID of a row of {table}.")


def _reopen_connection(address: Address, clean_execution_dir: bool, exit_timeout: float) -> Connection:
    return open_connection(address, clean_execution_dir=clean_execution_dir, exit_timeout=exit_timeout)


_opened_again = _reopen_connection
"""The name that pickles of version 0.1 have."""
