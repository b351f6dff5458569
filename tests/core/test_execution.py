"""Executions: status, ends, inputs, outputs and nesting."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import (
    ConfigurationError,
    ConflictingWorkflow,
    DerivaMLException,
    ExecutionCycle,
    InvalidTransition,
    NotInDryRun,
    UnknownRID,
    WorkflowMissing,
    WrongTable,
)
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import Asset, AssetSpec, DatasetSpec
from deriva_ml_core.plugins import load_plugins
from deriva_ml_core.testing import HookRecorder
from deriva_ml_core.workflow import Workflow
from waits import HANG


def read_row(ml: DerivaML, exe: Execution) -> dict[str, Any]:
    return ml.select_rows("Execution", {"RID": exe.execution_rid})[0]


def make_asset(ml: DerivaML, config: ExecutionConfiguration, name: str = "x.png") -> Asset:
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Image", name).write_text(name)
    (asset,) = exe.upload_execution_outputs()["Image"]
    return asset


def test_new_execution_has_status_created(ml: DerivaML, exe: Execution) -> None:
    """The row of a new execution has status Created, workflow and description."""
    assert exe.status is Status.created
    found = read_row(ml, exe)
    assert found["Status"] == "Created"
    assert found["Description"] == "A test"
    assert found["Workflow"] == exe.workflow_rid
    assert exe.working_dir.is_dir()
    assert exe.start_time is None


def test_with_block_runs_and_completes(ml: DerivaML, exe: Execution) -> None:
    """Entering sets Running and the start time; leaving sets Completed, the stop time and the duration."""
    with exe as entered:
        assert entered is exe
        assert exe.status is Status.running
        assert read_row(ml, exe)["Status"] == "Running"
        assert exe.start_time is not None
    assert read_row(ml, exe)["Status"] == "Completed"
    assert read_row(ml, exe)["Duration"].startswith("0.0H 0.0min ")
    assert exe.stop_time is not None
    assert [update.status for update in exe.list_statuses()] == [Status.created, Status.running, Status.completed]


def test_exception_fails_the_run_and_propagates(ml: DerivaML, exe: Execution) -> None:
    """An exception sets Failed with its type and message, and the duration."""
    with pytest.raises(ZeroDivisionError), exe:
        _ = 1 / 0
    assert read_row(ml, exe)["Status"] == "Failed"
    assert read_row(ml, exe)["Status_Detail"] == "ZeroDivisionError: division by zero"
    assert read_row(ml, exe)["Duration"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "Aborted"),
        (SystemExit(0), "Completed"),
        (SystemExit(None), "Completed"),
        (SystemExit(3), "Failed"),
        (SystemExit("why"), "Failed"),
        (GeneratorExit(), "Failed"),
    ],
)
def test_status_by_exit_exception(ml: DerivaML, exe: Execution, error: BaseException, status: str) -> None:
    """Ctrl-C aborts the run; SystemExit(0) completes it, another code fails it."""
    with pytest.raises(type(error)), exe:
        raise error
    assert read_row(ml, exe)["Status"] == status


def test_system_exit_caused_by_ctrl_c_aborts(ml: DerivaML, exe: Execution) -> None:
    """A SystemExit raised while a KeyboardInterrupt is handled counts as Ctrl-C, as Lightning raises it."""
    with pytest.raises(SystemExit), exe:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    assert read_row(ml, exe)["Status"] == "Aborted"


SIGTERM_SCRIPT = """
import os, signal, sys
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow
workflow = Workflow(name="T", workflow_type="Training", url="https://x/y", checksum="c")
{before}
with DerivaML().create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
    print(exe.execution_rid, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    import time; time.sleep(20)
"""


@pytest.mark.parametrize(
    ("before", "code"),
    [("", 143), ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))", 5)],
)
def test_sigterm_aborts(ml: DerivaML, before: str, code: int) -> None:
    """SIGTERM leaves the block, through the user's handler if there is one; the exit code is not 0."""
    script = SIGTERM_SCRIPT.format(before=before)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert ml.lookup_execution(done.stdout.strip()).status is Status.aborted


def test_previous_signal_handler_is_restored(exe: Execution) -> None:
    """After the block the signal table is as before."""
    before = signal.getsignal(signal.SIGTERM)
    with exe:
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_terminal_status_set_by_the_user_stays(ml: DerivaML, exe: Execution) -> None:
    """Leaving the block does not overwrite the status, and still writes the duration."""
    with exe:
        exe.update_status(Status.failed, "loss is NaN")
    assert (read_row(ml, exe)["Status"], read_row(ml, exe)["Status_Detail"]) == ("Failed", "loss is NaN")
    assert read_row(ml, exe)["Duration"]


def test_status_never_goes_back(ml: DerivaML, exe: Execution) -> None:
    """A status cannot return to Created or leave a terminal status, and upload and restore do not change it."""
    with exe:
        exe.update_status(Status.pending)
        exe.update_status(Status.initializing)
        exe.update_status(Status.running)
        with pytest.raises(InvalidTransition):
            exe.update_status(Status.created)
    with pytest.raises(InvalidTransition, match="the run has ended"):
        exe.update_status(Status.running)
    with pytest.raises(InvalidTransition, match="Create a new execution"), exe:
        pass
    exe.upload_execution_outputs()
    assert ml.restore_execution(exe.execution_rid).status is Status.completed
    assert read_row(ml, exe)["Status"] == "Completed"


def test_every_status_is_in_the_journal(ml: DerivaML, exe: Execution) -> None:
    """The row has the last status; the journal has all of them, in UTC."""
    with exe:
        exe.update_status(Status.running, "Loading data...")
        exe.update_status(Status.running, "Training model...")
        assert read_row(ml, exe)["Status_Detail"] == "Training model..."
    messages = [update.message for update in ml.lookup_execution(exe.execution_rid).list_statuses()]
    assert messages == ["", "", "Loading data...", "Training model...", ""]
    assert all(update.time.utcoffset().total_seconds() == 0 for update in exe.list_statuses())


def test_unreachable_catalog_does_not_fail_the_run(
    ml: DerivaML, exe: Execution, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A status that cannot be written logs a warning and is written later."""
    catalog = home / "local" / "catalog.sqlite"
    with exe:
        ml.close()
        catalog.rename(catalog.with_suffix(".away"))
        catalog.mkdir()
        exe.update_status(Status.running, "in the dark")
        assert "Failed to write the status" in caplog.text
        catalog.rmdir()
        catalog.with_suffix(".away").rename(catalog)
        ml.close()
    assert [update.message for update in exe.list_statuses()][2] == "in the dark"
    assert read_row(ml, exe)["Status"] == "Completed"


def test_missing_workflow_raises(ml: DerivaML) -> None:
    """Creation without a workflow raises a DerivaMLException, as documented."""
    with pytest.raises(WorkflowMissing):
        ml.create_execution(ExecutionConfiguration())
    assert issubclass(WorkflowMissing, DerivaMLException)


def test_workflow_in_configuration_or_argument(ml: DerivaML, workflow: Workflow) -> None:
    """The workflow can be in the configuration, an argument, an RID, or the same in both; two different ones raise."""
    rid = ml.create_execution(ExecutionConfiguration(workflow=workflow)).workflow_rid
    assert ml.create_execution(ExecutionConfiguration(), workflow=workflow).workflow_rid == rid
    assert ml.create_execution(ExecutionConfiguration(workflow=rid)).workflow_rid == rid
    assert ml.create_execution(ExecutionConfiguration(workflow=workflow), workflow=workflow).workflow_rid == rid
    other = Workflow(name="Other", workflow_type="Training", url="https://x/z", checksum="d")
    with pytest.raises(ConflictingWorkflow):
        ml.create_execution(ExecutionConfiguration(workflow=workflow), workflow=other)


def test_inputs_are_recorded_at_creation(ml: DerivaML, config: ExecutionConfiguration, workflow: Workflow) -> None:
    """Creation records assets and the current versions of datasets, and downloads nothing."""
    asset = make_asset(ml, config)
    dataset = ml.create_dataset("d", ["Training"])
    dataset.add_dataset_members([asset.rid])
    exe = ml.create_execution(
        ExecutionConfiguration(workflow=workflow, datasets=[DatasetSpec(rid=dataset.rid)], assets=[asset.rid])
    )
    dataset.delete_dataset_members([asset.rid])
    assert [(spec.rid, spec.version) for spec in exe.list_input_datasets()] == [(dataset.rid, "0.2.0")]
    assert [each.rid for each in exe.list_assets("Input")] == [asset.rid]
    assert not (exe.working_dir / "inputs").exists()
    bag = exe.download_dataset_bag(DatasetSpec(rid=dataset.rid))
    assert [image["RID"] for image in bag.list_dataset_members()["Image"]] == [asset.rid]
    assert len(exe.list_input_datasets()) == 1
    assert [bag.version for bag in exe.datasets] == ["0.2.0"]
    (path,) = exe.asset_paths["Image"]
    assert path.read_text() == "x.png"


def test_download_is_recorded_as_input(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A download of an undeclared dataset or asset is recorded as an input once."""
    asset = make_asset(ml, config)
    dataset = ml.create_dataset("d")
    with ml.create_execution(config) as exe:
        exe.download_asset(asset.rid)
        exe.download_asset(asset.rid)
        exe.download_dataset_bag(DatasetSpec(rid=dataset.rid))
    assert [each.rid for each in exe.list_assets("Input")] == [asset.rid]
    assert [spec.version for spec in exe.list_input_datasets()] == ["0.1.0"]
    assert [found.execution_rid for found in ml.find_executions(dataset=dataset)] == [exe.execution_rid]


@pytest.mark.parametrize("wrong", ["dataset", "asset", "unknown dataset", "unknown asset"])
def test_invalid_input_raises_and_leaves_no_row(ml: DerivaML, config: ExecutionConfiguration, wrong: str) -> None:
    """An RID of another table names that table; an unknown RID is named as unknown."""
    asset = make_asset(ml, config)
    dataset = ml.create_dataset("d")
    before = len(ml.find_executions())
    inputs = {
        "dataset": {"datasets": [asset.rid]},
        "asset": {"assets": [dataset.rid]},
        "unknown dataset": {"datasets": ["1-ZZZZ"]},
        "unknown asset": {"assets": ["1-ZZZZ"]},
    }[wrong]
    expected, text = (UnknownRID, "1-ZZZZ") if "unknown" in wrong else (WrongTable, " row of ")
    with pytest.raises(expected, match=text):
        ml.create_execution(ExecutionConfiguration(workflow=config.workflow, **inputs))
    assert len(ml.find_executions()) == before


def test_existing_download_with_other_bytes_is_replaced(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An existing file is returned as it is if its bytes are the recorded ones, and downloaded again otherwise."""
    asset = make_asset(ml, config)
    with ml.create_execution(config) as exe:
        path = exe.download_asset(asset)
        inode = path.stat().st_ino
        assert exe.download_asset(asset).stat().st_ino == inode
        path.write_text("X.png")
        assert exe.download_asset(asset) == path
        assert path.read_text() == "x.png"


def test_metadata_files_are_uploaded_at_creation(ml: DerivaML, exe: Execution) -> None:
    """Configuration and environment snapshot are in the store before the run starts."""
    by_type = {asset.asset_types[0]: asset for asset in exe.list_assets("Output")}
    configuration = json.loads(exe.download_asset(by_type["Deriva_Config"].rid).read_text())
    assert configuration["workflow"] == exe.workflow_rid
    assert configuration["description"] == "A test"
    environment = json.loads(exe.download_asset(by_type["Runtime_Env"].rid).read_text())
    assert environment["folder"] == str(exe.working_dir)
    assert environment["source"]["url"] == "https://github.com/org/repo/blob/abc/train.py"
    assert environment["environment"]["python"]


def test_container_script_is_in_the_environment_snapshot(ml: DerivaML, monkeypatch: pytest.MonkeyPatch) -> None:
    """All scripts of an image share one workflow; the snapshot names the script that ran, with its hash."""
    for name, value in {"IN_DOCKER": "true", "IMAGE_NAME": "ghcr.io/org/repo", "IMAGE_DIGEST": "sha256:abc"}.items():
        monkeypatch.setenv(f"DERIVA_MCP_{name}", value)
    exe = ml.create_execution(ExecutionConfiguration(workflow=Workflow(name="Image", workflow_type="Training")))
    (snapshot,) = (exe.working_dir / "records").glob("environment_snapshot_*.json")
    source = json.loads(snapshot.read_text())["source"]
    assert (source["url"], source["checksum"]) == ("ghcr.io/org/repo@sha256:abc", "sha256:abc")
    assert source["path"] == __file__
    hashed = subprocess.run(["git", "hash-object", __file__], capture_output=True, text=True, check=True)
    assert source["file_checksum"] == hashed.stdout.strip()


def test_recorded_configuration_can_be_loaded(ml: DerivaML, workflow: Workflow) -> None:
    """Running the recorded configuration.json again uses the same inputs and parameters."""
    dataset = ml.create_dataset("d")
    config = ExecutionConfiguration(workflow=workflow, datasets=[dataset.rid], parameters={"lr": 0.1, "layers": [1, 2]})
    exe = ml.create_execution(config)
    again = ExecutionConfiguration.load_configuration(exe.working_dir / "records" / "configuration.json")
    assert again.datasets == (DatasetSpec(rid=dataset.rid, version="0.1.0"),)
    assert again.parameters == {"lr": 0.1, "layers": [1, 2]}
    assert ml.create_execution(again).workflow_rid == exe.workflow_rid


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_load_configuration(tmp_path: Path, suffix: str) -> None:
    """JSON and YAML files are loaded, with assets and datasets by RID or in full."""
    path = tmp_path / f"config.{suffix}"
    text = {
        "json": '{"datasets": ["1-ABC", {"rid": "1-DEF", "version": "1.2.0"}], "assets": ["2-GHI"]}',
        "yaml": "datasets:\n  - 1-ABC\n  - {rid: 1-DEF, version: 1.2.0}\nassets: [2-GHI]\n",
    }
    path.write_text(text[suffix])
    config = ExecutionConfiguration.load_configuration(path)
    assert config.datasets == (DatasetSpec(rid="1-ABC"), DatasetSpec(rid="1-DEF", version="1.2.0"))
    assert config.assets == (AssetSpec(rid="2-GHI"),)


@pytest.mark.parametrize(
    "text", ["descripton: x", "datasets: [{rid: 1-A, verson: 1}]", "[1, 2]", "{a: [", "datasets: 3"]
)
def test_invalid_configuration_raises(tmp_path: Path, text: str) -> None:
    """Unknown keys and wrong types raise an error that names the file."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"config\.yaml"):
        ExecutionConfiguration.load_configuration(path)
    with pytest.raises(ConfigurationError, match="Cannot read the configuration"):
        ExecutionConfiguration.load_configuration(tmp_path / "none.yaml")


def test_dry_run_writes_nothing(ml: DerivaML, workflow: Workflow, home: Path) -> None:
    """A dry run has the RID 0000, stages files locally only, and cannot create a dataset."""
    dataset = ml.create_dataset("d")
    before = {
        table: ml.select_rows(table) for table in ("Execution", "Workflow", "Execution_Metadata", "Dataset_Execution")
    }
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, datasets=[dataset.rid]), dry_run=True)
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
        exe.update_status(Status.running, "half")
        exe.download_dataset_bag(dataset.rid)
        with pytest.raises(NotInDryRun):
            exe.create_dataset("d")
    assert exe.upload_execution_outputs() == {}
    assert exe.execution_rid == "0000"
    assert exe.status is Status.completed
    assert before == {table: ml.select_rows(table) for table in before}
    assert not [path for path in (home / "local" / "objects").rglob("*") if path.is_file()]


def test_output_dataset_has_its_producer(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The execution is the producer of all versions made through the returned dataset; it is output, not input."""
    asset = make_asset(ml, config)
    with ml.create_execution(config) as exe:
        dataset = exe.create_dataset(description="Augmented training images", dataset_types=["Training", "Augmented"])
        dataset.add_dataset_members([asset.rid])
    assert [(spec.rid, spec.version) for spec in exe.list_output_datasets()] == [
        (dataset.rid, "0.1.0"),
        (dataset.rid, "0.2.0"),
    ]
    assert exe.list_input_datasets() == []


def test_nested_executions(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Nested executions are listed in sequence, level by level; cycles raise, and nesting again changes nothing."""
    parent, first, second, grandchild = (ml.create_execution(config) for _ in range(4))
    parent.add_nested_execution(second, sequence=1)
    parent.add_nested_execution(first.execution_rid, sequence=0)
    parent.add_nested_execution(first, sequence=0)
    first.add_nested_execution(grandchild)
    rids = [each.execution_rid for each in parent.list_nested_executions()]
    assert rids == [first.execution_rid, second.execution_rid]
    rids = [each.execution_rid for each in parent.list_nested_executions(recurse=True)]
    assert rids == [first.execution_rid, second.execution_rid, grandchild.execution_rid]
    rids = [each.execution_rid for each in grandchild.list_parent_executions(recurse=True)]
    assert rids == [first.execution_rid, parent.execution_rid]
    for cycle in (parent, grandchild):
        with pytest.raises(ExecutionCycle):
            grandchild.add_nested_execution(parent if cycle is parent else grandchild)
    with pytest.raises(UnknownRID):
        parent.add_nested_execution("1-ZZZZ")


def test_find_executions(ml: DerivaML, config: ExecutionConfiguration, workflow: Workflow) -> None:
    """Executions are found by workflow, type and status, newest first."""
    first = ml.create_execution(config)
    other = Workflow(name="Other", workflow_type="Inference", url="https://x/z", checksum="d")
    with ml.create_execution(ExecutionConfiguration(workflow=other)) as second:
        pass
    rids = [each.execution_rid for each in ml.find_executions()]
    assert rids == [second.execution_rid, first.execution_rid]
    assert [each.execution_rid for each in ml.find_executions(limit=1)] == rids[:1]
    assert [each.execution_rid for each in ml.find_executions(workflow=first.workflow_rid)] == rids[1:]
    assert [each.execution_rid for each in ml.find_executions(workflow_type="Inference")] == rids[:1]
    assert [each.execution_rid for each in ml.find_executions(status=Status.completed)] == rids[:1]
    assert ml.find_executions(workflow_type="Annotation") == []
    assert ml.find_executions(workflow=workflow) == []
    assert ml.find_executions(dataset="1-ZZZZ") == []


def test_invalid_execution_rid_raises(ml: DerivaML, exe: Execution) -> None:
    """An RID of another table and an unknown RID raise different errors."""
    with pytest.raises(WrongTable, match="row of Workflow"):
        ml.lookup_execution(exe.workflow_rid)
    with pytest.raises(UnknownRID):
        ml.restore_execution("1-ZZZZ")


def _die(config: ExecutionConfiguration, sender: Any) -> None:
    exe = DerivaML().create_execution(config).__enter__()
    exe.update_status(Status.running, "epoch 3")
    sender.send(exe.execution_rid)
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_run_is_aborted(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A lookup shows the killed run as aborted without writing; a restore writes it."""
    receiver, sender = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_die, args=(config, sender))
    child.start()
    rid = receiver.recv()
    child.join()
    (found,) = ml.find_executions(status=Status.aborted)
    assert found.execution_rid == rid
    assert "epoch 3" in found.status_detail
    assert ml.find_executions(status=Status.running) == []
    assert ml.select_rows("Execution", {"RID": rid})[0]["Status"] == "Running"
    plugins = load_plugins({})
    recorder = HookRecorder()
    plugins.register(recorder, "recorder")
    restored = DerivaML(plugins=plugins).restore_execution(rid)
    assert restored.status is Status.aborted
    assert ml.select_rows("Execution", {"RID": rid})[0]["Status"] == "Aborted"
    assert restored.stop_time == restored.list_statuses()[-2].time
    restored.upload_execution_outputs()
    assert recorder.hook_names == ["status_changed"]


def test_living_run_is_not_aborted(ml: DerivaML, exe: Execution) -> None:
    """The run of a living process stays Running, also for another client."""
    with exe:
        assert DerivaML().lookup_execution(exe.execution_rid).status is Status.running
        assert DerivaML().restore_execution(exe.execution_rid).status is Status.running


def test_restore_from_the_working_folder(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Restoring returns inputs, staged files, status and times."""
    asset = make_asset(ml, config)
    with ml.create_execution(config) as exe:
        exe.download_asset(asset)
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    again = DerivaML().restore_execution(exe.execution_rid)
    assert again.status is exe.status
    assert (again.start_time, again.stop_time) == (exe.start_time, exe.stop_time)
    assert again.staged_assets() == exe.staged_assets()
    assert again.asset_paths["Image"][0].read_text() == "x.png"
    assert list(again.upload_execution_outputs()) == ["Model"]


@pytest.mark.parametrize("has_journal_copy", [True, False])
def test_restore_without_the_working_folder(
    ml: DerivaML,
    config: ExecutionConfiguration,
    has_journal_copy: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Inputs and status come from the journal copy, or from the catalog alone; a warning names the old folder."""
    asset = make_asset(ml, config)
    with ml.create_execution(config) as exe:
        exe.download_asset(asset)
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    if has_journal_copy:
        exe.upload_execution_outputs()
    elsewhere = DerivaML(working_dir=tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        again = elsewhere.restore_execution(exe.execution_rid)
    assert str(exe.working_dir) in caplog.text
    assert again.status is Status.completed
    assert [each.rid for each in again.list_assets("Input")] == [asset.rid]
    assert again.staged_assets() == []
    assert (again.start_time == exe.start_time) is has_journal_copy
    path = again.asset_file_path("Model", "continued_model.pt")
    assert again.upload_execution_outputs() == {}
    path.write_bytes(b"more")
    assert [each.filename for each in again.upload_execution_outputs()["Model"]] == ["continued_model.pt"]


def _report(exe: Execution, name: str) -> None:
    exe.update_status(Status.running, name)
    exe.asset_file_path("Execution_Asset", f"{name}.txt").write_text(name)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_execution_in_a_worker_process(ml: DerivaML, exe: Execution, method: str) -> None:
    """A forked or spawned worker reports and registers in the same execution."""
    with exe:
        worker = multiprocessing.get_context(method).Process(target=_report, args=(exe, method))
        worker.start()
        worker.join(HANG)
        assert worker.exitcode == 0
        assert [update.message for update in exe.list_statuses()][-1] == method
    assert [asset.filename for asset in exe.upload_execution_outputs()["Execution_Asset"]] == [f"{method}.txt"]


def test_unpickled_execution_is_the_same(exe: Execution) -> None:
    """An unpickled execution opens the same execution again."""
    again = pickle.loads(pickle.dumps(exe))
    assert again.execution_rid == exe.execution_rid
    assert again.status is exe.status


def test_failed_run_logs_how_to_upload(exe: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """A run that fails with staged files logs their number and the call that uploads them."""
    with pytest.raises(ValueError, match="no"), exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
        raise ValueError("no")
    assert "ended with 1 staged files that are not uploaded" in caplog.text
    assert f"restore_execution({exe.execution_rid!r}).upload_execution_outputs()" in caplog.text
    assert list(exe.upload_execution_outputs()) == ["Model"]


@pytest.mark.parametrize("at", [1, 2])
def test_interrupted_creation_leaves_no_row(
    ml: DerivaML, config: ExecutionConfiguration, home: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Ctrl-C while the metadata files are stored leaves neither rows nor a working folder."""
    fsync, calls = os.fsync, []

    def interrupt(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == at:
            raise KeyboardInterrupt
        fsync(descriptor)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.fsync", interrupt)
        ml.create_execution(config)
    for table in ("Execution", "Execution_Metadata", "Execution_Metadata_Execution"):
        assert ml.select_rows(table) == []
    assert list((home / "local" / "executions").iterdir()) == []
    assert ml.create_execution(config).status is Status.created


def test_failed_metadata_upload_fails_the_creation(
    ml: DerivaML, config: ExecutionConfiguration, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed creation marks its row as failed, with the reason."""
    objects = home / "local" / "objects"
    moved = objects.rename(objects.with_name("moved")) if objects.exists() else None
    objects.write_text("in the way")
    with monkeypatch.context() as patch, pytest.raises(DerivaMLException):
        patch.setattr("time.sleep", lambda _: None)
        ml.create_execution(config)
    objects.unlink()
    if moved:
        moved.rename(objects)
    (found,) = ml.find_executions()
    assert found.status is Status.failed
    assert "Creation failed" in found.status_detail


def test_duration_is_the_time_in_the_block(exe: Execution) -> None:
    """The duration is the time between entering and leaving."""
    with exe:
        time.sleep(0.05)
    assert exe.start_time is not None
    assert exe.stop_time is not None
    assert (exe.stop_time - exe.start_time).total_seconds() >= 0.05


NOT_UTF8 = "caf\udce9 \ud83d"


def test_texts_that_utf8_cannot_encode(ml: DerivaML, workflow: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of another encoding, and half an emoji, are recorded escaped; the run and its end are recorded."""
    monkeypatch.setattr(sys, "argv", [*sys.argv, NOT_UTF8])
    config = ExecutionConfiguration(workflow=workflow, description=NOT_UTF8, parameters={"a": NOT_UTF8, NOT_UTF8: 1})
    with ml.create_execution(config) as exe:
        exe.update_status(Status.running, NOT_UTF8)
    found = read_row(ml, exe)
    assert (found["Status"], found["Description"]) == ("Completed", "caf\\udce9 \\ud83d")
    stored = json.loads((exe.working_dir / "records" / "configuration.json").read_text())
    assert stored["parameters"] == {"a": "caf\\udce9 \\ud83d", "caf\\udce9 \\ud83d": 1}


def test_end_with_a_message_that_utf8_cannot_encode(ml: DerivaML, workflow: Workflow) -> None:
    """An exception whose message UTF-8 cannot encode propagates unchanged, and the run is recorded as failed."""
    with (
        pytest.raises(ValueError, match=NOT_UTF8),
        ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe,
    ):
        raise ValueError(NOT_UTF8)
    found = read_row(ml, exe)
    assert (found["Status"], found["Status_Detail"]) == ("Failed", "ValueError: caf\\udce9 \\ud83d")


class UnreadableError(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_end_with_an_unreadable_exception(ml: DerivaML, workflow: Workflow) -> None:
    """An exception whose ``__str__`` raises propagates unchanged, and the run is recorded as failed."""
    error = UnreadableError()
    with (
        pytest.raises(UnreadableError) as raised,
        ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe,
    ):
        raise error
    assert raised.value is error
    found = read_row(ml, exe)
    assert (found["Status"], found["Status_Detail"]) == ("Failed", "UnreadableError: <not readable: RuntimeError>")


def test_term_that_utf8_cannot_encode(ml: DerivaML) -> None:
    """A term's name, description and synonyms are recorded escaped, and adding it again finds it."""
    rid = ml.add_term("Asset_Type", NOT_UTF8, NOT_UTF8, synonyms=[NOT_UTF8])
    assert ml.add_term("Asset_Type", NOT_UTF8) == rid
    assert ml.list_terms("Asset_Type")["caf\\udce9 \\ud83d"] == "caf\\udce9 \\ud83d"
