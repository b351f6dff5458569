"""A catalog that responds late, with errors, or never; it wraps an embedded one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Event, Lock
from typing import Any

from deriva_ml_core.backend import Backend, Catalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import CatalogUnavailable
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl, load_plugins


class FaultyCatalog:
    """Passes every call on and records the calling thread.

    Args:
        catalog: The wrapped catalog.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = Lock()
        self.before_update: Callable[[], object] = lambda: None
        """Called before a row is updated."""
        self.before_insert: Callable[[str], object] = lambda table: None
        """Called with the table before rows are inserted."""
        self.callers: list[tuple[int, str]] = []
        self.attempts = 0
        self.details: list[str] = []
        """The value of Status_Detail in each written row of Execution, in order."""
        self.written = Event()
        self.down = False
        """Whether inserts fail."""

    def __getattr__(self, name: str) -> Any:
        self.callers.append((threading.get_ident(), name))
        return getattr(self._catalog, name)

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        self.callers.append((threading.get_ident(), "update"))
        self.attempts += 1
        self.before_update()
        with self._lock:
            count = self._catalog.update(table, rows)
            self.details += [row["Status_Detail"] for row in rows if "Status_Detail" in row]
        self.written.set()
        return count

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        self.callers.append((threading.get_ident(), "insert"))
        self.before_insert(table)
        if self.down:
            raise_unavailable()
        return self._catalog.insert(table, rows, skip_existing=skip_existing)

    def called_from(self, thread: int) -> list[str]:
        """Return the names of the calls from a thread."""
        return [name for caller, name in self.callers if caller == thread]


class FaultyCatalogPlugin:
    """Wraps the catalog of each backend in a `FaultyCatalog`."""

    def __init__(self) -> None:
        self.catalog: Any = None

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Any:
        backend: Backend = yield
        self.catalog = FaultyCatalog(backend.catalog)
        return replace(backend, catalog=self.catalog)


def make_faulty_client(*extra_plugins: object, exit_timeout: float = 30.0) -> tuple[DerivaML, FaultyCatalog]:
    """Return a client with a faulty catalog, and the catalog."""
    manager = load_plugins({})
    plugin = FaultyCatalogPlugin()
    manager.register(plugin, "faulty")
    for extra in extra_plugins:
        manager.register(extra)
    ml = DerivaML(plugins=manager, exit_timeout=exit_timeout)
    return ml, plugin.catalog


def raise_unavailable() -> None:
    """Raise `CatalogUnavailable`."""
    raise CatalogUnavailable("The catalog is down.")
