"""The callback in real fits of Keras, on the torch backend."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from trainings import Line, outputs, told

os.environ["KERAS_BACKEND"] = "torch"
pytest.importorskip("torch", reason="torch, the backend that these tests run Keras on, is not installed")
keras = pytest.importorskip("keras", reason="keras is not installed")

from deriva_ml import DerivaML  # noqa: E402
from deriva_ml_core.definitions import Status  # noqa: E402
from deriva_ml_core.errors import UploadFailed  # noqa: E402
from deriva_ml_core.execution.execution import Execution  # noqa: E402
from deriva_ml_keras import DerivaMLCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras 3.15 with numpy 2
]

POINTS = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
SUMS = POINTS.sum(1, keepdims=True)


def compiled() -> Any:
    """A small network with dropout, so that any touch of the random state shows."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(8, activation="relu"), layers.Dropout(0.5), layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    return model.fit(POINTS, SUMS, batch_size=8, verbose=0, callbacks=list(callbacks), **{"epochs": 3} | options)


def same_weights(one: Any, other: Any) -> bool:
    return all(np.array_equal(*pair) for pair in zip(one.get_weights(), other.get_weights(), strict=True))


def staged(execution: Execution) -> list[str]:
    return [asset.filename for asset in execution.staged_assets() if asset.table == "Model"]


def progress_of(execution: Execution) -> list[Any]:
    return [status.progress for status in execution.list_statuses() if status.progress]


class At(keras.callbacks.Callback):
    """Does something when an epoch begins."""

    def __init__(self, epoch: int, act: Callable[[], None]) -> None:
        super().__init__()
        self.epoch, self.act = epoch, act

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            self.act()


def test_a_fit_is_recorded(ml: DerivaML, execution: Execution) -> None:
    """Each epoch leaves a status with its metrics; the best and the last checkpoint are kept; the end uploads all."""
    model = compiled()
    with execution:
        fit(model, DerivaMLCallback(execution), validation_data=(POINTS, SUMS))
        assert execution.staged_assets() == []
    assert execution.status is Status.completed
    assert [message.partition(": ")[0] for message in told(execution)] == ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3"]
    assert [(each.epoch, each.epochs, each.step) for each in progress_of(execution)] == [
        (1, 3, 4),
        (2, 3, 8),
        (3, 3, 12),
    ]
    assert [set(each.metrics) for each in progress_of(execution)] == [{"loss", "mae", "val_loss", "val_mae"}] * 3
    checkpoints = outputs(ml, execution, "Model")
    last = next(asset for asset in checkpoints.values() if "Last_Checkpoint" in asset.asset_types)
    assert last.filename == "epoch-0003.keras"
    assert sum("Best_Checkpoint" in asset.asset_types for asset in checkpoints.values()) == 1
    kept = keras.models.load_model(execution.download_asset(last))
    assert same_weights(kept, model)
    assert {"metrics.jsonl", "training.json"} <= set(outputs(ml, execution, "Execution_Metadata"))


def test_the_metrics_are_those_of_the_history(execution: Execution) -> None:
    """What was told is what Keras' own History holds."""
    with execution:
        history = fit(compiled(), DerivaMLCallback(execution, upload="never"), validation_data=(POINTS, SUMS)).history
    for name, values in history.items():
        assert [each.metrics[name] for each in progress_of(execution)] == pytest.approx(values)


def test_the_callback_touches_no_weights(execution: Execution) -> None:
    """With the same seed, a fit with the callback ends in bit-identical weights as one without."""
    bare = compiled()
    fit(bare)
    recorded = compiled()
    with execution:
        fit(recorded, DerivaMLCallback(execution))
    assert len(told(execution)) == 3
    assert same_weights(bare, recorded)


def test_a_fit_that_goes_on_keeps_counting(execution: Execution) -> None:
    """``initial_epoch`` is taken up: the statuses go on from there."""
    with execution:
        fit(compiled(), DerivaMLCallback(execution, upload="never"), initial_epoch=2, epochs=4)
    assert [message.partition(":")[0] for message in told(execution)] == ["Epoch 3/4", "Epoch 4/4"]


def test_two_fits_lose_nothing(ml: DerivaML, execution: Execution) -> None:
    """A second fit in the same execution keeps its checkpoints beside those of the first."""
    model = compiled()
    with execution:
        one = DerivaMLCallback(execution)
        fit(model, one, epochs=1)
        fit(model, one, epochs=1)
    assert sorted(outputs(ml, execution, "Model")) == ["epoch-0001.keras", "fit-2-epoch-0001.keras"]


def test_checkpoints_are_as_far_apart_as_asked(execution: Execution) -> None:
    """``save_every_n_epochs`` spaces the checkpoints."""
    with execution:
        one = DerivaMLCallback(execution, checkpoints="all", save_every_n_epochs=2, upload="never")
        fit(compiled(), one, epochs=4)
    assert staged(execution) == ["epoch-0002.keras", "epoch-0004.keras"]


def test_checkpoints_go_where_they_were_asked_to(ml: DerivaML, execution: Execution) -> None:
    """``checkpoint_table`` and ``checkpoint_types`` hold for Keras' checkpoints."""
    with execution:
        one = DerivaMLCallback(
            execution, checkpoint_table="Execution_Asset", checkpoint_types=["Model_File", "Derived"]
        )
        fit(compiled(), one, epochs=1)
    asset = outputs(ml, execution, "Execution_Asset")["epoch-0001.keras"]
    assert {"Model_File", "Derived"} <= set(asset.asset_types)


def test_nothing_is_uploaded_where_that_was_asked_for(ml: DerivaML, execution: Execution) -> None:
    """With ``upload="never"`` all waits for the user's own call."""
    with execution:
        fit(compiled(), DerivaMLCallback(execution, upload="never"), epochs=1)
    assert outputs(ml, execution, "Model") == {}
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.keras"]


def test_a_stored_checkpoint_shares_no_file_with_the_staged_one(ml: DerivaML, execution: Execution) -> None:
    """Keras writes in place; saving over a checkpoint of its own that was uploaded leaves the stored bytes alone."""
    model = compiled()
    with execution:
        mine = execution.asset_file_path("Model", "mine.keras")
        fit(model, DerivaMLCallback(execution), keras.callbacks.ModelCheckpoint(mine), epochs=1)
        kept = outputs(ml, execution, "Model")["mine.keras"]
        inode = mine.stat().st_ino
        model.save(mine)
        assert mine.stat().st_ino == inode
        ml.verify_asset(kept)


def test_a_failure_keeps_the_epochs_before_it(ml: DerivaML, execution: Execution) -> None:
    """An exception in epoch 3 leaves the run failed with its reason, and two epochs told, kept and ready to be sent."""

    def fail() -> None:
        raise RuntimeError("the data ran out")

    with pytest.raises(RuntimeError), execution:
        fit(compiled(), DerivaMLCallback(execution), At(2, fail))
    assert execution.status is Status.failed
    assert "the data ran out" in execution.status_detail
    assert [message.partition(":")[0] for message in told(execution)[:2]] == ["Epoch 1/3", "Epoch 2/3"]
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0002.keras"]


def test_a_catalog_that_is_gone_ends_no_training(ml: DerivaML, execution: Execution, line: Line) -> None:
    """With the line cut from the first batch on, all epochs are trained, to the same weights, and told later."""
    bare = compiled()
    fit(bare)
    recorded = compiled()
    with execution:
        cut = At(0, lambda: setattr(line, "is_cut", True))
        history = fit(recorded, DerivaMLCallback(execution, upload="never"), cut)
        line.is_cut = False
    assert history.epoch == [0, 1, 2]
    assert same_weights(bare, recorded)
    assert len(told(execution)) == 3
    execution.upload_execution_outputs()
    assert "epoch-0003.keras" in outputs(ml, execution, "Model")


def test_an_upload_that_fails_at_the_end_raises_when_the_training_is_done(
    ml: DerivaML, execution: Execution, line: Line
) -> None:
    """The fit's upload raises where the catalog is gone; all epochs are trained, and all is sent later."""
    with pytest.raises(UploadFailed), execution:
        fit(compiled(), DerivaMLCallback(execution), At(0, lambda: setattr(line, "is_cut", True)))
    line.is_cut = False
    ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert "epoch-0003.keras" in outputs(ml, execution, "Model")


def test_a_model_that_cannot_be_saved_ends_no_training(
    execution: Execution, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that cannot be written is warned about and forgotten; the epochs go on."""
    model = compiled()

    def save(path: Any) -> None:
        path.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save", save)
    with execution:
        fit(model, DerivaMLCallback(execution, upload="never"))
    assert staged(execution) == []
    assert len(told(execution)) == 3
    assert "No space left on device" in caplog.text
