"""The listener that plugin authors test with."""

from __future__ import annotations

from datetime import UTC, datetime

from deriva_ml_core.definitions import Status
from deriva_ml_core.models import ExecutionInfo, StatusUpdate
from deriva_ml_core.plugins import load_plugins
from deriva_ml_core.plugins.manager import notify
from deriva_ml_core.testing import HookCall, HookRecorder

RECORD = ExecutionInfo(rid="1-ABC", url="file:///x#1-ABC", status=Status.running)


def test_news_are_kept_in_order() -> None:
    """A registered recorder keeps each piece of news, in order, with the execution that it is of."""
    plugins, recorder = load_plugins({}), HookRecorder()
    plugins.register(recorder)
    updates = [StatusUpdate(status=Status.running, message=text, time=datetime.now(UTC)) for text in ("one", "two")]
    for update in updates:
        notify(plugins, "status_changed", {"execution": RECORD, "update": update})
    assert recorder.calls == [HookCall("status_changed", RECORD, update) for update in updates]
    assert recorder.hook_names == ["status_changed"] * 2
    assert recorder.payloads("status_changed") == updates
    assert recorder.payloads("outputs_uploaded") == []


def test_it_hears_all_news() -> None:
    """A recorder answers every hook that is news, and no other."""
    plugins, recorder = load_plugins({}), HookRecorder()
    plugins.register(recorder)
    answered = {caller.name for caller in plugins.get_hookcallers(recorder) or ()}
    assert answered == {"status_changed", "asset_registered", "outputs_uploaded"}
