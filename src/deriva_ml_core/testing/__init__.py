"""Help for the tests of plugins: what every catalog and store promises, and a listener that remembers.

A backend's test file is fixtures and ``pass``::

    class TestMyCatalog(CatalogContract):
        @pytest.fixture
        def open_catalog(self, tmp_path):
            return lambda: MyCatalog(tmp_path)
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{part}" for part in ("catalog_fixtures", "catalog_rows", "catalog_states", "store"))
)

from deriva_ml_core.testing.catalog import CatalogContract
from deriva_ml_core.testing.news import HookCall, HookRecorder
from deriva_ml_core.testing.store import ObjectStoreContract

__all__ = ["CatalogContract", "HookCall", "HookRecorder", "ObjectStoreContract"]
