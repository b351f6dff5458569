"""``deriva-ml show``."""

from __future__ import annotations

import shutil

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import Progress
from deriva_ml_core.training import TrainingReporter

LOSSES = [{"loss": 2.0, "val_accuracy": 0.5}, {"loss": 0.5, "val_accuracy": 0.9}, {"loss": 0.75, "val_accuracy": 0.8}]


def test_an_execution(ask, run) -> None:
    """Of an execution everything is told: files, statuses, workflow, machine, and first, last and best metrics."""
    exe = run("Three epochs", ["model.pt"], LOSSES)
    found = ask("show", exe.execution_rid, "--json").json
    assert (found["kind"], found["status"], found["description"]) == ("execution", "Completed", "Three epochs")
    assert "model.pt" in [asset["filename"] for asset in found["outputs"]]
    assert [each["status"] for each in found["timeline"]][0::4] == ["Created", "Running"]
    assert found["environment"]["host"] and found["environment"]["python"]
    loss, accuracy = found["metrics"]
    assert (loss["name"], loss["first"], loss["last"], loss["best"], loss["best_at"]) == ("loss", 2.0, 0.75, 0.5, 2)
    assert (accuracy["best"], accuracy["best_at"], accuracy["count"]) == (0.9, 2, 3)


def test_what_the_catalog_kept(ask, run) -> None:
    """When the working folder is gone, statuses, machine and metrics are read from what was uploaded."""
    exe = run("Kept", [], LOSSES)
    before = ask("show", exe.execution_rid, "--json").json
    shutil.rmtree(exe.working_dir)
    after = ask("show", exe.execution_rid, "--json").json
    assert after["metrics"] == before["metrics"]
    assert after["environment"] == before["environment"]
    assert [each["status"] for each in after["timeline"]][-1] == "Completed"


def test_a_failure_is_told(ask, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The error of a failed run stands below its name, and files not sent are counted, with what sends them."""
    with pytest.raises(ValueError), ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "a.pt").write_text("a")
        raise ValueError("no more data")
    out = ask("show", exe.execution_rid).out
    assert "ValueError: no more data" in out.splitlines()[2]
    assert f"deriva-ml upload {exe.execution_rid}" in out


def test_workflow_dataset_and_asset(ask, ml: DerivaML, run) -> None:
    """A workflow, a dataset, an asset and any other row can be shown, each with the executions that belong to it."""
    exe = run("A run", ["model.pt"])
    asset = next(each for each in exe.list_assets("Output") if each.table == "Model")
    dataset = ml.create_dataset("Models", "Training")
    dataset.add_dataset_members([asset.rid])
    workflow = ask("show", exe.workflow_rid, "--json").json
    assert (workflow["kind"], workflow["newest_executions"][0]["rid"]) == ("workflow", exe.execution_rid)
    shown = ask("show", dataset.rid, "--json").json
    assert (shown["version"], shown["members"], len(shown["versions"])) == ("0.2.0", {"Model": 1}, 2)
    file = ask("show", asset.rid, "--json").json
    assert (file["md5"], file["executions"][0]["role"]) == (asset.md5, "Output")
    term = ml.connection.catalog.select("Workflow_Type", {"Name": "Training"})[0]["RID"]
    assert ask("show", term, "--json").json["table"] == "Workflow_Type"
    for rid in (exe.workflow_rid, dataset.rid, asset.rid, term):
        assert rid in ask("show", rid).out.splitlines()[0]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_fits(ask, run, columns: int) -> None:
    """Every line fits on the screen, and the curves are drawn."""
    exe = run("Words and words " * 30, [f"{'long-' * 30}{number}.pt" for number in range(3)], LOSSES)
    out = ask("show", exe.execution_rid, columns=columns).out
    assert max(map(len, out.splitlines())) <= columns
    assert "█▁▂" in out


def test_a_long_story_is_cut(ask, run) -> None:
    """Of many statuses the first and the last are shown, and how many there are between; all with --full."""
    exe = run("Long", [], [{"loss": 1 / epoch} for epoch in range(1, 41)])
    assert "more: --full" in ask("show", exe.execution_rid).out
    assert len(ask("show", exe.execution_rid, "--full").out.splitlines()) > 45


def test_values_that_are_no_number(ask, run) -> None:
    """NaN and infinity leave gaps in a curve, are never the best, and are null for programs."""
    exe = run("Diverged", [], [{"loss": 1.0}, {"loss": float("nan")}, {"loss": float("inf")}])
    (loss,) = ask("show", exe.execution_rid, "--json").json["metrics"]
    assert (loss["last"], loss["best"], loss["best_at"]) == (None, 1.0, 1)
    assert "inf" in ask("show", exe.execution_rid).out


def test_the_best_is_a_finite_number(ask, run) -> None:
    """The best value is that of `list --sort`: one that overflowed is none."""
    exe = run(metrics=[{"score": 1.0}, {"score": float("inf")}, {"score": 2.0}])
    shown = ask("show", exe.execution_rid, "--json").json
    assert [each["best"] for each in (*shown["metrics"], *shown["metric_values"])] == [2.0, 2.0]


def test_metrics_of_a_loop_without_curves(ask, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """What a loop told by its statuses alone is shown as the catalog has it."""
    with ml.create_execution(config) as exe:
        for epoch, loss in enumerate((0.5, 0.25, 0.75), start=1):
            exe.update_status(Status.running, "", progress=Progress(epoch=epoch, metrics={"loss": loss}))
    (found,) = ask("show", exe.execution_rid, "--json").json["metric_values"]
    assert (found["last"], found["best"], found["best_at"]) == (0.75, 0.25, 2)
    assert "0.25" in ask("show", exe.execution_rid, columns=60).out


def test_the_best_is_what_the_training_says(ask, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Where the training says that more of a metric is better, the best of its curve is the largest."""
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, monitor="gain", mode="max", checkpoints="none", curves=False)
        reporter.begin_fit(2)
        for epoch, value in enumerate((2.0, 1.0), start=1):
            reporter.end_epoch(epoch, {"gain": value})
        reporter.end_fit()
    (curve,) = ask("show", exe.execution_rid, "--json").json["metrics"]
    assert (curve["best"], curve["best_at"]) == (2.0, 1)
