"""What the tests of trainings share: a line to the catalog that can be cut, and a look at what was recorded."""

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


class Line:
    """A plugin that stands between DerivaML and its catalog; while it is cut, each call fails."""

    def __init__(self) -> None:
        self.is_cut = False
        self.heard: Callable[[str], object] = lambda name: None
        """Told the name of each call."""

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Iterator[None]:
        backend: Backend = yield  # type: ignore[misc, assignment]
        return replace(backend, catalog=_Distant(backend.catalog, self))  # type: ignore[return-value]


class _Distant:
    KEPT = ("model", "name")
    """What needs no line, as it is kept on this side."""

    def __init__(self, catalog: Catalog, line: Line) -> None:
        self._catalog = catalog
        self._line = line

    def __getattr__(self, name: str) -> Any:
        if self._line.is_cut and name not in self.KEPT:
            raise CatalogUnavailable("The line to the catalog is cut.")
        if name not in self.KEPT:
            self._line.heard(name)
        return getattr(self._catalog, name)


def told(execution: Execution) -> list[str]:
    """The words of all statuses so far that say something, without their times."""
    messages = [status.message for status in execution.list_statuses() if status.message]
    return [message.partition(" (")[0] for message in messages]


def outputs(ml: DerivaML, execution: Execution, table: str) -> dict[str, Any]:
    """The output assets of one table by file name, as the catalog has them, each verified."""
    found = [
        asset for asset in ml.lookup_execution(execution.execution_rid).list_assets("Output") if asset.table == table
    ]
    for asset in found:
        ml.verify_asset(asset)
    return {asset.filename: asset for asset in found}
