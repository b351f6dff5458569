"""The recorder of notifications for tests of plugins."""

from __future__ import annotations

from datetime import UTC, datetime

from deriva_ml_core.definitions import Status
from deriva_ml_core.models import ExecutionInfo, StatusUpdate
from deriva_ml_core.plugins import load_plugins
from deriva_ml_core.plugins.manager import notify
from deriva_ml_core.testing import HookCall, HookRecorder

EXECUTION = ExecutionInfo(rid="1-ABC", url="file:///x#1-ABC", status=Status.running)


def test_calls_are_recorded_in_order() -> None:
    """The recorder stores each notification in order, with its execution."""
    plugins, recorder = load_plugins({}), HookRecorder()
    plugins.register(recorder)
    updates = [StatusUpdate(status=Status.running, message=text, time=datetime.now(UTC)) for text in ("one", "two")]
    for update in updates:
        notify(plugins, "status_changed", {"execution": EXECUTION, "update": update})
    assert recorder.calls == [HookCall("status_changed", EXECUTION, update) for update in updates]
    assert recorder.hook_names == ["status_changed"] * 2
    assert recorder.payloads("status_changed") == updates
    assert recorder.payloads("outputs_uploaded") == []


def test_recorder_implements_all_notifications() -> None:
    """The recorder implements every notification and no other hook."""
    plugins, recorder = load_plugins({}), HookRecorder()
    plugins.register(recorder)
    implemented = {caller.name for caller in plugins.get_hookcallers(recorder) or ()}
    assert implemented == {"status_changed", "asset_registered", "outputs_uploaded"}
