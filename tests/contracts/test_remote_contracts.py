"""The remote backend keeps every promise of a catalog and of a store: on the fake server, or on a real one."""

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
def nothing_new(place: Place) -> Iterator[None]:
    """A fake server is asked for nothing of which no recording says how a real one answers."""
    if place.fake is not None:
        place.fake.requests.clear()
    yield
    if place.fake is not None:
        assert unrecorded(place.fake.requests) == set()


@pytest.fixture(scope="module")
def number(place: Place) -> str:
    """A catalog with the standard tables and terms."""
    return place.catalog()


class TestRemoteCatalog(CatalogContract):
    @pytest.fixture
    def open_catalog(self, place: Place, number: str) -> CatalogFactory:
        return lambda: DerivaCatalog(place.server(), number)


class TestRemoteStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, place: Place) -> ObjectStore:
        return place.store()
