"""Contract tests of the embedded backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.embedded import FolderStore, open_catalog
from deriva_ml_core.backends.folder.durability import Disk
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.testing import CatalogContract, ObjectStoreContract, SyncLog
from deriva_ml_core.testing.catalog_contract import CatalogFactory
from deriva_ml_core.testing.store_contract import local_path


class TestEmbeddedCatalog(CatalogContract):
    @pytest.fixture
    def open_catalog(self, tmp_path: Path) -> CatalogFactory:
        return lambda: open_catalog(tmp_path / "local")


class ObservedDisk(Disk):
    """Reports each flush to a log, and flushes."""

    def __init__(self, log: SyncLog) -> None:
        self._log = log

    def sync_path(self, path: Path) -> None:
        self._log.report_path(path)
        super().sync_path(path)

    def sync_descriptor(self, descriptor: int) -> None:
        self._log.report_file(descriptor)
        super().sync_descriptor(descriptor)

    def sync_file_system(self, folder: Path) -> bool:
        self._log.report_file_system()
        return super().sync_file_system(folder)


class TestFolderStore(ObjectStoreContract):
    @pytest.fixture
    def sync_log(self, tmp_path: Path) -> SyncLog:
        return SyncLog(tmp_path / "local")

    @pytest.fixture
    def store(self, sync_log: SyncLog) -> ObjectStore:
        return FolderStore(sync_log.folder, disk=ObservedDisk(sync_log))

    def test_sync_flushes_object_of_another_process(self, sync_log: SyncLog, file: Path) -> None:
        """A store flushes an object that it did not write, because another process may not have flushed it yet."""
        for log in (SyncLog(sync_log.folder), sync_log):
            store = FolderStore(log.folder, disk=ObservedDisk(log))
            stored = store.put("Image", "a.png", file, handover=TransferMode.copy, options=UploadOptions())
        path = local_path(store, stored)
        assert list(sync_log.missing_flushes(path)) != []
        store.sync()
        assert list(sync_log.missing_flushes(path)) == []
