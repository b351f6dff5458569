"""A process that is killed at any request of its upload; another process completes the upload."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm

RUN = """
import sys
from pathlib import Path
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow

ml = DerivaML(sys.argv[1], sys.argv[2], credential={"cookie": "webauthn=test2"})
workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/t.py", checksum="0" * 40)
exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, description="d"))
with exe:
    exe.asset_file_path("Model", "big.pt", asset_types=["Model_File"]).write_bytes(bytes(range(256)) * 40)
    for number in range(2):
        exe.asset_file_path("Image", f"{number}.png").write_bytes(bytes([number]))
    print(exe.execution_rid, flush=True)
    sys.stdin.readline()
exe.upload_execution_outputs(chunk_size=4096, retry_delay=0, upload_workers=1)
"""


@pytest.mark.parametrize("at", [0, 1, 3, 6, 8, 10, 12, 15])
def test_upload_killed_at_request(fake: DerivaServer, catalog: DerivaCatalog, at: int, tmp_path: Path) -> None:
    """The server processes the request, the client is killed, and the next process completes the run."""
    command = [sys.executable, "-c", RUN, fake.hostname, catalog.catalog_id]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdin is not None
    assert run.stdout is not None
    rid = run.stdout.readline().strip()
    fake.faults.add(Fault(Harm.lose_after, skip=at, call=lambda: os.kill(run.pid, signal.SIGKILL)))
    _, stderr = run.communicate("go\n")
    assert run.returncode == -signal.SIGKILL, stderr

    ml = DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential("test2"))
    exe = ml.restore_execution(rid)
    exe.upload_execution_outputs(chunk_size=4096, retry_delay=0)
    exe.upload_execution_outputs()
    assets = sorted(asset.filename for asset in exe.list_assets("Output") if asset.table in ("Model", "Image"))
    assert assets == ["0.png", "1.png", "big.pt"]
    assert len(catalog.select("Model")) == 1
    assert len(catalog.select("Image")) == 2
    assert len(catalog.select("Model_Execution")) == 1
    assert [row["Asset_Type"] for row in catalog.select("Model_Asset_Type")] == ["Model_File"]
    objects = [item for name, item in fake.hatrac.objects.items() if not name.startswith("/Execution_Metadata")]
    assert [len(item.versions) for item in objects] == [1, 1, 1]
    assert exe.status is Status.completed
    assert fake.hatrac.jobs == {}
