"""Settings of a Lightning Trainer in real fits: steps, stages, loops of all kinds, several callbacks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from training_helpers import outputs, status_messages

torch = pytest.importorskip("torch", reason="torch is not installed")

from lightning_helpers import (  # noqa: E402
    IGNORED,
    configuration,
    create_model,
    create_trainer,
    execution_callback,
    own_callback,
    training_loader,
    validation_loader,
)
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

from deriva_ml import DerivaML  # noqa: E402
from deriva_ml_core.definitions import Status  # noqa: E402
from deriva_ml_core.errors import ConfigurationError, DerivaMLWarning, ExecutionNotStarted  # noqa: E402
from deriva_ml_core.execution.execution import Execution  # noqa: E402

pytestmark = IGNORED


def metrics_lines(execution: Execution, **fields: Any) -> list[dict[str, Any]]:
    """Return the lines of the metrics file that have these values."""
    file = execution.working_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in lines if all(line.get(name) == value for name, value in fields.items())]


def message_heads(execution: Execution) -> list[str]:
    return [message.partition(":")[0] for message in status_messages(execution)]


# With and without an execution


def test_callback_without_arguments(ml: DerivaML, package: ModuleType) -> None:
    """It creates its execution, ends and uploads it with the fit; later stages are added, a later fit is a new one."""
    one = own_callback(ml)
    with pytest.raises(ExecutionNotStarted):
        _ = one.execution
    trainer = create_trainer(package, one)
    model = create_model(package)
    trainer.fit(model, training_loader(), validation_loader())
    execution = one.execution
    assert (execution.status, execution.staged_assets()) == (Status.completed, [])
    trainer.validate(model, validation_loader(), verbose=False)
    assert one.execution is execution
    create_trainer(package, one, max_epochs=1).fit(create_model(package), training_loader())
    assert one.execution.execution_rid != execution.execution_rid
    assert message_heads(execution) == ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3", "Validation"]
    assert message_heads(one.execution) == ["Epoch 1/1"]
    assert [each.status for each in (execution, one.execution)] == [Status.completed, Status.completed]
    assert [each.staged_assets() for each in (execution, one.execution)] == [[], []]


def test_callback_as_context_manager(ml: DerivaML, lightning: ModuleType) -> None:
    """In a ``with`` block, its execution has several fits and stages in order, and ends with the block."""
    with own_callback(ml) as one:
        trainer = create_trainer(lightning, one, max_epochs=1)
        trainer.fit(create_model(lightning), training_loader())
        create_trainer(lightning, one, max_epochs=1).fit(create_model(lightning), training_loader())
        trainer.validate(create_model(lightning), validation_loader(), verbose=False)
        assert one.execution.status is Status.running
    assert one.execution.status is Status.completed
    assert message_heads(one.execution) == ["Epoch 1/1", "Epoch 1/1", "Validation"]
    assert [line["fit"] for line in metrics_lines(one.execution)] == [1, 2, 2]
    assert one.execution.staged_assets() == []


def test_failure_in_with_block(ml: DerivaML, lightning: ModuleType) -> None:
    """An exception in the ``with`` block fails the run, and its files are uploaded."""
    with pytest.raises(ZeroDivisionError), own_callback(ml) as one:
        create_trainer(lightning, one, max_epochs=1).fit(create_model(lightning), training_loader())
        _ = 1 / 0
    assert one.execution.status is Status.failed
    assert list(outputs(ml, one.execution, "Model")) == ["epoch-0001.ckpt"]


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_stage_without_fit(ml: DerivaML, package: ModuleType, stage: str) -> None:
    """A separate validation, test or prediction is recorded in an owned execution, with its metrics."""

    def test_step(self: Any, batch: Any, _: int) -> None:
        self.log("test_loss", torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

    def predict_step(self: Any, batch: Any, _: int) -> Any:
        return self.layers(batch[0])

    one = own_callback(ml)
    model = create_model(package, test_step=test_step, predict_step=predict_step)
    options = {} if stage == "predict" else {"verbose": False}
    getattr(create_trainer(package, one), stage)(model, validation_loader(), **options)
    assert one.execution.status is Status.completed
    names = {"validate": "Validation", "test": "Test", "predict": "Prediction"}
    assert [name.partition(" (")[0] for name in message_heads(one.execution)] == [names[stage]]
    (line,) = metrics_lines(one.execution)
    assert (line["stage"], set(line["values"])) == (
        stage,
        {"validate": {"val_loss"}, "test": {"test_loss"}, "predict": set()}[stage],
    )
    assert line["seconds"] > 0


def test_execution_and_configuration_are_exclusive(ml: DerivaML, execution: Execution) -> None:
    """An execution and a configuration together are refused, and so is an unknown option."""
    from deriva_ml_lightning import DerivaMLCallback

    with pytest.raises(ConfigurationError, match="either an execution, or"):
        DerivaMLCallback(execution, ml=ml)
    with pytest.raises(ConfigurationError, match="chekpoints"):
        DerivaMLCallback(execution, chekpoints="all")


@pytest.mark.parametrize("keeps", ["option", "ModelCheckpoint"])
def test_weights_are_identical(ml: DerivaML, package: ModuleType, keeps: str) -> None:
    """With steps, checkpoints and an owned execution, a fit ends in bit-identical weights as one without."""
    options: dict[str, Any] = {"enable_checkpointing": keeps == "ModelCheckpoint", "max_epochs": 2}
    bare, recorded = create_model(package), create_model(package)
    torch.manual_seed(7)
    create_trainer(package, **options | {"enable_checkpointing": False}).fit(
        bare, training_loader(), validation_loader()
    )
    drawn = torch.rand(3)
    torch.manual_seed(7)
    one = own_callback(ml, log_every_n_steps=1, every_n_steps=2, save_every_n_steps=3)
    create_trainer(package, one, **options).fit(recorded, training_loader(), validation_loader())
    assert torch.equal(torch.rand(3), drawn)
    assert len(metrics_lines(one.execution, by="step")) == 8
    assert all(torch.equal(weight, bare.state_dict()[name]) for name, weight in recorded.state_dict().items())


# Metrics


def test_log_every_n_steps(execution: Execution, package: ModuleType) -> None:
    """With ``log_every_n_steps``, each step has a line with its own values, and no value of another step or stage."""
    seen: list[float] = []

    def on_train_batch_end(self: Any, outputs: Any, batch: Any, number: int) -> None:
        seen.append(float(outputs["loss"]))

    with execution:
        trainer = create_trainer(
            package, execution_callback(execution, log_every_n_steps=1, checkpoints="none"), max_epochs=2
        )
        trainer.fit(
            create_model(package, on_train_batch_end=on_train_batch_end), training_loader(), validation_loader()
        )
    steps = metrics_lines(execution, by="step")
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert [line["epoch"] for line in steps] == [1] * 4 + [2] * 4
    assert [line["values"] for line in steps] == [{"loss": value} for value in seen]


def test_epoch_line_has_timing_fields(execution: Execution, lightning: ModuleType) -> None:
    """The line of an epoch has its learning rates, seconds, samples per second and peak memory."""

    def configure_optimizers(self: Any) -> Any:
        groups = [{"params": self.layers[0].parameters()}, {"params": self.layers[3].parameters(), "lr": 0.5}]
        optimizer = torch.optim.SGD(groups, 0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    with execution:
        trainer = create_trainer(lightning, execution_callback(execution, checkpoints="none"), max_epochs=2)
        trainer.fit(create_model(lightning, configure_optimizers=configure_optimizers), training_loader())
    first, second = metrics_lines(execution, by="epoch")
    assert first["learning_rates"] == {"lr-SGD/pg1": 0.1, "lr-SGD/pg2": 0.5}
    assert second["learning_rates"] == {"lr-SGD/pg1": 0.05, "lr-SGD/pg2": 0.25}
    assert first["samples_per_second"] == pytest.approx(32 / first["seconds"], rel=1e-3)
    assert first["peak_memory"] > 2**20


def test_every_n_steps(execution: Execution, lightning: ModuleType) -> None:
    """``every_n_steps`` reports statuses within an epoch."""
    with execution:
        create_trainer(lightning, execution_callback(execution, every_n_steps=3, checkpoints="none"), max_epochs=1).fit(
            create_model(lightning), training_loader()
        )
    assert message_heads(execution) == ["Epoch 1/1, step 3", "Epoch 1/1"]


def test_settings_are_recorded(execution: Execution, package: ModuleType) -> None:
    """Hyperparameters, model, optimizer, scheduler, data, callbacks and Trainer are in ``training.json``."""

    def on_fit_start(self: Any) -> None:
        self.save_hyperparameters({"width": 8, "odd": object(), "password": "secret"})

    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 5)]

    model = create_model(package, on_fit_start=on_fit_start, configure_optimizers=configure_optimizers)
    with execution:
        trainer = create_trainer(
            package,
            execution_callback(execution, upload="never"),
            package.callbacks.EarlyStopping("loss", patience=7),
            accumulate_grad_batches=2,
            gradient_clip_val=0.5,
        )
        trainer.fit(model, training_loader(), validation_loader())
    (fit,) = json.loads((execution.working_dir / "training.json").read_text())["fits"]
    settings = fit["settings"]
    assert settings["hyperparameters"]["width"] == 8
    assert "secret" not in json.dumps(settings)
    assert settings["model"]["parameters"] == settings["model"]["trainable_parameters"] == 41
    assert [layer["type"] for layer in settings["model"]["layers"]] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert [(each["name"], each["lr"]) for each in settings["optimizers"]] == [("Adam", 0.01)]
    assert [(each["name"], each["step_size"]) for each in settings["schedulers"]] == [("StepLR", 5)]
    assert (settings["data"]["batch_size"], settings["data"]["samples"]) == (8, 32)
    assert ("EarlyStopping", 7) in [(each["name"], each.get("patience")) for each in settings["callbacks"]]
    assert settings["trainer"]["accumulate_grad_batches"] == 2
    assert (fit["epochs"], fit["outcome"]) == (3, "completed")


def test_unreadable_settings_cost_no_others(execution: Execution, lightning: ModuleType) -> None:
    """A hyperparameter without a value and a callback without attributes leave all other settings."""
    omegaconf = pytest.importorskip("omegaconf", reason="omegaconf is not installed")
    config = omegaconf.OmegaConf.create({"depth": 2, "data": "???", "path": "${nowhere}"})

    class Slotted(lightning.Callback):
        @property
        def __dict__(self) -> Any:
            raise RuntimeError("no attributes")

    model = create_model(lightning, on_fit_start=lambda self: self.save_hyperparameters({"width": 8, "config": config}))
    with execution:
        trainer = create_trainer(
            lightning, execution_callback(execution, upload="never", checkpoints="none"), Slotted(), max_epochs=1
        )
        trainer.fit(model, training_loader())
    (fit,) = json.loads((execution.working_dir / "training.json").read_text())["fits"]
    assert fit["settings"]["hyperparameters"] == {
        "width": 8,
        "config": {
            "depth": 2,
            "data": "<not readable: MissingMandatoryValue>",
            "path": "<not readable: InterpolationKeyError>",
        },
    }
    assert {"name": "Slotted"} in fit["settings"]["callbacks"]
    assert "DerivaMLCallback" in [each["name"] for each in fit["settings"]["callbacks"]]


# Loops of all kinds


def test_validation_within_epoch(execution: Execution, package: ModuleType) -> None:
    """With ``val_check_interval=0.5``, the first validation has its own line and the second is in the epoch's line."""
    with execution:
        trainer = create_trainer(
            package, execution_callback(execution, checkpoints="none"), max_epochs=2, val_check_interval=0.5
        )
        trainer.fit(create_model(package), training_loader(), validation_loader())
    assert [line["step"] for line in metrics_lines(execution, by="step")] == [2, 6]
    assert all(set(line["values"]) == {"val_loss"} for line in metrics_lines(execution, by="step"))
    assert [set(line["values"]) for line in metrics_lines(execution, by="epoch")] == [{"loss", "val_loss"}] * 2
    assert message_heads(execution) == ["Epoch 1/2", "Epoch 2/2"]


class EndlessRows(IterableDataset):  # type: ignore[type-arg]
    """Rows without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.ones(3), torch.ones(1))] * 16)


def test_data_without_length(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """With an iterable dataset and ``max_steps``, epochs are reported and the last checkpoint is kept."""
    with execution:
        trainer = create_trainer(
            lightning, execution_callback(execution, log_every_n_steps=1), max_epochs=-1, max_steps=6
        )
        trainer.fit(create_model(lightning), DataLoader(EndlessRows(), 4))
    assert message_heads(execution) == ["Epoch 1", "Epoch 2"]
    assert [line["step"] for line in metrics_lines(execution, by="step")] == list(range(1, 7))
    assert "epoch-0002.ckpt" in outputs(ml, execution, "Model")


def test_gradient_accumulation(execution: Execution, lightning: ModuleType) -> None:
    """A step is an optimizer step; batches that accumulate gradients are none, and all samples count."""
    with execution:
        one = execution_callback(execution, log_every_n_steps=1, checkpoints="none")
        create_trainer(lightning, one, accumulate_grad_batches=2, max_epochs=1, limit_train_batches=0.75).fit(
            create_model(lightning), training_loader()
        )
    assert [line["step"] for line in metrics_lines(execution, by="step")] == [1, 2]
    (epoch,) = metrics_lines(execution, by="epoch")
    assert epoch["step"] == 2
    assert epoch["samples_per_second"] == pytest.approx(24 / epoch["seconds"], rel=1e-3)


def test_manual_optimization(execution: Execution, lightning: ModuleType) -> None:
    """In manual optimisation, the steps of each optimizer count, as in Lightning."""

    def training_step(self: Any, batch: Any, _: int) -> None:
        for optimizer in self.optimizers():
            loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.log(f"loss_{type(optimizer.optimizer).__name__}", loss)

    def configure_optimizers(self: Any) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.01), torch.optim.Adam(self.parameters(), 0.02)]

    model = create_model(lightning, training_step=training_step, configure_optimizers=configure_optimizers)
    model.automatic_optimization = False
    with execution:
        one = execution_callback(
            execution, log_every_n_steps=2, save_every_n_steps=4, checkpoints="last", upload="never"
        )
        create_trainer(lightning, one, max_epochs=1).fit(model, training_loader())
    assert [line["step"] for line in metrics_lines(execution, by="step")] == [2, 4, 6, 8]
    (epoch,) = metrics_lines(execution, by="epoch")
    assert epoch["learning_rates"] == {"lr-SGD": 0.01, "lr-Adam": 0.02}
    assert set(epoch["values"]) == {"loss_SGD", "loss_Adam"}


def test_fast_dev_run(ml: DerivaML, package: ModuleType) -> None:
    """``fast_dev_run`` is a run with a status and no checkpoints."""
    one = own_callback(ml, checkpoints="all")
    create_trainer(package, one, fast_dev_run=True).fit(create_model(package), training_loader(), validation_loader())
    assert outputs(ml, one.execution, "Model") == {}
    assert one.execution.status is Status.completed
    assert message_heads(one.execution) == ["Epoch 1/1", "Fit ended after 1 of 1 epochs"]


def tuned_model(package: ModuleType) -> Any:
    def configure_optimizers(self: Any) -> Any:
        return torch.optim.SGD(self.parameters(), self.lr)

    def train_dataloader(self: Any) -> Any:
        return DataLoader(training_loader().dataset, self.batch_size)

    model = create_model(
        package,
        configure_optimizers=configure_optimizers,
        train_dataloader=train_dataloader,
        val_dataloader=train_dataloader,
    )
    model.lr, model.batch_size = 0.01, 4
    return model


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("search", ["lr_find", "scale_batch_size", "a callback"])
def test_tuner_search_is_not_recorded(ml: DerivaML, package: ModuleType, tmp_path: Path, search: str) -> None:
    """The fits of a learning rate or batch size search leave nothing; the real fit is one run."""
    one = own_callback(ml, checkpoints=None)
    own = package.callbacks.ModelCheckpoint(filename="{epoch}")
    finder = package.callbacks.LearningRateFinder(num_training_steps=6)
    callbacks = [one, own, finder] if search == "a callback" else [one, own]
    trainer = create_trainer(package, *callbacks, enable_checkpointing=True, default_root_dir=tmp_path, max_epochs=2)
    model = tuned_model(package)
    if search == "lr_find":
        package.tuner.Tuner(trainer).lr_find(model, num_training=6)
    elif search == "scale_batch_size":
        package.tuner.Tuner(trainer).scale_batch_size(model, max_trials=2, steps_per_trial=1)
    with pytest.raises(ExecutionNotStarted):
        _ = one.execution
    trainer.fit(model)
    (facts,) = json.loads((one.execution.working_dir / "training.json").read_text())["fits"]
    assert (facts["resumed_from"], facts["outcome"]) == (None, "completed")
    assert message_heads(one.execution) == ["Epoch 1/2", "Epoch 2/2"]
    assert list(outputs(ml, one.execution, "Model")) == ["epoch=1.ckpt"]
    assert len(list(ml.find_executions())) == 1
    assert one.execution.list_assets("Input") == []


# Several callbacks


def test_two_callbacks_for_two_executions(ml: DerivaML, execution: Execution, package: ModuleType) -> None:
    """The user's execution and an owned one have the same epochs and checkpoints."""
    one = own_callback(ml)
    with execution:
        trainer = create_trainer(package, execution_callback(execution), one, max_epochs=2)
        trainer.fit(create_model(package), training_loader())
        trainer.save_checkpoint(execution.working_dir / "own.ckpt")
    for each in (execution, one.execution):
        assert message_heads(each) == ["Epoch 1/2", "Epoch 2/2"]
        assert "epoch-0002.ckpt" in outputs(ml, each, "Model")
    states = torch.load(execution.working_dir / "own.ckpt", weights_only=False)["callbacks"]
    assert {name: state["execution"] for name, state in states.items()} == {
        "DerivaMLCallback": execution.execution_rid,
        "DerivaMLCallback 2": one.execution.execution_rid,
    }
    assert type(trainer.strategy.checkpoint_io) is package.plugins.io.TorchCheckpointIO


@pytest.mark.parametrize("own", [True, False])
def test_two_callbacks_for_one_execution(ml: DerivaML, execution: Execution, lightning: ModuleType, own: bool) -> None:
    """The second callback warns once and records nothing."""
    callbacks = [own_callback(ml) if own else execution_callback(execution) for _ in range(2)]
    trainer = create_trainer(lightning, *callbacks, max_epochs=1)
    with execution:
        with pytest.warns(DerivaMLWarning, match="two DerivaMLCallbacks for one execution") as warned:
            trainer.fit(create_model(lightning), training_loader())
        trainer.validate(create_model(lightning), validation_loader(), verbose=False)
    assert len([each for each in warned if each.category is DerivaMLWarning]) == 1
    assert message_heads(callbacks[0].execution) == ["Epoch 1/1", "Validation"]
    assert len(list(ml.find_executions())) == (2 if own else 1)


# Autolog


def test_autolog(ml: DerivaML, package: ModuleType) -> None:
    """Each Trainer created while autolog is enabled has its own execution, unless the user passed a callback."""
    from deriva_ml_lightning import DerivaMLCallback, autolog

    with autolog(ml, configuration(), "Logged", checkpoints="last") as switch:
        trainers = [create_trainer(package, max_epochs=1) for _ in range(2)]
        mine = own_callback(ml)
        with_callback = create_trainer(package, mine, max_epochs=1)
        switch.disable()
        bare = create_trainer(package, max_epochs=1)
    for trainer in (*trainers, with_callback, bare):
        trainer.fit(create_model(package), training_loader())
    added = [each for each in bare.callbacks if isinstance(each, DerivaMLCallback)]
    assert added == []
    executions = [*(trainer.callbacks[-1].execution for trainer in trainers), mine.execution]
    assert len({each.execution_rid for each in executions}) == len(list(ml.find_executions())) == 3
    assert [message_heads(each) for each in executions] == [["Epoch 1/1"]] * 3


def test_autolog_scope(ml: DerivaML, lightning: ModuleType) -> None:
    """A nested autolog restores the outer one; a wrong option raises at once; other threads are unaffected."""
    from threading import Thread

    from deriva_ml_lightning import autolog

    counts: list[int] = []

    def count() -> int:
        return sum(type(each).__name__ == "_AutologCallback" for each in create_trainer(lightning).callbacks)

    with pytest.raises(ConfigurationError, match="upload"):
        autolog(ml, upload="later")
    with autolog(ml) as outer:
        with autolog(ml):
            outer.disable()
            counts.append(count())
        counts.append(count())
    assert counts == [1, 0]
    with autolog(ml):
        thread = Thread(target=lambda: counts.append(count()))
        thread.start()
        thread.join()
    assert counts == [1, 0, 0]


def test_unrecorded_trainer_imports_nothing(lightning: ModuleType) -> None:
    """The entry point that Lightning calls for callbacks imports no package."""
    program = f"""
import sys, {lightning.__name__} as package
package.Trainer(logger=False, accelerator="cpu")
print([name for name in sys.modules if name.startswith("deriva_ml")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['deriva_ml_lightning_factory']"


def test_unusual_optimizer_and_batches(execution: Execution, lightning: ModuleType) -> None:
    """An optimizer may have None as its rate, and a batch may raise when its shape is read."""

    class Shapeless:
        @property
        def shape(self) -> None:
            raise RuntimeError("a nested tensor has no sizes")

    class OwnRate(torch.optim.SGD):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, 0.1)
            self.param_groups[0]["lr"] = None

        def step(self, closure: Any = None) -> Any:
            return closure()

    def training_step(self: Any, batch: Any, _: int) -> Any:
        return self.layers(torch.ones(1, 3)).sum()

    def configure_optimizers(self: Any) -> Any:
        return OwnRate(self.parameters())

    model = create_model(lightning, training_step=training_step, configure_optimizers=configure_optimizers)
    data = DataLoader([1, 2], batch_size=None, collate_fn=lambda _: Shapeless())
    with execution:
        create_trainer(lightning, execution_callback(execution, upload="never"), max_epochs=1).fit(model, data)
    (epoch,) = metrics_lines(execution, by="epoch")
    assert "learning_rates" not in epoch
    assert "samples_per_second" not in epoch
