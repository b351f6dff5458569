"""Plugins written for an older backend interface: they keep working, or an error names what is missing."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.backend import Backend, Catalog, ObjectStore
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import PluginError
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import Address
from deriva_ml_core.plugins import hookimpl, load_plugins


class OlderStore:
    """A store without `preferred_concurrency`, which it wraps another store to implement."""

    def __init__(self, store: ObjectStore) -> None:
        self.get, self.verify, self.source = store.get, store.verify, store.source
        self.put, self.sync, self.close = store.put, store.sync, store.close


class OlderCatalog:
    """A catalog without `insert_missing` and `cite`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __getattr__(self, name: str) -> Any:
        if name in ("insert_missing", "cite"):
            raise AttributeError(name)
        return getattr(self._catalog, name)


class OlderBackendPlugin:
    """Wraps halves of each backend in older classes."""

    def __init__(self, **halves: Any) -> None:
        self.halves = halves

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:
        backend = yield
        return replace(backend, **{half: kind(getattr(backend, half)) for half, kind in self.halves.items()})


def open_with(folder: Path, **halves: Any) -> DerivaML:
    plugins = load_plugins({})
    plugins.register(OlderBackendPlugin(**halves))
    return DerivaML(f"file:{folder}", plugins=plugins)


def test_store_without_preferred_concurrency(tmp_path: Path, config: ExecutionConfiguration) -> None:
    """Files are uploaded to it and pushed from it one at a time."""
    with open_with(tmp_path / "one", store=OlderStore) as ml, open_with(tmp_path / "other", store=OlderStore) as other:
        with ml.create_execution(config) as exe:
            for number in range(3):
                exe.asset_file_path("Model", f"{number}.pt").write_bytes(b"%d" % number)
        assert len(exe.upload_execution_outputs()["Model"]) == 3
        copy = ml.push(exe.execution_rid, other).execution
        names = [asset.filename for asset in other.lookup_execution(copy).list_assets("Output")]
        assert {"0.pt", "1.pt", "2.pt"} <= {*names}


def test_catalog_without_required_methods(tmp_path: Path) -> None:
    """Opening the catalog raises before anything is recorded; the message names the missing methods."""
    with pytest.raises(PluginError, match=r"OlderCatalog.* no cite, insert_missing: .*CatalogContract"):
        open_with(tmp_path / "one", catalog=OlderCatalog)
