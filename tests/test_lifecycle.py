"""What plugins are asked and told over a run, in which order and with which values; and what a bad one cannot do."""

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

SOURCE = SourceCode(url="https://forge.example.org/train.py", checksum="c0ffee", version="1.2.3", kind="forge")


@dataclass(eq=False)
class Everything:
    """Answers every hook and remembers what came, in words."""

    heard: list[tuple[Any, ...]] = field(default_factory=list)
    records: list[ExecutionInfo] = field(default_factory=list)

    @hookimpl
    def connect(self, address: Address) -> Backend | None:
        self.heard.append(("connect", address.hostname))
        return None

    @hookimpl
    def detect_source(self, script: Path | None, environ: Mapping[str, str]) -> SourceCode:
        self.heard.append(("detect_source", script, environ["DERIVA_ML_HOME"]))
        return SOURCE

    @hookimpl
    def describe_environment(self, environ: Mapping[str, str]) -> Mapping[str, JsonValue]:
        self.heard.append(("describe_environment", environ["DERIVA_ML_HOME"]))
        return {"weather": "fair"}

    @hookimpl
    def status_changed(self, execution: ExecutionInfo, update: StatusUpdate) -> None:
        self.records.append(execution)
        words = (update.previous, update.status, update.message, update.error, update.progress)
        self.heard.append(("status_changed", execution.status, *words))

    @hookimpl
    def asset_registered(self, execution: ExecutionInfo, asset: StagedAsset) -> None:
        self.records.append(execution)
        words = (asset.table, asset.filename, asset.asset_types, asset.original, dict(asset.metadata))
        self.heard.append(("asset_registered", execution.status, *words))

    @hookimpl
    def outputs_uploaded(self, execution: ExecutionInfo, report: UploadReport) -> None:
        self.records.append(execution)
        sent = {table: [asset.filename for asset in assets] for table, assets in report.sent.items()}
        unsent = [each.asset.filename for each in report.unsent]
        self.heard.append(("outputs_uploaded", execution.status, sent, unsent))


def client(*plugins: object, patience: float = 10.0) -> DerivaML:
    manager = load_plugins({})
    for plugin in plugins:
        manager.register(plugin, name=type(plugin).__name__.lower())
    return DerivaML(plugins=manager, exit_timeout=patience)


def test_a_whole_run(home: Path, tmp_path: Path) -> None:
    """Three questions, then news of each status, each file and each upload that sent something, each exactly once."""
    plugin = Everything()
    ml = client(plugin)
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
    assert plugin.heard == [
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


def test_what_the_questions_answered_is_recorded(home: Path) -> None:
    """The source is the workflow's, the contribution is in the environment snapshot under the plugin's name."""
    ml = client(Everything())
    exe = ml.create_execution(ExecutionConfiguration(workflow=ml.create_workflow("Training", "Training")))
    workflow = ml.lookup_workflow(exe.workflow_rid)
    assert (workflow.url, workflow.checksum, workflow.version) == (SOURCE.url, SOURCE.checksum, SOURCE.version)
    (snapshot,) = (exe.working_dir / "records").glob("environment_snapshot_*.json")
    assert '"everything": {\n    "weather": "fair"\n  }' in snapshot.read_text()


def test_a_run_that_fails() -> None:
    """The failure is told with its reason, and so is what the upload after it could not send."""
    plugin = Everything()
    ml = client(plugin)
    exe = ml.create_execution(ExecutionConfiguration(workflow=ml.create_workflow("Training", "Training")))
    with pytest.raises(RuntimeError, match="out of memory"), exe:
        exe.asset_file_path("Model", "best.pt").write_bytes(b"weights")
        exe.asset_file_path("Model", "never.pt")
        raise RuntimeError("out of memory")
    exe.upload_execution_outputs()
    reason = "RuntimeError: out of memory"
    assert plugin.heard[3:] == [
        ("status_changed", Status.created, Status.created, Status.created, "", None, None),
        ("status_changed", Status.running, Status.created, Status.running, "", None, None),
        ("asset_registered", Status.running, "Model", "best.pt", ("Model",), None, {}),
        ("asset_registered", Status.running, "Model", "never.pt", ("Model",), None, {}),
        ("status_changed", Status.failed, Status.running, Status.failed, reason, reason, None),
        ("outputs_uploaded", Status.failed, {"Model": ["best.pt"]}, ["never.pt"]),
    ]


def test_a_dry_run_is_told_of_but_for_uploads() -> None:
    """Its record id says what it is, and nothing is said to be uploaded."""
    plugin = Everything()
    ml = client(plugin)
    workflow = ml.create_workflow("Training", "Training")
    with ml.create_execution(ExecutionConfiguration(workflow=workflow), dry_run=True) as exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"x")
    exe.upload_execution_outputs()
    assert [one[:2] for one in plugin.heard[2:]] == [
        ("status_changed", Status.running),
        ("asset_registered", Status.running),
        ("status_changed", Status.completed),
    ]
    assert {record.rid for record in plugin.records} == {"0000"}


class Broken:
    """Fails at all news."""

    @hookimpl
    def status_changed(self) -> None:
        raise RuntimeError("the chat room is closed")

    @hookimpl
    def asset_registered(self) -> None:
        raise SystemExit("the chat room is closed")

    @hookimpl
    def outputs_uploaded(self) -> None:
        raise AssertionError("the chat room is closed")


@dataclass(eq=False)
class Hanging:
    """Hears the first news and does not come back until it is released."""

    released: Event = field(default_factory=Event)
    entered: Event = field(default_factory=Event)

    @hookimpl
    def status_changed(self) -> None:
        self.entered.set()
        self.released.wait()


def whole_run(ml: DerivaML, config: ExecutionConfiguration, in_run: Callable[[Execution], None]) -> tuple[Any, ...]:
    """A run, and what is known of it afterwards."""
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


def nothing(_: Execution) -> None:
    """Do nothing."""


def test_a_broken_listener_changes_nothing(config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """The run is the same as without it, other listeners hear all, and the log names it."""
    plugin = Everything()
    assert whole_run(client(plugin, Broken()), config, nothing) == whole_run(client(), config, nothing)
    hooks = [one[0] for one in plugin.heard if one[0] not in ("connect", "describe_environment")]
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


def test_a_hanging_listener_changes_nothing(config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """The end of the run waits for it within the bound, says so with its name, and the run is the same."""
    plugin = Hanging()
    try:
        with caplog.at_level(logging.WARNING):
            found = whole_run(client(plugin, patience=0.01), config, nothing)
    finally:
        plugin.released.set()
    assert found == whole_run(client(), config, nothing)
    assert "Plugins did not finish in time (status_changed: hanging)" in caplog.text


def test_nothing_in_the_run_waits_for_a_listener(config: ExecutionConfiguration) -> None:
    """Neither a status nor an upload: however patient the end may be, a hanging listener holds up no epoch."""
    plugin = Hanging()

    def release(_: Execution) -> None:
        assert plugin.entered.wait(60)
        assert not plugin.released.is_set()
        plugin.released.set()

    names, _, status = whole_run(client(plugin, patience=1e6), config, release)
    assert (names, status) == ([["a.pt"], ["b.pt"]], "Completed")


def test_all_news_is_heard_when_the_with_is_left(config: ExecutionConfiguration) -> None:
    """A slow listener has heard of the end before the next line of the program."""
    plugin = Everything()
    with client(plugin).create_execution(config) as exe:
        for number in range(200):
            exe.update_status(Status.running, str(number))
    messages = [one[4] for one in plugin.heard if one[0] == "status_changed"]
    assert messages == ["", "", *map(str, range(200)), ""]
