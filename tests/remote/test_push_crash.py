"""A process that is killed at any request of its push; another process completes the push."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec, UploadOptions
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm
from sample_run import count_rows, describe_run

OPTIONS = UploadOptions(chunk_size=4096, retry_delay=0)

PUSH = """
import sys
from deriva_ml import DerivaML
from deriva_ml_core.models import UploadOptions

there = DerivaML(sys.argv[1], sys.argv[2], credential={"cookie": "webauthn=test2"})
here = DerivaML()
here.find_executions()
print("ready", flush=True)
sys.stdin.readline()
here.push(sys.argv[3], there, options=UploadOptions(chunk_size=4096, retry_delay=0))
"""


@pytest.mark.parametrize(
    "at", [9, 22, 38, *(pytest.param(at, marks=pytest.mark.long) for at in (5, 13, 17, 26, 31, 46))]
)
def test_push_killed_at_request(fake: DerivaServer, catalog: DerivaCatalog, ml: DerivaML, at: int, home: Path) -> None:
    """The server processes the request, the client is killed, and the next process completes the copy."""
    local = DerivaML()
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/t.py", checksum="0" * 40)
    with local.create_execution(ExecutionConfiguration(workflow=workflow, description="Import")) as first:
        first.asset_file_path("Image", "0.png").write_bytes(b"0")
    (image,) = first.upload_execution_outputs()["Image"]
    dataset = local.create_dataset("One", "Training")
    dataset.add_dataset_members([image.rid])
    config = ExecutionConfiguration(workflow=workflow, description="d", datasets=[DatasetSpec(rid=dataset.rid)])
    with local.create_execution(config) as exe:
        exe.asset_file_path("Model", "big.pt", asset_types=["Model_File"]).write_bytes(bytes(range(256)) * 40)
    exe.upload_execution_outputs()

    command = [sys.executable, "-c", PUSH, fake.hostname, catalog.catalog_id, exe.execution_rid]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n", run.communicate()
    fake.faults.add(Fault(Harm.lose_after, skip=at, call=lambda: os.kill(run.pid, signal.SIGKILL)))
    _, stderr = run.communicate("go\n")
    assert run.returncode == -signal.SIGKILL, stderr

    report = local.push(exe.execution_rid, ml, options=OPTIONS)
    assert describe_run(ml, report.execution) == describe_run(local, exe.execution_rid)
    assert local.push(exe.execution_rid, ml, options=OPTIONS).new == ()
    rows = count_rows(ml)
    once = ("Execution", "Workflow", "Dataset", "Dataset_Version", "Image", "Dataset_Image", "Model", "Model_Execution")
    assert {name: rows[name] for name in once} == dict.fromkeys(once, 1)
    objects = [item for name, item in fake.hatrac.objects.items() if not name.startswith("/Execution_Metadata")]
    assert [len(item.versions) for item in objects] == [1, 1]
    assert len(fake.hatrac.jobs) <= 1  # a job whose ID was lost with the response
