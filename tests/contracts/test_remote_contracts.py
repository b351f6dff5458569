"""The remote backend keeps every promise of a catalog and of a store, on the fake server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.remote.catalog import RemoteCatalog
from deriva_ml_core.backends.remote.creating import create_catalog
from deriva_ml_core.backends.remote.server import Server
from deriva_ml_core.backends.remote.store import RemoteStore
from deriva_ml_core.testing import CatalogContract, ObjectStoreContract
from deriva_ml_core.testing.catalog_fixtures import OpenCatalog
from fakes.deriva_server import DerivaServer, serving


def connected(fake: DerivaServer, user: str = "test1") -> Server:
    """A connection that does not wait."""
    return Server("http", fake.hostname.removeprefix("http://"), fake.credential(user), sleep=lambda _: None)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DerivaServer]:
    with serving(tmp_path_factory.mktemp("hatrac")) as server:
        yield server


@pytest.fixture(scope="module")
def number(fake: DerivaServer) -> str:
    """A catalog's number, that a writer may use who is not its owner."""
    catalog = create_catalog(connected(fake), "demo", {"enumerate": ["test2"], "write": ["test2"]})
    return catalog.name.rpartition("/")[2]


class TestRemoteCatalog(CatalogContract):
    @pytest.fixture
    def open_catalog(self, fake: DerivaServer, number: str) -> OpenCatalog:
        return lambda: RemoteCatalog(connected(fake), number)


class TestRemoteStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, fake: DerivaServer) -> ObjectStore:
        return RemoteStore(connected(fake))
