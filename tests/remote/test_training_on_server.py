"""The record of a training on a server is the same as on this machine, event by event."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.workflow import Workflow
from remote_server import RemoteServer

pytest.importorskip("numpy", reason="numpy is not installed")
events_test = importlib.import_module("integrations.test_training_events")
framework = events_test.framework


@pytest.fixture(scope="module")
def number(remote_server: RemoteServer) -> str:
    """Return the number of a catalog with the standard tables and terms."""
    return remote_server.catalog()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15 with numpy 2
@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning 2.6 with torch 2.13
def test_training_on_a_server(
    framework: tuple[Callable[..., Any], Any], remote_server: RemoteServer, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of a training on a server equals the embedded catalog's, with uploads after each fit."""
    monkeypatch.setattr(events_test, "DerivaML", partial(remote_server.open, number))
    make, callback = framework
    events_test.test_events_of_a_training((make, partial(callback, upload="end")))


def test_two_fits_on_a_server(remote_server: RemoteServer, number: str) -> None:
    """A further fit updates the rows of the training files, and takes the type of the best file from the first fit."""
    ml = remote_server.open(number)
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/fits.py", checksum="0" * 40)
    recorded = []
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as execution:
        reporter = TrainingReporter(execution, curves=False, upload="end")
        for value in (0.5, 0.2):
            reporter.begin_fit(epochs=1)
            reporter.save_checkpoint(1, ".txt", lambda path: path.write_text(f"{value}"), {"val_loss": value})  # noqa: B023
            reporter.end_epoch(1, {"val_loss": value})
            reporter.end_fit()
            recorded.append({each.filename: each for each in execution.list_assets("Output")})
            assert len([each for each in execution.list_assets("Output") if each.filename == "metrics.jsonl"]) == 1
    first, second = (assets["metrics.jsonl"] for assets in recorded)
    assert first.rid == second.rid
    assert first.url != second.url
    assert second.length > first.length
    ml.verify_asset(second)
    reporter._worker.drain(60)
    types = {each.filename: set(each.asset_types) - {"Model_File"} for each in execution.list_assets("Output")}
    assert types["epoch-0001.txt"] == set()
    assert types["fit-2-epoch-0001.txt"] == {"Best_Checkpoint", "Last_Checkpoint"}
