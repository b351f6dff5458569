"""What a client has opened, in one value that the rooms below it share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import pluggy

from deriva_ml_core.backend import Backend, Catalog, ObjectStore
from deriva_ml_core.errors import PluginError, UnknownAddress, UnknownRID, UnknownTerm, WrongTable
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import plugin_manager
from deriva_ml_core.plugins.notifications import DEFAULT_EXIT_TIMEOUT

__all__ = ["Connection", "TermCache", "open_connection"]


class TermCache:
    """The terms of the catalog's vocabularies, read once each and again on a miss.

    Args:
        catalog: Where the vocabularies are.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._cache: dict[str, frozenset[str]] = {}
        self._lock = Lock()

    def require(self, vocabulary: str, names: Iterable[str]) -> None:
        """Raise `UnknownTerm`, naming the known ones, unless the vocabulary has all these terms."""
        wanted = set(names)
        if wanted - self._cache.get(vocabulary, frozenset()) and (missing := wanted - self.reload(vocabulary)):
            known = ", ".join(sorted(self._cache[vocabulary])) or "none"
            raise UnknownTerm(
                f"The vocabulary {vocabulary} has no term {', '.join(map(repr, sorted(missing)))}; it has {known}. "
                f"Add one with ml.add_term({str(vocabulary)!r}, name, description)."
            )

    def cached_terms(self, vocabulary: str) -> frozenset[str]:
        """The terms of a vocabulary as they were when it was last read."""
        return self._cache.get(vocabulary) or self.reload(vocabulary)

    def reload(self, vocabulary: str) -> frozenset[str]:
        """All terms of a vocabulary, as they are now."""
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
    """Open the catalog at an address by asking the plugins who knows it.

    Args:
        address: Where it is.
        plugins: Whom to ask; the process's own plugins by default.
        clean_execution_dir: Whether uploads empty the staging folders unless told otherwise.
        exit_timeout: Seconds that the end of a run waits for what is still under way beside it.

    Raises:
        UnknownAddress: Nobody knows it.
        PluginError: The catalog of a plugin cannot do all that is asked of one.
    """
    plugins = plugins or plugin_manager()
    backend = plugins.hook.connect(address=address)
    if backend is None:
        raise UnknownAddress(
            f"No backend answers for {address.hostname!r}. This version serves the embedded catalog, DerivaML() or "
            "DerivaML('file:<folder>'), a catalog on a Deriva server, DerivaML('server.org', '1'), unless the plugin "
            "'connect' is disabled, and whatever an installed plugin connects to; list_plugins() names them."
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
    """Raise `PluginError`, naming what lacks, for a catalog that was written when less was asked."""
    asked = [name for name in dir(Catalog) if not name.startswith("_") and callable(getattr(Catalog, name))]
    if lacking := [name for name in asked if not hasattr(catalog, name)]:
        raise PluginError(
            f"The catalog {type(catalog).__qualname__} of {type(catalog).__module__} has no {', '.join(lacking)}: the "
            "plugin that it is from was written for another version. Get a newer one, or add what lacks; "
            "deriva_ml_core.testing.CatalogContract tests the whole."
        )


@dataclass(frozen=True)
class Connection:
    """An open catalog and store, the plugins that hear of it, and where it is.

    Args:
        address: Where it is: enough to open it again in another process.
        backend: The rows, the bytes, and the folder for working folders.
        plugins: Who hears news and answers questions.
        clean_execution_dir: Whether uploads empty the staging folders unless told otherwise.
        exit_timeout: Seconds that the end of a run waits for what is still under way beside it.
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
        return _reopen_connection, (
            self.address,
            self.clean_execution_dir,
            self.exit_timeout,
        )  # another process asks its own plugins

    @property
    def catalog(self) -> Catalog:
        """The rows."""
        return self.backend.catalog

    @property
    def store(self) -> ObjectStore:
        """The bytes."""
        return self.backend.store

    @property
    def folder(self) -> Path:
        """Where working folders and downloads lie."""
        return self.backend.folder

    def working_folder(self, rid: str) -> Path:
        """The folder that an execution works in, on this machine."""
        return (self.address.working_dir or self.folder) / "executions" / rid

    def require_row(self, table: str, rid: str) -> dict[str, object]:
        """The row of that id, or an error that says which table the id was found in.

        Raises:
            UnknownRID: No table has it.
            WrongTable: Another table has it.
        """
        if rows := self.catalog.select(table, {"RID": rid}):
            return rows[0]
        found = self.catalog.locate([rid])
        if rid in found:
            raise WrongTable(f"{rid} is a row of {found[rid]}, not of {table}; give the RID of a row of {table}.")
        raise UnknownRID(f"{rid} names no row of {self.catalog.name}; give the RID of a row of {table}.")


def _reopen_connection(address: Address, clean_execution_dir: bool, exit_timeout: float) -> Connection:
    return open_connection(address, clean_execution_dir=clean_execution_dir, exit_timeout=exit_timeout)
