"""`TrainingReporter` in a hand-written loop."""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_helpers import CatalogLink, outputs, status_messages

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import (
    ConfigurationError,
    DerivaMLDeprecationWarning,
    UnknownTable,
    UnknownTerm,
    UploadFailed,
)
from deriva_ml_core.execution import Execution
from deriva_ml_core.models import Asset, Progress
from deriva_ml_core.training import TrainingOptions, TrainingReporter, fit
from deriva_ml_core.training.checkpoint_download import fetch_checkpoint
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


def staged_checkpoints(execution: Execution) -> list[str]:
    """Return the names of the staged checkpoints."""
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
            "Epoch 3/10: loss=0.1234, val_loss=0.1456 (12.3 s, 1 min 58 s left)",
        ),
        (Progress(epoch=10, epochs=10, metrics={"acc": 1.0}), 0.04, None, "Epoch 10/10: acc=1 (0.0 s)"),
        (
            Progress(epoch=7, metrics={"loss": math.nan, "lr": 1e-05}),
            61,
            None,
            "Epoch 7: loss=nan, lr=1e-05 (1 min 1 s)",
        ),
        (Progress(epoch=1, epochs=2), 30, 30, "Epoch 1/2 (30.0 s, 30 s left)"),
    ],
)
def test_epoch_message(progress: Progress, seconds: float, left: float | None, message: str) -> None:
    """A status names the epoch, its metrics to four digits, training first, and the times taken and left."""
    assert epoch_message(progress, seconds, left) == message


def test_epoch_message_limits_metrics() -> None:
    """A status names eight metrics and the number of the others."""
    progress = Progress(epoch=1, metrics={f"m{number}": number for number in range(20)})
    assert epoch_message(progress, 1, None).endswith("m6=6, m7=7, 12 more (1.0 s)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (150, "2 min 30 s"),
        (3599, "1 h"),
        (12_000, "3 h 20 min"),
        (90_000, "1 d 1 h"),
        (86_400, "1 d"),
    ],
)
def test_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    """A duration is formatted in its two largest units."""
    assert format_duration(seconds) == text


def test_time_left(execution: Execution, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of 10 and 30 seconds leave 40 seconds for two more; the last epoch has no time left."""
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


def test_one_status_per_epoch(ml: DerivaML, execution: Execution) -> None:
    """A fit of three epochs leaves three statuses, in order, each with its progress."""
    with execution:
        train(execution, 3)
    assert status_messages(execution) == ["Epoch 1/3: loss=1", "Epoch 2/3: loss=0.5", "Epoch 3/3: loss=0.3333"]
    progress = [status.progress for status in execution.list_statuses() if status.progress]
    assert progress[1].model_copy(update={"seconds": None, "left": None}) == Progress(
        epoch=2, epochs=3, step=10, metrics={"loss": 0.5}
    )
    assert progress[1].seconds >= 0
    assert progress[2].left is None
    assert ml.lookup_execution(execution.execution_rid).status is Status.completed


def test_end_fit_uploads(ml: DerivaML, execution: Execution) -> None:
    """All checkpoints and the metrics are assets when the fit has ended, inside the ``with`` block."""
    with execution:
        train(execution, 2, checkpoints="all")
        assert execution.staged_assets() == []
        assets = outputs(ml, execution, "Model")
        assert {name: set(asset.asset_types) for name, asset in assets.items()} == {
            "epoch-0001.txt": {"Model_File"},
            "epoch-0002.txt": {"Model_File", "Best_Checkpoint", "Last_Checkpoint"},
        }
        metrics = outputs(ml, execution, "Execution_Metadata")["metrics.jsonl"]
        assert metrics.asset_types == ("Metrics_File",)


def test_upload_never(ml: DerivaML, execution: Execution) -> None:
    """With ``upload="never"`` all files stay staged after the fit until the user uploads them."""
    with execution:
        train(execution, 1, upload="never")
        names = {asset.filename for asset in execution.staged_assets()}
        assert names >= {"metrics.jsonl", "training.json", "epoch-0001.txt"}
        assert outputs(ml, execution, "Model") == {}
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.txt"]


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), (3, [3]), (9, [])])
def test_save_every_n_epochs(execution: Execution, every: int, epochs: list[int]) -> None:
    """``save_every_n_epochs`` counts from the first epoch."""
    with execution:
        train(execution, 5, checkpoints="all", save_every_n_epochs=every, upload="never")
    assert staged_checkpoints(execution) == [f"epoch-{epoch:04d}.txt" for epoch in epochs]


def test_checkpoint_table_and_types(ml: DerivaML, execution: Execution) -> None:
    """Checkpoints have the table and types of ``checkpoint_table`` and ``checkpoint_types``."""
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
def test_invalid_option_is_refused_before_training(
    execution: Execution, options: dict[str, object], error: type[Exception]
) -> None:
    """A misspelt table or type is found when the reporter is created, not at the first checkpoint."""
    with pytest.raises(error):
        TrainingReporter(execution, **options)


def test_public_names(execution: Execution) -> None:
    """A reporter has these public names, and its class docstring names each."""
    reporter = TrainingReporter(execution)
    names = {name for name in dir(reporter) if not name.startswith("_")}
    assert names == {
        "begin",
        "begin_fit",
        "checkpoint_folder",
        "checkpoint_path",
        "checkpoints",
        "end_epoch",
        "end_fit",
        "end_stage",
        "end_step",
        "end_validation",
        "execution",
        "fail",
        "has_own_execution",
        "is_checkpoint_due",
        "is_in_forked_child",
        "is_in_with_block",
        "log_figure",
        "log_image",
        "log_table",
        "monitor",
        "options",
        "requeue",
        "resume_from",
        "save_checkpoint",
        "should_report_step",
        "state",
        "stream_checkpoint",
        "writing_checkpoint",
    }
    assert names <= set(re.findall(r"`(\w+)`", inspect.getdoc(TrainingReporter) or ""))


def test_old_names(execution: Execution) -> None:
    """Names before 0.2 are aliases that warn."""
    reporter = TrainingReporter(execution, upload="never")
    with pytest.warns(DerivaMLDeprecationWarning, match=r"TrainingReporter\.own .* use has_own_execution\.") as warned:
        assert reporter.own is False
    assert warned[0].filename == __file__
    with pytest.warns(DerivaMLDeprecationWarning, match="is_in_with_block"):
        assert reporter.held is False
    with pytest.warns(DerivaMLDeprecationWarning, match="should_report_step"):
        assert reporter.wants_step(1) is False
    with pytest.warns(DerivaMLDeprecationWarning, match="is_checkpoint_due"):
        assert reporter.checkpoint_due(1) is True
    with pytest.warns(DerivaMLDeprecationWarning, match="stream_checkpoint"):
        reporter.send_soon(Path("unknown"))
    checkpoint = reporter.checkpoints.folder / "old.txt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text("weights")
    with pytest.warns(DerivaMLDeprecationWarning) as warned:
        reporter.checkpoints.adopt(checkpoint, whole=True)
    assert [str(each.message).partition(" is deprecated")[0] for each in warned] == [
        "Checkpoints.adopt",
        "The keyword 'whole' of Checkpoints.stage_existing()",
    ]
    assert staged_checkpoints(execution) == ["old.txt"]


def test_old_option_drain(execution: Execution) -> None:
    """The option ``drain`` is the old name of ``exit_timeout`` and warns at the user's line."""
    with pytest.warns(DerivaMLDeprecationWarning, match="'drain' is deprecated .* use 'exit_timeout'") as warned:
        reporter = TrainingReporter(execution, drain=1.5)  # type: ignore[call-arg]
    assert warned[0].filename == __file__
    assert reporter.options.exit_timeout == 1.5
    with pytest.warns(DerivaMLDeprecationWarning, match="exit_timeout"):
        assert TrainingOptions(drain=2).exit_timeout == 2  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="drain=1"):
        TrainingReporter(execution, drain=1, exit_timeout=2)  # type: ignore[call-arg]


def test_metrics_round_trip(ml: DerivaML, execution: Execution) -> None:
    """Each epoch is one line; NaN and infinities are read back unchanged from the catalog."""
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


def test_pandas_reads_metrics(execution: Execution) -> None:
    """``pandas.read_json(lines=True)`` reads a metrics file, including NaN and infinities."""
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


def test_one_element_arrays_are_numbers(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """Arrays of one element are numbers; longer ones are skipped and named in a warning."""
    with execution, caplog.at_level(logging.WARNING):
        report = TrainingReporter(execution, upload="never")
        report.end_epoch(1, {"loss": np.float32(0.5), "one": np.array(2), "matrix": np.eye(2), "word": "high"})
    assert status_messages(execution) == ["Epoch 1: loss=0.5, one=2"]
    assert "matrix, word" in caplog.text


class Unreadable:
    """A value or a name that raises whatever is read of it."""

    def __float__(self) -> float:
        raise KeyError("value")

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    @property
    def item(self) -> object:
        raise RuntimeError("no item")


def test_unusual_metrics_do_not_end_the_training(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """Names that are no text are converted; a value that is no float is skipped, and the others are recorded."""
    metrics: Any = {
        "loss": 0.5,
        3: 0.25,
        ("fold", 1): 0.75,
        "caf\udce9": 1.0,
        Unreadable(): 2.0,
        "huge": 10**400,
        "broken": Unreadable(),
    }
    with execution, caplog.at_level(logging.WARNING):
        report = TrainingReporter(execution, upload="never", log_every_n_steps=1, every_n_steps=1)
        report.end_step(np.int64(7), 1, metrics)
        report.end_validation(np.int64(8), 1, metrics)
        report.end_epoch(1, metrics, step=np.int64(9), learning_rates={"Adam": np.float32(0.5), "b": Unreadable()})
        report.save_checkpoint(1, ".txt", lambda path: path.write_text("weights"), metrics)
        report.end_stage("test", metrics, seconds=1.0)
    expected = {"loss": 0.5, "3": 0.25, "('fold', 1)": 0.75, "caf\\udce9": 1.0, "<Unreadable>": 2.0}
    recorded = [*lines(execution.working_dir / "metrics.jsonl")]
    assert [(line["stage"], line["step"], line["values"]) for line in recorded] == [
        ("fit", 7, expected),
        ("fit", 8, expected),
        ("fit", 9, expected),
        ("test", None, expected),
    ]
    assert recorded[2]["learning_rates"] == {"Adam": 0.5}
    assert [status.progress.metrics for status in execution.list_statuses() if status.progress] == [expected] * 3
    assert "huge, broken" in caplog.text
    assert [asset.filename for asset in execution.staged_assets() if asset.table == "Model"] == ["epoch-0001.txt"]


def test_unreadable_setting_costs_no_other(execution: Execution) -> None:
    """A setting that JSON cannot hold becomes a text; all other settings are recorded with their values."""
    omegaconf = pytest.importorskip("omegaconf", reason="omegaconf is not installed")
    config = omegaconf.OmegaConf.create({"lr": 0.1, "data": "???", "size": "${missing}", "model": {"depth": 3}})
    settings = {
        "config": config,
        "raising": Unreadable(),
        Unreadable(): 1,
        "surrogate": "caf\udce9",
        "folder": Path("caf\udce9"),
        "digits": 7**6000,
        "seed": 42,
    }
    with execution:
        report = TrainingReporter(execution, upload="never")
        report.begin_fit(settings=settings)
        settings["seed"] = 43  # what is recorded are the values at the start
    recorded = json.loads((execution.working_dir / "training.json").read_text(encoding="utf-8"))
    digits = recorded["fits"][0]["settings"].pop("digits")
    assert recorded["fits"][0]["settings"] == {
        "config": {
            "lr": 0.1,
            "data": "<not readable: MissingMandatoryValue>",
            "size": "<not readable: InterpolationKeyError>",
            "model": {"depth": 3},
        },
        "raising": "<not readable: RuntimeError>",
        "<not readable: RuntimeError>": 1,
        "surrogate": "caf\\udce9",
        "folder": "caf\\udce9",
        "seed": 42,
    }
    assert digits.startswith("0x") and len(digits) == 1000


@pytest.mark.parametrize("is_ended", [True, False], ids=["end_fit", "without end_fit"])
def test_fits_leave_no_file_open(new_execution: Callable[[], Execution], is_ended: bool) -> None:
    """Files of executions that have ended are closed, although the reporters and the executions are still in use."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not show open files")
    reporters = []
    for _ in range(3):
        execution = new_execution()
        with execution:
            reporter = TrainingReporter(execution, curves=False)
            reporter.end_epoch(1, {"loss": 0.5})
            if is_ended:
                reporter.end_fit()
        execution.upload_execution_outputs()
        assert execution.list_statuses()[-1].status is Status.completed
        reporters.append(reporter)
    opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert [path for path in opened if path.endswith(".jsonl")] == []


def test_second_fit_keeps_files_of_first(ml: DerivaML, execution: Execution, catalog_link: CatalogLink) -> None:
    """Fits of one execution have separate checkpoints and share the metrics file, with one reporter or two."""
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
    (metrics,) = [asset for asset in execution.list_assets("Output") if asset.filename == "metrics.jsonl"]
    recorded = [(line["fit"], line["epoch"]) for line in lines(execution.download_asset(metrics))]
    assert recorded == [(1, 1), (1, 2), (2, 1), (3, 1)]


def best_and_last(ml: DerivaML, execution: Execution) -> dict[str, set[str]]:
    """Return the types of the checkpoints in the catalog, without those that every checkpoint has."""
    marks = {"Best_Checkpoint", "Last_Checkpoint"}
    types = {name: marks & {*each.asset_types} for name, each in outputs(ml, execution, "Model").items()}
    return {name: marked for name, marked in types.items() if marked}


def fit_with(reporter: TrainingReporter, *epochs: dict[str, float]) -> None:
    """Fit with these metrics of the epochs."""
    reporter.begin_fit(epochs=len(epochs))
    for epoch, metrics in enumerate(epochs, 1):
        reporter.save_checkpoint(epoch, ".txt", lambda path: path.write_text(f"{path}{metrics}"), metrics)  # noqa: B023
        reporter.end_epoch(epoch, metrics)
    reporter.end_fit()


@pytest.mark.parametrize("upload", ["end", "never"])
@pytest.mark.parametrize("is_shared", [True, False], ids=["one reporter", "a reporter for each fit"])
def test_best_over_all_fits(ml: DerivaML, execution: Execution, upload: str, is_shared: bool) -> None:
    """Of all fits of an execution, one checkpoint is the best and one the last, also if they are uploaded before."""
    reporter = TrainingReporter(execution, upload=upload)
    marked = []
    with execution:
        for values in ([0.5, 0.7], [0.2, 0.3], [0.4, 0.6]):
            fit_with(reporter, *({"val_loss": value} for value in values))
            reporter._worker.drain(60)
            marked.append(best_and_last(ml, execution))
            reporter = reporter if is_shared else TrainingReporter(execution, upload=upload)
    execution.upload_execution_outputs()
    best, last = {"Best_Checkpoint"}, {"Last_Checkpoint"}
    after_all = {"fit-2-epoch-0001.txt": best, "fit-3-epoch-0002.txt": last}
    if upload == "end":
        assert marked == [
            {"epoch-0001.txt": best, "epoch-0002.txt": last},
            {"fit-2-epoch-0001.txt": best, "fit-2-epoch-0002.txt": last},
            after_all,
        ]
    assert best_and_last(ml, execution) == after_all
    assert fetch_checkpoint(ml.lookup_execution(execution.execution_rid), execution.working_dir / "best").name == (
        "fit-2-epoch-0001.txt"
    )


def test_provisional_metric_takes_no_best(ml: DerivaML, execution: Execution) -> None:
    """A fit that is judged by its loss until it is validated leaves the best to the earlier fit, and gets it later."""
    with execution:
        fit_with(TrainingReporter(execution), {"loss": 0.9, "val_loss": 0.5})
        first = best_and_last(ml, execution)
        fit_with(TrainingReporter(execution), {"loss": 0.1})
        second = best_and_last(ml, execution)
        fit_with(TrainingReporter(execution), {"loss": 0.1}, {"loss": 0.1, "val_loss": 0.4})
    assert first == {"epoch-0001.txt": {"Best_Checkpoint", "Last_Checkpoint"}}
    assert second == {"epoch-0001.txt": {"Best_Checkpoint"}, "fit-2-epoch-0001.txt": {"Last_Checkpoint"}}
    assert best_and_last(ml, execution) == {"fit-3-epoch-0002.txt": {"Best_Checkpoint", "Last_Checkpoint"}}


def test_other_executions_keep_their_best(
    ml: DerivaML, execution: Execution, new_execution: Callable[[], Execution]
) -> None:
    """A file that two executions uploaded stays the best of one if a later fit of the other is better."""
    other = new_execution()
    for each in (execution, other):
        with each:
            reporter = TrainingReporter(each, checkpoints="best", filename="same")
            reporter.begin_fit()
            reporter.save_checkpoint(1, ".txt", lambda path: path.write_text("equal"), {"val_loss": 0.5})
            reporter.end_epoch(1, {"val_loss": 0.5})
            reporter.end_fit()
            if each is other:
                fit_with(reporter, {"val_loss": 0.4})
    assert best_and_last(ml, execution) == {"same.txt": {"Best_Checkpoint"}}
    assert best_and_last(ml, other)["fit-2-same.txt"] == {"Best_Checkpoint"}


def training_files(ml: DerivaML, execution: Execution) -> dict[str, Asset]:
    """Return the training files in the catalog by name; each name has one row, whose bytes are verified."""
    names = {"metrics.jsonl", "training.json", "training_curves.png"}
    assets = [each for each in execution.list_assets("Output") if each.filename in names]
    assert len(assets) == len({each.filename for each in assets})
    for asset in assets:
        ml.verify_asset(asset)
    return {each.filename: each for each in assets}


def test_training_files_have_one_row(ml: DerivaML, execution: Execution) -> None:
    """The row of a training file keeps its RID and gets the new bytes of each fit; a snapshot has the earlier ones."""
    catalog = ml.connection.catalog
    with execution:
        train(execution, 2)
        first = training_files(ml, execution)
        snapshot = catalog.snapshot()
        train(execution, 2)
    restored = ml.restore_execution(execution.execution_rid)
    reporter = TrainingReporter(restored)
    reporter.end_stage("test", {"loss": 0.5}, seconds=1.0)
    reporter.end_fit()
    last = training_files(ml, restored)
    assert {"metrics.jsonl", "training.json"} <= set(first)
    assert {name: asset.rid for name, asset in last.items()} == {name: asset.rid for name, asset in first.items()}
    for name in ("metrics.jsonl", "training.json"):
        assert last[name].length > first[name].length
        assert last[name].asset_types == first[name].asset_types
    (row,) = catalog.at(snapshot).select("Execution_Metadata", {"RID": first["metrics.jsonl"].rid})
    assert (row["URL"], row["MD5"]) == (first["metrics.jsonl"].url, first["metrics.jsonl"].md5)
    downloaded = execution.download_asset(last["metrics.jsonl"])
    assert [line["fit"] for line in lines(downloaded)] == [1, 1, 2, 2, 1]


def test_training_file_that_is_an_input_keeps_its_row(
    ml: DerivaML, execution: Execution, new_execution: Callable[[], Execution]
) -> None:
    """The metrics that another execution read stay as they were; the next fit's file has a row of its own."""
    with execution:
        train(execution, 1)
        read = training_files(ml, execution)["metrics.jsonl"]
        other = new_execution()
        other.record_input(read)
        train(execution, 1)
        train(execution, 1)
    assert [(asset.rid, asset.md5) for asset in other.list_assets("Input")] == [(read.rid, read.md5)]
    metrics = [each for each in execution.list_assets("Output") if each.filename == "metrics.jsonl"]
    assert len(metrics) == 2
    newest = next(each for each in metrics if each.rid != read.rid)
    assert [line["fit"] for line in lines(execution.download_asset(newest))] == [1, 2, 3]


def test_partial_checkpoint_is_discarded(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """A writer that fails half-way leaves neither a file nor a staged asset, and training continues."""

    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError("No space left on device")

    with execution:
        report = TrainingReporter(execution, upload="never")
        assert report.save_checkpoint(1, ".pt", write) is None
        report.end_epoch(1, {"loss": 1.0})
        left = {path.name for path in execution.working_dir.rglob("*") if path.is_file() and "epoch" in path.name}
    assert left == set()
    assert staged_checkpoints(execution) == []
    assert "No space left on device" in caplog.text


def test_ctrl_c_while_writing_checkpoint(execution: Execution) -> None:
    """Ctrl-C while a checkpoint is written propagates and aborts the run; the partial checkpoint is discarded."""

    def write(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), execution:
        TrainingReporter(execution, upload="never").save_checkpoint(1, ".pt", write)
    assert execution.status is Status.aborted
    assert staged_checkpoints(execution) == []


def test_failed_framework_checkpoint_is_discarded(execution: Execution) -> None:
    """If a framework fails to write a checkpoint to the path itself, nothing is uploaded."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        path = report.checkpoint_path(1, ".ckpt")
        assert path is not None
        with report.writing_checkpoint(path):
            path.write_text("half")
            raise OSError("No space left on device")
        assert not path.exists()
        assert staged_checkpoints(execution) == []


def test_checkpoint_is_written_atomically(execution: Execution) -> None:
    """The final path does not exist during the write, and the temporary path has the same suffix."""
    seen = []

    def write(path: Path) -> None:
        path.write_text("whole")
        seen.extend([path.name.endswith(".weights.h5"), (path.parent / "epoch-0001.weights.h5").exists()])

    with execution:
        path = TrainingReporter(execution, upload="never").save_checkpoint(1, ".weights.h5", write)
    assert seen == [True, False]
    assert path is not None
    assert path.read_text() == "whole"


def test_training_survives_catalog_outage(ml: DerivaML, execution: Execution, catalog_link: CatalogLink) -> None:
    """With the catalog unreachable, training continues; statuses are written later and nothing is lost."""
    with execution:
        report = TrainingReporter(execution, checkpoints="all")
        report.begin_fit(epochs=3)
        for epoch in (1, 2, 3):
            catalog_link.is_down = epoch == 2
            report.save_checkpoint(epoch, ".txt", lambda path: path.write_text("w"))
            report.end_epoch(epoch, {"loss": 1.0})
        report.end_fit()
    assert len(status_messages(execution)) == 3
    row = ml.select_rows("Execution", {"RID": execution.execution_rid})[0]
    assert row["Status"] == "Completed"
    assert len(outputs(ml, execution, "Model")) == 3


def test_failed_upload_raises_and_loses_nothing(ml: DerivaML, execution: Execution, catalog_link: CatalogLink) -> None:
    """A failed upload after training raises; the files stay staged and are uploaded later."""
    report = TrainingReporter(execution, checkpoints="all")
    with pytest.raises(UploadFailed), execution:
        catalog_link.is_down = True
        for epoch in (1, 2):
            report.save_checkpoint(epoch, ".txt", lambda path, epoch=epoch: path.write_text(f"w{epoch}"))
            report.end_epoch(epoch, {"loss": 1.0})
        report.end_fit()
    catalog_link.is_down = False
    assert staged_checkpoints(execution) == ["epoch-0001.txt", "epoch-0002.txt"]
    ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert len(outputs(ml, execution, "Model")) == 2


def test_training_survives_broken_staging_folder(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """If no file can be staged, statuses are still recorded, and warnings name what is not."""
    (execution.working_dir / "outputs").write_text("in the way")
    with execution:
        train(execution, 2, upload="never")
    assert len(status_messages(execution)) == 2
    assert "Failed to register the checkpoint of epoch 1" in caplog.text
    assert len(re.findall(r"Failed to write or stage \S+metrics\.jsonl", caplog.text)) == 1


def test_terminal_status_stays(execution: Execution) -> None:
    """A terminal status set by the user stays; later messages of the training are in the journal."""
    with execution:
        execution.update_status(Status.aborted, "enough")
        train(execution, 1, upload="never")
    assert execution.status is Status.aborted
    assert status_messages(execution) == ["enough", "Epoch 1/1: loss=1"]


def test_killed_process_loses_no_metrics(ml: DerivaML, home: Path) -> None:
    """After SIGKILL in epoch 4, the three reported epochs are in the metrics file and the journal."""
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
    assert status_messages(execution)[:3] == ["Epoch 1: loss=1", "Epoch 2: loss=0.5", "Epoch 3: loss=0.3333"]
    execution.upload_execution_outputs()
    asset = outputs(ml, execution, "Execution_Metadata")["metrics.jsonl"]
    assert [line["epoch"] for line in lines(execution.download_asset(asset))] == [1, 2, 3]


def test_checkpoint_due_is_the_same_in_every_process(
    new_execution: Callable[[], Execution], catalog_link: CatalogLink
) -> None:
    """Whether a checkpoint is due depends on the epoch alone, without the catalog."""
    report = TrainingReporter(new_execution(), save_every_n_epochs=3)
    catalog_link.is_down = True
    assert [report.is_checkpoint_due(epoch) for epoch in range(1, 7)] == [False, False, True, False, False, True]


def test_docstring_example(ml: DerivaML) -> None:
    """The example in the class docstring runs as printed and records ten epochs of a torch model."""
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
    assert len(status_messages(execution)) == 10
    last = outputs(ml, execution, "Model")["epoch-0010.pt"]
    restored = torch.load(execution.download_asset(last))
    assert all(torch.equal(restored[name], weight) for name, weight in model.state_dict().items())


def test_dry_run_writes_nothing(ml: DerivaML) -> None:
    """A dry run records statuses locally; the catalog and the store do not change."""
    workflow = Workflow(name="Dry", workflow_type="Training", url="https://example.org/dry.py", checksum="y")
    with ml.create_execution(ExecutionConfiguration(workflow=workflow), dry_run=True) as execution:
        train(execution, 2)
    assert status_messages(execution) == ["Epoch 1/2: loss=1", "Epoch 2/2: loss=0.5"]
    assert ml.find_executions() == []
    assert ml.select_rows("Model") == []
