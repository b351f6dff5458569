"""Everything recorded during a training, event by event: one table that both frameworks must satisfy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pytest

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.execution import Execution
from deriva_ml_core.plugins import load_plugins
from deriva_ml_core.testing import HookRecorder

os.environ["KERAS_BACKEND"] = "torch"

POINTS = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
SUMS = POINTS.sum(1, keepdims=True)


class Training(Protocol):
    """A model in one of the frameworks, with the callback."""

    suffix: str

    def fit(self, epochs: int, fail_in: int | None = None) -> None:
        """Train with validation; the loss decreases with each epoch. A step of an epoch, from 1, may fail."""

    def test(self) -> None:
        """Test the model."""


class LightningTraining:
    """The model in Lightning."""

    suffix = ".ckpt"

    def __init__(self, callback: Any) -> None:
        import torch
        from pytorch_lightning import LightningModule, Trainer
        from torch.utils.data import DataLoader, TensorDataset

        class Model(LightningModule):
            fail_in: int | None = None

            def __init__(self) -> None:
                super().__init__()
                self.layer = torch.nn.Linear(3, 1)

            def training_step(self, batch: Any) -> Any:
                if self.fail_in == self.current_epoch + 1:
                    raise ValueError("the data are wrong")
                loss = (self.layer(batch[0]) - batch[1]).square().mean()
                self.log("loss", loss, on_step=False, on_epoch=True)
                return loss

            def validation_step(self, batch: Any) -> None:
                self.log("val_loss", (self.layer(batch[0]) - batch[1]).square().mean())

            def test_step(self, batch: Any) -> None:
                self.log("loss", (self.layer(batch[0]) - batch[1]).square().mean())

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), 0.05)

        torch.manual_seed(0)
        self._trainer = Trainer
        self._callback = callback
        self._model = Model()
        self._data = DataLoader(TensorDataset(torch.tensor(POINTS), torch.tensor(SUMS)), batch_size=8)

    def _made(self, epochs: int) -> Any:
        return self._trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[self._callback],
            enable_checkpointing=False,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    def fit(self, epochs: int, fail_in: int | None = None) -> None:
        self._model.fail_in = fail_in
        self._made(epochs).fit(self._model, self._data, self._data)

    def test(self) -> None:
        self._made(1).test(self._model, self._data, verbose=False)


class KerasTraining:
    """The model in Keras."""

    suffix = ".keras"

    def __init__(self, callback: Any) -> None:
        import keras

        class Fail(keras.callbacks.Callback):
            def __init__(self, number: int | None) -> None:
                super().__init__()
                self.number = number

            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                if self.number == epoch + 1:
                    raise ValueError("the data are wrong")

        keras.utils.set_random_seed(0)
        self._fail = Fail
        self._callback = callback
        self._model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        self._model.compile(keras.optimizers.SGD(0.05), "mse")

    def fit(self, epochs: int, fail_in: int | None = None) -> None:
        callbacks = [self._callback, self._fail(fail_in)]
        self._model.fit(
            POINTS, SUMS, batch_size=8, epochs=epochs, validation_data=(POINTS, SUMS), verbose=0, callbacks=callbacks
        )

    def test(self) -> None:
        self._model.evaluate(POINTS, SUMS, batch_size=8, verbose=0, callbacks=[self._callback])


@dataclass(frozen=True)
class Event:
    """Something that action to a training, and what it leaves.

    Args:
        name: Name of the event.
        action: Causes the event.
        statuses: New statuses with their messages; values and times are masked.
        outputs: New output links by file name, with the asset types.
        notifications: Notifications of plugins, in order; those of files and uploads have file names.
        raises: Exception raised to the user.
    """

    name: str
    action: Callable[[Training], None]
    statuses: tuple[str, ...]
    outputs: Mapping[str, set[str]] = field(default_factory=dict)
    notifications: tuple[str, ...] = ()
    raises: type[BaseException] | None = None


METRICS, SUMMARY, CURVES = {"Metrics_File"}, {"Execution_Config"}, {"Training_Curves"}
MODEL, BEST, LAST = "Model_File", "Best_Checkpoint", "Last_Checkpoint"
EPOCH = "Running | Epoch {0}/{1}: loss=#, val_loss=# (#)"

EVENTS = (
    Event(
        "a fit of two epochs, each better than the last",
        lambda training: training.fit(2),
        (EPOCH.format(1, 2), EPOCH.format(2, 2)),
        {
            "epoch-0002": {MODEL, BEST, LAST},
            "metrics.jsonl": METRICS,
            "training.json": SUMMARY,
            "training_curves.png": CURVES,
        },
        (
            "staged training.json",
            "staged epoch-0001",
            "staged metrics.jsonl",
            "status",
            "staged epoch-0002",
            "status",
            "staged training_curves.png",
            "uploaded epoch-0002 metrics.jsonl training.json training_curves.png",
        ),
    ),
    Event(
        "a test after the fit",
        lambda training: training.test(),
        ("Running | Test: loss=# (#)",),
        {"metrics.jsonl": METRICS},
        ("status", "staged metrics.jsonl", "uploaded metrics.jsonl"),
    ),
    Event(
        "another fit, of one epoch",
        lambda training: training.fit(1),
        (EPOCH.format(1, 1),),
        {
            "fit-2-epoch-0001": {MODEL, BEST, LAST},
            "metrics.jsonl": METRICS,
            "training.json": SUMMARY,
            "training_curves.png": CURVES,
        },
        (
            "staged fit-2-epoch-0001",
            "status",
            "staged training.json",
            "staged metrics.jsonl",
            "staged training_curves.png",
            "uploaded fit-2-epoch-0001 metrics.jsonl training.json training_curves.png",
        ),
    ),
    Event(
        "a fit that fails in its second epoch",
        lambda training: training.fit(3, fail_in=2),
        (EPOCH.format(1, 3),),
        {},
        ("staged fit-3-epoch-0001", "status"),
        ValueError,
    ),
)
"""Events of a training in the user's ``with`` block."""

END = ("Failed | ValueError: the data are wrong",)
"""Status added when the exception leaves the ``with`` block."""


def mask_values(text: str) -> str:
    """Replace the values and times in a message."""
    return re.sub(r"\([^)]*\)", "(#)", re.sub(r"=[-\d.e+]+", "=#", text))


@pytest.fixture(params=["lightning", "keras"])
def framework(request: pytest.FixtureRequest) -> tuple[Callable[[Any], Training], Any]:
    """A function that creates the training in a framework, and the framework's callback class."""
    pytest.importorskip("torch", reason="torch is not installed")
    if request.param == "lightning":
        pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
        from deriva_ml_lightning import DerivaMLCallback as ForLightning

        return LightningTraining, ForLightning
    pytest.importorskip("keras", reason="keras is not installed")
    from deriva_ml_keras import DerivaMLCallback as ForKeras

    return KerasTraining, ForKeras


@dataclass
class RecordWatcher:
    """Reads what was recorded since the last look."""

    ml: DerivaML
    execution: Execution
    recorder: HookRecorder
    suffix: str
    statuses: int = 0
    notifications: int = 0
    recorded: set[tuple[str, str]] = field(default_factory=set)
    """RID and MD5 of each file, since a further version of a training file has the same row."""

    def new_statuses(self) -> tuple[str, ...]:
        statuses = self.execution.list_statuses()
        new, self.statuses = statuses[self.statuses :], len(statuses)
        return tuple(mask_values(f"{each.status} | {each.error or each.message}") for each in new)

    def new_outputs(self) -> dict[str, set[str]]:
        recorded = self.ml.lookup_execution(self.execution.execution_rid).list_assets("Output")
        new = [asset for asset in recorded if (asset.rid, asset.md5) not in self.recorded]
        self.recorded.update((asset.rid, asset.md5) for asset in new)
        for asset in new:
            self.ml.verify_asset(asset)
        return {self._short(asset.filename): set(asset.asset_types) for asset in new}

    def new_notifications(self) -> tuple[str, ...]:
        new, self.notifications = self.recorder.calls[self.notifications :], len(self.recorder.calls)
        return tuple(self._describe(each) for each in new)

    def _describe(self, call: Any) -> str:
        if call.hook == "status_changed":
            return "status"
        if call.hook == "asset_registered":
            return f"staged {self._short(call.payload.filename)}"
        sent = sorted(self._short(asset.filename) for assets in call.payload.sent.values() for asset in assets)
        return f"uploaded {' '.join(sent)}"

    def _short(self, name: str) -> str:
        return name.removesuffix(self.suffix)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras 3.15 with numpy 2
@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning 2.6 with torch 2.13
def test_events_of_a_training(framework: tuple[Callable[[Any], Training], Any]) -> None:
    """Each event leaves exactly the statuses, files, links and notifications of the table."""
    pytest.importorskip("matplotlib", reason="matplotlib, which draws the curves, is not installed")
    make, callback_class = framework
    recorder, plugins = HookRecorder(), load_plugins({})
    plugins.register(recorder)
    ml = DerivaML(plugins=plugins)
    workflow = Workflow(name="Events", workflow_type="Training", url="https://example.org/events.py", checksum="5")
    execution = ml.create_execution(ExecutionConfiguration(workflow=workflow))
    execution._runtime.background.drain()  # a server gets the configuration and the environment in the background
    with pytest.raises(ValueError, match="the data are wrong"), execution:
        training = make(callback_class(execution))
        watcher = RecordWatcher(ml, execution, recorder, training.suffix)
        watcher.new_statuses()
        watcher.new_outputs()
        assert execution._runtime.background.notifications.drain(60)
        watcher.new_notifications()
        for event in EVENTS:
            if event.raises is None:
                event.action(training)
            else:
                with pytest.raises(event.raises) as raised:
                    event.action(training)
            assert execution._runtime.background.notifications.drain(60)
            assert (event.name, watcher.new_statuses()) == (event.name, event.statuses)
            assert (event.name, watcher.new_outputs()) == (event.name, event.outputs)
            assert (event.name, watcher.new_notifications()) == (event.name, event.notifications)
        raise raised.value
    assert watcher.new_statuses() == END
    assert watcher.new_notifications() == ("status",)
