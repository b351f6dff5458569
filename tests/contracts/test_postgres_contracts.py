"""Contract tests of the PostgreSQL catalog."""

from __future__ import annotations

import pytest

from deriva_ml_core.backends.postgres.address import parse_address
from deriva_ml_core.backends.postgres.open import create_catalog, open_catalog
from deriva_ml_core.testing import CatalogContract
from deriva_ml_core.testing.catalog_contract import CatalogFactory
from engines.postgres import PostgresServer


@pytest.fixture(scope="module")
def uri(postgres: PostgresServer) -> str:
    """Create a catalog that the tests of this module share."""
    uri = postgres.uri(postgres.create_database())
    create_catalog(parse_address(uri), store="file:/unused")
    return uri


class TestPostgresCatalog(CatalogContract):
    @pytest.fixture
    def open_catalog(self, uri: str) -> CatalogFactory:
        return lambda: open_catalog(parse_address(uri))
