"""A whole catalog for a team: rows in PostgreSQL, files in a shared folder or in S3."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import AccessRefused, ConfigurationError, StoreConflict, UnconfirmedStore, UnknownAddress
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec
from deriva_ml_core.workflow import Workflow
from engines.postgres import PostgresServer
from engines.s3 import S3Service
from sample_run import describe_run, record_sample_run

WORKFLOW = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")


@pytest.fixture
def uri(postgres: PostgresServer) -> str:
    return postgres.uri(postgres.create_database())


@pytest.fixture(params=["folder", "S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a new store."""
    if request.param == "folder":
        return f"file:{tmp_path / 'shared'}"
    request.getfixturevalue("s3_credentials")
    service: S3Service = request.getfixturevalue("seaweedfs")
    return service.address(f"team-{tmp_path.name.lower().replace('_', '-')}")


def test_run(uri: str, store: str, tmp_path: Path) -> None:
    """A run is recorded, read, verified, used as an input and pushed to an embedded catalog."""
    with DerivaML.create(uri, store=store) as ml:
        sample = record_sample_run(ml)
        with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW)) as exe:
            exe.log_params({"lr": 0.1})
            for number in range(3):
                exe.asset_file_path("Image", f"{number}.png").write_bytes(bytes([number]))
        images = [asset.rid for asset in exe.upload_execution_outputs()["Image"]]
        dataset = exe.create_dataset(description="images", dataset_types=[])
        dataset.add_dataset_members(images)
        with ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW)) as second:
            bag = second.download_dataset_bag(DatasetSpec(rid=dataset.rid, version="0.2.0"))
            assert sorted(path.read_bytes() for path in bag.path.rglob("*.png")) == [b"\0", b"\1", b"\2"]
        second.upload_execution_outputs()
    with DerivaML(uri) as ml:  # the store is confirmed
        recorded = ml.lookup_execution(exe.execution_rid)
        assert recorded.status is Status.completed
        assert ml.lookup_execution(second.execution_rid).list_input_datasets() == [
            DatasetSpec(rid=dataset.rid, version="0.2.0")
        ]
        assert [found.execution_rid for found in ml.find_executions(params={"lr": 0.1})] == [exe.execution_rid]
        for asset in recorded.list_assets("Output"):
            ml.verify_asset(asset)
        with DerivaML(f"file:{tmp_path / 'home'}") as there:
            report = ml.push(sample.execution_rid, there, make_tables=True)
            assert describe_run(there, report.execution) == describe_run(ml, sample.execution_rid)


def test_store_is_confirmed_once(uri: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user has to name the store once."""
    DerivaML.create(uri, store=store).close()
    monkeypatch.setenv("DERIVA_ML_HOME", str(tmp_path / "another user"))
    with pytest.raises(UnconfirmedStore, match="deriva-ml doctor --host"):
        DerivaML(uri)
    DerivaML(uri, store=store).close()
    DerivaML(uri).close()
    with pytest.raises(StoreConflict):
        DerivaML(uri, store=f"file:{tmp_path / 'elsewhere'}")


def test_created_again(uri: str, tmp_path: Path) -> None:
    """Creating a catalog again with its store changes nothing; another store is refused."""
    with DerivaML.create(uri, store=f"file:{tmp_path / 'shared'}") as ml:
        rid = ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW)).execution_rid
    with DerivaML.create(uri, store=f"file:{tmp_path / 'shared'}") as ml:
        assert ml.lookup_execution(rid).execution_rid == rid
    with pytest.raises(StoreConflict, match="shared"):
        DerivaML.create(uri, store=f"file:{tmp_path / 'other'}")


def test_bad_input(uri: str, tmp_path: Path) -> None:
    """A missing or unknown store, a number and server rights are refused, with what to do."""
    with pytest.raises(ConfigurationError, match="needs a store"):
        DerivaML.create(uri)
    with pytest.raises(UnknownAddress, match=r"ftp://x.*s3://<bucket>"):
        DerivaML.create(uri, store="ftp://x")
    with pytest.raises(ConfigurationError, match="has no number, but '3' was passed"):
        DerivaML(uri, "3")
    with pytest.raises(ConfigurationError, match="Leave acls out"):
        DerivaML.create(uri, store=f"file:{tmp_path}", acls={"enumerate": ["*"]})
    with pytest.raises(UnknownAddress, match="has no catalog"):
        DerivaML(uri)
    (tmp_path / "a file").write_text("")
    with pytest.raises(AccessRefused, match="a file"):
        DerivaML.create(uri, store=f"file:{tmp_path / 'a file'}")


PROGRAM = """
import sys
from deriva_ml_core import DerivaML, ExecutionConfiguration, Workflow
workflow = Workflow(name="T", workflow_type="Training", url="https://example.org/t.py", checksum="c")
ml = DerivaML(sys.argv[1])
for number in range(int(sys.argv[2])):
    with ml.create_execution(ExecutionConfiguration(workflow=workflow, description=sys.argv[3])) as exe:
        for name in range(4):
            exe.asset_file_path("Model", f"{name}.pt").write_text(f"{sys.argv[3]} {number} {name}")
    exe.upload_execution_outputs()
"""


def test_several_programs(uri: str, tmp_path: Path) -> None:
    """Programs that record at once share one workflow; each run is complete, and each file is there once."""
    with DerivaML.create(uri, store=f"file:{tmp_path / 'shared'}") as ml:
        command = [sys.executable, "-c", PROGRAM, uri, "3"]
        programs = [
            subprocess.Popen([*command, f"program {number}"], stderr=subprocess.PIPE, text=True) for number in range(4)
        ]
        for program in programs:
            _, errors = program.communicate()
            assert (program.returncode, errors) == (0, "")
        found = ml.find_executions()
        assert [(run.status, run.description) for run in found].count((Status.completed, "program 2")) == 3
        assert len(found) == 12
        assert len({run.workflow_rid for run in found}) == 1
        files = sorted(asset.filename for run in found for asset in run.list_assets("Output") if asset.table == "Model")
        assert files == sorted(["0.pt", "1.pt", "2.pt", "3.pt"] * 12)


def test_commands(uri: str, tmp_path: Path) -> None:
    """The commands create the catalog and read it."""

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "deriva_ml_cli", *arguments, "--host", uri]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    created = json.loads(run("init", "--store", f"file:{tmp_path / 'shared'}", "--json"))
    assert created["number"] is None
    assert "Execution" in created["tables"]
    with DerivaML(uri) as ml, ml.create_execution(ExecutionConfiguration(workflow=WORKFLOW)) as exe:
        pass
    assert exe.execution_rid in run("list")
    assert "✓  catalog" in run("doctor")
