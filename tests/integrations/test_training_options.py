"""Options of a training: checkpoints, statuses, metrics, ownership of the execution, uploads and resuming."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_helpers import CatalogLink, outputs, status_messages

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core._files.atomic import rename_for_deletion
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError, ExecutionNotStarted, UnknownTerm, UploadFailed
from deriva_ml_core.execution import Execution
from deriva_ml_core.implicit_execution import resolve_execution
from deriva_ml_core.metric_modes import Monitor, metric_mode
from deriva_ml_core.training import TrainingOptions, TrainingReporter
from deriva_ml_core.training.options import TrainingKwargs

WORKFLOW = Workflow(name="Policy", workflow_type="Training", url="https://example.org/policy.py", checksum="p0")


def train_epoch(report: TrainingReporter, number: int, step: int | None = None, **metrics: float) -> Path | None:
    """Train one epoch of a model whose weights are the epoch's number."""
    path = report.save_checkpoint(number, ".txt", lambda path: path.write_text(f"w{number}"), metrics, step=step)
    report.end_epoch(number, metrics, step=step)
    return path


def staged_types(execution: Execution) -> dict[str, set[str]]:
    """Return the staged checkpoints with their asset types other than Model_File."""
    return {
        asset.filename: set(asset.asset_types) - {"Model_File"}
        for asset in execution.staged_assets()
        if asset.table == "Model"
    }


def file_names(execution: Execution) -> set[str]:
    return {path.name for path in (execution.working_dir / "outputs" / "Model").rglob("*") if path.is_file()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


BEST, LAST = {"Best_Checkpoint"}, {"Last_Checkpoint"}


@pytest.mark.parametrize(
    ("which", "staying"),
    [
        ("best", {"epoch-0002.txt": BEST}),
        ("last", {"epoch-0004.txt": LAST}),
        ("best+last", {"epoch-0002.txt": BEST, "epoch-0004.txt": LAST}),
        (None, {"epoch-0002.txt": BEST, "epoch-0004.txt": LAST}),
        ("all", {"epoch-0001.txt": set(), "epoch-0002.txt": BEST, "epoch-0003.txt": set(), "epoch-0004.txt": LAST}),
        ("none", {}),
    ],
)
def test_checkpoint_policies(execution: Execution, which: Any, staying: dict[str, set[str]]) -> None:
    """Superseded checkpoints are deleted and unstaged; the best and the last have their types."""
    with execution:
        report = TrainingReporter(execution, checkpoints=which, upload="never")
        report.begin_fit(epochs=4)
        for number, loss in enumerate([3.0, 1.0, 2.0, 1.5], start=1):
            train_epoch(report, number, val_loss=loss, loss=-number)
        report.end_fit()
        assert staged_types(execution) == staying
        assert file_names(execution) == set(staying)


def test_one_file_is_best_and_last(execution: Execution) -> None:
    """If the last epoch is the best, one file has both types and is not written twice."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        for number in (1, 2):
            train_epoch(report, number, loss=1 / number)
        report.end_fit()
        assert staged_types(execution) == {"epoch-0002.txt": BEST | LAST}


def test_monitor_where_larger_is_better(execution: Execution) -> None:
    """``monitor`` and ``mode`` set the metric and its direction; without a mode, the name decides."""
    with execution:
        report = TrainingReporter(execution, checkpoints="best", monitor="val_acc", upload="never")
        for number, accuracy in enumerate([0.5, 0.9, 0.7], start=1):
            train_epoch(report, number, loss=1 / number, val_acc=accuracy)
        report.end_fit()
        assert staged_types(execution) == {"epoch-0002.txt": BEST}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("val_accuracy", "max"),
        ("acc", "max"),
        ("val/f1", "max"),
        ("test_auroc", "max"),
        ("top5", "max"),
        ("val_loss", "min"),
        ("mae", "min"),
        ("score_loss", "min"),
        ("f1_error", "min"),
        ("accumulated", None),
    ],
)
def test_mode_by_name(name: str, mode: str | None) -> None:
    """Larger is better for accuracies and scores, smaller for losses and errors; unknown metrics have no mode."""
    assert metric_mode(name) == mode


def test_default_monitor() -> None:
    """The default monitor is val_loss, then loss, then any loss; without one there is no monitored value."""
    assert Monitor().scores({"loss": 1.0, "val_loss": 2.0})[0].name == "val_loss"
    assert Monitor().scores({"train_loss": 1.0, "acc": 2.0})[0].name == "train_loss"
    assert Monitor().scores({"gan/g_loss": 1.0, "acc": 2.0})[0].name == "gan/g_loss"
    assert Monitor().scores({"acc": 2.0}) == ()
    assert Monitor("acc", "min").scores({"acc": 2.0})[0].larger_is_better is False


def test_nan_is_never_best(execution: Execution) -> None:
    """NaN is worse than any value, and does not hide a better value that follows."""
    with execution:
        report = TrainingReporter(execution, checkpoints="best", upload="never")
        for number, loss in enumerate([math.nan, 2.0, math.nan, 1.0, 3.0], start=1):
            train_epoch(report, number, loss=loss)
        report.end_fit()
        assert staged_types(execution) == {"epoch-0004.txt": BEST}


def test_missing_metric_keeps_newest(execution: Execution) -> None:
    """Epochs without the monitored metric supersede each other until one logs it."""
    with execution:
        report = TrainingReporter(execution, checkpoints="best", monitor="val_acc", upload="never")
        train_epoch(report, 1, loss=1.0)
        train_epoch(report, 2, loss=1.0)
        assert set(staged_types(execution)) == {"epoch-0002.txt"}
        train_epoch(report, 3, val_acc=0.5)
        train_epoch(report, 4, loss=1.0)
        assert set(staged_types(execution)) == {"epoch-0003.txt"}


def test_save_every_n_steps(execution: Execution) -> None:
    """``save_every_n_steps`` keeps the newest step's checkpoint until the epoch's supersedes it."""
    with execution:
        report = TrainingReporter(execution, save_every_n_steps=2, upload="never")
        report.begin_fit(epochs=1)
        for step in range(1, 6):
            if report.checkpoints.is_due_at_step(step):
                path = report.checkpoint_path(1, ".txt", {}, step=step, in_step=True)
                assert path is not None
                with report.writing_checkpoint(path):
                    path.write_text("w")
        assert set(staged_types(execution)) == {"step-00000004.txt"}
        train_epoch(report, 1, step=5, loss=1.0)
        assert set(staged_types(execution)) == {"epoch-0001.txt"}


def test_upload_deletes_leftover_of_killed_process(execution: Execution) -> None:
    """The next upload deletes a superseded checkpoint whose deletion a kill interrupted."""
    with execution:
        report = TrainingReporter(execution, curves=False)
        path = train_epoch(report, 1, loss=1.0)
        assert path is not None
        old = path.with_name("old.ckpt")
        old.mkdir()
        (old / "0.pt").write_text("superseded")
        assert rename_for_deletion(old) is not None
    execution.upload_execution_outputs()
    assert file_names(execution) == set()


def test_filename_template(execution: Execution) -> None:
    """``filename`` is formatted with epoch, step, fit and metrics."""
    with execution:
        report = TrainingReporter(execution, filename="{fit}/{epoch:02d}-{val_loss:.2f}", upload="never")
        train_epoch(report, 7, val_loss=0.123)
        assert set(staged_types(execution)) == {"1/07-0.12.txt"}


def test_filename_without_epoch_keeps_best(execution: Execution) -> None:
    """With a constant name, the last checkpoint does not overwrite the best one."""
    with execution:
        report = TrainingReporter(execution, filename="model", upload="never")
        for number, loss in enumerate((1.0, 2.0, 3.0), start=1):
            report.save_checkpoint(number, ".txt", lambda path, n=number: path.write_text(f"{n}"), {"loss": loss})
            report.end_epoch(number, {"loss": loss})
        types = staged_types(execution)
        assert types == {"model.txt": BEST, "model-last.txt": LAST}
        assert (report.checkpoints.folder / "model.txt").read_text() == "1"
        assert (report.checkpoints.folder / "model-last.txt").read_text() == "3"


def test_invalid_filename_template(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """A template with an unknown field is warned about with the available fields; training continues."""
    with execution:
        report = TrainingReporter(execution, filename="{epochs}", upload="never")
        assert train_epoch(report, 1, loss=1.0) is None
    assert "Available fields: epoch, fit, loss, step" in caplog.text


def test_sharded_checkpoint(ml: DerivaML, execution: Execution, tmp_path: Path) -> None:
    """The files of a sharded checkpoint keep their relative names and are superseded together."""

    def write(path: Path) -> None:
        (path / "inner").mkdir(parents=True)
        (path / "inner" / "0.pt").write_text(path.name)
        (path / ".metadata").write_text("shards: 1")

    with execution:
        report = TrainingReporter(execution, checkpoints="last")
        for number in (1, 2):
            report.save_checkpoint(number, ".ckpt", write, {"loss": 1.0})
            report.end_epoch(number, {"loss": 1.0})
        assert report._worker.drain(60)
        assert file_names(execution) == {"0.pt", ".metadata"}
        report.end_fit()
    assets = outputs(ml, execution, "Model")
    assert set(assets) == {"epoch-0002.ckpt/inner/0.pt", "epoch-0002.ckpt/.metadata"}
    assert all("Last_Checkpoint" in asset.asset_types for asset in assets.values())


def test_framework_checkpoint_outside_staging_folder(ml: DerivaML, execution: Execution, tmp_path: Path) -> None:
    """A checkpoint outside the staging folder is copied on upload; the file itself does not change."""
    original = tmp_path / "mine" / "best.ckpt"
    original.parent.mkdir()
    original.write_text("weights")
    with execution:
        report = TrainingReporter(execution)
        report.begin_fit(managed=True)
        assert not report.is_checkpoint_due(1)
        report.checkpoints.stage_existing(original, is_final=True)
        report.checkpoints.add_best_last_types(original, None)
        report.end_fit()
    assert set(outputs(ml, execution, "Model")["best.ckpt"].asset_types) == {"Model_File", "Best_Checkpoint"}
    assert original.read_text() == "weights"
    assert original.stat().st_nlink == 1


def test_checkpoint_is_hard_linked(ml: DerivaML, execution: Execution) -> None:
    """The stored object and the staged file are one inode, readable by the framework until the run ends."""
    with execution:
        report = TrainingReporter(execution)
        path = train_epoch(report, 1, loss=1.0)
        report.end_fit()
        assert path is not None
        assert path.read_text() == "w1"
        md5 = outputs(ml, execution, "Model")["epoch-0001.txt"].md5
        stored = next(each for each in ml.connection.folder.rglob(md5))
        assert stored.stat().st_ino == path.stat().st_ino


# Statuses


def test_every_n_epochs(execution: Execution) -> None:
    """``every_n_epochs`` skips statuses, but never the last, even if the fit ends early."""
    with execution:
        report = TrainingReporter(execution, every_n_epochs=3, upload="never")
        report.begin_fit(epochs=10)
        for number in range(1, 6):
            train_epoch(report, number, loss=1.0)
        report.end_fit("stopped early")
    assert status_messages(execution) == [
        "Epoch 3/10: loss=1",
        "Epoch 5/10: loss=1",
        "Fit ended after 5 of 10 epochs: stopped early",
    ]
    assert len(lines(execution.working_dir / "metrics.jsonl")) == 5


def test_min_interval(execution: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """``min_interval`` seconds pass between two statuses; the last epoch always has one."""
    clock = iter([0.0, 0.0, *(0.5 * tick for tick in range(100))])
    monkeypatch.setattr("deriva_ml_core.training.fit.monotonic", lambda: next(clock))
    with execution:
        report = TrainingReporter(execution, min_interval=2, upload="never")
        report.begin_fit(epochs=6)
        for number in range(1, 7):
            report.end_epoch(number, {})
    assert [text.split()[1] for text in status_messages(execution)] == ["1/6", "3/6", "5/6", "6/6"]


def test_step_statuses_and_metrics(execution: Execution) -> None:
    """``every_n_steps`` reports statuses within an epoch; ``log_every_n_steps`` logs step metrics."""
    with execution:
        report = TrainingReporter(execution, every_n_steps=4, log_every_n_steps=3, upload="never")
        report.begin_fit(epochs=1)
        for step in range(1, 9):
            if report.should_report_step(step):
                report.end_step(step, 1, {"loss": float(step)})
        report.end_epoch(1, {"loss": 8.0}, step=8)
    assert status_messages(execution) == ["Epoch 1/1, step 4: loss=4", "Epoch 1/1, step 8: loss=8", "Epoch 1/1: loss=8"]
    steps_and_epochs = [
        (line["by"], line["step"], line["values"]["loss"]) for line in lines(execution.working_dir / "metrics.jsonl")
    ]
    assert steps_and_epochs == [("step", 3, 3.0), ("step", 6, 6.0), ("epoch", 8, 8.0)]


def test_epoch_line_has_timing_fields(execution: Execution) -> None:
    """The line of an epoch has seconds, samples per second, learning rates and peak memory."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        report.end_epoch(1, {"loss": 1.0}, step=5, samples=100, learning_rates={"Adam": 0.001})
    (line,) = lines(execution.working_dir / "metrics.jsonl")
    assert line["learning_rates"] == {"Adam": 0.001}
    assert line["samples_per_second"] == pytest.approx(100 / line["seconds"], rel=0.01)
    assert line["peak_memory"] > 2**20


def test_stages(execution: Execution) -> None:
    """A validation, test or prediction outside a fit has its own status and line."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        train_epoch(report, 1, loss=1.0)
        report.end_fit()
        report.end_stage("validate", {"val_loss": 0.5}, seconds=1.0)
        report.end_stage("test", {"test_acc": 0.9}, seconds=61.0)
        report.end_stage("predict", {}, seconds=2.0)
    assert status_messages(execution) == [
        "Epoch 1: loss=1",
        "Validation: val_loss=0.5",
        "Test: test_acc=0.9",
        "Prediction",
    ]
    assert [line["stage"] for line in lines(execution.working_dir / "metrics.jsonl")] == [
        "fit",
        "validate",
        "test",
        "predict",
    ]


def test_training_thread_makes_no_catalog_call(ml: DerivaML, execution: Execution, catalog_link: CatalogLink) -> None:
    """During training, the training thread makes no call to the catalog."""
    calling_threads: list[tuple[str, str]] = []
    catalog_link.on_call = lambda name: calling_threads.append((threading.current_thread().name, name))
    with execution:
        report = TrainingReporter(execution, log_every_n_steps=1, upload="never")
        report.begin_fit(epochs=3)
        calling_threads.clear()
        for number in (1, 2, 3):
            report.end_step(number, number, {"loss": 1.0})
            train_epoch(report, number, loss=1.0)
        assert [call for thread, call in calling_threads if thread == threading.current_thread().name] == []
    assert calling_threads  # those of the background worker


# Training summary


def test_training_summary(ml: DerivaML, execution: Execution) -> None:
    """training.json has settings of any type, inputs and outcome of each fit, without secrets."""
    settings = {"lr": 0.1, "path": Path("a/b"), "api_key": "hunter2", "layers": [{"units": 3}], "f": math.sqrt}
    with execution:
        report = TrainingReporter(execution)
        report.begin_fit(epochs=2, settings=settings)
        train_epoch(report, 1, loss=1.0)
        train_epoch(report, 2, loss=0.5)
        report.end_fit()
        report.begin_fit(epochs=9)
        train_epoch(report, 1, loss=2.0)
        report.end_fit("enough")
    newest = max(
        (asset for asset in execution.list_assets("Output") if asset.filename == "training.json"),
        key=lambda asset: asset.length,
    )
    first, second = json.loads(execution.download_asset(newest).read_text())["fits"]
    assert first["settings"] | {"api_key": ""} == {
        "lr": 0.1,
        "path": "a/b",
        "api_key": "",
        "layers": [{"units": 3}],
        "f": repr(math.sqrt),
    }
    assert "hunter2" not in json.dumps(first)
    assert (first["outcome"], first["epochs_done"]) == ("completed", 2)
    assert first["best"] == {"epoch": 2, "metric": "loss", "value": 0.5}
    assert (second["outcome"], second["epochs_done"], second["epochs"]) == ("enough", 1, 9)


# Owned executions


@pytest.fixture
def factory(ml: DerivaML) -> Callable[[Any], Execution]:
    """Factory for the execution that a reporter owns."""
    return resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW), "An owned run")


def test_own_execution_ends_with_first_fit(ml: DerivaML, factory: Callable[[Any], Execution]) -> None:
    """An owned execution is created when the fit begins and ends with it; a later test is added to it."""
    report = TrainingReporter(factory)
    with pytest.raises(ExecutionNotStarted):
        _ = report.execution
    assert ml.find_executions() == []
    report.begin_fit(epochs=1)
    assert report.execution.status is Status.running
    train_epoch(report, 1, loss=1.0)
    report.end_fit()
    (run,) = ml.find_executions()
    assert (run.status, run.description) == (Status.completed, "An owned run")
    report.end_stage("test", {"test_acc": 0.9}, seconds=1.0)
    run = ml.lookup_execution(run.execution_rid)
    assert run.status is Status.completed
    assert [update.message.partition(" (")[0] for update in run.list_statuses() if update.message] == [
        "Epoch 1/1: loss=1",
        "Test: test_acc=0.9",
    ]
    newest = max(
        (asset for asset in run.list_assets("Output") if asset.filename == "metrics.jsonl"),
        key=lambda asset: asset.length,
    )
    assert [line["stage"] for line in lines(report.execution.download_asset(newest))] == ["fit", "test"]
    assert len(ml.find_executions()) == 1


def test_checkpoint_is_readable_after_end(factory: Callable[[Any], Execution]) -> None:
    """After the upload, a checkpoint of an owned execution is still at its path."""
    report = TrainingReporter(factory)
    report.begin_fit()
    path = train_epoch(report, 1, loss=1.0)
    report.end_fit()
    assert report.execution.status is Status.completed
    assert path is not None
    assert path.read_text() == "w1"


def test_with_block_keeps_own_execution_open(ml: DerivaML, factory: Callable[[Any], Execution]) -> None:
    """In a ``with`` block, several fits and a test are one run, which ends with the block."""
    with TrainingReporter(factory) as report:
        for _ in range(2):
            report.begin_fit(epochs=1)
            train_epoch(report, 1, loss=1.0)
            report.end_fit()
            assert report.execution.status is Status.running
        report.end_stage("test", {}, seconds=1.0)
    (run,) = ml.find_executions()
    assert run.status is Status.completed
    assert run.execution_rid == report.execution.execution_rid
    assert {"epoch-0001.txt", "fit-2-epoch-0001.txt"} == {
        asset.filename for asset in run.list_assets("Output") if asset.table == "Model"
    }


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("wrong"), Status.failed), (KeyboardInterrupt(), Status.aborted)]
)
@pytest.mark.parametrize("in_with_block", [True, False])
def test_failure_ends_own_execution(
    ml: DerivaML, factory: Callable[[Any], Execution], error: BaseException, status: Status, in_with_block: bool
) -> None:
    """An exception ends an owned execution as failed or aborted, uploads its files, and propagates."""
    report = TrainingReporter(factory)

    def fail() -> None:
        report.begin_fit(epochs=3)
        train_epoch(report, 1, loss=1.0)
        try:
            raise error
        except BaseException as raised:
            report.fail(raised)
            raise

    with pytest.raises(type(error)):
        if in_with_block:
            with report:
                fail()
        else:
            fail()
    (run,) = ml.find_executions()
    assert run.status is status
    names = {asset.filename for asset in run.list_assets("Output")}
    assert {"epoch-0001.txt", "metrics.jsonl", "training.json"} <= names


def test_fit_after_failure_is_new_execution(ml: DerivaML, factory: Callable[[Any], Execution]) -> None:
    """After a failed fit, the next fit of the same reporter is a new execution."""
    report = TrainingReporter(factory)
    report.begin_fit()
    report.fail(ValueError("wrong"))
    report.begin_fit()
    train_epoch(report, 1, loss=1.0)
    report.end_fit()
    assert [run.status for run in ml.find_executions()] == [Status.completed, Status.failed]


def test_invalid_option_fails_own_execution(ml: DerivaML, factory: Callable[[Any], Execution]) -> None:
    """An unknown asset type raises when the fit begins, and the new execution is failed."""
    report = TrainingReporter(factory, checkpoint_types=("Modell",))
    with pytest.raises(UnknownTerm):
        report.begin_fit()
    (run,) = ml.find_executions()
    assert run.status is Status.failed


# Uploads


def test_stream_uploads_final_checkpoints(ml: DerivaML, execution: Execution) -> None:
    """With ``upload="stream"`` and all checkpoints kept, each is uploaded during training."""
    with execution:
        report = TrainingReporter(execution, checkpoints="all", upload="stream")
        train_epoch(report, 1, loss=1.0)
        assert report._worker.drain(60)
        assert set(outputs(ml, execution, "Model")) == {"epoch-0001.txt"}
        train_epoch(report, 2, loss=0.5)
        report.end_fit()
    assets = outputs(ml, execution, "Model")
    assert {name: set(asset.asset_types) - {"Model_File"} for name, asset in assets.items()} == {
        "epoch-0001.txt": set(),
        "epoch-0002.txt": BEST | LAST,
    }


def test_stream_keeps_superseded_checkpoints_local(ml: DerivaML, execution: Execution) -> None:
    """The best and the last are uploaded at the end, since a deleted name on a server cannot be reused."""
    with execution:
        report = TrainingReporter(execution, upload="stream")
        for number in (1, 2, 3):
            train_epoch(report, number, loss=1.0)
        assert report._worker.drain(60)
        assert outputs(ml, execution, "Model") == {}
        report.end_fit()
    assert set(outputs(ml, execution, "Model")) == {"epoch-0001.txt", "epoch-0003.txt"}


def test_failed_stream_upload(
    ml: DerivaML, execution: Execution, catalog_link: CatalogLink, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed upload during training is retried at the end; if it fails again, the error says what to do."""
    with pytest.raises(UploadFailed, match="Call upload_execution_outputs"), execution:
        report = TrainingReporter(execution, checkpoints="all", upload="stream")
        catalog_link.is_down = True
        train_epoch(report, 1, loss=1.0)
        assert report._worker.drain(60)
        assert "it is uploaded at the end of the fit" in caplog.text
        report.end_fit()
    catalog_link.is_down = False
    ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert set(outputs(ml, execution, "Model")) == {"epoch-0001.txt"}


# Resuming


def test_resumed_training_is_linked(ml: DerivaML, new_execution: Callable[[], Execution]) -> None:
    """The resumed checkpoint is an input of the new execution, and its best value counts."""
    with new_execution() as first:
        report = TrainingReporter(first)
        path = train_epoch(report, 1, loss=0.1)
        state = report.state()
        report.end_fit()
        assert path is not None
        with new_execution() as second:
            resumed = TrainingReporter(second, checkpoints="best")
            resumed.resume_from(json.loads(json.dumps(state)), path)
            resumed.begin_fit(epochs=3)
            assert train_epoch(resumed, 2, loss=0.5) is None
            assert train_epoch(resumed, 3, loss=0.05) is not None
            resumed.end_fit()
    (read,) = second.list_assets("Input")
    (written,) = [asset for asset in first.list_assets("Output") if asset.table == "Model"]
    assert read.rid == written.rid
    summary = json.loads((second.working_dir / "training.json").read_text())["fits"][0]
    assert summary["resumed_from"] == {"execution": first.execution_rid, "checkpoint": str(path)}


def test_resume_uploads_checkpoint_of_killed_run(ml: DerivaML, new_execution: Callable[[], Execution]) -> None:
    """A checkpoint that a killed run staged is uploaded for that run when a training resumes from it."""
    first = new_execution()
    report = TrainingReporter(first, upload="never")
    path = train_epoch(report, 1, loss=0.1)
    with new_execution() as second:
        resumed = TrainingReporter(second)
        resumed.resume_from(report.state(), path)
        resumed.begin_fit()
        train_epoch(resumed, 2, loss=0.05)
        resumed.end_fit()
    assert [asset.filename for asset in second.list_assets("Input")] == ["epoch-0001.txt"]
    assert set(outputs(ml, first, "Model")) == {"epoch-0001.txt"}


def test_foreign_checkpoint_is_not_an_input(
    ml: DerivaML, new_execution: Callable[[], Execution], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is not an output of the earlier run is no input; a warning and training.json name it."""
    first = new_execution()
    other = tmp_path / "other.ckpt"
    other.write_text("x")
    with new_execution() as second:
        report = TrainingReporter(second)
        report.resume_from({"execution": first.execution_rid}, other)
        report.begin_fit()
        report.end_fit()
    assert second.list_assets("Input") == []
    assert "is not an output of execution" in caplog.text


def test_resume_same(ml: DerivaML, factory: Callable[[Any], Execution]) -> None:
    """With ``resume="same"``, a resumed fit continues the execution of the checkpoint."""
    report = TrainingReporter(factory)
    report.begin_fit(epochs=2)
    path = train_epoch(report, 1, loss=0.5)
    state = report.state()
    report.fail(KeyboardInterrupt())
    again = TrainingReporter(factory, resume="same")
    again.resume_from(state, path)
    again.begin_fit(epochs=2)
    assert again.execution.status is Status.running
    train_epoch(again, 2, loss=0.25)
    again.end_fit()
    (run,) = ml.find_executions()
    assert run.status is Status.completed
    assert {asset.filename for asset in run.list_assets("Output") if asset.table == "Model"} == {
        "epoch-0001.txt",
        "fit-2-epoch-0002.txt",
    }
    newest = max(
        (asset for asset in run.list_assets("Output") if asset.filename == "metrics.jsonl"),
        key=lambda asset: asset.length,
    )
    assert [(line["fit"], line["epoch"]) for line in lines(again.execution.download_asset(newest))] == [(1, 1), (2, 2)]


@pytest.mark.parametrize("state", [{}, {"execution": 7}, {"execution": "1-A", "best": {"name": "loss"}}, {"best": 3}])
def test_state_of_another_version(state: dict[str, object]) -> None:
    """Unknown forms of the stored state are ignored."""
    from deriva_ml_core.training.resume import ResumeState

    assert ResumeState.from_state(state, None).best is None


def test_kwargs_match_options() -> None:
    """`TrainingKwargs` and `TrainingOptions` have the same names."""
    assert set(TrainingKwargs.__annotations__) == set(TrainingOptions.model_fields)


def test_unknown_option(execution: Execution) -> None:
    """A misspelt option is refused, and the error lists the options."""
    with pytest.raises(ConfigurationError, match=r"save_every.*The options are checkpoints"):
        TrainingReporter(execution, save_every=3)  # type: ignore[call-arg]


def test_full_disk_loses_no_line(execution: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that a full disk refuses, whole or in part, are written later, once and in order."""
    import errno
    import os

    write, room = os.write, [10_000, 10, 0, 0]

    def full(descriptor: int, line: bytes) -> int:
        if b'"stage"' not in line and not line.startswith(b"e"):
            return write(descriptor, line)
        left = room.pop(0) if room else 10_000
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, line[:left])

    with execution:
        report = TrainingReporter(execution, upload="never", checkpoints="none")
        report.begin_fit()
        monkeypatch.setattr("deriva_ml_core.training.metrics_file.os.write", full)
        for number in range(1, 6):
            report.end_epoch(number, {"loss": 1.0})
    assert [line["epoch"] for line in lines(execution.working_dir / "metrics.jsonl")] == [1, 2, 3, 4, 5]


def test_successful_training_logs_no_warning(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """A successful training logs no warning."""
    with caplog.at_level(logging.WARNING), execution:
        report = TrainingReporter(execution)
        train_epoch(report, 1, loss=1.0)
        report.end_fit()
    assert caplog.text == ""


def test_reporters_share_training_summary(execution: Execution) -> None:
    """If all reporters are created before the first fit, ``training.json`` has all fits."""
    with execution:
        reports = [TrainingReporter(execution, upload="never", curves=False) for _ in range(2)]
        for number, report in enumerate(reports, start=1):
            report.begin_fit(epochs=1, settings={"trial": number})
            report.end_epoch(1, {"loss": 1.0})
            report.end_fit()
        fits = json.loads((execution.working_dir / "training.json").read_text())["fits"]
    assert [(fit["fit"], fit["settings"]["trial"], fit["outcome"]) for fit in fits] == [
        (1, 1, "completed"),
        (2, 2, "completed"),
    ]


def test_ctrl_c_during_drain(ml: DerivaML, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C while waiting for background work leaves no owned execution running."""

    def interrupted(self: TrainingReporter) -> None:
        raise KeyboardInterrupt

    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)))
    monkeypatch.setattr(TrainingReporter, "_drain_and_stage_files", interrupted)
    report.begin_fit(epochs=1)
    with pytest.raises(KeyboardInterrupt):
        report.fail(ValueError("no data"))
    assert (report.execution.status, report.execution.status_detail) == (Status.failed, "ValueError: no data")


def test_ctrl_c_does_not_wait_for_hanging_upload(ml: DerivaML, catalog_link: CatalogLink) -> None:
    """After Ctrl-C, a hanging background upload delays the exit by at most ``exit_timeout``."""
    may_go_on, main = threading.Event(), threading.current_thread()

    def hang(name: str) -> None:
        if name == "insert" and threading.current_thread() is not main:
            may_go_on.wait(120)

    options: TrainingKwargs = {"upload": "stream", "checkpoints": "all", "exit_timeout": 0.1, "curves": False}
    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), **options)
    report.begin_fit(epochs=1)
    catalog_link.on_call = hang
    train_epoch(report, 1, loss=1.0)
    report.fail(KeyboardInterrupt())
    assert report.execution.status is Status.aborted
    assert staged_types(report.execution)
    may_go_on.set()
    assert report._worker.drain(60)
    assert not staged_types(report.execution)
