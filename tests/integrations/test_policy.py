"""What a reporter decides: which checkpoints stay, which statuses are told, whose execution it is, what is sent."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainings import Line, outputs, told

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core._files.atomic import rename_for_deletion
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError, ExecutionNotStarted, UnknownTerm, UploadFailed
from deriva_ml_core.execution import Execution
from deriva_ml_core.implicit_execution import resolve_execution
from deriva_ml_core.metric_modes import larger_is_better, select_monitored
from deriva_ml_core.training import TrainingOptions, TrainingReporter
from deriva_ml_core.training.options import TrainingKwargs

WORKFLOW = Workflow(name="Policy", workflow_type="Training", url="https://example.org/policy.py", checksum="p0")


def epoch(report: TrainingReporter, number: int, step: int | None = None, **metrics: float) -> Path | None:
    """Train one epoch, whose model is its number."""
    path = report.save_checkpoint(number, ".txt", lambda path: path.write_text(f"w{number}"), metrics, step=step)
    report.end_epoch(number, metrics, step=step)
    return path


def kept(execution: Execution) -> dict[str, set[str]]:
    """The checkpoints that are staged, each with what is said of it beside that it is a model."""
    return {
        asset.filename: set(asset.asset_types) - {"Model_File"}
        for asset in execution.staged_assets()
        if asset.table == "Model"
    }


def on_disk(execution: Execution) -> set[str]:
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
def test_which_checkpoints_stay(execution: Execution, which: Any, staying: dict[str, set[str]]) -> None:
    """What is superseded is neither on the disk nor in the list; the best and the last are told apart by types."""
    with execution:
        report = TrainingReporter(execution, checkpoints=which, upload="never")
        report.begin_fit(epochs=4)
        for number, loss in enumerate([3.0, 1.0, 2.0, 1.5], start=1):
            epoch(report, number, val_loss=loss, loss=-number)
        report.end_fit()
        assert kept(execution) == staying
        assert on_disk(execution) == set(staying)


def test_one_file_is_best_and_last(execution: Execution) -> None:
    """Where the last epoch is the best, one file is both, and is not written twice."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        for number in (1, 2):
            epoch(report, number, loss=1 / number)
        report.end_fit()
        assert kept(execution) == {"epoch-0002.txt": BEST | LAST}


def test_the_best_may_be_the_largest(execution: Execution) -> None:
    """``monitor`` and ``mode`` name the metric and its direction; without a mode, the name tells."""
    with execution:
        report = TrainingReporter(execution, checkpoints="best", monitor="val_acc", upload="never")
        for number, accuracy in enumerate([0.5, 0.9, 0.7], start=1):
            epoch(report, number, loss=1 / number, val_acc=accuracy)
        report.end_fit()
        assert kept(execution) == {"epoch-0002.txt": BEST}


@pytest.mark.parametrize(
    ("name", "larger"),
    [
        ("val_accuracy", True),
        ("acc", True),
        ("val/f1", True),
        ("test_auroc", True),
        ("top5", True),
        ("val_loss", False),
        ("mae", False),
        ("score_loss", False),
        ("f1_error", False),
        ("accumulated", False),
    ],
)
def test_a_name_tells_its_direction(name: str, larger: bool) -> None:
    """Accuracies and scores are better when larger; losses, errors and whatever is unknown when smaller."""
    assert larger_is_better(name) is larger


def test_a_monitor_is_found() -> None:
    """Without a monitor it is val_loss, then loss, then any loss; without any of them there is no score."""
    assert select_monitored({"loss": 1.0, "val_loss": 2.0}, None, None).name == "val_loss"
    assert select_monitored({"train_loss": 1.0, "acc": 2.0}, None, None).name == "train_loss"
    assert select_monitored({"gan/g_loss": 1.0, "acc": 2.0}, None, None).name == "gan/g_loss"
    assert select_monitored({"acc": 2.0}, None, None) is None
    assert select_monitored({"acc": 2.0}, "acc", "min").larger_is_better is False


def test_nan_is_never_the_best(execution: Execution) -> None:
    """A loss that is no number is worse than any, first or later, and does not hide a better one that follows."""
    with execution:
        report = TrainingReporter(execution, checkpoints="best", upload="never")
        for number, loss in enumerate([math.nan, 2.0, math.nan, 1.0, 3.0], start=1):
            epoch(report, number, loss=loss)
        report.end_fit()
        assert kept(execution) == {"epoch-0004.txt": BEST}


def test_without_the_metric_the_newest_is_kept(execution: Execution) -> None:
    """Epochs that do not log what is monitored supersede each other, so that one is kept, until one does log it."""
    with execution:
        report = TrainingReporter(execution, checkpoints="best", monitor="val_acc", upload="never")
        epoch(report, 1, loss=1.0)
        epoch(report, 2, loss=1.0)
        assert set(kept(execution)) == {"epoch-0002.txt"}
        epoch(report, 3, val_acc=0.5)
        epoch(report, 4, loss=1.0)
        assert set(kept(execution)) == {"epoch-0003.txt"}


def test_checkpoints_within_an_epoch(execution: Execution) -> None:
    """``save_every_n_steps`` keeps the newest step's, until the epoch's own supersedes it."""
    with execution:
        report = TrainingReporter(execution, save_every_n_steps=2, upload="never")
        report.begin_fit(epochs=1)
        for step in range(1, 6):
            if report.checkpoints.is_due_at_step(step):
                path = report.checkpoint_path(1, ".txt", {}, step=step, in_step=True)
                assert path is not None
                with report.writing_checkpoint(path):
                    path.write_text("w")
        assert set(kept(execution)) == {"step-00000004.txt"}
        epoch(report, 1, step=5, loss=1.0)
        assert set(kept(execution)) == {"epoch-0001.txt"}


def test_what_a_killed_process_put_aside_goes_with_the_next_upload(execution: Execution) -> None:
    """A folder that was superseded and not yet deleted, which may hold gigabytes, does not stay for ever."""
    with execution:
        report = TrainingReporter(execution, curves=False)
        path = epoch(report, 1, loss=1.0)
        assert path is not None
        old = path.with_name("old.ckpt")
        old.mkdir()
        (old / "0.pt").write_text("superseded")
        assert rename_for_deletion(old) is not None
    execution.upload_execution_outputs()
    assert on_disk(execution) == set()


def test_a_name_of_ones_own(execution: Execution) -> None:
    """``filename`` is filled in with epoch, step, fit and metrics."""
    with execution:
        report = TrainingReporter(execution, filename="{fit}/{epoch:02d}-{val_loss:.2f}", upload="never")
        epoch(report, 7, val_loss=0.123)
        assert set(kept(execution)) == {"1/07-0.12.txt"}


def test_a_name_without_the_epoch_does_not_cost_the_best(execution: Execution) -> None:
    """The last epoch is kept beside the best one, and not in its place."""
    with execution:
        report = TrainingReporter(execution, filename="model", upload="never")
        for number, loss in enumerate((1.0, 2.0, 3.0), start=1):
            report.save_checkpoint(number, ".txt", lambda path, n=number: path.write_text(f"{n}"), {"loss": loss})
            report.end_epoch(number, {"loss": loss})
        found = kept(execution)
        assert found == {"model.txt": BEST, "model-last.txt": LAST}
        assert (report.checkpoints.folder / "model.txt").read_text() == "1"
        assert (report.checkpoints.folder / "model-last.txt").read_text() == "3"


def test_a_name_that_cannot_be_filled_in_ends_no_training(
    execution: Execution, caplog: pytest.LogCaptureFixture
) -> None:
    """A template with an unknown word is warned about, and the warning names the known ones."""
    with execution:
        report = TrainingReporter(execution, filename="{epochs}", upload="never")
        assert epoch(report, 1, loss=1.0) is None
    assert "it may name epoch, fit, loss, step" in caplog.text


def test_a_folder_is_a_checkpoint(ml: DerivaML, execution: Execution, tmp_path: Path) -> None:
    """A sharded checkpoint is a tree: each file is kept under its relative name, and it is superseded as a whole."""

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
        assert on_disk(execution) == {"0.pt", ".metadata"}
        report.end_fit()
    found = outputs(ml, execution, "Model")
    assert set(found) == {"epoch-0002.ckpt/inner/0.pt", "epoch-0002.ckpt/.metadata"}
    assert all("Last_Checkpoint" in asset.asset_types for asset in found.values())


def test_what_the_framework_keeps_elsewhere_is_copied(ml: DerivaML, execution: Execution, tmp_path: Path) -> None:
    """A checkpoint outside the staging folder is sent from where it is, and stays there, unchanged and unshared."""
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


def test_no_byte_of_a_checkpoint_is_copied(ml: DerivaML, execution: Execution) -> None:
    """The store's object and the staged file are one inode, and the framework can read it until the run ends."""
    with execution:
        report = TrainingReporter(execution)
        path = epoch(report, 1, loss=1.0)
        report.end_fit()
        assert path is not None
        assert path.read_text() == "w1"
        md5 = outputs(ml, execution, "Model")["epoch-0001.txt"].md5
        stored = next(each for each in ml.connection.folder.rglob(md5))
        assert stored.stat().st_ino == path.stat().st_ino


# Statuses


def test_statuses_may_be_further_apart(execution: Execution) -> None:
    """``every_n_epochs`` leaves out statuses but never the last, also of a fit that ends before its time."""
    with execution:
        report = TrainingReporter(execution, every_n_epochs=3, upload="never")
        report.begin_fit(epochs=10)
        for number in range(1, 6):
            epoch(report, number, loss=1.0)
        report.end_fit("stopped early")
    assert told(execution) == [
        "Epoch 3/10: loss=1",
        "Epoch 5/10: loss=1",
        "Fit ended after 5 of 10 epochs: stopped early",
    ]
    assert len(lines(execution.working_dir / "metrics.jsonl")) == 5


def test_statuses_may_be_apart_in_time(execution: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """``min_interval`` seconds pass between two statuses; the last epoch has one in any case."""
    clock = iter([0.0, 0.0, *(0.5 * tick for tick in range(100))])
    monkeypatch.setattr("deriva_ml_core.training.fit.monotonic", lambda: next(clock))
    with execution:
        report = TrainingReporter(execution, min_interval=2, upload="never")
        report.begin_fit(epochs=6)
        for number in range(1, 7):
            report.end_epoch(number, {})
    assert [text.split()[1] for text in told(execution)] == ["1/6", "3/6", "5/6", "6/6"]


def test_steps_have_statuses_and_metrics_where_asked_for(execution: Execution) -> None:
    """``every_n_steps`` tells statuses within an epoch, ``log_every_n_steps`` keeps metrics of steps."""
    with execution:
        report = TrainingReporter(execution, every_n_steps=4, log_every_n_steps=3, upload="never")
        report.begin_fit(epochs=1)
        for step in range(1, 9):
            if report.should_report_step(step):
                report.end_step(step, 1, {"loss": float(step)})
        report.end_epoch(1, {"loss": 8.0}, step=8)
    assert told(execution) == ["Epoch 1/1, step 4: loss=4", "Epoch 1/1, step 8: loss=8", "Epoch 1/1: loss=8"]
    found = [
        (line["by"], line["step"], line["values"]["loss"]) for line in lines(execution.working_dir / "metrics.jsonl")
    ]
    assert found == [("step", 3, 3.0), ("step", 6, 6.0), ("epoch", 8, 8.0)]


def test_an_epoch_keeps_what_is_known_of_it(execution: Execution) -> None:
    """Seconds, samples a second, learning rates and peak memory stand in an epoch's line beside its values."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        report.end_epoch(1, {"loss": 1.0}, step=5, samples=100, learning_rates={"Adam": 0.001})
    (line,) = lines(execution.working_dir / "metrics.jsonl")
    assert line["learning_rates"] == {"Adam": 0.001}
    assert line["samples_per_second"] == pytest.approx(100 / line["seconds"], rel=0.01)
    assert line["peak_memory"] > 2**20


def test_stages_are_named(execution: Execution) -> None:
    """A validation, a test and a prediction beside the fit are statuses and lines of their own."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        epoch(report, 1, loss=1.0)
        report.end_fit()
        report.end_stage("validate", {"val_loss": 0.5}, seconds=1.0)
        report.end_stage("test", {"test_acc": 0.9}, seconds=61.0)
        report.end_stage("predict", {}, seconds=2.0)
    assert told(execution) == ["Epoch 1: loss=1", "Validation: val_loss=0.5", "Test: test_acc=0.9", "Prediction"]
    assert [line["stage"] for line in lines(execution.working_dir / "metrics.jsonl")] == [
        "fit",
        "validate",
        "test",
        "predict",
    ]


def test_the_training_speaks_to_no_catalog(ml: DerivaML, execution: Execution, line: Line) -> None:
    """While it trains, no call to the catalog is made on the training's thread."""
    speakers: list[tuple[str, str]] = []
    line.heard = lambda name: speakers.append((threading.current_thread().name, name))
    with execution:
        report = TrainingReporter(execution, log_every_n_steps=1, upload="never")
        report.begin_fit(epochs=3)
        speakers.clear()
        for number in (1, 2, 3):
            report.end_step(number, number, {"loss": 1.0})
            epoch(report, number, loss=1.0)
        assert [call for thread, call in speakers if thread == threading.current_thread().name] == []
    assert speakers  # the worker's


# Facts


def test_how_a_fit_was_set_up_is_kept(ml: DerivaML, execution: Execution) -> None:
    """training.json has settings, inputs and the end of each fit, without secrets, whatever kind they are of."""
    settings = {"lr": 0.1, "path": Path("a/b"), "api_key": "hunter2", "layers": [{"units": 3}], "f": math.sqrt}
    with execution:
        report = TrainingReporter(execution)
        report.begin_fit(epochs=2, settings=settings)
        epoch(report, 1, loss=1.0)
        epoch(report, 2, loss=0.5)
        report.end_fit()
        report.begin_fit(epochs=9)
        epoch(report, 1, loss=2.0)
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


# Whose execution


@pytest.fixture
def made(ml: DerivaML) -> Callable[[Any], Execution]:
    """Makes executions for a reporter that has none."""
    return resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW), "A run of its own")


def test_an_execution_of_its_own_ends_with_the_first_fit(ml: DerivaML, made: Callable[[Any], Execution]) -> None:
    """Nothing is made before the fit; then it is created, run, completed and uploaded; a test after it adds to it."""
    report = TrainingReporter(made)
    with pytest.raises(ExecutionNotStarted):
        _ = report.execution
    assert ml.find_executions() == []
    report.begin_fit(epochs=1)
    assert report.execution.status is Status.running
    epoch(report, 1, loss=1.0)
    report.end_fit()
    (found,) = ml.find_executions()
    assert (found.status, found.description) == (Status.completed, "A run of its own")
    report.end_stage("test", {"test_acc": 0.9}, seconds=1.0)
    found = ml.lookup_execution(found.execution_rid)
    assert found.status is Status.completed
    assert [update.message.partition(" (")[0] for update in found.list_statuses() if update.message] == [
        "Epoch 1/1: loss=1",
        "Test: test_acc=0.9",
    ]
    newest = max(
        (asset for asset in found.list_assets("Output") if asset.filename == "metrics.jsonl"),
        key=lambda asset: asset.length,
    )
    assert [line["stage"] for line in lines(report.execution.download_asset(newest))] == ["fit", "test"]
    assert len(ml.find_executions()) == 1


def test_a_checkpoint_can_be_read_after_the_end(made: Callable[[Any], Execution]) -> None:
    """What the framework may read again, to test with its best, lies where it was written."""
    report = TrainingReporter(made)
    report.begin_fit()
    path = epoch(report, 1, loss=1.0)
    report.end_fit()
    assert report.execution.status is Status.completed
    assert path is not None
    assert path.read_text() == "w1"


def test_a_with_holds_an_execution_of_its_own(ml: DerivaML, made: Callable[[Any], Execution]) -> None:
    """In a ``with``, several fits and a test are one run, which ends with it."""
    with TrainingReporter(made) as report:
        for _ in range(2):
            report.begin_fit(epochs=1)
            epoch(report, 1, loss=1.0)
            report.end_fit()
            assert report.execution.status is Status.running
        report.end_stage("test", {}, seconds=1.0)
    (found,) = ml.find_executions()
    assert found.status is Status.completed
    assert found.execution_rid == report.execution.execution_rid
    assert {"epoch-0001.txt", "fit-2-epoch-0001.txt"} == {
        asset.filename for asset in found.list_assets("Output") if asset.table == "Model"
    }


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("wrong"), Status.failed), (KeyboardInterrupt(), Status.aborted)]
)
@pytest.mark.parametrize("held", [True, False])
def test_a_failure_ends_an_execution_of_its_own(
    ml: DerivaML, made: Callable[[Any], Execution], error: BaseException, status: Status, held: bool
) -> None:
    """Failed or aborted, with what was staged sent; the exception goes up."""
    report = TrainingReporter(made)

    def fail() -> None:
        report.begin_fit(epochs=3)
        epoch(report, 1, loss=1.0)
        try:
            raise error
        except BaseException as raised:
            report.fail(raised)
            raise

    with pytest.raises(type(error)):
        if held:
            with report:
                fail()
        else:
            fail()
    (found,) = ml.find_executions()
    assert found.status is status
    names = {asset.filename for asset in found.list_assets("Output")}
    assert {"epoch-0001.txt", "metrics.jsonl", "training.json"} <= names


def test_a_second_try_is_a_run_of_its_own(ml: DerivaML, made: Callable[[Any], Execution]) -> None:
    """After a failed fit the next one of the same reporter is a new execution."""
    report = TrainingReporter(made)
    report.begin_fit()
    report.fail(ValueError("wrong"))
    report.begin_fit()
    epoch(report, 1, loss=1.0)
    report.end_fit()
    assert [found.status for found in ml.find_executions()] == [Status.completed, Status.failed]


def test_a_mistake_in_the_options_leaves_nothing_running(ml: DerivaML, made: Callable[[Any], Execution]) -> None:
    """An unknown asset type is loud when the fit begins, and the execution that was made for it says failed."""
    report = TrainingReporter(made, checkpoint_types=("Modell",))
    with pytest.raises(UnknownTerm):
        report.begin_fit()
    (found,) = ml.find_executions()
    assert found.status is Status.failed


# Sent when


def test_streaming_sends_what_nothing_supersedes(ml: DerivaML, execution: Execution) -> None:
    """With ``upload="stream"`` a checkpoint is in the store while the training goes on, where all are kept."""
    with execution:
        report = TrainingReporter(execution, checkpoints="all", upload="stream")
        epoch(report, 1, loss=1.0)
        assert report._worker.drain(60)
        assert set(outputs(ml, execution, "Model")) == {"epoch-0001.txt"}
        epoch(report, 2, loss=0.5)
        report.end_fit()
    found = outputs(ml, execution, "Model")
    assert {name: set(asset.asset_types) - {"Model_File"} for name, asset in found.items()} == {
        "epoch-0001.txt": set(),
        "epoch-0002.txt": BEST | LAST,
    }


def test_streaming_leaves_what_may_be_superseded(ml: DerivaML, execution: Execution) -> None:
    """The best and the last wait for the end, since a name that was deleted on a server is burnt."""
    with execution:
        report = TrainingReporter(execution, upload="stream")
        for number in (1, 2, 3):
            epoch(report, number, loss=1.0)
        assert report._worker.drain(60)
        assert outputs(ml, execution, "Model") == {}
        report.end_fit()
    assert set(outputs(ml, execution, "Model")) == {"epoch-0001.txt", "epoch-0003.txt"}


def test_a_stream_that_breaks_ends_no_training(
    ml: DerivaML, execution: Execution, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be sent while the training goes on is sent at its end; where that fails, the error says how."""
    with pytest.raises(UploadFailed, match="Call upload_execution_outputs"), execution:
        report = TrainingReporter(execution, checkpoints="all", upload="stream")
        line.is_cut = True
        epoch(report, 1, loss=1.0)
        assert report._worker.drain(60)
        assert "is tried again at the end of the fit" in caplog.text
        report.end_fit()
    line.is_cut = False
    ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert set(outputs(ml, execution, "Model")) == {"epoch-0001.txt"}


# Going on


def test_a_resumed_training_is_linked_to_the_earlier_run(ml: DerivaML, new_execution: Callable[[], Execution]) -> None:
    """The checkpoint that a fit goes on from is an input of its execution, and the best score goes on."""
    with new_execution() as first:
        report = TrainingReporter(first)
        path = epoch(report, 1, loss=0.1)
        state = report.state()
        report.end_fit()
        assert path is not None
        with new_execution() as second:
            going_on = TrainingReporter(second, checkpoints="best")
            going_on.resume_from(json.loads(json.dumps(state)), path)
            going_on.begin_fit(epochs=3)
            assert epoch(going_on, 2, loss=0.5) is None
            assert epoch(going_on, 3, loss=0.05) is not None
            going_on.end_fit()
    (read,) = second.list_assets("Input")
    (written,) = [asset for asset in first.list_assets("Output") if asset.table == "Model"]
    assert read.rid == written.rid
    facts = json.loads((second.working_dir / "training.json").read_text())["fits"][0]
    assert facts["resumed_from"] == {"execution": first.execution_rid, "checkpoint": str(path)}


def test_a_checkpoint_of_a_killed_run_is_sent_for_it(ml: DerivaML, new_execution: Callable[[], Execution]) -> None:
    """Where the earlier run staged the checkpoint and did not live to send it, it is sent when it is gone on from."""
    first = new_execution()
    report = TrainingReporter(first, upload="never")
    path = epoch(report, 1, loss=0.1)
    with new_execution() as second:
        going_on = TrainingReporter(second)
        going_on.resume_from(report.state(), path)
        going_on.begin_fit()
        epoch(going_on, 2, loss=0.05)
        going_on.end_fit()
    assert [asset.filename for asset in second.list_assets("Input")] == ["epoch-0001.txt"]
    assert set(outputs(ml, first, "Model")) == {"epoch-0001.txt"}


def test_a_foreign_checkpoint_is_warned_about(
    ml: DerivaML, new_execution: Callable[[], Execution], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that the earlier run does not know is no input; a warning and training.json name it."""
    first = new_execution()
    other = tmp_path / "other.ckpt"
    other.write_text("x")
    with new_execution() as second:
        report = TrainingReporter(second)
        report.resume_from({"execution": first.execution_rid}, other)
        report.begin_fit()
        report.end_fit()
    assert second.list_assets("Input") == []
    assert "is no output of execution" in caplog.text


def test_the_same_run_goes_on(ml: DerivaML, made: Callable[[Any], Execution]) -> None:
    """Asked for by name, a resumed fit goes on in the execution that the checkpoint tells of."""
    report = TrainingReporter(made)
    report.begin_fit(epochs=2)
    path = epoch(report, 1, loss=0.5)
    state = report.state()
    report.fail(KeyboardInterrupt())
    again = TrainingReporter(made, resume="same")
    again.resume_from(state, path)
    again.begin_fit(epochs=2)
    assert again.execution.status is Status.running
    epoch(again, 2, loss=0.25)
    again.end_fit()
    (found,) = ml.find_executions()
    assert found.status is Status.completed
    assert {asset.filename for asset in found.list_assets("Output") if asset.table == "Model"} == {
        "epoch-0001.txt",
        "fit-2-epoch-0002.txt",
    }
    newest = max(
        (asset for asset in found.list_assets("Output") if asset.filename == "metrics.jsonl"),
        key=lambda asset: asset.length,
    )
    assert [(line["fit"], line["epoch"]) for line in lines(again.execution.download_asset(newest))] == [(1, 1), (2, 2)]


@pytest.mark.parametrize("state", [{}, {"execution": 7}, {"execution": "1-A", "best": {"name": "loss"}}, {"best": 3}])
def test_a_state_of_another_version_is_no_mistake(state: dict[str, object]) -> None:
    """What a checkpoint carries is read as far as it is understood."""
    from deriva_ml_core.training.resume import ResumeState

    assert ResumeState.from_state(state, None).best is None


def test_the_words_of_the_options_are_the_options() -> None:
    """Every keyword is an option and every option a keyword."""
    assert set(TrainingKwargs.__annotations__) == set(TrainingOptions.model_fields)


def test_an_unknown_option_is_named(execution: Execution) -> None:
    """A misspelt option is refused, and the known ones are listed."""
    with pytest.raises(ConfigurationError, match=r"save_every.*The options are checkpoints"):
        TrainingReporter(execution, save_every=3)  # type: ignore[call-arg]


def test_a_full_disk_loses_no_line(execution: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that the disk refuses, whole or in part, are written when it has room, each once and in order."""
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


def test_our_own_lines_are_quiet(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """A training that goes well logs no warning."""
    with caplog.at_level(logging.WARNING), execution:
        report = TrainingReporter(execution)
        epoch(report, 1, loss=1.0)
        report.end_fit()
    assert caplog.text == ""


def test_reporters_that_were_made_before_the_fits_keep_each_others_settings(execution: Execution) -> None:
    """Of a search that makes all its reporters first, ``training.json`` tells of all fits."""
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


def test_an_interrupt_while_the_end_waits_is_recorded(ml: DerivaML, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C again, while what is done beside the training is waited for, leaves no own execution running."""

    def interrupted(self: TrainingReporter) -> None:
        raise KeyboardInterrupt

    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)))
    monkeypatch.setattr(TrainingReporter, "_drain_and_stage_files", interrupted)
    report.begin_fit(epochs=1)
    with pytest.raises(KeyboardInterrupt):
        report.fail(ValueError("no data"))
    assert (report.execution.status, report.execution.status_detail) == (Status.failed, "ValueError: no data")


def test_ctrl_c_waits_for_no_upload_that_hangs(ml: DerivaML, line: Line) -> None:
    """An upload beside the training that does not come to its end holds the way out no longer than the drain lasts."""
    may_go_on, main = threading.Event(), threading.current_thread()

    def hang(name: str) -> None:
        if name == "insert" and threading.current_thread() is not main:
            may_go_on.wait(120)

    options: TrainingKwargs = {"upload": "stream", "checkpoints": "all", "exit_timeout": 0.1, "curves": False}
    report = TrainingReporter(resolve_execution(ml, ExecutionConfiguration(workflow=WORKFLOW)), **options)
    report.begin_fit(epochs=1)
    line.heard = hang
    epoch(report, 1, loss=1.0)
    report.fail(KeyboardInterrupt())
    assert report.execution.status is Status.aborted
    assert kept(report.execution)
    may_go_on.set()
    assert report._worker.drain(60)
    assert not kept(report.execution)
