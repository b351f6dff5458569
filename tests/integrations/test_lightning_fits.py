"""What a Lightning Trainer can be set to do, in real fits: steps, stages, loops of all kinds, several callbacks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from trainings import outputs, told

torch = pytest.importorskip("torch", reason="torch is not installed")

from lightnings import (  # noqa: E402
    IGNORED,
    callback,
    configuration,
    held_out,
    loader,
    model_of,
    own_callback,
    trainer_of,
)
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402

from deriva_ml import DerivaML  # noqa: E402
from deriva_ml_core.definitions import Status  # noqa: E402
from deriva_ml_core.errors import ConfigurationError, DerivaMLWarning, ExecutionNotStarted  # noqa: E402
from deriva_ml_core.execution.execution import Execution  # noqa: E402

pytestmark = IGNORED


def lines(execution: Execution, **wanted: Any) -> list[dict[str, Any]]:
    """The lines of the metrics file that have these values."""
    file = execution.working_dir / "metrics.jsonl"
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [line for line in found if all(line.get(name) == value for name, value in wanted.items())]


def heads(execution: Execution) -> list[str]:
    return [message.partition(":")[0] for message in told(execution)]


# Two ways in


def test_a_callback_needs_nothing(ml: DerivaML, package: ModuleType) -> None:
    """It makes its own execution, ends it at the end of the fit, sends all; later stages add and leave the state."""
    one = own_callback(ml)
    with pytest.raises(ExecutionNotStarted):
        _ = one.execution
    trainer = trainer_of(package, one)
    model = model_of(package)
    trainer.fit(model, loader(), held_out())
    execution = one.execution
    assert (execution.status, execution.staged_assets()) == (Status.completed, [])
    trainer.validate(model, held_out(), verbose=False)
    trainer.fit(model_of(package), loader())
    assert one.execution is execution
    assert heads(execution) == ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3", "Validation"]
    assert execution.status is Status.completed
    assert execution.staged_assets() == []


def test_a_callback_in_a_with_of_its_own(ml: DerivaML, lightning: ModuleType) -> None:
    """Held by ``with``, its execution goes on over several fits and stages, in their order, and ends there."""
    with own_callback(ml) as one:
        trainer = trainer_of(lightning, one, max_epochs=1)
        trainer.fit(model_of(lightning), loader())
        trainer_of(lightning, one, max_epochs=1).fit(model_of(lightning), loader())
        trainer.validate(model_of(lightning), held_out(), verbose=False)
        assert one.execution.status is Status.running
    assert one.execution.status is Status.completed
    assert heads(one.execution) == ["Epoch 1/1", "Epoch 1/1", "Validation"]
    assert [line["fit"] for line in lines(one.execution)] == [1, 2, 2]
    assert one.execution.staged_assets() == []


def test_a_failure_in_a_with_of_its_own(ml: DerivaML, lightning: ModuleType) -> None:
    """What leaves the ``with`` is the run's failure, and what it has is sent."""
    with pytest.raises(ZeroDivisionError), own_callback(ml) as one:
        trainer_of(lightning, one, max_epochs=1).fit(model_of(lightning), loader())
        _ = 1 / 0
    assert one.execution.status is Status.failed
    assert list(outputs(ml, one.execution, "Model")) == ["epoch-0001.ckpt"]


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_stage_alone_is_a_run(ml: DerivaML, package: ModuleType, stage: str) -> None:
    """A lone validation, test or prediction is recorded by a callback of its own, with its metrics."""

    def test_step(self: Any, batch: Any, _: int) -> None:
        self.log("test_loss", torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1]))

    def predict_step(self: Any, batch: Any, _: int) -> Any:
        return self.layers(batch[0])

    one = own_callback(ml)
    model = model_of(package, test_step=test_step, predict_step=predict_step)
    options = {} if stage == "predict" else {"verbose": False}
    getattr(trainer_of(package, one), stage)(model, held_out(), **options)
    assert one.execution.status is Status.completed
    names = {"validate": "Validation", "test": "Test", "predict": "Prediction"}
    assert [name.partition(" (")[0] for name in heads(one.execution)] == [names[stage]]
    (line,) = lines(one.execution)
    assert (line["stage"], set(line["values"])) == (
        stage,
        {"validate": {"val_loss"}, "test": {"test_loss"}, "predict": set()}[stage],
    )
    assert line["seconds"] > 0


def test_an_execution_or_what_makes_one(ml: DerivaML, execution: Execution) -> None:
    """Both together are a mistake, and so is an option that nobody knows."""
    from deriva_ml_lightning import DerivaMLCallback

    with pytest.raises(ConfigurationError, match="either an execution, or"):
        DerivaMLCallback(execution, ml=ml)
    with pytest.raises(ConfigurationError, match="chekpoints"):
        DerivaMLCallback(execution, chekpoints="all")


@pytest.mark.parametrize("keeps", ["ours", "theirs"])
def test_the_callback_touches_no_weights(ml: DerivaML, package: ModuleType, keeps: str) -> None:
    """With steps, checkpoints and an execution of its own, a fit ends in bit-identical weights as one without."""
    options: dict[str, Any] = {"enable_checkpointing": keeps == "theirs", "max_epochs": 2}
    bare, recorded = model_of(package), model_of(package)
    torch.manual_seed(7)
    trainer_of(package, **options | {"enable_checkpointing": False}).fit(bare, loader(), held_out())
    drawn = torch.rand(3)
    torch.manual_seed(7)
    one = own_callback(ml, log_every_n_steps=1, every_n_steps=2, save_every_n_steps=3)
    trainer_of(package, one, **options).fit(recorded, loader(), held_out())
    assert torch.equal(torch.rand(3), drawn)
    assert len(lines(one.execution, by="step")) == 8
    assert all(torch.equal(weight, bare.state_dict()[name]) for name, weight in recorded.state_dict().items())


# Metrics


def test_each_step_is_kept(execution: Execution, package: ModuleType) -> None:
    """With ``log_every_n_steps`` each step's own values are lines; a value of another step or stage is none."""
    seen: list[float] = []

    def on_train_batch_end(self: Any, outputs: Any, batch: Any, number: int) -> None:
        seen.append(float(outputs["loss"]))

    with execution:
        trainer = trainer_of(package, callback(execution, log_every_n_steps=1, checkpoints="none"), max_epochs=2)
        trainer.fit(model_of(package, on_train_batch_end=on_train_batch_end), loader(), held_out())
    steps = lines(execution, by="step")
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert [line["epoch"] for line in steps] == [1] * 4 + [2] * 4
    assert [line["values"] for line in steps] == [{"loss": value} for value in seen]


def test_an_epoch_is_kept_with_its_pace(execution: Execution, lightning: ModuleType) -> None:
    """An epoch's line has its learning rates, its seconds, its samples a second and the peak memory."""

    def configure_optimizers(self: Any) -> Any:
        groups = [{"params": self.layers[0].parameters()}, {"params": self.layers[3].parameters(), "lr": 0.5}]
        optimizer = torch.optim.SGD(groups, 0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    with execution:
        trainer = trainer_of(lightning, callback(execution, checkpoints="none"), max_epochs=2)
        trainer.fit(model_of(lightning, configure_optimizers=configure_optimizers), loader())
    first, second = lines(execution, by="epoch")
    assert first["learning_rates"] == {"lr-SGD/pg1": 0.1, "lr-SGD/pg2": 0.5}
    assert second["learning_rates"] == {"lr-SGD/pg1": 0.05, "lr-SGD/pg2": 0.25}
    assert first["samples_per_second"] == pytest.approx(32 / first["seconds"], rel=1e-3)
    assert first["peak_memory"] > 2**20


def test_steps_are_told(execution: Execution, lightning: ModuleType) -> None:
    """With ``every_n_steps`` there are statuses within an epoch."""
    with execution:
        trainer_of(lightning, callback(execution, every_n_steps=3, checkpoints="none"), max_epochs=1).fit(
            model_of(lightning), loader()
        )
    assert heads(execution) == ["Epoch 1/1, step 3", "Epoch 1/1"]


def test_settings_are_kept(execution: Execution, package: ModuleType) -> None:
    """Hyperparameters, model, optimizer, scheduler, data, callbacks and the Trainer are in ``training.json``."""

    def on_fit_start(self: Any) -> None:
        self.save_hyperparameters({"width": 8, "odd": object(), "password": "secret"})

    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 5)]

    model = model_of(package, on_fit_start=on_fit_start, configure_optimizers=configure_optimizers)
    with execution:
        trainer = trainer_of(
            package,
            callback(execution, upload="never"),
            package.callbacks.EarlyStopping("loss", patience=7),
            accumulate_grad_batches=2,
            gradient_clip_val=0.5,
        )
        trainer.fit(model, loader(), held_out())
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


# Loops of all kinds


def test_validation_within_an_epoch(execution: Execution, package: ModuleType) -> None:
    """With ``val_check_interval=0.5`` the first half's validation is a line of its own, the second's the epoch's."""
    with execution:
        trainer = trainer_of(package, callback(execution, checkpoints="none"), max_epochs=2, val_check_interval=0.5)
        trainer.fit(model_of(package), loader(), held_out())
    assert [line["step"] for line in lines(execution, by="step")] == [2, 6]
    assert all(set(line["values"]) == {"val_loss"} for line in lines(execution, by="step"))
    assert [set(line["values"]) for line in lines(execution, by="epoch")] == [{"loss", "val_loss"}] * 2
    assert heads(execution) == ["Epoch 1/2", "Epoch 2/2"]


class Endless(IterableDataset):  # type: ignore[type-arg]
    """Rows without a length."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.ones(3), torch.ones(1))] * 16)


def test_data_without_a_length(ml: DerivaML, execution: Execution, lightning: ModuleType) -> None:
    """An iterable dataset and ``max_steps`` alone: epochs are told as they end, and the last checkpoint is kept."""
    with execution:
        trainer = trainer_of(lightning, callback(execution, log_every_n_steps=1), max_epochs=-1, max_steps=6)
        trainer.fit(model_of(lightning), DataLoader(Endless(), 4))
    assert heads(execution) == ["Epoch 1", "Epoch 2"]
    assert [line["step"] for line in lines(execution, by="step")] == list(range(1, 7))
    assert "epoch-0002.ckpt" in outputs(ml, execution, "Model")


def test_accumulated_gradients(execution: Execution, lightning: ModuleType) -> None:
    """A step is an optimizer's: batches that only add to the gradients are none, and all samples count."""
    with execution:
        one = callback(execution, log_every_n_steps=1, checkpoints="none")
        trainer_of(lightning, one, accumulate_grad_batches=2, max_epochs=1, limit_train_batches=0.75).fit(
            model_of(lightning), loader()
        )
    assert [line["step"] for line in lines(execution, by="step")] == [1, 2]
    (epoch,) = lines(execution, by="epoch")
    assert epoch["step"] == 2
    assert epoch["samples_per_second"] == pytest.approx(24 / epoch["seconds"], rel=1e-3)


def test_two_optimizers_by_hand(execution: Execution, lightning: ModuleType) -> None:
    """In manual optimisation each optimizer's steps count, as Lightning counts them."""

    def training_step(self: Any, batch: Any, _: int) -> None:
        for optimizer in self.optimizers():
            loss = torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.log(f"loss_{type(optimizer.optimizer).__name__}", loss)

    def configure_optimizers(self: Any) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.01), torch.optim.Adam(self.parameters(), 0.02)]

    model = model_of(lightning, training_step=training_step, configure_optimizers=configure_optimizers)
    model.automatic_optimization = False
    with execution:
        one = callback(execution, log_every_n_steps=2, save_every_n_steps=4, checkpoints="last", upload="never")
        trainer_of(lightning, one, max_epochs=1).fit(model, loader())
    assert [line["step"] for line in lines(execution, by="step")] == [2, 4, 6, 8]
    (epoch,) = lines(execution, by="epoch")
    assert epoch["learning_rates"] == {"lr-SGD": 0.01, "lr-Adam": 0.02}
    assert set(epoch["values"]) == {"loss_SGD", "loss_Adam"}


def test_a_trial_of_the_code_keeps_no_checkpoint(ml: DerivaML, package: ModuleType) -> None:
    """``fast_dev_run`` is a run with a status and no checkpoints."""
    one = own_callback(ml, checkpoints="all")
    trainer_of(package, one, fast_dev_run=True).fit(model_of(package), loader(), held_out())
    assert outputs(ml, one.execution, "Model") == {}
    assert one.execution.status is Status.completed
    assert heads(one.execution) == ["Epoch 1/1", "Fit ended after 1 of 1 epochs"]


def tuned_model(package: ModuleType) -> Any:
    def configure_optimizers(self: Any) -> Any:
        return torch.optim.SGD(self.parameters(), self.lr)

    def train_dataloader(self: Any) -> Any:
        return DataLoader(loader().dataset, self.batch_size)

    model = model_of(
        package,
        configure_optimizers=configure_optimizers,
        train_dataloader=train_dataloader,
        val_dataloader=train_dataloader,
    )
    model.lr, model.batch_size = 0.01, 4
    return model


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("search", ["lr_find", "scale_batch_size", "a callback"])
def test_a_search_is_no_training(ml: DerivaML, package: ModuleType, tmp_path: Path, search: str) -> None:
    """The fits in which a learning rate or a batch size is looked for leave nothing; the real one does, and one run."""
    one = own_callback(ml, checkpoints=None)
    own = package.callbacks.ModelCheckpoint(filename="{epoch}")
    finder = package.callbacks.LearningRateFinder(num_training_steps=6)
    callbacks = [one, own, finder] if search == "a callback" else [one, own]
    trainer = trainer_of(package, *callbacks, enable_checkpointing=True, default_root_dir=tmp_path, max_epochs=2)
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
    assert heads(one.execution) == ["Epoch 1/2", "Epoch 2/2"]
    assert list(outputs(ml, one.execution, "Model")) == ["epoch=1.ckpt"]
    assert len(list(ml.find_executions())) == 1
    assert one.execution.list_assets("Input") == []


# Several callbacks


def test_two_callbacks_with_two_executions_both_record(ml: DerivaML, execution: Execution, package: ModuleType) -> None:
    """The user's execution, and one of the callback's own beside it, have the same epochs and checkpoints."""
    one = own_callback(ml)
    with execution:
        trainer = trainer_of(package, callback(execution), one, max_epochs=2)
        trainer.fit(model_of(package), loader())
        trainer.save_checkpoint(execution.working_dir / "own.ckpt")
    for each in (execution, one.execution):
        assert heads(each) == ["Epoch 1/2", "Epoch 2/2"]
        assert "epoch-0002.ckpt" in outputs(ml, each, "Model")
    states = torch.load(execution.working_dir / "own.ckpt", weights_only=False)["callbacks"]
    assert {name: state["execution"] for name, state in states.items()} == {
        "DerivaMLCallback": execution.execution_rid,
        "DerivaMLCallback 2": one.execution.execution_rid,
    }
    assert type(trainer.strategy.checkpoint_io) is package.plugins.io.TorchCheckpointIO


@pytest.mark.parametrize("own", [True, False])
def test_two_callbacks_for_one_execution_are_one(
    ml: DerivaML, execution: Execution, lightning: ModuleType, own: bool
) -> None:
    """The second says so once, and nothing else."""
    callbacks = [own_callback(ml) if own else callback(execution) for _ in range(2)]
    trainer = trainer_of(lightning, *callbacks, max_epochs=1)
    with execution:
        with pytest.warns(DerivaMLWarning, match="two DerivaMLCallbacks for one execution") as warned:
            trainer.fit(model_of(lightning), loader())
        trainer.validate(model_of(lightning), held_out(), verbose=False)
    assert len([each for each in warned if each.category is DerivaMLWarning]) == 1
    assert heads(callbacks[0].execution) == ["Epoch 1/1", "Validation"]
    assert len(list(ml.find_executions())) == (2 if own else 1)


# Recording every Trainer


def test_autolog_records_every_trainer(ml: DerivaML, package: ModuleType) -> None:
    """Each Trainer that is made while it is on has an execution of its own, unless the user gave a callback."""
    from deriva_ml_lightning import DerivaMLCallback, autolog

    with autolog(ml, configuration(), "Logged", checkpoints="last") as switch:
        trainers = [trainer_of(package, max_epochs=1) for _ in range(2)]
        mine = own_callback(ml)
        given = trainer_of(package, mine, max_epochs=1)
        switch.disable()
        bare = trainer_of(package, max_epochs=1)
    for trainer in (*trainers, given, bare):
        trainer.fit(model_of(package), loader())
    ours = [each for each in bare.callbacks if isinstance(each, DerivaMLCallback)]
    assert ours == []
    executions = [*(trainer.callbacks[-1].execution for trainer in trainers), mine.execution]
    assert len({each.execution_rid for each in executions}) == len(list(ml.find_executions())) == 3
    assert [heads(each) for each in executions] == [["Epoch 1/1"]] * 3


def test_autolog_ends_where_it_was_switched_on(ml: DerivaML, lightning: ModuleType) -> None:
    """One within another gives way to that again; a wrong option is found at once; other threads are left alone."""
    from threading import Thread

    from deriva_ml_lightning import autolog

    made: list[int] = []

    def count() -> int:
        return sum(type(each).__name__ == "_AddedCallback" for each in trainer_of(lightning).callbacks)

    with pytest.raises(ConfigurationError, match="upload"):
        autolog(ml, upload="later")
    with autolog(ml) as outer:
        with autolog(ml):
            outer.disable()
            made.append(count())
        made.append(count())
    assert made == [1, 0]
    with autolog(ml):
        thread = Thread(target=lambda: made.append(count()))
        thread.start()
        thread.join()
    assert made == [1, 0, 0]


def test_a_trainer_that_nobody_records_loads_nothing_of_ours(lightning: ModuleType) -> None:
    """The entry point that Lightning asks for callbacks brings in no package."""
    program = f"""
import sys, {lightning.__name__} as package
package.Trainer(logger=False, accelerator="cpu")
print([name for name in sys.modules if name.startswith("deriva_ml")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout.splitlines()[-1] == "['deriva_ml_lightning_factory']"


def test_an_optimizer_without_a_rate_and_batches_without_a_shape_end_no_training(
    execution: Execution, lightning: ModuleType
) -> None:
    """An optimizer may find its rate itself, and hold None; a batch may raise when it is asked for its shape."""

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

    model = model_of(lightning, training_step=training_step, configure_optimizers=configure_optimizers)
    data = DataLoader([1, 2], batch_size=None, collate_fn=lambda _: Shapeless())
    with execution:
        trainer_of(lightning, callback(execution, upload="never"), max_epochs=1).fit(model, data)
    (epoch,) = lines(execution, by="epoch")
    assert "learning_rates" not in epoch
    assert "samples_per_second" not in epoch
