"""Contract tests of the embedded backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.embedded import FolderStore, open_catalog
from deriva_ml_core.testing import CatalogContract, ObjectStoreContract
from deriva_ml_core.testing.catalog_contract import CatalogFactory


class TestEmbeddedCatalog(CatalogContract):
    @pytest.fixture
    def open_catalog(self, tmp_path: Path) -> CatalogFactory:
        return lambda: open_catalog(tmp_path / "local")


class TestFolderStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return FolderStore(tmp_path / "local")
