"""Checkpoints of Keras fits: those of the option ``checkpoints``, and those of the user's callbacks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keras_helpers import NUMPY_2, POINTS, SUMS, CallAtEpoch, SetLosses, compile_model, fit, keras, staged_types
from training_helpers import outputs

from deriva_ml import DerivaML
from deriva_ml_core.execution import Execution
from deriva_ml_keras import DerivaMLCallback

pytestmark = [NUMPY_2]

BEST, LAST, MODEL = "Best_Checkpoint", "Last_Checkpoint", "Model_File"
LOSSES = (3.0, 1.0, 2.0)
"""The second epoch is the best."""


def record_fit(execution: Execution, *callbacks: Any, **options: Any) -> DerivaMLCallback:
    """Fit three epochs with these losses, other callbacks and options, without an upload."""
    recorded = DerivaMLCallback(execution, **{"upload": "never"} | options)
    fit(compile_model(), SetLosses(*LOSSES), *callbacks, recorded)
    return recorded


# The option checkpoints


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("best+last", {"epoch-0002.keras": {BEST}, "epoch-0003.keras": {LAST}}),
        ("best", {"epoch-0002.keras": {BEST}}),
        ("last", {"epoch-0003.keras": {LAST}}),
        ("all", {"epoch-0001.keras": set(), "epoch-0002.keras": {BEST}, "epoch-0003.keras": {LAST}}),
        ("none", {}),
    ],
)
def test_checkpoint_policies(execution: Execution, which: str, expected: dict[str, set[str]]) -> None:
    """The option decides what is kept; best and last have their types; superseded files are deleted."""
    with execution:
        recorded = record_fit(execution, checkpoints=which)
    assert staged_types(execution) == {name: types | {MODEL} for name, types in expected.items()}
    assert {path.name for path in recorded.execution.working_dir.rglob("*.keras")} == set(expected)


def test_weights_only(execution: Execution) -> None:
    """``weights_only`` leaves a ``.weights.h5`` file that the model loads."""
    model = compile_model()
    with execution:
        fit(model, DerivaMLCallback(execution, checkpoints="last", weights_only=True, upload="never"), epochs=1)
    assert set(staged_types(execution)) == {"epoch-0001.weights.h5"}
    other = compile_model()
    other.load_weights(next(execution.working_dir.rglob("*.weights.h5")))
    assert [w.tolist() for w in other.get_weights()] == [w.tolist() for w in model.get_weights()]


def test_save_every_n_steps(execution: Execution) -> None:
    """``save_every_n_steps`` keeps a checkpoint with the weights of that step, until the next."""

    def fail() -> None:
        raise ZeroDivisionError

    weights: list[Any] = []
    model = compile_model()
    with pytest.raises(ZeroDivisionError), execution:
        look = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: (
                weights.append([w.tolist() for w in model.get_weights()]) if batch < 3 else fail()
            )
        )
        fit(model, DerivaMLCallback(execution, save_every_n_steps=3, upload="never"), look)
    assert staged_types(execution) == {"step-00000003.keras": {MODEL, LAST}}
    restored = keras.models.load_model(next(execution.working_dir.rglob("*.keras")))
    assert [w.tolist() for w in restored.get_weights()] == weights[2]


def test_filename_template(execution: Execution) -> None:
    """``filename`` is formatted with epoch, step and metrics."""
    with execution:
        record_fit(execution, checkpoints="best", filename="{epoch:02d}-{loss:.1f}-{step}")
    assert set(staged_types(execution)) == {"02-1.0-8.keras"}


def test_checkpoint_is_hard_linked(ml: DerivaML, execution: Execution) -> None:
    """A checkpoint shares its bytes with the store and stays at its path during the run."""
    with execution:
        fit(compile_model(), DerivaMLCallback(execution, checkpoints="last"), epochs=1)
        (path,) = execution.working_dir.rglob("epoch-0001.keras")
        assert path.stat().st_nlink == 2
        keras.models.load_model(path)
    outputs(ml, execution, "Model")


# ModelCheckpoints of the user


@pytest.mark.parametrize("callback_first", [True, False])
def test_user_checkpoint_is_recorded(ml: DerivaML, execution: Execution, tmp_path: Path, callback_first: bool) -> None:
    """With a ModelCheckpoint, its file is uploaded with its newest content and stays, in any callback order."""
    path, model = tmp_path / "mine" / "best.keras", compile_model()
    model_checkpoint = keras.callbacks.ModelCheckpoint(path, monitor="loss", save_best_only=True)
    recorded = DerivaMLCallback(execution)
    with execution:
        fit(
            model,
            SetLosses(*LOSSES),
            *([recorded, model_checkpoint] if callback_first else [model_checkpoint, recorded]),
        )
    assets = outputs(ml, execution, "Model")
    assert {name: set(asset.asset_types) for name, asset in assets.items()} == {"best.keras": {MODEL, BEST, LAST}}
    assert execution.download_asset(assets["best.keras"]).read_bytes() == path.read_bytes()
    assert int(keras.models.load_model(path).optimizer.iterations) == 8


@pytest.mark.parametrize("callback_first", [True, False])
def test_all_user_checkpoints_are_recorded(execution: Execution, tmp_path: Path, callback_first: bool) -> None:
    """With fields in the name, all files are recorded; the best and the last have their types."""
    model_checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch:02d}-{loss:.1f}.keras", monitor="loss")
    recorded = DerivaMLCallback(execution, upload="never")
    with execution:
        fit(
            compile_model(),
            SetLosses(*LOSSES),
            *([recorded, model_checkpoint] if callback_first else [model_checkpoint, recorded]),
        )
    assert staged_types(execution) == {
        "01-3.0.keras": {MODEL},
        "02-1.0.keras": {MODEL, BEST},
        "03-2.0.keras": {MODEL, LAST},
    }


def test_best_and_last_of_two_callbacks(execution: Execution, tmp_path: Path) -> None:
    """One ModelCheckpoint writes the best and another the last, as weights only; each file has its type."""
    best = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="loss", save_best_only=True)
    last = keras.callbacks.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True)
    with execution:
        record_fit(execution, best, last)
    assert staged_types(execution) == {"best.keras": {MODEL, BEST}, "last.weights.h5": {MODEL, LAST}}


def test_deleted_checkpoint_is_unstaged(ml: DerivaML, execution: Execution, tmp_path: Path) -> None:
    """A deleted file is unstaged."""
    model_checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    delete = CallAtEpoch(2, (tmp_path / "1.keras").unlink)
    with execution:
        fit(compile_model(), model_checkpoint, delete, DerivaMLCallback(execution))
    assert set(outputs(ml, execution, "Model")) == {"2.keras", "3.keras"}


def test_earlier_files_are_ignored(execution: Execution, tmp_path: Path) -> None:
    """Files of an earlier run that match the template are ignored."""
    (tmp_path / "99.keras").write_text("of another run")
    with execution:
        record_fit(execution, keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"))
    assert set(staged_types(execution)) == {"1.keras", "2.keras", "3.keras"}


def test_checkpoints_option_ignores_user_checkpoints(execution: Execution, tmp_path: Path) -> None:
    """With ``checkpoints=``, files of a ModelCheckpoint are not recorded."""
    with execution:
        record_fit(execution, keras.callbacks.ModelCheckpoint(tmp_path / "mine.keras"), checkpoints="best")
    assert set(staged_types(execution)) == {"epoch-0002.keras"}
    assert (tmp_path / "mine.keras").exists()


def test_user_checkpoint_in_staging_folder(ml: DerivaML, execution: Execution) -> None:
    """A path from ``asset_file_path`` works and stays; two fits that write to it in place upload their own content."""
    model, recorded = compile_model(), DerivaMLCallback(execution)
    with execution:
        path = execution.asset_file_path("Model", "mine.keras", asset_types=["Model_File", "Derived"])
        model_checkpoint = keras.callbacks.ModelCheckpoint(path, monitor="loss")
        for _ in range(2):
            fit(model, model_checkpoint, recorded, epochs=1)
    assets = [
        each for each in ml.lookup_execution(execution.execution_rid).list_assets("Output") if each.table == "Model"
    ]
    assert [each.filename for each in assets] == ["mine.keras", "mine.keras"]
    assert set(assets[0].asset_types) == {MODEL, "Derived"}
    assert {BEST, LAST} <= set(assets[1].asset_types)
    assert assets[0].md5 != assets[1].md5
    for each in assets:
        ml.verify_asset(each)
    execution.upload_execution_outputs(clean_folder=True)
    assert path.stat().st_nlink == 1
    assert keras.models.load_model(path).count_params() == model.count_params()


def test_two_files_with_one_name(execution: Execution, tmp_path: Path) -> None:
    """Two callbacks that write ``best.keras`` in two folders: the second gets its folder's name."""
    one = keras.callbacks.ModelCheckpoint(tmp_path / "a" / "best.keras", monitor="loss", save_best_only=True)
    other = keras.callbacks.ModelCheckpoint(tmp_path / "b" / "best.keras")
    with execution:
        record_fit(execution, one, other)
    assert set(staged_types(execution)) == {"best.keras", "b/best.keras"}


def test_user_checkpoints_within_epoch(execution: Execution, tmp_path: Path) -> None:
    """With ``save_freq`` in batches, a file written before a failure in the same epoch is recorded."""
    model_checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}-{batch}.weights.h5", save_freq=2, save_weights_only=True
    )

    def fail(batch: int, logs: Any) -> None:
        if batch == 3:
            raise ZeroDivisionError

    stop = keras.callbacks.LambdaCallback(on_train_batch_end=fail)
    with pytest.raises(ZeroDivisionError), execution:
        fit(compile_model(), model_checkpoint, stop, DerivaMLCallback(execution))
    assert set(staged_types(execution)) == {"1-2.weights.h5", "1-4.weights.h5"}


def test_user_checkpoint_of_two_runs(
    ml: DerivaML, execution: Execution, new_execution: Callable[[], Execution], tmp_path: Path
) -> None:
    """A path that two runs write gives each run its own content."""
    path, model = tmp_path / "last.keras", compile_model()
    model_checkpoint, other = keras.callbacks.ModelCheckpoint(path), new_execution()
    for each in (execution, other):
        with each:
            fit(model, model_checkpoint, DerivaMLCallback(each), epochs=1)
    one, two = (outputs(ml, each, "Model")["last.keras"] for each in (execution, other))
    assert one.md5 != two.md5


# The metric that decides


def set_metrics(*values: dict[str, float]) -> Any:
    """Return a callback that replaces the metrics of each epoch, for the callbacks after it."""

    class SetMetrics(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs.clear()
            logs.update(values[epoch])

    return SetMetrics()


def test_validation_freq(execution: Execution) -> None:
    """With ``validation_freq=3``, the epoch with the best validation is the best, and the loss of others is not."""
    data = (POINTS, SUMS)
    with execution:
        recorded = DerivaMLCallback(execution, upload="never")
        epochs = [{"loss": 1 / n} | ({"val_loss": n} if n % 3 == 0 else {}) for n in range(1, 8)]
        fit(compile_model(), set_metrics(*epochs), recorded, epochs=7, validation_data=data, validation_freq=3)
    assert staged_types(execution) == {"epoch-0003.keras": {BEST, MODEL}, "epoch-0007.keras": {LAST, MODEL}}


@pytest.mark.parametrize("mode", ["max", "auto"])
def test_early_stopping_decides(execution: Execution, mode: str) -> None:
    """The monitored metric of an EarlyStopping decides, in its mode, or in that of the metric object."""

    class Wobble(keras.metrics.MeanMetricWrapper):
        def __init__(self) -> None:
            super().__init__(lambda y, prediction: y, name="wobble")
            self._direction = "up"

    stopping = keras.callbacks.EarlyStopping(monitor="val_wobble", mode=mode, patience=9)
    epochs = [{"loss": 1.0, "val_loss": 1 / n, "val_wobble": n % 3} for n in (1, 2, 3)]
    with execution:
        model = compile_model(metrics=[Wobble()])
        recorded = DerivaMLCallback(execution, upload="never")
        fit(model, set_metrics(*epochs), stopping, recorded, validation_data=(POINTS, SUMS))
    assert staged_types(execution) == {"epoch-0002.keras": {BEST, MODEL}, "epoch-0003.keras": {LAST, MODEL}}


def test_callbacks_with_different_monitors(execution: Execution, tmp_path: Path) -> None:
    """With two ModelCheckpoints that monitor different metrics, the first one decides which file is the best."""
    first = keras.callbacks.ModelCheckpoint(tmp_path / "a{epoch}.keras", monitor="val_mae")
    second = keras.callbacks.ModelCheckpoint(tmp_path / "b{epoch}.keras", monitor="loss")
    epochs = [{"loss": float(n), "val_mae": value} for n, value in enumerate((3.0, 1.0, 2.0), start=1)]
    with execution:
        fit(compile_model(), set_metrics(*epochs), first, second, DerivaMLCallback(execution, upload="never"))
    assert [name for name, types in staged_types(execution).items() if BEST in types] == ["a2.keras"]


@pytest.mark.parametrize("save_freq", ["epoch", 4])
def test_relative_path_of_a_program_that_changes_its_folder(
    execution: Execution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_freq: Any
) -> None:
    """Files of a relative path are recorded where Keras writes them; a file from before the fit is not."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "models").mkdir(parents=True)
        (folder / "models" / "9.keras").write_text("an old file")
        os.utime(folder / "models" / "9.keras", (1_000_000_000, 1_000_000_000))
    monkeypatch.chdir(first)
    saving = keras.callbacks.ModelCheckpoint("models/{epoch}.keras", save_freq=save_freq)
    with execution:
        recorded = DerivaMLCallback(execution, upload="never")
        fit(compile_model(), saving, CallAtEpoch(1, lambda: os.chdir(second)), recorded)
    staged = {each.filename: each.path for each in execution.staged_assets() if each.table == "Model"}
    assert set(staged) == {"1.keras", "2.keras", "3.keras"}
    written = [*(first / "models").iterdir(), *(second / "models").iterdir()]
    assert {str(path.relative_to(tmp_path)) for path in written} == {
        *("first/models/1.keras", "first/models/9.keras", "second/models/2.keras", "second/models/3.keras"),
        "second/models/9.keras",
    }


def test_deleted_working_folder(execution: Execution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit in a folder that was deleted goes on; its checkpoints have absolute paths."""
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    with execution:
        history = fit(compile_model(), saving, DerivaMLCallback(execution, upload="never"), epochs=1)
    assert history.epoch == [0]
    assert "1.keras" in {each.filename for each in execution.staged_assets()}
