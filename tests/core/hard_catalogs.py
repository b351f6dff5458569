"""A catalog that answers late, with errors, or never: around the embedded one."""

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


class HardCatalog:
    """Passes every call on, and remembers from which thread it came.

    Args:
        catalog: The catalog that does the work.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lock = Lock()
        self.before_update: Callable[[], object] = lambda: None
        """Called before a row is changed."""
        self.before_insert: Callable[[str], object] = lambda table: None
        """Called with the table before rows are added."""
        self.callers: list[tuple[int, str]] = []
        self.attempts = 0
        self.details: list[str] = []
        """The words of each row of Execution that was written, in order."""
        self.written = Event()
        self.down = False
        """Whether no row can be added."""

    def __getattr__(self, name: str) -> Any:
        self.callers.append((threading.get_ident(), name))
        return getattr(self._catalog, name)

    def update(self, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
        self.callers.append((threading.get_ident(), "update"))
        self.attempts += 1
        self.before_update()
        with self._lock:
            done = self._catalog.update(table, rows)
            self.details += [row["Status_Detail"] for row in rows if "Status_Detail" in row]
        self.written.set()
        return done

    def insert(self, table: str, rows: Sequence[Mapping[str, Any]], *, skip_existing: bool = False) -> int:
        self.callers.append((threading.get_ident(), "insert"))
        self.before_insert(table)
        if self.down:
            refuse()
        return self._catalog.insert(table, rows, skip_existing=skip_existing)

    def called_from(self, thread: int) -> list[str]:
        """What was called from a thread."""
        return [name for caller, name in self.callers if caller == thread]


class HardPlugin:
    """Puts the hard catalog in the place of the embedded one."""

    def __init__(self) -> None:
        self.catalog: Any = None

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Any:
        backend: Backend = yield
        self.catalog = HardCatalog(backend.catalog)
        return replace(backend, catalog=self.catalog)


def hard(*further: object, patience: float = 30.0) -> tuple[DerivaML, HardCatalog]:
    """A client of a hard catalog, and that."""
    manager = load_plugins({})
    plugin = HardPlugin()
    manager.register(plugin, "hard")
    for each in further:
        manager.register(each)
    ml = DerivaML(plugins=manager, exit_timeout=patience)
    return ml, plugin.catalog


def refuse() -> None:
    """Be down."""
    raise CatalogUnavailable("The catalog is down.")
