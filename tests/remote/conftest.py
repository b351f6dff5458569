"""A fake Deriva server with a catalog, and clients that do not wait between retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.backends.deriva.http import Server
from deriva_ml_core.backends.deriva.open import create_catalog
from deriva_ml_core.backends.deriva.store import DerivaStore
from deriva_ml_core.client import DerivaML
from fakes.deriva_server import DerivaServer, serving
from fakes.forms import unrecorded

Connect = Callable[..., Server]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[DerivaServer]:
    """Run a fake server, and fail the test if it was sent a request that no recording covers."""
    with serving(tmp_path / "hatrac") as server:
        yield server
        assert unrecorded(server.requests) == set()


@pytest.fixture
def waits() -> list[float]:
    """Collect the seconds that the client would have waited between retries."""
    return []


@pytest.fixture
def connect(fake: DerivaServer, waits: list[float]) -> Connect:
    """Return a function that connects as a user."""

    def connect_as(user: str = "test1") -> Server:
        return Server("http", fake.hostname.removeprefix("http://"), fake.credential(user), sleep=waits.append)

    return connect_as


@pytest.fixture
def catalog(connect: Connect, fake: DerivaServer) -> DerivaCatalog:
    """Create a catalog in which test2 may write without being an owner."""
    created = create_catalog(connect(), "demo", {"enumerate": ["test2"], "write": ["test2"]})
    fake.hatrac.namespaces[""].acl["subtree-owner"] = ["test2"]
    fake.requests.clear()
    return created


@pytest.fixture
def writer_catalog(catalog: DerivaCatalog, connect: Connect, fake: DerivaServer) -> DerivaCatalog:
    """Open the same catalog as a user who may write but is not an owner."""
    opened = DerivaCatalog(connect("test2"), catalog.catalog_id)
    fake.requests.clear()
    return opened


@pytest.fixture
def store(connect: Connect) -> DerivaStore:
    return DerivaStore(connect())


@pytest.fixture
def ml(catalog: DerivaCatalog, fake: DerivaServer) -> DerivaML:
    """Return a client for the catalog, opened by its address."""
    return DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential("test2"))
