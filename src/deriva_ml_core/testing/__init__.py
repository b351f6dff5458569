"""Tools for testing plugins: contract tests for catalogs and stores, and a recorder of notifications.

The test file of a backend only needs fixtures::

    class TestMyCatalog(CatalogContract):
        @pytest.fixture
        def open_catalog(self, tmp_path):
            return lambda: MyCatalog(tmp_path)
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("catalog_contract", "store_contract")))

from deriva_ml_core._deprecation import deprecated_names  # noqa: E402
from deriva_ml_core.testing.catalog_contract import CatalogContract  # noqa: E402
from deriva_ml_core.testing.hook_recorder import HookCall, HookRecorder  # noqa: E402
from deriva_ml_core.testing.store_contract import ObjectStoreContract, SyncLog  # noqa: E402

__all__ = ["CatalogContract", "HookCall", "HookRecorder", "ObjectStoreContract", "SyncLog"]


__getattr__ = deprecated_names(
    __name__,
    {
        "Heard": "HookCall",
        "NewsRecorder": "HookRecorder",
    },
)
