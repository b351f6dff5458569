"""Contract tests of the S3 store: on a service that honours conditions, and on one that ignores them."""

from __future__ import annotations

import os

import pytest

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.backends.s3 import S3Store
from deriva_ml_core.testing import ObjectStoreContract
from engines.s3 import S3Service


@pytest.mark.usefixtures("s3_credentials")
class TestS3Store(ObjectStoreContract):
    @pytest.fixture
    def store(self, seaweedfs: S3Service) -> ObjectStore:
        return S3Store(seaweedfs.address(f"contract-{os.urandom(4).hex()}"))


@pytest.mark.usefixtures("s3_credentials")
class TestStoreWithoutConditions(ObjectStoreContract):
    @pytest.fixture
    def store(self, rclone: S3Service) -> ObjectStore:
        return S3Store(rclone.address(f"contract-{os.urandom(4).hex()}"))
