"""Keras fits that resume from a backup continue the record of their run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keras_helpers import (
    NUMPY_2,
    CallAtEpoch,
    SetLosses,
    compile_model,
    fit,
    fit_summaries,
    keras,
    metrics_lines,
    staged_types,
)

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution
from deriva_ml_keras import DerivaMLCallback
from deriva_ml_keras.backup_restore import RUN_FILE

pytestmark = [NUMPY_2]

NewExecution = Callable[[], Execution]


@pytest.fixture
def backup_folder(tmp_path: Path) -> Path:
    """The folder of BackupAndRestore."""
    return tmp_path / "backup"


def train(
    recorded: DerivaMLCallback, backup_folder: Path, *callbacks: Any, losses: tuple[float, ...] = (3.0, 1.0, 2.0)
) -> Any:
    """Train three epochs with a backup; ``history.epoch`` has the epochs after a restore."""
    restoring = keras.callbacks.BackupAndRestore(backup_folder)
    return fit(compile_model(), SetLosses(*losses), restoring, *callbacks, recorded)


def fail_in_the_third_epoch() -> CallAtEpoch:
    return CallAtEpoch(2, lambda: 1 / 0)


@pytest.mark.parametrize("uploaded", [False, True])
def test_resumed_fit_has_checkpoint_as_input(
    ml: DerivaML, execution: Execution, new_execution: NewExecution, backup_folder: Path, uploaded: bool
) -> None:
    """The lineage leads from the failed run to the resumed one, even if the files are in the store."""
    with pytest.raises(ZeroDivisionError), execution:
        train(DerivaMLCallback(execution), backup_folder, fail_in_the_third_epoch())
    if uploaded:
        execution.upload_execution_outputs()
    with (later := new_execution()):
        history = train(DerivaMLCallback(later), backup_folder)
    assert history.epoch == [2]
    (used,) = ml.lookup_execution(later.execution_rid).list_assets("Input")
    assert used.filename == "epoch-0002.keras"
    assert used.rid in {each.rid for each in ml.lookup_execution(execution.execution_rid).list_assets("Output")}
    assert fit_summaries(later)[0]["resumed_from"]["execution"] == execution.execution_rid
    assert not backup_folder.exists()


def test_best_value_survives(execution: Execution, new_execution: NewExecution, backup_folder: Path) -> None:
    """A third epoch that is worse than the second, of the earlier run, is the last and not the best."""
    with pytest.raises(ZeroDivisionError), execution:
        train(DerivaMLCallback(execution, monitor="loss"), backup_folder, fail_in_the_third_epoch())
    with (later := new_execution()):
        train(DerivaMLCallback(later, monitor="loss", upload="never"), backup_folder)
    assert staged_types(later) == {"epoch-0003.keras": {"Model_File", "Last_Checkpoint"}}


def test_user_checkpoint_is_the_input(
    ml: DerivaML, execution: Execution, new_execution: NewExecution, backup_folder: Path, tmp_path: Path
) -> None:
    """The ModelCheckpoint file of the earlier run is the input, even if the new run overwrites it."""
    path = tmp_path / "last.keras"
    with pytest.raises(ZeroDivisionError), execution:
        train(
            DerivaMLCallback(execution), backup_folder, keras.callbacks.ModelCheckpoint(path), fail_in_the_third_epoch()
        )
    left = path.read_bytes()
    with (later := new_execution()):
        train(DerivaMLCallback(later), backup_folder, keras.callbacks.ModelCheckpoint(path))
        (used,) = ml.lookup_execution(later.execution_rid).list_assets("Input")
        assert later.download_asset(used).read_bytes() == left != path.read_bytes()


def test_resume_same(ml: DerivaML, backup_folder: Path) -> None:
    """With ``resume="same"`` and an owned execution, the failed execution continues and is completed."""
    workflow = Workflow(name="Own", workflow_type="Training", url="https://example.org/own.py", checksum="0")
    configuration = ExecutionConfiguration(workflow=workflow)

    def callback() -> DerivaMLCallback:
        return DerivaMLCallback(ml=ml, configuration=configuration, resume="same")

    with pytest.raises(ZeroDivisionError), callback() as first:
        train(first, backup_folder, fail_in_the_third_epoch())
    assert first.execution.status is Status.failed
    with callback() as second:
        train(second, backup_folder)
    assert second.execution.execution_rid == first.execution.execution_rid
    assert second.execution.status is Status.completed
    assert [(line["fit"], line["epoch"]) for line in metrics_lines(second.execution)] == [(1, 1), (1, 2), (2, 3)]
    assert ml.lookup_execution(second.execution.execution_rid).list_assets("Input") == []


@pytest.mark.parametrize("callback_first", [True, False])
def test_run_file_lives_with_backup(execution: Execution, backup_folder: Path, callback_first: bool) -> None:
    """The run file is written with the backup, in any callback order, and deleted with it."""
    seen: list[bool] = []
    restoring, recorded = keras.callbacks.BackupAndRestore(backup_folder), DerivaMLCallback(execution, upload="never")
    look = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append((backup_folder / RUN_FILE).exists())
    )
    with execution:
        fit(compile_model(), *([recorded, restoring] if callback_first else [restoring, recorded]), look, epochs=2)
    assert seen == [False] * 4 + [True] * 4
    assert not backup_folder.exists()


@pytest.mark.parametrize("text", [None, "", "[]", '{"execution": 7, "best": "?", "checkpoint": 3}'])
def test_backup_without_run_file(ml: DerivaML, execution: Execution, backup_folder: Path, text: str | None) -> None:
    """Without a valid run file, Keras resumes and the fit is recorded as a new run."""
    with pytest.raises(ZeroDivisionError):
        fit(compile_model(), keras.callbacks.BackupAndRestore(backup_folder), fail_in_the_third_epoch())
    if text is not None:
        (backup_folder / RUN_FILE).write_text(text)
    with execution:
        history = train(DerivaMLCallback(execution), backup_folder)
    assert history.epoch == [2]
    assert fit_summaries(execution)[0]["resumed_from"] is None
    assert ml.lookup_execution(execution.execution_rid).list_assets("Input") == []
