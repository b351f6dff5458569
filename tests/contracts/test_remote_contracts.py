"""Contract tests of the Deriva backend, on the fake server or a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.testing import CatalogContract, ObjectStoreContract
from deriva_ml_core.testing.catalog_contract import CatalogFactory
from fakes.forms import unrecorded
from remote_server import RemoteServer


@pytest.fixture(scope="module", autouse=True)
def no_unrecorded_requests(remote_server: RemoteServer) -> Iterator[None]:
    """Check that the fake server receives only requests for which a real server's response is recorded."""
    if remote_server.fake is not None:
        remote_server.fake.requests.clear()
    yield
    if remote_server.fake is not None:
        assert unrecorded(remote_server.fake.requests) == set()


@pytest.fixture(scope="module")
def catalog_number(remote_server: RemoteServer) -> str:
    """Return the number of a catalog with the standard tables and terms."""
    return remote_server.catalog()


class TestRemoteCatalog(CatalogContract):
    @pytest.fixture
    def open_catalog(self, remote_server: RemoteServer, catalog_number: str) -> CatalogFactory:
        return lambda: DerivaCatalog(remote_server.connect(), catalog_number)


class TestRemoteStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, remote_server: RemoteServer) -> ObjectStore:
        return remote_server.store()
