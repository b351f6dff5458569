"""Memory for uploads and downloads of large files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fakes.deriva_server import DerivaServer

UPLOAD_AND_DOWNLOAD = """
import resource, sys
from pathlib import Path
from deriva_ml_core.backends.deriva.http import Server
from deriva_ml_core.backends.deriva.store import DerivaStore
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.models import UploadOptions

host, file, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
with file.open("wb") as stream:
    stream.truncate(size)
store = DerivaStore(Server("http", host, {"cookie": "webauthn=test1"}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
stored = store.put("Model", "big", file, handover=TransferMode.copy, options=UploadOptions())
store.get(stored.url, file.with_suffix(".back"), length=stored.length, md5=stored.md5, options=UploadOptions())
assert file.with_suffix(".back").stat().st_size == size
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    "size", [64 * 2**20, pytest.param(5 * 2**30, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
)
def test_memory_is_flat(fake: DerivaServer, tmp_path: Path, size: int) -> None:
    """A file of any size needs less than 32 MiB."""
    host = fake.hostname.removeprefix("http://")
    command = [sys.executable, "-c", UPLOAD_AND_DOWNLOAD, host, str(tmp_path / "big.bin"), str(size)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 32 * 2**10
