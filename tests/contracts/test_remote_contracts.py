"""The remote backend keeps every promise of a catalog and of a store: on the fake server, or on a real one.

``DERIVA_ML_TEST_HOST`` names a real server, ``DERIVA_ML_TEST_CATALOG`` a catalog of it that may be filled with rows
(else one is made and deleted), ``DERIVA_ML_TEST_CREDENTIAL`` its login as JSON (else the user's stored one is taken).
Objects go into a namespace of the run's own, which is deleted: Hatrac never gives a deleted name again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from pydantic import SecretStr

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.remote.catalog import RemoteCatalog
from deriva_ml_core.backends.remote.creating import create_catalog
from deriva_ml_core.backends.remote.opening import server_of
from deriva_ml_core.backends.remote.server import Server
from deriva_ml_core.backends.remote.store import RemoteStore
from deriva_ml_core.models import Address
from deriva_ml_core.testing import CatalogContract, ObjectStoreContract
from deriva_ml_core.testing.catalog_fixtures import OpenCatalog
from fakes.deriva_server import serving

HOST = os.environ.get("DERIVA_ML_TEST_HOST")


@dataclass(frozen=True)
class Place:
    """A server to test on.

    Args:
        connect: How to reach it, again each time.
        number: A catalog of it, with the standard tables and terms.
        root: The namespace for objects.
    """

    connect: Callable[[], Server]
    number: str
    root: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The real server that the environment names, or a fake one."""
    if HOST:
        yield from on_real_server(HOST)
        return
    with serving(tmp_path_factory.mktemp("hatrac")) as fake:

        def connect() -> Server:
            return Server("http", fake.hostname.removeprefix("http://"), fake.credential(), sleep=lambda _: None)

        yield Place(connect, create_catalog(connect(), "demo").number, "/hatrac")


def on_real_server(host: str) -> Iterator[Place]:
    """A catalog and a namespace on a server, taken away afterwards."""
    given = os.environ.get("DERIVA_ML_TEST_CREDENTIAL")
    login = {key: SecretStr(value) for key, value in json.loads(given).items()} if given else None
    address = Address(hostname=host, credential=login)
    number = os.environ.get("DERIVA_ML_TEST_CATALOG")
    made = None if number else create_catalog(server_of(address), "deriva_ml_test").number
    # the contract looks for /hatrac/Image in a URL
    namespace = f"/hatrac/deriva-ml-test-{uuid4().hex[:12]}"
    try:
        yield Place(lambda: server_of(address), number or made or "", f"{namespace}/hatrac")
    finally:
        server_of(address).request("DELETE", namespace)
        if made is not None:
            server_of(address).request("DELETE", f"/ermrest/catalog/{made}")


class TestRemoteCatalog(CatalogContract):
    @pytest.fixture
    def open_catalog(self, place: Place) -> OpenCatalog:
        return lambda: RemoteCatalog(place.connect(), place.number)


class TestRemoteStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, place: Place) -> ObjectStore:
        return RemoteStore(place.connect(), place.root)
