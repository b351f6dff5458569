"""Creation of executions on a busy server: short, complete on disk, and without a trace after Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deriva_ml_cli.disk_usage import find_unsent_executions
from deriva_ml_core.backends.deriva.catalog import DerivaCatalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import CatalogUnavailable
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import DatasetSpec
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm
from waits import HANG

RECORDS = {"configuration.json", "environment_snapshot"}


@pytest.fixture
def config() -> ExecutionConfiguration:
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    return ExecutionConfiguration(workflow=workflow, description="d")


def recorded(catalog: DerivaCatalog) -> set[str]:
    """Return the names of the uploaded metadata files, without the time in them."""
    linked = {link["Execution_Metadata"] for link in catalog.select("Execution_Metadata_Execution")}
    typed = {link["Execution_Metadata"] for link in catalog.select("Execution_Metadata_Asset_Type")}
    rows = [row for row in catalog.select("Execution_Metadata") if row["RID"] in linked & typed]
    return {row["Filename"].partition("_2")[0] for row in rows}


def wait_for_records(exe: Execution) -> None:
    upload = exe._runtime.background._records_upload
    assert upload is not None
    upload[1].result(timeout=HANG)


@pytest.mark.parametrize("path", ["^/hatrac/", "Execution_Metadata"])
def test_records_are_uploaded_in_the_background(
    ml: DerivaML, config: ExecutionConfiguration, catalog: DerivaCatalog, fake: DerivaServer, path: str
) -> None:
    """A creation does not wait for its records; they count as not uploaded until they are."""
    fault = fake.faults.add(Fault(Harm.answer, "PUT|POST", path, times=10_000))
    exe = ml.create_execution(config)
    assert recorded(catalog) == set()
    assert [each.rid for each in find_unsent_executions(ml)] == [exe.execution_rid]
    assert {name.partition("_2")[0] for name in ml.describe(exe.execution_rid).unsent} == RECORDS
    assert exe.staged_assets() == []
    with exe:
        assert exe.status is Status.running
        fault.times = 0
    wait_for_records(exe)
    assert recorded(catalog) == RECORDS
    exe.upload_execution_outputs()  # the end of the run
    assert find_unsent_executions(ml) == []
    assert ml.describe(exe.execution_rid).unsent == ()


def test_records_are_on_disk_before_creation_returns(
    ml: DerivaML, config: ExecutionConfiguration, fake: DerivaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configuration, environment and journal are flushed to disk, with their names, before the creation returns."""
    fault = fake.faults.add(Fault(Harm.answer, "PUT", "^/hatrac/", times=10_000))
    flushed: set[Path] = set()
    fsync = os.fsync

    def record_flush(descriptor: int) -> None:
        flushed.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", record_flush)
        exe = ml.create_execution(config)
    folder = exe.working_dir.resolve()
    files = set((folder / "records").iterdir())
    assert {file.name.partition("_2")[0] for file in files} == RECORDS
    assert flushed >= {*files, folder / "records", folder / "journal.jsonl", folder, folder.parent}
    fault.times = 0
    wait_for_records(exe)


def test_process_that_ends_after_creation(
    catalog: DerivaCatalog, fake: DerivaServer, home: Path, config: ExecutionConfiguration
) -> None:
    """A process that exits normally uploads its records first; one that is killed leaves them to the next upload."""
    program = (
        "import os, sys\n"
        "from deriva_ml_core.client import DerivaML\n"
        "from deriva_ml_core.execution import ExecutionConfiguration\n"
        "from deriva_ml_core.workflow import Workflow\n"
        f"ml = DerivaML({fake.hostname!r}, {catalog.catalog_id!r}, credential={fake.credential('test2')!r})\n"
        "workflow = Workflow(name='w', workflow_type='Training', url='https://example.org/w.py', checksum='0' * 40)\n"
        "ml.create_execution(ExecutionConfiguration(workflow=workflow, description=sys.argv[1]))\n"
        "if sys.argv[1] == 'killed': os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, "ends"], check=True, timeout=HANG)
    assert recorded(catalog) == RECORDS
    fault = fake.faults.add(Fault(Harm.answer, "PUT", "^/hatrac/", times=10_000))
    assert subprocess.run([sys.executable, "-c", program, "killed"], check=False, timeout=HANG).returncode == -9
    fault.times = 0
    ml = DerivaML(fake.hostname, catalog.catalog_id, credential=fake.credential("test2"))
    (killed,) = find_unsent_executions(ml)
    assert not killed.is_possibly_running
    ml.restore_execution(killed.rid).upload_execution_outputs()
    assert find_unsent_executions(ml) == []
    names = [asset.filename.partition("_2")[0] for asset in ml.lookup_execution(killed.rid).list_assets("Output")]
    assert sorted(set(names) - {"journal.jsonl"}) == sorted(RECORDS)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    "fault",
    [
        lambda: Fault(Harm.lose_after, "POST", "/entity/deriva-ml:Execution$", call=interrupt),
        lambda: Fault(Harm.lose_after, "POST", "/entity/deriva-ml:Dataset_Execution$", call=interrupt),
        lambda: Fault(Harm.lose_after, "POST", "/entity/domain:Image_Execution$|Image_Execution$", call=interrupt),
    ],
    ids=["row", "dataset", "asset"],
)
def test_interrupt_leaves_no_row(
    ml: DerivaML,
    config: ExecutionConfiguration,
    catalog: DerivaCatalog,
    fake: DerivaServer,
    fault: Callable[[], Fault],
) -> None:
    """Ctrl-C during a creation leaves no row, no link and no working folder, whatever was written."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Image", "a.png").write_bytes(b"a")
    (image,) = exe.upload_execution_outputs()["Image"]
    dataset = ml.create_dataset("d")
    wait_for_records(exe)
    inputs = config.model_copy(update={"datasets": (DatasetSpec(rid=dataset.rid),), "assets": (image.rid,)})
    fake.faults.add(fault())
    with pytest.raises(KeyboardInterrupt):
        ml.create_execution(inputs)
    fake.wait_until_idle()
    assert [row["RID"] for row in catalog.select("Execution")] == [exe.execution_rid]
    assert catalog.select("Dataset_Execution") == []
    assert len(catalog.select("Image_Execution")) == 1
    assert [each.name for each in exe.working_dir.parent.iterdir()] == [exe.execution_rid]


def test_interrupt_while_the_server_is_busy(
    ml: DerivaML, config: ExecutionConfiguration, catalog: DerivaCatalog, fake: DerivaServer
) -> None:
    """Ctrl-C ends the wait for a server that aborts every write of the row."""
    fake.faults.add(Fault(Harm.answer, "POST", "/entity/deriva-ml:Execution$", times=4))
    fake.faults.add(Fault(Harm.call, "POST", "/entity/deriva-ml:Execution$", call=interrupt))
    fake.faults.add(Fault(Harm.answer, "POST", "/entity/deriva-ml:Execution$", times=10_000))
    with pytest.raises(KeyboardInterrupt):
        ml.create_execution(config)
    fake.faults.clear()
    assert catalog.select("Execution") == []


def test_failed_creation_is_marked(
    ml: DerivaML, config: ExecutionConfiguration, catalog: DerivaCatalog, fake: DerivaServer
) -> None:
    """A creation whose row was written although the response said otherwise leaves a row that says failed and why."""
    fake.faults.add(Fault(Harm.lose, "POST", "/entity/deriva-ml:Execution$"))
    fake.faults.add(Fault(Harm.reset, "GET", "/entity/deriva-ml:Execution/", times=3))
    with pytest.raises(CatalogUnavailable):
        ml.create_execution(config)
    (row,) = catalog.select("Execution")
    assert row["Status"] == "Failed"
    assert row["Status_Detail"].startswith("Creation failed: CatalogUnavailable: ")
