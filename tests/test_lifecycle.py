"""The hooks called during a run, in order and with their values, and the isolation of failing plugins."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from pydantic import JsonValue

from deriva_ml_core.backend import Backend
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import (
    Address,
    ExecutionInfo,
    Progress,
    SourceCode,
    StagedAsset,
    StatusUpdate,
    UploadReport,
)
from deriva_ml_core.plugins import hookimpl, load_plugins
from waits import HANG

SOURCE = SourceCode(url="https://forge.example.org/train.py", checksum="c0ffee", version="1.2.3", kind="forge")


@dataclass(eq=False)
class RecordingPlugin:
    """Implements every hook and records the calls."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    records: list[ExecutionInfo] = field(default_factory=list)

    @hookimpl
    def connect(self, address: Address) -> Backend | None:
        self.calls.append(("connect", address.hostname))
        return None

    @hookimpl
    def detect_source(self, script: Path | None, environ: Mapping[str, str]) -> SourceCode:
        self.calls.append(("detect_source", script, environ["DERIVA_ML_HOME"]))
        return SOURCE

    @hookimpl
    def describe_environment(self, environ: Mapping[str, str]) -> Mapping[str, JsonValue]:
        self.calls.append(("describe_environment", environ["DERIVA_ML_HOME"]))
        return {"weather": "fair"}

    @hookimpl
    def status_changed(self, execution: ExecutionInfo, update: StatusUpdate) -> None:
        self.records.append(execution)
        values = (update.previous, update.status, update.message, update.error, update.progress)
        self.calls.append(("status_changed", execution.status, *values))

    @hookimpl
    def asset_registered(self, execution: ExecutionInfo, asset: StagedAsset) -> None:
        self.records.append(execution)
        values = (asset.table, asset.filename, asset.asset_types, asset.original, dict(asset.metadata))
        self.calls.append(("asset_registered", execution.status, *values))

    @hookimpl
    def outputs_uploaded(self, execution: ExecutionInfo, report: UploadReport) -> None:
        self.records.append(execution)
        sent = {table: [asset.filename for asset in assets] for table, assets in report.sent.items()}
        unsent = [each.asset.filename for each in report.unsent]
        self.calls.append(("outputs_uploaded", execution.status, sent, unsent))


def make_client(*plugins: object, exit_timeout: float = 10.0) -> DerivaML:
    manager = load_plugins({})
    for plugin in plugins:
        manager.register(plugin, name=type(plugin).__name__.lower())
    return DerivaML(plugins=manager, exit_timeout=exit_timeout)


def test_hooks_of_a_run(home: Path, tmp_path: Path) -> None:
    """A run calls three hooks at the start, then call notification per status, file and upload, each once."""
    plugin = RecordingPlugin()
    ml = make_client(plugin)
    workflow = ml.create_workflow("Training", "Training")
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, description="All of it"))
    original = tmp_path / "original.png"
    original.write_bytes(b"png")
    progress = Progress(epoch=1, epochs=2, metrics={"loss": 0.5})
    with exe:
        for _ in range(2):
            path = exe.asset_file_path("Model", "epoch=1.ckpt", asset_types=["Model_File", "Derived"])
        path.write_bytes(b"weights")
        exe.update_status(Status.running, "Epoch 1/2", progress=progress)
        exe.upload_execution_outputs()
        exe.upload_execution_outputs()
        exe.asset_file_path("Image", original, rename_file="input.png", Description="one")
        exe.update_status(Status.pending, "waiting")
    exe.upload_execution_outputs()
    exe.upload_execution_outputs()

    run = Status.running
    assert plugin.calls == [
        ("connect", None),
        ("detect_source", Path(__file__), str(home)),
        ("describe_environment", str(home)),
        ("status_changed", Status.created, Status.created, Status.created, "", None, None),
        ("status_changed", run, Status.created, run, "", None, None),
        ("asset_registered", run, "Model", "epoch=1.ckpt", ("Model_File", "Derived"), None, {}),
        ("status_changed", run, run, run, "Epoch 1/2", None, progress),
        ("outputs_uploaded", run, {"Model": ["epoch=1.ckpt"]}, []),
        ("asset_registered", run, "Image", "input.png", ("Image",), original, {"Description": "one"}),
        ("status_changed", Status.pending, run, Status.pending, "waiting", None, None),
        ("status_changed", Status.completed, Status.pending, Status.completed, "", None, None),
        ("outputs_uploaded", Status.completed, {"Image": ["input.png"]}, []),
    ]
    assert {record.rid for record in plugin.records} == {exe.execution_rid}
    last = plugin.records[-1]
    assert (last.workflow_rid, last.description, last.working_dir) == (exe.workflow_rid, "All of it", exe.working_dir)
    assert (last.start_time, last.stop_time) == (exe.start_time, exe.stop_time)


def test_hook_results_are_recorded(home: Path) -> None:
    """The workflow has the detected source; the environment snapshot has the plugin's result under its name."""
    ml = make_client(RecordingPlugin())
    exe = ml.create_execution(ExecutionConfiguration(workflow=ml.create_workflow("Training", "Training")))
    workflow = ml.lookup_workflow(exe.workflow_rid)
    assert (workflow.url, workflow.checksum, workflow.version) == (SOURCE.url, SOURCE.checksum, SOURCE.version)
    (snapshot,) = (exe.working_dir / "records").glob("environment_snapshot_*.json")
    assert '"recordingplugin": {\n    "weather": "fair"\n  }' in snapshot.read_text()


def test_hooks_of_a_failed_run() -> None:
    """Plugins receive the failure with its reason, and the files that the later upload could not upload."""
    plugin = RecordingPlugin()
    ml = make_client(plugin)
    exe = ml.create_execution(ExecutionConfiguration(workflow=ml.create_workflow("Training", "Training")))
    with pytest.raises(RuntimeError, match="out of memory"), exe:
        exe.asset_file_path("Model", "best.pt").write_bytes(b"weights")
        exe.asset_file_path("Model", "never.pt")
        raise RuntimeError("out of memory")
    exe.upload_execution_outputs()
    reason = "RuntimeError: out of memory"
    assert plugin.calls[3:] == [
        ("status_changed", Status.created, Status.created, Status.created, "", None, None),
        ("status_changed", Status.running, Status.created, Status.running, "", None, None),
        ("asset_registered", Status.running, "Model", "best.pt", ("Model",), None, {}),
        ("asset_registered", Status.running, "Model", "never.pt", ("Model",), None, {}),
        ("status_changed", Status.failed, Status.running, Status.failed, reason, reason, None),
        ("outputs_uploaded", Status.failed, {"Model": ["best.pt"]}, ["never.pt"]),
    ]


def test_hooks_of_a_dry_run() -> None:
    """A dry run notifies plugins with the RID 0000, but not of uploads."""
    plugin = RecordingPlugin()
    ml = make_client(plugin)
    workflow = ml.create_workflow("Training", "Training")
    with ml.create_execution(ExecutionConfiguration(workflow=workflow), dry_run=True) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    exe.upload_execution_outputs()
    assert [call[:2] for call in plugin.calls[2:]] == [
        ("status_changed", Status.running),
        ("asset_registered", Status.running),
        ("status_changed", Status.completed),
    ]
    assert {record.rid for record in plugin.records} == {"0000"}


class Broken:
    """Fails in every notification."""

    @hookimpl
    def status_changed(self) -> None:
        raise RuntimeError("the service is down")

    @hookimpl
    def asset_registered(self) -> None:
        raise SystemExit("the service is down")

    @hookimpl
    def outputs_uploaded(self) -> None:
        raise AssertionError("the service is down")


@dataclass(eq=False)
class Hanging:
    """Blocks in the first notification until it is released."""

    released: Event = field(default_factory=Event)
    entered: Event = field(default_factory=Event)

    @hookimpl
    def status_changed(self) -> None:
        self.entered.set()
        self.released.wait()


def do_nothing(_: Execution) -> None:
    """Do nothing."""


def run_execution(
    ml: DerivaML, config: ExecutionConfiguration, in_run: Callable[[Execution], None] = do_nothing
) -> tuple[Any, ...]:
    """Run an execution and return its files, statuses and row status."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "a.pt").write_bytes(b"a")
        exe.update_status(Status.running, "half")
        sent = [exe.upload_execution_outputs()]
        in_run(exe)
        exe.asset_file_path("Model", "b.pt").write_bytes(b"b")
    sent.append(exe.upload_execution_outputs())
    names = [[asset.filename for asset in each["Model"]] for each in sent]
    statuses = [(update.status, update.message) for update in exe.list_statuses()]
    (row,) = ml.select_rows("Execution", {"RID": exe.execution_rid})
    return names, statuses, row["Status"]


def test_failing_plugin_does_not_affect_the_run(
    config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is the same as without the plugin, other plugins receive all notifications, and the log names it."""
    plugin = RecordingPlugin()
    assert run_execution(make_client(plugin, Broken()), config) == run_execution(make_client(), config)
    hooks = [call[0] for call in plugin.calls if call[0] not in ("connect", "describe_environment")]
    assert hooks == [
        *["status_changed"] * 2,
        "asset_registered",
        "status_changed",
        "outputs_uploaded",
        "asset_registered",
        "status_changed",
        "outputs_uploaded",
    ]
    failures = [record.getMessage() for record in caplog.records if "Plugin 'broken' failed in" in record.getMessage()]
    assert len(failures) == len(hooks)


def test_hanging_plugin_does_not_affect_the_run(
    config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture
) -> None:
    """The end waits for the plugin at most for the timeout and logs its name; the run is the same."""
    plugin = Hanging()
    try:
        with caplog.at_level(logging.WARNING):
            found = run_execution(make_client(plugin, exit_timeout=0.01), config)
    finally:
        plugin.released.set()
    assert found == run_execution(make_client(), config)
    assert "Plugins did not finish in time (status_changed: hanging)" in caplog.text


def test_run_does_not_wait_for_a_plugin(config: ExecutionConfiguration) -> None:
    """No status and no upload waits for a hanging plugin, however long the exit timeout is."""
    plugin = Hanging()

    def release(_: Execution) -> None:
        assert plugin.entered.wait(HANG)
        assert not plugin.released.is_set()
        plugin.released.set()

    names, _, status = run_execution(make_client(plugin, exit_timeout=1e6), config, release)
    assert (names, status) == ([["a.pt"], ["b.pt"]], "Completed")


def test_notifications_are_delivered_at_exit(config: ExecutionConfiguration) -> None:
    """A slow plugin has received the end of the run before the next line of the program."""
    plugin = RecordingPlugin()
    with make_client(plugin).create_execution(config) as exe:
        for number in range(200):
            exe.update_status(Status.running, str(number))
    messages = [call[4] for call in plugin.calls if call[0] == "status_changed"]
    assert messages == ["", "", *map(str, range(200)), ""]
