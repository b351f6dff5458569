"""Metric that decides which checkpoint is the best: chosen once, and kept by later fits."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.execution import Execution
from deriva_ml_core.metric_modes import Monitor
from deriva_ml_core.training import TrainingReporter

BEST, LAST = {"Best_Checkpoint"}, {"Last_Checkpoint"}


def train(report: TrainingReporter, *epochs: dict[str, float], first: int = 1) -> None:
    """Train an epoch for each set of metrics and save its checkpoint if one is due."""
    for number, metrics in enumerate(epochs, start=first):
        report.save_checkpoint(number, ".txt", lambda path, text=f"w{number}": path.write_text(text), metrics)
        report.end_epoch(number, metrics)


def staged_types(execution: Execution) -> dict[str, set[str]]:
    """Return the staged checkpoints with their asset types other than Model_File."""
    return {
        asset.filename: set(asset.asset_types) - {"Model_File"}
        for asset in execution.staged_assets()
        if asset.table == "Model"
    }


def fit_summaries(execution: Execution) -> list[dict[str, Any]]:
    """Return the summaries in training.json."""
    fits: list[dict[str, Any]] = json.loads((execution.working_dir / "training.json").read_text())["fits"]
    return fits


VALIDATED_EVERY_THIRD = (
    {"loss": 0.5},
    {"loss": 0.4},
    {"loss": 0.3, "val_loss": 0.9},
    {"loss": 0.2},
    {"loss": 0.1},
    {"loss": 0.05, "val_loss": 2.0},
    {"loss": 0.01},
)


def test_validation_every_third_epoch(execution: Execution) -> None:
    """The epoch with the best validation is the best, also if validation runs in every third epoch."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        report.begin_fit(epochs=7)
        train(report, *VALIDATED_EVERY_THIRD)
        report.end_fit()
        assert staged_types(execution) == {"epoch-0003.txt": BEST, "epoch-0007.txt": LAST}
        assert (execution.working_dir / "outputs/Model/epoch-0003.txt").read_text() == "w3"
        summary = fit_summaries(execution)[0]
        assert summary["best"] == {"epoch": 3, "metric": "val_loss", "value": 0.9}


def test_loss_decides_provisionally(execution: Execution) -> None:
    """Before the first validation, the loss decides; its best file stays until a validated checkpoint is saved."""
    with execution:
        report = TrainingReporter(execution, upload="never", save_every_n_epochs=2)
        report.begin_fit(epochs=6)
        train(report, {"loss": 3.0}, {"loss": 1.0})
        assert staged_types(execution) == {"epoch-0002.txt": BEST | LAST}
        train(report, {"loss": 0.9, "val_loss": 5.0}, {"loss": 0.1}, first=3)  # epoch 3 is not saved
        assert staged_types(execution) == {"epoch-0002.txt": BEST, "epoch-0004.txt": LAST}
        train(report, {"loss": 0.1}, {"loss": 2.0, "val_loss": 7.0}, first=5)
        assert staged_types(execution) == {"epoch-0006.txt": BEST | LAST}
        report.end_fit()


def test_failed_save_does_not_count(execution: Execution) -> None:
    """A checkpoint whose write fails is not the best, and the provisional best stays."""

    def fail(path: Path) -> None:
        raise OSError("disk full")

    with execution:
        report = TrainingReporter(execution, checkpoints="best", upload="never", filename="model")
        report.begin_fit(epochs=3)
        train(report, {"loss": 1.0})
        report.save_checkpoint(2, ".txt", fail, {"loss": 0.5, "val_loss": 1.0})
        assert staged_types(execution) == {"model.txt": BEST}
        assert (execution.working_dir / "outputs/Model/model.txt").read_text() == "w1"
        train(report, {"loss": 0.4, "val_loss": 2.0}, first=3)
        assert (execution.working_dir / "outputs/Model/model.txt").read_text() == "w3"
        report.end_fit()


@pytest.mark.parametrize("fails_first", [True, False])
def test_failure_of_an_earlier_write(execution: Execution, fails_first: bool) -> None:
    """If a write fails after the next checkpoint was registered, the next one is compared with what exists.

    The write can fail before or after the next one is complete.
    """
    with execution:
        report = TrainingReporter(execution, upload="never")
        report.begin_fit()
        train(report, {"val_loss": 3.0})
        second = report.checkpoint_path(2, ".txt", {"val_loss": 1.0})
        third = report.checkpoint_path(3, ".txt", {"val_loss": 2.0})
        assert second is not None
        assert third is not None
        if fails_first:
            report.checkpoints.discard(second)
        third.write_text("w3")
        report.checkpoints.commit(third)
        if not fails_first:
            report.checkpoints.discard(second)
        assert staged_types(execution) == {"epoch-0003.txt": BEST | LAST}
        train(report, {"val_loss": 2.5}, first=4)
        assert staged_types(execution) == {"epoch-0003.txt": BEST, "epoch-0004.txt": LAST}
        report.end_fit()


def test_second_fit_keeps_the_choice(execution: Execution) -> None:
    """A further fit of the same reporter does not judge by the loss again."""
    with execution:
        report = TrainingReporter(execution, upload="never")
        report.begin_fit(epochs=1)
        train(report, {"loss": 1.0, "val_loss": 1.0})
        report.end_fit()
        report.begin_fit(epochs=4)
        train(report, {"loss": 0.5}, {"loss": 0.4, "val_loss": 3.0}, {"loss": 0.1}, {"loss": 0.3})
        report.end_fit()
        # the second file is the best of its fit, and the first the best of both
        expected = {"epoch-0001.txt": BEST, "fit-2-epoch-0002.txt": set(), "fit-2-epoch-0004.txt": LAST}
        assert staged_types(execution) == expected


def test_resumed_fit_keeps_the_choice(execution: Execution) -> None:
    """A resumed fit keeps the metric and its best value, although its first epochs have no validation."""
    with execution:
        first = TrainingReporter(execution, upload="never")
        first.begin_fit(epochs=3)
        train(first, *VALIDATED_EVERY_THIRD[:3])
        state = json.loads(json.dumps(first.state()))
        first.end_fit()
        assert state["best"] == {"name": "val_loss", "value": 0.9, "larger": False}
        resumed = TrainingReporter(execution, upload="never")
        resumed.resume_from(state, None)
        resumed.begin_fit(epochs=7)
        train(resumed, *VALIDATED_EVERY_THIRD[3:], first=4)
        resumed.end_fit()
        expected = {"fit-2-epoch-0007.txt": LAST}  # no epoch is better than the third
        assert {name: types for name, types in staged_types(execution).items() if "fit-2" in name} == expected


def test_resume_from_a_provisional_choice(execution: Execution) -> None:
    """A provisional value that an earlier run stored does not hide the first validation."""
    with execution:
        state = {"execution": execution.execution_rid, "best": {"name": "loss", "value": 0.01, "larger": False}}
        report = TrainingReporter(execution, upload="never")
        report.resume_from(state, None)
        report.begin_fit(epochs=3)
        train(report, {"loss": 0.5}, {"loss": 0.4, "val_loss": 9.0}, {"loss": 0.3})
        report.end_fit()
        assert staged_types(execution) == {"epoch-0002.txt": BEST, "epoch-0003.txt": LAST}


VALIDATION_NAMES = (
    *("val_loss", "valid_loss", "validation_loss", "val/loss", "valid/loss", "eval_loss", "eval/loss", "dev_loss"),
    *("val_loss/dataloader_idx_0", "loss/val", "loss_val", "Loss/validation", "valLoss", "ValidationLoss"),
    *("val_acc", "metrics/val_accuracy", "val-loss", "val.loss", "a_model/val_loss", "val_loss_epoch"),
)
TRAINING_NAMES = ("loss", "train_loss", "train/loss", "a_loss", "aux/loss", "zzz_loss")


@pytest.mark.parametrize("name", VALIDATION_NAMES)
def test_any_name_of_validation_decides(name: str) -> None:
    """A metric of a validation decides, whatever its spelling, and not the training loss."""
    for training in TRAINING_NAMES:
        monitor = Monitor()
        (value,) = monitor.scores({training: 1.0, name: 2.0})
        assert (value.name, value.value, monitor.is_final) == (name, 2.0, True)


@pytest.mark.parametrize("name", ["valid_loss", "val/loss", "val_loss/dataloader_idx_0"])
def test_checkpoint_of_best_validation(execution: Execution, name: str) -> None:
    """The checkpoint with the smallest validation loss is the best, whatever the name of that loss."""
    with execution:
        report = TrainingReporter(execution, checkpoints="best", upload="never", curves=False)
        report.begin_fit(epochs=3)
        train(report, *({"train/loss": 1 / number, name: value} for number, value in enumerate((3, 1, 2), start=1)))
        report.end_fit()
        assert staged_types(execution) == {"epoch-0002.txt": BEST}


@pytest.mark.parametrize(
    "name", ["std_dev", "max_val", "abs_val_error", "evaluated_loss", "validity_loss", "test_loss"]
)
def test_names_that_are_no_validation(name: str) -> None:
    """A name in which such a word means something else is not a validation; nor is a test."""
    monitor = Monitor()
    (value,) = monitor.scores({"loss": 3.0, name: 1.0})
    assert (value.name, monitor.is_final) == ("loss", False)


def test_validation_loss_precedes_other_validation_metrics(execution: Execution) -> None:
    """Among the metrics of the first validation, the loss decides; the choice is final."""
    with execution:
        report = TrainingReporter(execution, checkpoints="best", upload="never")
        report.begin_fit(epochs=3)
        train(
            report,
            {"val_acc": 0.1, "val_box_loss": 1.0, "val/loss": 3.0},
            {"val_acc": 0.9, "val_box_loss": 2.0, "val/loss": 1.0},
            {"val_acc": 0.8, "val_box_loss": 0.1, "val/loss": 2.0, "val_loss": 0.5},
        )
        report.end_fit()
        assert staged_types(execution) == {"epoch-0002.txt": BEST}


def test_deciding_metric_is_logged_once(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """One message names the metric that decides, and training.json has it."""
    with execution, caplog.at_level(logging.INFO, "deriva_ml_core"):
        report = TrainingReporter(execution, upload="never")
        report.begin_fit(epochs=7)
        train(report, *VALIDATED_EVERY_THIRD)
        report.end_fit()
        assert [record.message for record in caplog.records if "decides" in record.message] == [
            "The metric 'val_loss' decides which checkpoint is the best (smaller is better)."
        ]
        assert fit_summaries(execution)[0]["monitor"] == {"metric": "val_loss", "mode": "min"}


def test_unknown_direction_keeps_both_extremes(execution: Execution, caplog: pytest.LogCaptureFixture) -> None:
    """While the direction is unknown, the smallest, the largest and the last are kept, and one warning asks for it."""
    with execution:
        report = TrainingReporter(execution, upload="never", curves=False)
        report.begin_fit(epochs=6)
        values = (2.0, 5.0, 1.0, 3.0, 4.0, 2.0)
        train(report, *({"loss": 1 / n, "val_wobble": value} for n, value in enumerate(values, start=1)))
        report.end_fit()
        kept = {"epoch-0002.txt": set(), "epoch-0003.txt": set(), "epoch-0006.txt": LAST}
        assert staged_types(execution) == kept
        folder = execution.working_dir / "outputs/Model"
        assert {path.name for path in folder.iterdir()} == set(kept)
        messages = [record.message for record in caplog.records if "decides" in record.message]
        assert messages == [
            "The metric 'val_wobble' decides which checkpoint is the best, but it is unknown whether smaller or larger "
            "values are better. Pass mode='min' or mode='max'. Until then, the checkpoints with the smallest and "
            "with the largest value are kept in addition to the last."
        ]
        assert fit_summaries(execution)[0]["monitor"] == {"metric": "val_wobble", "mode": None}
        assert fit_summaries(execution)[0]["best"] is None


def test_extremes_with_one_file_name(execution: Execution) -> None:
    """A template that gives equal names does not overwrite one of the extremes."""
    with execution:
        report = TrainingReporter(execution, upload="never", curves=False, filename="model", monitor="wobble")
        report.begin_fit(epochs=6)
        train(report, *({"wobble": value} for value in (2.0, 5.0, 1.0, 3.0, 4.0)))
        report.end_fit()
        texts = sorted(path.read_text() for path in (execution.working_dir / "outputs/Model").iterdir())
        assert texts == ["w2", "w3", "w5"]


def test_mode_given_later(execution: Execution) -> None:
    """When the framework gives the mode, the best is marked and the other extreme is removed."""
    with execution:
        report = TrainingReporter(execution, upload="never", curves=False)
        report.begin_fit(epochs=4)
        train(report, *({"val_wobble": value} for value in (2.0, 5.0, 1.0)))
        report.monitor.add_framework_modes({"val_wobble": "max"})
        train(report, {"val_wobble": 3.0}, first=4)
        report.end_fit()
        assert staged_types(execution) == {"epoch-0002.txt": BEST, "epoch-0004.txt": LAST}


def test_resumed_fit_keeps_the_extremes(execution: Execution) -> None:
    """A resumed fit compares with the smallest and the largest value of the earlier part."""
    with execution:
        first = TrainingReporter(execution, upload="never", curves=False)
        first.begin_fit()
        train(first, *({"val_wobble": value} for value in (2.0, 5.0, 1.0)))
        state = json.loads(json.dumps(first.state()))
        first.end_fit()
        resumed = TrainingReporter(execution, upload="never", curves=False)
        resumed.resume_from(state, None)
        resumed.begin_fit()
        train(resumed, *({"val_wobble": value} for value in (4.0, 6.0, 3.0)), first=4)
        resumed.end_fit()
        kept = {"fit-2-epoch-0005.txt": set(), "fit-2-epoch-0006.txt": LAST}
        assert {name: types for name, types in staged_types(execution).items() if "fit-2" in name} == kept


def test_framework_monitor_and_mode(execution: Execution) -> None:
    """The metric of a framework's callback decides, in its mode; the user's options take precedence."""
    metrics = [{"val_loss": 1 / number, "val_wobble": value} for number, value in enumerate((1.0, 3.0, 2.0), start=1)]
    with execution:
        for options, best in (({}, 2), ({"monitor": "val_loss"}, 3), ({"mode": "min"}, 1)):
            report = TrainingReporter(execution, checkpoints="best", upload="never", curves=False, **options)
            report.monitor.set_framework_monitor("val_wobble")
            report.monitor.add_framework_modes({"val_wobble": "max"})
            report.begin_fit(epochs=3)
            train(report, *metrics)
            assert report.checkpoints.best is not None
            assert report.checkpoints.best[0] == best
            report.end_fit()
