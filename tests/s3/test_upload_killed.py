"""An upload to an S3 store that is killed in the middle of a file, and continued by another process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from engines.s3 import BUCKET, S3Service
from engines.s3_proxy import Request, S3Proxy

pytestmark = pytest.mark.usefixtures("s3_credentials")

MIB = 2**20
PART_SIZE = 5 * MIB

UPLOADER = """
import sys
from pathlib import Path
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

folder, large = sys.argv[1:]
ml = DerivaML(folder)
workflow = Workflow(name="Test", workflow_type="Training", url="https://github.com/org/repo/blob/abc/train.py",
                    checksum="0123456789012345678901234567890123456789")
with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    exe.asset_file_path("Model", large)
    exe.asset_file_path("Model", "small.txt").write_text("small")
print(exe.execution_rid, flush=True)
exe.upload_execution_outputs(chunk_size=5 * 2**20, upload_workers=1)
"""


@pytest.mark.parametrize(
    "killed_at", [pytest.param(1, marks=pytest.mark.long), 4, pytest.param(7, marks=pytest.mark.long)]
)
def test_upload_continues_in_another_process(
    seaweedfs: S3Service, s3_proxy: S3Proxy, tmp_path: Path, killed_at: int
) -> None:
    """After a SIGKILL, `deriva-ml upload` sends only the parts that the service does not have, and loses nothing."""
    folder, prefix = f"file:{tmp_path / 'catalog'}", f"killed-{os.urandom(4).hex()}"
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(6 * PART_SIZE + MIB))
    DerivaML.create(folder, store=seaweedfs.address(prefix, s3_proxy.port)).close()
    uploader = subprocess.Popen([sys.executable, "-c", UPLOADER, folder, str(large)], stdout=subprocess.PIPE, text=True)
    killed = threading.Event()
    arrived: list[int] = []

    def kill(request: Request) -> None:
        if request.operation == "UploadPart" and not killed.is_set():
            arrived.append(request.part)
            if len(arrived) == killed_at:
                uploader.kill()
                killed.set()

    s3_proxy.on_request = kill
    assert uploader.stdout is not None
    rid = uploader.stdout.readline().strip()
    uploader.wait()
    assert killed.is_set()
    (upload,) = seaweedfs.client().list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)["Uploads"]
    before = _stable_parts(seaweedfs, upload["Key"], upload["UploadId"], len(arrived))
    s3_proxy.requests.clear()

    command = [sys.executable, "-m", "deriva_ml_cli", "upload", rid, "--host", folder]
    resumed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    sent = Counter(request.part for request in s3_proxy.requests if request.part)
    assert sent == Counter(set(range(1, 8)) - before)
    assert "CreateMultipartUpload" not in s3_proxy.operations()
    with DerivaML(folder) as ml:
        models = {asset.filename: asset for asset in ml.lookup_execution(rid).list_assets() if asset.table == "Model"}
        assert models.keys() == {"large.bin", "small.txt"}
        assert ml.verify(rid).problems == ()
    assert "Uploads" not in seaweedfs.client().list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)


def _stable_parts(service: S3Service, key: str, upload_id: str, most: int) -> set[int]:
    """Return the parts that the service has, once those that the killed process had sent completely have arrived."""
    client = service.client()
    parts: set[int] = set()
    for _ in range(50):
        response = client.list_parts(Bucket=BUCKET, Key=key, UploadId=upload_id)
        found = {part["PartNumber"] for part in response.get("Parts", ())}
        if found == parts and len(found) >= most - 3:
            return found
        parts = found
    return parts
