"""The reporter, driven by a loop written by hand."""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from trainings import Line, outputs, told

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError, UnknownTable, UnknownTerm, UploadFailed
from deriva_ml_core.execution import Execution
from deriva_ml_core.models import Progress
from deriva_ml_core.training import TrainingReporter, fit
from deriva_ml_core.training.fit import epoch_message, format_duration


def train(execution: Execution, epochs: int, **options: object) -> TrainingReporter:
    """Train a model of two bytes."""
    report = TrainingReporter(execution, **options)
    report.begin_fit(epochs=epochs)
    for epoch in range(1, epochs + 1):
        metrics = {"loss": 1 / epoch}
        report.save_checkpoint(epoch, ".txt", lambda path, epoch=epoch: path.write_text(f"w{epoch}"), metrics)
        report.end_epoch(epoch, metrics, step=epoch * 5)
    report.end_fit()
    return report


def models(execution: Execution) -> list[str]:
    """The checkpoints that are staged."""
    return [asset.filename for asset in execution.staged_assets() if asset.table == "Model"]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("progress", "seconds", "left", "message"),
    [
        (
            Progress(epoch=3, epochs=10, metrics={"val_loss": 0.1456, "loss": 0.12341}),
            12.31,
            118.0,
            "Epoch 3/10: loss=0.1234, val_loss=0.1456 (12.3 s, 2 min left)",
        ),
        (Progress(epoch=10, epochs=10, metrics={"acc": 1.0}), 0.04, None, "Epoch 10/10: acc=1 (0.0 s)"),
        (Progress(epoch=7, metrics={"loss": math.nan, "lr": 1e-05}), 61, None, "Epoch 7: loss=nan, lr=1e-05 (1 min)"),
        (Progress(epoch=1, epochs=2), 30, 30, "Epoch 1/2 (30.0 s, 30 s left)"),
    ],
)
def test_an_epoch_is_told_in_one_line(progress: Progress, seconds: float, left: float | None, message: str) -> None:
    """A status names the epoch, its metrics to four digits, those of training first, and the times taken and left."""
    assert epoch_message(progress, seconds, left) == message


def test_many_metrics_are_counted() -> None:
    """A status names eight metrics and says how many more there are."""
    progress = Progress(epoch=1, metrics={f"m{number}": number for number in range(20)})
    assert epoch_message(progress, 1, None).endswith("m6=6, m7=7, 12 more (1.0 s)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (150, "2 min"),
        (3599, "1 h"),
        (12_000, "3 h 20 min"),
        (90_000, "1 d 1 h"),
        (86_400, "1 d"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    """A length of time is told by its two largest units."""
    assert format_duration(seconds) == text


def test_the_time_left_is_the_mean_epoch_times_the_epochs_to_come(
    execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs of 10 and 30 seconds leave 40 seconds for two more; the last epoch leaves none."""
    clock = iter([0.0, 10.0, 40.0, 60.0, 80.0])
    monkeypatch.setattr(fit, "monotonic", lambda: next(clock))
    with execution:
        report = TrainingReporter(execution, upload="never")
        report.begin_fit(epochs=4)
        for epoch in (1, 2, 3, 4):
            report.end_epoch(epoch, {})
    assert [status.message for status in execution.list_statuses() if status.progress] == [
        "Epoch 1/4 (10.0 s, 30 s left)",
        "Epoch 2/4 (30.0 s, 40 s left)",
        "Epoch 3/4 (20.0 s, 20 s left)",
        "Epoch 4/4 (20.0 s)",
    ]


def test_each_epoch_is_one_status(ml: DerivaML, execution: Execution) -> None:
    """A fit of three epochs leaves three statuses, in order, each with its numbers."""
    with execution:
        train(execution, 3)
    assert told(execution) == ["Epoch 1/3: loss=1", "Epoch 2/3: loss=0.5", "Epoch 3/3: loss=0.3333"]
    progress = [status.progress for status in execution.list_statuses() if status.progress]
    assert progress[1].model_copy(update={"seconds": None, "left": None}) == Progress(
        epoch=2, epochs=3, step=10, metrics={"loss": 0.5}
    )
    assert progress[1].seconds >= 0
    assert progress[2].left is None
    assert ml.lookup_execution(execution.execution_rid).status is Status.completed


def test_the_end_of_a_fit_uploads_all(ml: DerivaML, execution: Execution) -> None:
    """All checkpoints and the metrics are assets when the fit has ended, still inside the ``with``."""
    with execution:
        train(execution, 2, checkpoints="all")
        assert execution.staged_assets() == []
        found = outputs(ml, execution, "Model")
        assert {name: set(asset.asset_types) for name, asset in found.items()} == {
            "epoch-0001.txt": {"Model_File"},
            "epoch-0002.txt": {"Model_File", "Best_Checkpoint", "Last_Checkpoint"},
        }
        metrics = outputs(ml, execution, "Execution_Metadata")["metrics.jsonl"]
        assert metrics.asset_types == ("Metrics_File",)


def test_nothing_is_uploaded_where_that_was_asked_for(ml: DerivaML, execution: Execution) -> None:
    """With ``upload="never"`` all is staged after the fit, and sent by the user's own call."""
    with execution:
        train(execution, 1, upload="never")
        names = {asset.filename for asset in execution.staged_assets()}
        assert names >= {"metrics.jsonl", "training.json", "epoch-0001.txt"}
        assert outputs(ml, execution, "Model") == {}
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.txt"]


@pytest.mark.parametrize(("every", "kept"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3]), (9, [])])
def test_checkpoints_are_as_far_apart_as_asked(execution: Execution, every: int, kept: list[int]) -> None:
    """``save_every_n_epochs`` counts from the first epoch."""
    with execution:
        train(execution, 5, checkpoints="all", save_every_n_epochs=every, upload="never")
    assert models(execution) == [f"epoch-{epoch:04d}.txt" for epoch in kept]


def test_checkpoints_go_to_the_table_and_types_that_were_asked_for(ml: DerivaML, execution: Execution) -> None:
    """``checkpoint_table`` and ``checkpoint_types`` name where checkpoints go and what they are."""
    with execution:
        train(execution, 1, checkpoint_table="Execution_Asset", checkpoint_types=("Model_File", "Derived"))
    asset = outputs(ml, execution, "Execution_Asset")["epoch-0001.txt"]
    assert set(asset.asset_types) == {"Model_File", "Derived", "Best_Checkpoint", "Last_Checkpoint"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"save_every_n_epochs": 0}, ConfigurationError),
        ({"checkpoints": "bset"}, ConfigurationError),
        ({"every_n_epoch": 2}, ConfigurationError),
        ({"min_interval": -1}, ConfigurationError),
        ({"checkpoint_table": "Modell"}, UnknownTable),
        ({"checkpoint_types": ("Model_Fiel",)}, UnknownTerm),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_before_the_training(
    execution: Execution, options: dict[str, object], error: type[Exception]
) -> None:
    """A misspelt table or type is found when the reporter is made, not at the first checkpoint."""
    with pytest.raises(error):
        TrainingReporter(execution, **options)


def test_metrics_are_kept_as_they_were(ml: DerivaML, execution: Execution) -> None:
    """Each epoch is one line, and NaN and the infinities come back from the catalog as themselves."""
    values = {"loss": math.nan, "best": math.inf, "worst": -math.inf, "größe": 0.1}
    with execution:
        report = TrainingReporter(execution)
        report.end_epoch(1, values, step=7)
        report.end_epoch(2, {"loss": 0.25})
        report.end_fit()
        asset = outputs(ml, execution, "Execution_Metadata")["metrics.jsonl"]
        first, second = lines(execution.download_asset(asset))
    assert {key: first[key] for key in ("stage", "fit", "epoch", "step")} == {
        "stage": "fit",
        "fit": 1,
        "epoch": 1,
        "step": 7,
    }
    assert np.array_equal(list(first["values"].values()), list(values.values()), equal_nan=True)
    assert second["values"] == {"loss": 0.25}
    progress = next(status.progress for status in execution.list_statuses() if status.progress)
    assert np.array_equal(list(progress.metrics.values()), list(values.values()), equal_nan=True)


def test_pandas_reads_the_metrics(execution: Execution) -> None:
    """A metrics file is a table for ``pandas.read_json(lines=True)``, NaN and infinities included."""
    pandas = pytest.importorskip("pandas")
    with execution:
        report = TrainingReporter(execution, upload="never")
        report.end_epoch(1, {"loss": math.nan, "best": math.inf})
        report.end_epoch(2, {"loss": 0.5, "best": 2.0})
        table = pandas.read_json(execution.working_dir / "metrics.jsonl", lines=True)
    metrics = pandas.DataFrame(table["values"].tolist(), index=table["epoch"])
    assert math.isnan(metrics.loc[1, "loss"])
    assert metrics.loc[1, "best"] == math.inf
    assert metrics.loc[2].to_dict() == {"loss": 0.5, "best": 2.0}


def test_whatever_holds_a_number_is_one(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """Arrays of one element are numbers; longer ones are left out, and named in a warning."""
    with execution, caplog.at_level(logging.WARNING):
        report = TrainingReporter(execution, upload="never")
        report.end_epoch(1, {"loss": np.float32(0.5), "one": np.array(2), "matrix": np.eye(2), "word": "high"})
    assert told(execution) == ["Epoch 1: loss=0.5, one=2"]
    assert "matrix, word" in caplog.text


def test_a_second_fit_loses_nothing_of_the_first(ml: DerivaML, execution: Execution, line: Line) -> None:
    """Two fits in one execution, by one reporter or two, keep their checkpoints apart and share the metrics file."""
    with execution:
        train(execution, 2, checkpoints="all")
        train(execution, 1)
        train(execution, 1, upload="never")
    execution.upload_execution_outputs()
    assert sorted(outputs(ml, execution, "Model")) == [
        "epoch-0001.txt",
        "epoch-0002.txt",
        "fit-2-epoch-0001.txt",
        "fit-3-epoch-0001.txt",
    ]
    kept = [asset for asset in execution.list_assets("Output") if asset.filename == "metrics.jsonl"]
    newest = max(kept, key=lambda asset: asset.length)
    told_of = [(line["fit"], line["epoch"]) for line in lines(execution.download_asset(newest))]
    assert told_of == [(1, 1), (1, 2), (2, 1), (3, 1)]


def test_half_a_checkpoint_is_never_kept(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """A writer that fails half-way leaves neither file nor registration, and the training goes on."""

    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError("No space left on device")

    with execution:
        report = TrainingReporter(execution, upload="never")
        assert report.save_checkpoint(1, ".pt", write) is None
        report.end_epoch(1, {"loss": 1.0})
        left = {path.name for path in execution.working_dir.rglob("*") if path.is_file() and "epoch" in path.name}
    assert left == set()
    assert models(execution) == []
    assert "No space left on device" in caplog.text


def test_ctrl_c_while_a_checkpoint_is_written_goes_up(execution: Execution) -> None:
    """Ctrl-C is not taken for a failure to spare: it ends the run, and half a checkpoint is forgotten."""

    def write(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), execution:
        TrainingReporter(execution, upload="never").save_checkpoint(1, ".pt", write)
    assert execution.status is Status.aborted
    assert models(execution) == []


def test_a_checkpoint_that_a_framework_could_not_write_is_dropped(execution: Execution) -> None:
    """A framework that writes to the path itself, and fails, leaves nothing to upload."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        path = report.checkpoint_path(1, ".ckpt")
        assert path is not None
        with report.writing_checkpoint(path):
            path.write_text("half")
            raise OSError("No space left on device")
        assert not path.exists()
        assert models(execution) == []


def test_a_checkpoint_appears_whole(execution: Execution) -> None:
    """While a checkpoint is written its place is empty, and the file given to write to keeps the suffix."""
    seen = []

    def write(path: Path) -> None:
        path.write_text("whole")
        seen.extend([path.suffixes, (path.parent / "epoch-0001.weights.h5").exists()])

    with execution:
        path = TrainingReporter(execution, upload="never").save_checkpoint(1, ".weights.h5", write)
    assert seen == [[".weights", ".h5"], False]
    assert path is not None
    assert path.read_text() == "whole"


def test_a_catalog_that_is_gone_ends_no_training(ml: DerivaML, execution: Execution, line: Line) -> None:
    """With the line cut, a training goes on to its end; what was told is told later, and nothing is lost."""
    with execution:
        report = TrainingReporter(execution, checkpoints="all")
        report.begin_fit(epochs=3)
        for epoch in (1, 2, 3):
            line.is_cut = epoch == 2
            report.save_checkpoint(epoch, ".txt", lambda path: path.write_text("w"))
            report.end_epoch(epoch, {"loss": 1.0})
        report.end_fit()
    assert len(told(execution)) == 3
    row = ml.select_rows("Execution", {"RID": execution.execution_rid})[0]
    assert row["Status"] == "Completed"
    assert len(outputs(ml, execution, "Model")) == 3


def test_an_upload_that_fails_at_the_end_raises_and_loses_nothing(
    ml: DerivaML, execution: Execution, line: Line
) -> None:
    """When the training is over, an upload that cannot be done is an error; the files are sent later."""
    report = TrainingReporter(execution, checkpoints="all")
    with pytest.raises(UploadFailed), execution:
        line.is_cut = True
        for epoch in (1, 2):
            report.save_checkpoint(epoch, ".txt", lambda path, epoch=epoch: path.write_text(f"w{epoch}"))
            report.end_epoch(epoch, {"loss": 1.0})
        report.end_fit()
    line.is_cut = False
    assert models(execution) == ["epoch-0001.txt", "epoch-0002.txt"]
    ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert len(outputs(ml, execution, "Model")) == 2


def test_a_staging_folder_that_cannot_be_used_ends_no_training(
    execution: Execution, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no file can be staged, the statuses still come, and warnings say what is not kept."""
    (execution.working_dir / "outputs").write_text("in the way")
    with execution:
        train(execution, 2, upload="never")
    assert len(told(execution)) == 2
    assert "Could not register the checkpoint of epoch 1" in caplog.text
    assert caplog.text.count("metrics.jsonl cannot be written or staged now") == 1


def test_a_state_that_was_ended_stays(execution: Execution) -> None:
    """A state that the user ended inside the ``with`` stays, and what the training still says is in the journal."""
    with execution:
        execution.update_status(Status.aborted, "enough")
        train(execution, 1, upload="never")
    assert execution.status is Status.aborted
    assert told(execution) == ["enough", "Epoch 1/1: loss=1"]


def test_a_killed_process_loses_no_line(ml: DerivaML, home: Path) -> None:
    """After SIGKILL in epoch 4, the three epochs that were told are in the metrics file and in the journal."""
    program = """
import os, signal
from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.training import TrainingReporter
workflow = Workflow(name="Killed", workflow_type="Training", url="https://example.org/k.py", checksum="c")
with DerivaML().create_execution(ExecutionConfiguration(workflow=workflow)) as execution:
    print(execution.execution_rid, flush=True)
    reporter = TrainingReporter(execution)
    for epoch in (1, 2, 3):
        reporter.end_epoch(epoch, {"loss": 1 / epoch})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "DERIVA_ML_HOME": str(home)}, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    execution = ml.restore_execution(done.stdout.strip())
    assert execution.status is Status.aborted
    assert told(execution)[:3] == ["Epoch 1: loss=1", "Epoch 2: loss=0.5", "Epoch 3: loss=0.3333"]
    execution.upload_execution_outputs()
    asset = outputs(ml, execution, "Execution_Metadata")["metrics.jsonl"]
    assert [line["epoch"] for line in lines(execution.download_asset(asset))] == [1, 2, 3]


def test_every_process_knows_alike_which_epochs_are_due(new_execution: Callable[[], Execution], line: Line) -> None:
    """Whether a checkpoint is due is told by the number of the epoch, with the catalog out of reach."""
    report = TrainingReporter(new_execution(), save_every_n_epochs=3)
    line.is_cut = True
    assert [report.is_checkpoint_due(epoch) for epoch in range(1, 7)] == [False, False, True, False, False, True]


def test_the_printed_loop_runs(ml: DerivaML) -> None:
    """The loop in the class's own documentation runs as printed, and keeps ten epochs of a torch model."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def train_epoch(model: torch.nn.Module, data: torch.Tensor) -> float:
        optimizer.zero_grad()
        loss = model(data).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    workflow = Workflow(name="By hand", workflow_type="Training", url="https://example.org/hand.py", checksum="h")
    names = {
        "Path": Path,
        "TrainingReporter": TrainingReporter,
        "configuration": ExecutionConfiguration(workflow=workflow),
        "data": torch.ones(4, 2),
        "ml": ml,
        "model": model,
        "torch": torch,
        "train_epoch": train_epoch,
        "validate": lambda model: model(torch.ones(1, 2)).square().item(),
    }
    printed = textwrap.dedent(inspect.getdoc(TrainingReporter).partition("::\n")[2])
    exec(printed, names)
    execution = names["execution"]
    assert len(told(execution)) == 10
    last = outputs(ml, execution, "Model")["epoch-0010.pt"]
    kept = torch.load(execution.download_asset(last))
    assert all(torch.equal(kept[name], weight) for name, weight in model.state_dict().items())


def test_a_dry_run_trains_and_writes_nothing(ml: DerivaML) -> None:
    """In a dry run the statuses are told on this machine, and catalog and store stay as they were."""
    workflow = Workflow(name="Dry", workflow_type="Training", url="https://example.org/dry.py", checksum="y")
    with ml.create_execution(ExecutionConfiguration(workflow=workflow), dry_run=True) as execution:
        train(execution, 2)
    assert told(execution) == ["Epoch 1/2: loss=1", "Epoch 2/2: loss=0.5"]
    assert ml.find_executions() == []
    assert ml.select_rows("Model") == []
