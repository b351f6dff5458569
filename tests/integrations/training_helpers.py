"""Helpers for tests of trainings: a catalog connection that can fail, and readers of the record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from deriva_ml import DerivaML
from deriva_ml_core.backend import Backend, Catalog
from deriva_ml_core.errors import CatalogUnavailable
from deriva_ml_core.execution import Execution
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl


class CatalogLink:
    """A plugin between DerivaML and its catalog; while it is down, each call fails."""

    def __init__(self) -> None:
        self.is_down = False
        self.on_call: Callable[[str], object] = lambda name: None
        """Called with the name of each catalog call."""

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Iterator[None]:
        backend: Backend = yield  # type: ignore[misc, assignment]
        return replace(backend, catalog=_Distant(backend.catalog, self))  # type: ignore[return-value]


class _Distant:
    LOCAL = ("model", "name")
    """Attributes that need no connection."""

    def __init__(self, catalog: Catalog, catalog_link: CatalogLink) -> None:
        self._catalog = catalog
        self._link = catalog_link

    def __getattr__(self, name: str) -> Any:
        if self._link.is_down and name not in self.LOCAL:
            raise CatalogUnavailable("The connection to the catalog is down.")
        if name not in self.LOCAL:
            self._link.on_call(name)
        return getattr(self._catalog, name)


def status_messages(execution: Execution) -> list[str]:
    """Return the messages of all statuses so far, without durations."""
    messages = [status.message for status in execution.list_statuses() if status.message]
    return [message.partition(" (")[0] for message in messages]


def outputs(ml: DerivaML, execution: Execution, table: str) -> dict[str, Any]:
    """Return the output assets of one table in the catalog by file name, each verified."""
    assets = [
        asset for asset in ml.lookup_execution(execution.execution_rid).list_assets("Output") if asset.table == table
    ]
    for asset in assets:
        ml.verify_asset(asset)
    return {asset.filename: asset for asset in assets}
