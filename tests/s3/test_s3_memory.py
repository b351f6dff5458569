"""Memory for uploads to an S3 store and downloads from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engines.s3 import S3Service

pytestmark = pytest.mark.usefixtures("s3_credentials")

UPLOAD_AND_DOWNLOAD = """
import resource, sys
from pathlib import Path
from deriva_ml_core.backends.s3 import S3Store
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.models import UploadOptions

address, file, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
with file.open("wb") as stream:
    stream.truncate(size)
store = S3Store(address)
store.check_writable()  # loads the description of the service
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stored = store.put("Model", "big", file, handover=TransferMode.copy, options=UploadOptions())
store.get(stored.url, file.with_suffix(".back"), length=stored.length, md5=stored.md5, options=UploadOptions())
assert file.with_suffix(".back").stat().st_size == size
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("size", [120 * 2**20, pytest.param(2 * 2**30, marks=pytest.mark.long)])
def test_memory_is_flat(seaweedfs: S3Service, tmp_path: Path, size: int) -> None:
    """A file of any size needs less than 32 MiB, although its parts have 25 MiB and several are sent at once."""
    address = seaweedfs.address(f"memory-{os.urandom(4).hex()}")
    command = [sys.executable, "-c", UPLOAD_AND_DOWNLOAD, address, str(tmp_path / "big.bin"), str(size)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 32 * 2**10
