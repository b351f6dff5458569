"""Plugins that were written before a backend was asked for more: they go on working, or hear what they lack."""

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
    """A store in front of another, as the page of plugins showed one when nobody was asked for `at_once`."""

    def __init__(self, store: ObjectStore) -> None:
        self.get, self.verify, self.source = store.get, store.verify, store.source
        self.put, self.sync, self.close = store.put, store.sync, store.close


class OlderCatalog:
    """A catalog in front of another that knows neither `insert_missing` nor `cite`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __getattr__(self, name: str) -> Any:
        if name in ("insert_missing", "cite"):
            raise AttributeError(name)
        return getattr(self._catalog, name)


class Older:
    """Puts an older half before each backend."""

    def __init__(self, **halves: Any) -> None:
        self.halves = halves

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:
        backend = yield
        return replace(backend, **{half: kind(getattr(backend, half)) for half, kind in self.halves.items()})


def opened(folder: Path, **halves: Any) -> DerivaML:
    plugins = load_plugins({})
    plugins.register(Older(**halves))
    return DerivaML(f"file:{folder}", plugins=plugins)


def test_a_store_that_does_not_say_how_many_it_takes(tmp_path: Path, config: ExecutionConfiguration) -> None:
    """Files go to it and come from it one by one, into a run and by a push."""
    with opened(tmp_path / "one", store=OlderStore) as ml, opened(tmp_path / "other", store=OlderStore) as other:
        with ml.create_execution(config) as exe:
            for number in range(3):
                exe.asset_file_path("Model", f"{number}.pt").write_bytes(b"%d" % number)
        assert len(exe.upload_execution_outputs()["Model"]) == 3
        copy = ml.push(exe.execution_rid, other).execution
        names = [asset.filename for asset in other.lookup_execution(copy).list_assets("Output")]
        assert {"0.pt", "1.pt", "2.pt"} <= {*names}


def test_a_catalog_that_lacks_methods(tmp_path: Path) -> None:
    """It is refused where it is opened, before anything is recorded, with the names of what its author has to add."""
    with pytest.raises(PluginError, match=r"OlderCatalog.* no cite, insert_missing: .*CatalogContract"):
        opened(tmp_path / "one", catalog=OlderCatalog)
