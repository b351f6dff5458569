"""Contract tests of the Deriva backend, on the fake server or a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.testing import CatalogContract, ObjectStoreContract
from deriva_ml_core.testing.catalog_contract import CatalogFactory
from fakes.forms import unrecorded
from places import Place


@pytest.fixture(scope="module", autouse=True)
def no_unrecorded_requests(place: Place) -> Iterator[None]:
    """Check that the fake server receives only requests for which a real server's response is recorded."""
    if place.fake is not None:
        place.fake.requests.clear()
    yield
    if place.fake is not None:
        assert unrecorded(place.fake.requests) == set()


@pytest.fixture(scope="module")
def catalog_number(place: Place) -> str:
    """Return the number of a catalog with the standard tables and terms."""
    return place.catalog()


class TestRemoteCatalog(CatalogContract):
    @pytest.fixture
    def open_catalog(self, place: Place, catalog_number: str) -> CatalogFactory:
        return lambda: DerivaCatalog(place.server(), catalog_number)


class TestRemoteStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, place: Place) -> ObjectStore:
        return place.store()
