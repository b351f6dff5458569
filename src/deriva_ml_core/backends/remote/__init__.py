"""The remote backend: rows over ERMrest and objects in Hatrac, on a Deriva server."""

from __future__ import annotations

from deriva_ml_core.backends.remote.catalog import CatalogSnapshot, RemoteCatalog
from deriva_ml_core.backends.remote.opening import create_on_server, open_backend
from deriva_ml_core.backends.remote.store import RemoteStore

__all__ = ["CatalogSnapshot", "RemoteCatalog", "RemoteStore", "create_on_server", "open_backend"]
