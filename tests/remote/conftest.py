"""A fake Deriva server with a catalog, and clients of it that do not wait between repeats."""

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
    """A server that is asked for nothing of which no recording says how a real one answers."""
    with serving(tmp_path / "hatrac") as server:
        yield server
        assert unrecorded(server.requests) == set()


@pytest.fixture
def waits() -> list[float]:
    """The seconds that were waited, or would have been."""
    return []


@pytest.fixture
def connect(fake: DerivaServer, waits: list[float]) -> Connect:
    """How to connect as a user."""

    def connected(user: str = "test1") -> Server:
        return Server("http", fake.hostname.removeprefix("http://"), fake.credential(user), sleep=waits.append)

    return connected


@pytest.fixture
def catalog(connect: Connect, fake: DerivaServer) -> DerivaCatalog:
    """A new catalog, in which test2 may write without being its owner."""
    made = create_catalog(connect(), "demo", {"enumerate": ["test2"], "write": ["test2"]})
    fake.hatrac.namespaces[""].acl["subtree-owner"] = ["test2"]
    fake.requests.clear()
    return made


@pytest.fixture
def written(catalog: DerivaCatalog, connect: Connect, fake: DerivaServer) -> DerivaCatalog:
    """The same catalog, opened by a writer."""
    opened = DerivaCatalog(connect("test2"), catalog.catalog_id)
    fake.requests.clear()
    return opened


@pytest.fixture
def store(connect: Connect) -> DerivaStore:
    return DerivaStore(connect())


@pytest.fixture
def ml(catalog: DerivaCatalog, fake: DerivaServer) -> DerivaML:
    """A client of the catalog, opened by its address."""
    return DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential("test2"))
