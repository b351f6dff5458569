"""Fits of Keras that go on from a backup know the run that they go on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keras_trainings import NUMPY_2, At, Losses, compiled, facts, fit, keras, lines, staged

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution
from deriva_ml_keras import DerivaMLCallback
from deriva_ml_keras.backup_restore import RUN_FILE

pytestmark = [NUMPY_2]

NewExecution = Callable[[], Execution]


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """The folder of BackupAndRestore."""
    return tmp_path / "backup"


def train(ours: DerivaMLCallback, backup: Path, *callbacks: Any, losses: tuple[float, ...] = (3.0, 1.0, 2.0)) -> Any:
    """Three epochs with a backup; what it goes on from is in ``history.epoch``."""
    restoring = keras.callbacks.BackupAndRestore(backup)
    return fit(compiled(), Losses(*losses), restoring, *callbacks, ours)


def fail_in_the_third_epoch() -> At:
    return At(2, lambda: 1 / 0)


@pytest.mark.parametrize("uploaded", [False, True])
def test_a_fit_that_goes_on_has_the_earlier_checkpoint_as_its_input(
    ml: DerivaML, execution: Execution, new_execution: NewExecution, backup: Path, uploaded: bool
) -> None:
    """The lineage runs from the run that failed to the one that goes on, also where its files are in the store."""
    with pytest.raises(ZeroDivisionError), execution:
        train(DerivaMLCallback(execution), backup, fail_in_the_third_epoch())
    if uploaded:
        execution.upload_execution_outputs()
    with (later := new_execution()):
        history = train(DerivaMLCallback(later), backup)
    assert history.epoch == [2]
    (used,) = ml.lookup_execution(later.execution_rid).list_assets("Input")
    assert used.filename == "epoch-0002.keras"
    assert used.rid in {each.rid for each in ml.lookup_execution(execution.execution_rid).list_assets("Output")}
    assert facts(later)[0]["resumed_from"]["execution"] == execution.execution_rid
    assert not backup.exists()


def test_our_best_value_survives(execution: Execution, new_execution: NewExecution, backup: Path) -> None:
    """A third epoch that is worse than the second, of the earlier run, is the last and not the best."""
    with pytest.raises(ZeroDivisionError), execution:
        train(DerivaMLCallback(execution, monitor="loss"), backup, fail_in_the_third_epoch())
    with (later := new_execution()):
        train(DerivaMLCallback(later, monitor="loss", upload="never"), backup)
    assert staged(later) == {"epoch-0003.keras": {"Model_File", "Last_Checkpoint"}}


def test_the_users_own_checkpoint_is_the_input(
    ml: DerivaML, execution: Execution, new_execution: NewExecution, backup: Path, tmp_path: Path
) -> None:
    """With a ModelCheckpoint, its file as the earlier run left it is the input, though the later one writes over it."""
    path = tmp_path / "last.keras"
    with pytest.raises(ZeroDivisionError), execution:
        train(DerivaMLCallback(execution), backup, keras.callbacks.ModelCheckpoint(path), fail_in_the_third_epoch())
    left = path.read_bytes()
    with (later := new_execution()):
        train(DerivaMLCallback(later), backup, keras.callbacks.ModelCheckpoint(path))
        (used,) = ml.lookup_execution(later.execution_rid).list_assets("Input")
        assert later.download_asset(used).read_bytes() == left != path.read_bytes()


def test_a_fit_goes_on_in_the_same_execution_where_asked(ml: DerivaML, backup: Path) -> None:
    """With ``resume="same"`` and an execution of its own, the one that failed goes on and is completed."""
    workflow = Workflow(name="Own", workflow_type="Training", url="https://example.org/own.py", checksum="0")
    configuration = ExecutionConfiguration(workflow=workflow)

    def callback() -> DerivaMLCallback:
        return DerivaMLCallback(ml=ml, configuration=configuration, resume="same")

    with pytest.raises(ZeroDivisionError), callback() as first:
        train(first, backup, fail_in_the_third_epoch())
    assert first.execution.status is Status.failed
    with callback() as second:
        train(second, backup)
    assert second.execution.execution_rid == first.execution.execution_rid
    assert second.execution.status is Status.completed
    assert [(line["fit"], line["epoch"]) for line in lines(second.execution)] == [(1, 1), (1, 2), (2, 3)]
    assert ml.lookup_execution(second.execution.execution_rid).list_assets("Input") == []


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_backup_says_whose_it_is_as_long_as_it_is_there(
    execution: Execution, backup: Path, ours_first: bool
) -> None:
    """Our file is written when the backup is, in any order of the callbacks, and goes with it."""
    seen: list[bool] = []
    restoring, ours = keras.callbacks.BackupAndRestore(backup), DerivaMLCallback(execution, upload="never")
    look = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append((backup / RUN_FILE).exists())
    )
    with execution:
        fit(compiled(), *([ours, restoring] if ours_first else [restoring, ours]), look, epochs=2)
    assert seen == [False] * 4 + [True] * 4
    assert not backup.exists()


@pytest.mark.parametrize("text", [None, "", "[]", '{"execution": 7, "best": "?", "checkpoint": 3}'])
def test_a_backup_that_does_not_say_whose_it_is_begins_a_new_run(
    ml: DerivaML, execution: Execution, backup: Path, text: str | None
) -> None:
    """Without our file, or with a spoilt one, Keras goes on, and the record begins anew."""
    with pytest.raises(ZeroDivisionError):
        fit(compiled(), keras.callbacks.BackupAndRestore(backup), fail_in_the_third_epoch())
    if text is not None:
        (backup / RUN_FILE).write_text(text)
    with execution:
        history = train(DerivaMLCallback(execution), backup)
    assert history.epoch == [2]
    assert facts(execution)[0]["resumed_from"] is None
    assert ml.lookup_execution(execution.execution_rid).list_assets("Input") == []
