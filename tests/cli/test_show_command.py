"""``deriva-ml show``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import Progress
from deriva_ml_core.training import TrainingReporter

LOSSES = [{"loss": 2.0, "val_accuracy": 0.5}, {"loss": 0.5, "val_accuracy": 0.9}, {"loss": 0.75, "val_accuracy": 0.8}]


def test_show_execution(cli, run) -> None:
    """An execution is shown with files, statuses, environment, and first, last and best metrics."""
    exe = run("Three epochs", ["model.pt"], LOSSES)
    found = cli("show", exe.execution_rid, "--json").json
    assert (found["kind"], found["status"], found["description"]) == ("execution", "Completed", "Three epochs")
    assert "model.pt" in [asset["filename"] for asset in found["outputs"]]
    assert [each["status"] for each in found["timeline"]][0::4] == ["Created", "Running"]
    assert found["environment"]["host"] and found["environment"]["python"]
    loss, accuracy = found["metrics"]
    assert (loss["name"], loss["first"], loss["last"], loss["best"], loss["best_at"]) == ("loss", 2.0, 0.75, 0.5, 2)
    assert (accuracy["best"], accuracy["best_at"], accuracy["count"]) == (0.9, 2, 3)


def test_without_working_folder(cli, run) -> None:
    """Without the working folder, statuses, environment and metrics come from the uploaded files."""
    exe = run("Kept", [], LOSSES)
    before = cli("show", exe.execution_rid, "--json").json
    shutil.rmtree(exe.working_dir)
    after = cli("show", exe.execution_rid, "--json").json
    assert after["metrics"] == before["metrics"]
    assert after["environment"] == before["environment"]
    assert [each["status"] for each in after["timeline"]][-1] == "Completed"


def test_failed_execution(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The error of a failed run is shown, and the command that uploads its files."""
    with pytest.raises(ValueError), ml.create_execution(config) as exe:
        exe.asset_file_path("Model", "a.pt").write_text("a")
        raise ValueError("no more data")
    out = cli("show", exe.execution_rid).stdout
    assert "ValueError: no more data" in out.splitlines()[2]
    assert f"deriva-ml upload {exe.execution_rid}" in out


def test_workflow_dataset_and_asset(cli, ml: DerivaML, run) -> None:
    """Workflows, datasets, assets and other rows are shown with their executions."""
    exe = run("A run", ["model.pt"])
    asset = next(each for each in exe.list_assets("Output") if each.table == "Model")
    dataset = ml.create_dataset("Models", "Training")
    dataset.add_dataset_members([asset.rid])
    workflow = cli("show", exe.workflow_rid, "--json").json
    assert (workflow["kind"], workflow["newest_executions"][0]["rid"]) == ("workflow", exe.execution_rid)
    shown = cli("show", dataset.rid, "--json").json
    assert (shown["version"], shown["members"], len(shown["versions"])) == ("0.2.0", {"Model": 1}, 2)
    file = cli("show", asset.rid, "--json").json
    assert (file["md5"], file["executions"][0]["role"]) == (asset.md5, "Output")
    term = ml.connection.catalog.select("Workflow_Type", {"Name": "Training"})[0]["RID"]
    assert cli("show", term, "--json").json["table"] == "Workflow_Type"
    for rid in (exe.workflow_rid, dataset.rid, asset.rid, term):
        assert rid in cli("show", rid).stdout.splitlines()[0]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_fits_the_terminal(cli, run, columns: int) -> None:
    """No line is longer than the terminal is wide, and curves are drawn."""
    exe = run("Many words " * 40, [f"{'long-' * 30}{number}.pt" for number in range(3)], LOSSES)
    out = cli("show", exe.execution_rid, columns=columns).stdout
    assert max(map(len, out.splitlines())) <= columns
    assert "█▁▂" in out


def test_long_timeline(cli, run) -> None:
    """A long timeline shows its first and last statuses and the number between them; --full shows all."""
    exe = run("Long", [], [{"loss": 1 / epoch} for epoch in range(1, 41)])
    assert "more: --full" in cli("show", exe.execution_rid).stdout
    assert len(cli("show", exe.execution_rid, "--full").stdout.splitlines()) > 45


def test_nan_and_infinity(cli, run) -> None:
    """NaN and infinity are never the best value, and are null in JSON."""
    exe = run("Diverged", [], [{"loss": 1.0}, {"loss": float("nan")}, {"loss": float("inf")}])
    (loss,) = cli("show", exe.execution_rid, "--json").json["metrics"]
    assert (loss["last"], loss["best"], loss["best_at"]) == (None, 1.0, 1)
    assert "inf" in cli("show", exe.execution_rid).stdout


def test_best_value_is_finite(cli, run) -> None:
    """Infinity is not the best value, as in `list --sort`."""
    exe = run(metrics=[{"score": 1.0}, {"score": float("inf")}, {"score": 2.0}])
    shown = cli("show", exe.execution_rid, "--json").json
    assert [each["best"] for each in (*shown["metrics"], *shown["metric_values"])] == [2.0, 2.0]


def test_metrics_without_curves(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Metrics that a loop reported with its statuses are shown from the catalog."""
    with ml.create_execution(config) as exe:
        for epoch, loss in enumerate((0.5, 0.25, 0.75), start=1):
            exe.update_status(Status.running, "", progress=Progress(epoch=epoch, metrics={"loss": loss}))
    (found,) = cli("show", exe.execution_rid, "--json").json["metric_values"]
    assert (found["last"], found["best"], found["best_at"]) == (0.75, 0.25, 2)
    assert "0.25" in cli("show", exe.execution_rid, columns=60).stdout


def test_best_value_follows_the_training(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """The best value of a curve follows the mode that the training declared."""
    with ml.create_execution(config) as exe:
        reporter = TrainingReporter(exe, monitor="gain", mode="max", checkpoints="none", curves=False)
        reporter.begin_fit(2)
        for epoch, value in enumerate((2.0, 1.0), start=1):
            reporter.end_epoch(epoch, {"gain": value})
        reporter.end_fit()
    (curve,) = cli("show", exe.execution_rid, "--json").json["metrics"]
    assert (curve["best"], curve["best_at"]) == (2.0, 1)


def test_unknown_status(cli, ml: DerivaML, run, tmp_path: Path) -> None:
    """An execution with a status of another program works in every command that reads executions."""
    rid = run("A run", ["model.pt"]).execution_rid
    shutil.rmtree(ml.lookup_execution(rid).working_dir)
    ml.connection.catalog.update("Execution", [{"RID": rid, "Status": "Hibernating"}])
    assert cli("show", rid).stdout.splitlines()[0].split() == ["Execution", rid, "Pending"]
    for args in (
        ("list",),
        ("show", rid),
        ("status", rid),
        ("diff", rid, rid),
        ("lineage", rid),
        ("export", rid, "--format", "prov-json"),
        ("export", rid, "--into", str(tmp_path / "crate")),
    ):
        result = cli(*args, columns=200)
        assert result.code == 0, (args, result.stderr)
    assert "Unknown status 'Hibernating'" in cli("list", columns=200).stdout
