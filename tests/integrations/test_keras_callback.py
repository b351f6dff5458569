"""`DerivaMLCallback` in real Keras fits, on the torch backend."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from training_helpers import CatalogLink, outputs, status_messages

os.environ["KERAS_BACKEND"] = "torch"
pytest.importorskip("torch", reason="torch, the backend that these tests run Keras on, is not installed")
keras = pytest.importorskip("keras", reason="keras is not installed")

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow  # noqa: E402
from deriva_ml_core.definitions import Status  # noqa: E402
from deriva_ml_core.errors import UploadFailed  # noqa: E402
from deriva_ml_core.execution.execution import Execution  # noqa: E402
from deriva_ml_keras import DerivaMLCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras 3.15 with numpy 2
]

POINTS = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
SUMS = POINTS.sum(1, keepdims=True)


def compile_model() -> Any:
    """Return a small network with dropout, so that any use of the random state shows."""
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


def list_progress(execution: Execution) -> list[Any]:
    return [status.progress for status in execution.list_statuses() if status.progress]


class CallAtEpoch(keras.callbacks.Callback):
    """Calls a function when an epoch begins."""

    def __init__(self, epoch: int, act: Callable[[], None]) -> None:
        super().__init__()
        self.epoch, self.act = epoch, act

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            self.act()


def test_fit_is_recorded(ml: DerivaML, execution: Execution) -> None:
    """Each epoch has a status with its metrics; the best and the last checkpoint are kept and uploaded."""
    model = compile_model()
    with execution:
        fit(model, DerivaMLCallback(execution), validation_data=(POINTS, SUMS))
        assert execution.staged_assets() == []
    assert execution.status is Status.completed
    assert [message.partition(": ")[0] for message in status_messages(execution)] == [
        "Epoch 1/3",
        "Epoch 2/3",
        "Epoch 3/3",
    ]
    assert [(each.epoch, each.epochs, each.step) for each in list_progress(execution)] == [
        (1, 3, 4),
        (2, 3, 8),
        (3, 3, 12),
    ]
    assert [set(each.metrics) for each in list_progress(execution)] == [{"loss", "mae", "val_loss", "val_mae"}] * 3
    checkpoints = outputs(ml, execution, "Model")
    last = next(asset for asset in checkpoints.values() if "Last_Checkpoint" in asset.asset_types)
    assert last.filename == "epoch-0003.keras"
    assert sum("Best_Checkpoint" in asset.asset_types for asset in checkpoints.values()) == 1
    restored = keras.models.load_model(execution.download_asset(last))
    assert same_weights(restored, model)
    assert {"metrics.jsonl", "training.json"} <= set(outputs(ml, execution, "Execution_Metadata"))


def test_metrics_match_history(execution: Execution) -> None:
    """The recorded metrics equal those in Keras' History."""
    with execution:
        history = fit(
            compile_model(), DerivaMLCallback(execution, upload="never"), validation_data=(POINTS, SUMS)
        ).history
    for name, values in history.items():
        assert [each.metrics[name] for each in list_progress(execution)] == pytest.approx(values)


def test_weights_are_identical(execution: Execution) -> None:
    """With the same seed, a fit with the callback ends in bit-identical weights as one without."""
    bare = compile_model()
    fit(bare)
    recorded = compile_model()
    with execution:
        fit(recorded, DerivaMLCallback(execution))
    assert len(status_messages(execution)) == 3
    assert same_weights(bare, recorded)


def test_initial_epoch(execution: Execution) -> None:
    """With ``initial_epoch``, statuses continue the count."""
    with execution:
        fit(compile_model(), DerivaMLCallback(execution, upload="never"), initial_epoch=2, epochs=4)
    assert [message.partition(":")[0] for message in status_messages(execution)] == ["Epoch 3/4", "Epoch 4/4"]


def test_second_fit_keeps_files_of_first(ml: DerivaML, execution: Execution) -> None:
    """A second fit in the same execution keeps the checkpoints of the first."""
    model = compile_model()
    with execution:
        one = DerivaMLCallback(execution)
        fit(model, one, epochs=1)
        fit(model, one, epochs=1)
    assert sorted(outputs(ml, execution, "Model")) == ["epoch-0001.keras", "fit-2-epoch-0001.keras"]


def test_save_every_n_epochs(execution: Execution) -> None:
    """``save_every_n_epochs`` sets the interval between checkpoints."""
    with execution:
        one = DerivaMLCallback(execution, checkpoints="all", save_every_n_epochs=2, upload="never")
        fit(compile_model(), one, epochs=4)
    assert staged(execution) == ["epoch-0002.keras", "epoch-0004.keras"]


def test_checkpoint_table_and_types(ml: DerivaML, execution: Execution) -> None:
    """``checkpoint_table`` and ``checkpoint_types`` apply to Keras checkpoints."""
    with execution:
        one = DerivaMLCallback(
            execution, checkpoint_table="Execution_Asset", checkpoint_types=["Model_File", "Derived"]
        )
        fit(compile_model(), one, epochs=1)
    asset = outputs(ml, execution, "Execution_Asset")["epoch-0001.keras"]
    assert {"Model_File", "Derived"} <= set(asset.asset_types)


def test_upload_never(ml: DerivaML, execution: Execution) -> None:
    """With ``upload="never"`` all files stay staged until the user uploads them."""
    with execution:
        fit(compile_model(), DerivaMLCallback(execution, upload="never"), epochs=1)
    assert outputs(ml, execution, "Model") == {}
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0001.keras"]


def test_overwriting_checkpoint_keeps_stored_bytes(ml: DerivaML, execution: Execution) -> None:
    """Keras writes in place; overwriting an uploaded checkpoint does not change the stored bytes."""
    model = compile_model()
    with execution:
        mine = execution.asset_file_path("Model", "mine.keras")
        fit(model, DerivaMLCallback(execution), keras.callbacks.ModelCheckpoint(mine), epochs=1)
        asset = outputs(ml, execution, "Model")["mine.keras"]
        inode = mine.stat().st_ino
        model.save(mine)
        assert mine.stat().st_ino == inode
        ml.verify_asset(asset)


def test_failure_keeps_earlier_epochs(ml: DerivaML, execution: Execution) -> None:
    """An exception in epoch 3 fails the run with its reason; two epochs are recorded and ready to upload."""

    def fail() -> None:
        raise RuntimeError("the data ran out")

    with pytest.raises(RuntimeError), execution:
        fit(compile_model(), DerivaMLCallback(execution), CallAtEpoch(2, fail))
    assert execution.status is Status.failed
    assert "the data ran out" in execution.status_detail
    assert [message.partition(":")[0] for message in status_messages(execution)[:2]] == ["Epoch 1/3", "Epoch 2/3"]
    execution.upload_execution_outputs()
    assert list(outputs(ml, execution, "Model")) == ["epoch-0002.keras"]


def test_training_survives_catalog_outage(ml: DerivaML, execution: Execution, catalog_link: CatalogLink) -> None:
    """With the catalog unreachable, all epochs are trained to the same weights and recorded later."""
    bare = compile_model()
    fit(bare)
    recorded = compile_model()
    with execution:
        cut = CallAtEpoch(0, lambda: setattr(catalog_link, "is_down", True))
        history = fit(recorded, DerivaMLCallback(execution, upload="never"), cut)
        catalog_link.is_down = False
    assert history.epoch == [0, 1, 2]
    assert same_weights(bare, recorded)
    assert len(status_messages(execution)) == 3
    execution.upload_execution_outputs()
    assert "epoch-0003.keras" in outputs(ml, execution, "Model")


def test_failed_upload_raises_after_training(ml: DerivaML, execution: Execution, catalog_link: CatalogLink) -> None:
    """With the catalog unreachable, the upload of the fit raises; all epochs are trained and uploaded later."""
    with pytest.raises(UploadFailed), execution:
        fit(
            compile_model(), DerivaMLCallback(execution), CallAtEpoch(0, lambda: setattr(catalog_link, "is_down", True))
        )
    catalog_link.is_down = False
    ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert "epoch-0003.keras" in outputs(ml, execution, "Model")


def test_training_survives_failed_save(
    execution: Execution, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that cannot be written is warned about and discarded; training continues."""
    model = compile_model()

    def save(path: Any) -> None:
        path.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save", save)
    with execution:
        fit(model, DerivaMLCallback(execution, upload="never"))
    assert staged(execution) == []
    assert len(status_messages(execution)) == 3
    assert "No space left on device" in caplog.text


def test_public_names(execution: Execution) -> None:
    """The callback adds ``execution`` and the calls that log media to the public names of a Keras callback."""
    callback, base = DerivaMLCallback(execution), keras.callbacks.Callback()
    assert {name for name in dir(callback) if not name.startswith("_")} - set(dir(base)) == {
        "execution",
        "log_figure",
        "log_image",
        "log_table",
    }


def test_media_have_the_position_of_the_model(ml: DerivaML) -> None:
    """Images that hooks log through the callback have fit, epoch and step; outside of a fit only the step."""
    workflow = Workflow(name="Own", workflow_type="Training", url="https://example.org/own.py", checksum="o1")
    configuration = ExecutionConfiguration(workflow=workflow)
    callback = DerivaMLCallback(ml=ml, configuration=configuration, checkpoints="none")
    pixels = np.zeros((4, 4, 3), np.uint8)

    class Images(keras.callbacks.Callback):  # type: ignore[misc,name-defined]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            callback.log_image("epoch", pixels)

        def on_test_end(self, logs: Any = None) -> None:
            callback.log_table("test", {"a": [1]})

    model = compile_model()
    callback.log_image("too early", pixels)  # only a warning: there is no execution yet
    fit(model, callback, Images(), epochs=2)
    rid = callback.execution.execution_rid
    model.evaluate(POINTS, SUMS, verbose=0, callbacks=[Images(), callback])
    media = ml.lookup_execution(rid).list_media()
    assert [(each.name, each.fit, each.epoch, each.step) for each in media] == [
        ("epoch", 1, 1, 4),
        ("epoch", 1, 2, 8),
        ("test", None, None, 8),
    ]
    assert all(each.asset for each in media[:2])
