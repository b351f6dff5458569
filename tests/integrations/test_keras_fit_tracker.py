"""Record of Keras fits, evaluations and predictions."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from keras_helpers import (
    NUMPY_2,
    POINTS,
    SUMS,
    CallAtEpoch,
    SetLosses,
    compile_model,
    fit,
    fit_summaries,
    keras,
    metrics_lines,
    staged_types,
)
from training_helpers import outputs, status_messages

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError, DerivaMLWarning, ExecutionNotStarted
from deriva_ml_core.execution import Execution
from deriva_ml_keras import DerivaMLCallback
from waits import HANG

pytestmark = [NUMPY_2]

Make = Callable[..., DerivaMLCallback]


@pytest.fixture
def configuration() -> ExecutionConfiguration:
    """Return a configuration whose workflow has a given source, so that nothing is detected."""
    workflow = Workflow(name="Own", workflow_type="Training", url="https://example.org/own.py", checksum="0")
    return ExecutionConfiguration(workflow=workflow)


@pytest.fixture
def own_callback(ml: DerivaML, configuration: ExecutionConfiguration) -> Make:
    """Factory for callbacks that own their execution."""
    return lambda **options: DerivaMLCallback(ml=ml, configuration=configuration, **options)


# Owned execution


def test_own_execution_ends_with_block(ml: DerivaML, own_callback: Make) -> None:
    """Fit, evaluation and prediction in one ``with`` block are one execution, uploaded at its end."""
    with own_callback() as recorded:
        model = compile_model()
        fit(model, recorded, epochs=1)
        assert recorded.execution.status is Status.running
        model.evaluate(POINTS, SUMS, verbose=0, callbacks=[recorded])
        model.predict(POINTS, verbose=0, callbacks=[recorded])
    assert recorded.execution.status is Status.completed
    assert [message.partition(":")[0] for message in status_messages(recorded.execution)] == [
        "Epoch 1/1",
        "Test",
        "Prediction",
    ]
    assert list(outputs(ml, recorded.execution, "Model")) == ["epoch-0001.keras"]
    assert {"metrics.jsonl", "training.json"} <= set(outputs(ml, recorded.execution, "Execution_Metadata"))


@pytest.mark.parametrize("error", [RuntimeError("no more data"), KeyboardInterrupt()])
def test_own_execution_ends_with_exception(ml: DerivaML, own_callback: Make, error: BaseException) -> None:
    """An exception ends the owned execution, propagates, and the files so far are uploaded."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)), own_callback() as recorded:
        fit(compile_model(), recorded, CallAtEpoch(1, fail))
    execution = recorded.execution
    expected = Status.failed if isinstance(error, RuntimeError) else Status.aborted
    assert (execution.status, type(error).__name__ in execution.status_detail) == (expected, True)
    assert set(outputs(ml, execution, "Model")["epoch-0001.keras"].asset_types) > {"Best_Checkpoint", "Last_Checkpoint"}
    assert type(error).__name__ in fit_summaries(execution)[0]["outcome"]


def call_model(model: Any, call: str, *callbacks: Any) -> None:
    data = [POINTS] if call == "predict" else [POINTS, SUMS]
    getattr(model, call)(*data, verbose=0, callbacks=list(callbacks))


@pytest.mark.parametrize(
    ("call", "stage"), [("fit", "Epoch 1/1"), ("evaluate", "Test"), ("predict", "Prediction")], ids=lambda each: each
)
def test_without_a_with_block(ml: DerivaML, own_callback: Make, call: str, stage: str) -> None:
    """Without a ``with`` block, a call is an execution, which ends and is uploaded at its end."""
    recorded = own_callback()
    call_model(compile_model(), call, recorded)
    assert recorded.execution.status is Status.completed
    (message,) = status_messages(recorded.execution)
    assert message.partition(":")[0] == stage
    assert recorded.execution.staged_assets() == []
    assert len(ml.find_executions()) == 1


def test_later_calls_without_a_with_block(ml: DerivaML, own_callback: Make) -> None:
    """An evaluation after a fit is added to its execution; a second fit is a new one."""
    recorded, model = own_callback(), compile_model()
    call_model(model, "fit", recorded)
    first = recorded.execution
    call_model(model, "evaluate", recorded)
    assert recorded.execution is first
    assert [message.partition(":")[0] for message in status_messages(first)] == ["Epoch 1/1", "Test"]
    call_model(model, "fit", recorded)
    assert recorded.execution.execution_rid != first.execution_rid
    assert [each.status for each in ml.find_executions()] == [Status.completed, Status.completed]


class TrialPruned(Exception):
    """The exception of Optuna, which is not installed here."""

    __module__ = "optuna.exceptions"


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no data"), Status.failed), (TrialPruned("no data"), Status.aborted)],
    ids=["failed", "pruned"],
)
def test_exception_without_a_with_block(
    ml: DerivaML, own_callback: Make, call: str, error: Exception, status: Status
) -> None:
    """An exception that the program handles, as a tuner does, is recorded when it leaves the call."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    hooks = {"fit": "on_epoch_end", "evaluate": "on_test_batch_end", "predict": "on_predict_batch_end"}
    recorded = own_callback()
    hook = keras.callbacks.Callback()
    setattr(hook, hooks[call], fail)
    with pytest.raises(type(error), match="no data"):
        call_model(compile_model(), call, recorded, hook)
    assert (recorded.execution.status, recorded.execution.status_detail) == (status, f"{type(error).__name__}: no data")
    assert recorded.execution.staged_assets() == []
    if call == "fit":
        assert list(outputs(ml, recorded.execution, "Model")) == ["epoch-0001.keras"]


def test_interrupt_without_a_with_block(own_callback: Make) -> None:
    """Ctrl-C is recorded when it leaves the fit."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    recorded = own_callback()
    with pytest.raises(KeyboardInterrupt):
        fit(compile_model(), recorded, CallAtEpoch(1, interrupt))
    assert (recorded.execution.status, recorded.execution.status_detail) == (Status.aborted, "KeyboardInterrupt")


def test_failing_evaluation_within_a_fit(own_callback: Make) -> None:
    """An evaluation in a callback of the fit fails on its own; if the callback handles that, the fit completes."""
    recorded, model = own_callback(), compile_model()

    def evaluate() -> None:
        with suppress(ZeroDivisionError):
            model.evaluate(POINTS, SUMS, verbose=0, callbacks=[CallAtTest()])

    class CallAtTest(keras.callbacks.Callback):
        def on_test_begin(self, logs: Any = None) -> None:
            _ = 1 / 0

    fit(model, recorded, CallAtEpoch(1, evaluate))
    assert recorded.execution.status is Status.completed
    assert fit_summaries(recorded.execution)[0]["outcome"] == "completed"


def test_evaluation_within_a_fit(own_callback: Make) -> None:
    """An evaluation with the same callback, in a callback of its fit, does not end the execution."""
    recorded, model = own_callback(), compile_model()
    fit(model, recorded, CallAtEpoch(1, lambda: call_model(model, "evaluate", recorded)))
    assert recorded.execution.status is Status.completed
    assert [message.partition(":")[0] for message in status_messages(recorded.execution)] == [
        "Epoch 1/3",
        "Test",
        "Epoch 2/3",
        "Epoch 3/3",
    ]


def test_keras_is_wrapped_once(own_callback: Make) -> None:
    """Callbacks without an execution wrap each method of Keras once, and Keras' signature stays."""
    own_callback()
    methods = [keras.Model.fit, keras.Model.evaluate, keras.Model.predict]
    own_callback()
    assert methods == [keras.Model.fit, keras.Model.evaluate, keras.Model.predict]
    assert [each.__name__ for each in methods] == ["fit", "evaluate", "predict"]
    assert "validation_data" in inspect.signature(keras.Model.fit).parameters
    assert not hasattr(keras.Model.fit.__wrapped__, "reports_exceptions")


def test_failing_fit_in_a_thread(own_callback: Make) -> None:
    """Concurrent fits end on their own: one fails, the other completes."""
    callbacks = [own_callback(), own_callback()]
    together = threading.Barrier(2, timeout=HANG)

    def train(number: int) -> None:
        def act() -> None:
            together.wait()
            if number == 0:
                raise ValueError("no data")

        with suppress(ValueError):
            fit(models[number], callbacks[number], CallAtEpoch(1, act))

    models = [compile_model(), compile_model()]
    threads = [threading.Thread(target=train, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert [each.execution.status for each in callbacks] == [Status.failed, Status.completed]


def test_execution_and_configuration_are_exclusive(execution: Execution, configuration: ExecutionConfiguration) -> None:
    """An execution and a configuration together are refused."""
    with pytest.raises(ConfigurationError, match="either an execution, or"):
        DerivaMLCallback(execution, configuration=configuration)


def test_unknown_option(execution: Execution) -> None:
    """A misspelt option raises when the callback is created."""
    with pytest.raises(ConfigurationError, match="every_epoch"):
        DerivaMLCallback(execution, every_epoch=1)  # type: ignore[call-arg]


def test_no_execution_before_first_fit(own_callback: Make) -> None:
    """The ``with`` block alone creates no execution."""
    with own_callback() as recorded, pytest.raises(ExecutionNotStarted):
        recorded.execution  # noqa: B018


# Epochs and steps


def test_log_every_n_steps(execution: Execution) -> None:
    """Each second step has a line with its metrics, numbered across epochs, besides those of epochs."""
    with execution:
        fit(compile_model(), DerivaMLCallback(execution, log_every_n_steps=2, upload="never"), epochs=2)
    assert [(line["epoch"], line["step"]) for line in metrics_lines(execution, by="step")] == [
        (1, 2),
        (1, 4),
        (2, 6),
        (2, 8),
    ]
    assert all(set(line["values"]) == {"loss", "mae"} for line in metrics_lines(execution, by="step"))
    assert [line["step"] for line in metrics_lines(execution, by="epoch")] == [4, 8]


def test_every_n_steps(execution: Execution) -> None:
    """``every_n_steps`` reports statuses within an epoch."""
    with execution:
        fit(compile_model(), DerivaMLCallback(execution, every_n_steps=3, upload="never"), epochs=1)
    assert [message.partition(":")[0] for message in status_messages(execution)] == ["Epoch 1/1, step 3", "Epoch 1/1"]


def test_no_batch_hook_without_step_options(execution: Execution) -> None:
    """Without step options there is no batch-end hook, so Keras reads step metrics in the background."""
    assert getattr(DerivaMLCallback(execution).on_train_batch_end, "_is_default", False)
    assert not getattr(DerivaMLCallback(execution, log_every_n_steps=1).on_train_batch_end, "_is_default", False)


def test_gradient_accumulation(execution: Execution) -> None:
    """With ``gradient_accumulation_steps``, a step is an optimizer step, in step and epoch lines."""
    model = compile_model(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2))
    with execution:
        fit(model, DerivaMLCallback(execution, log_every_n_steps=1, upload="never"), epochs=2)
    assert [line["step"] for line in metrics_lines(execution, by="step")] == [1, 2, 3, 4]
    assert [line["step"] for line in metrics_lines(execution, by="epoch")] == [2, 4]


def test_model_without_keras_optimizer(execution: Execution) -> None:
    """Without a Keras optimizer, as in a GAN with two of its own, batches are counted."""

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.dense(x)

        def train_step(self, data: Any) -> Any:
            return {"loss": 0.5}

    model = Own()
    model.compile(optimizer=None, loss="mse")
    with execution:
        fit(model, DerivaMLCallback(execution, log_every_n_steps=3, checkpoints="none", upload="never"), epochs=2)
    assert [line["step"] for line in metrics_lines(execution, by="step")] == [3, 6]
    assert [line["step"] for line in metrics_lines(execution, by="epoch")] == [4, 8]
    assert "learning_rates" not in metrics_lines(execution, by="epoch")[0]


def test_samples_with_smaller_last_batch(execution: Execution) -> None:
    """Batches of 10 of 32 samples make 32 samples an epoch."""
    with execution:
        compile_model().fit(
            POINTS, SUMS, batch_size=10, verbose=0, callbacks=[DerivaMLCallback(execution, upload="never")]
        )
    (line,) = metrics_lines(execution, by="epoch")
    assert line["samples_per_second"] * line["seconds"] == pytest.approx(32, rel=1e-3)


def test_data_of_unknown_length(execution: Execution) -> None:
    """A generator without length and batch size still has steps and metrics."""

    def batches() -> Any:
        for start in range(0, 24, 8):
            yield POINTS[start : start + 8], SUMS[start : start + 8]

    with execution:
        compile_model().fit(batches(), verbose=0, callbacks=[DerivaMLCallback(execution, upload="never")])
    (line,) = metrics_lines(execution, by="epoch")
    assert (line["step"], "samples_per_second" in line) == (3, False)


def test_torch_dataloader(execution: Execution) -> None:
    """The batch size of a DataLoader is recorded and used to count samples."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    data = DataLoader(TensorDataset(torch.tensor(POINTS), torch.tensor(SUMS)), batch_size=16)
    with execution:
        compile_model().fit(data, verbose=0, callbacks=[DerivaMLCallback(execution)])
    (line,) = metrics_lines(execution, by="epoch")
    assert line["samples_per_second"] * line["seconds"] == pytest.approx(32, rel=1e-3)
    assert fit_summaries(execution)[0]["settings"]["batch_size"] == 16


# Learning rates


def test_learning_rate_schedule(execution: Execution) -> None:
    """The rate of a schedule at the epoch's end is recorded under the optimizer's name."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=4, decay_rate=0.5)
    with execution:
        fit(compile_model(keras.optimizers.SGD(schedule)), DerivaMLCallback(execution, upload="never"), epochs=2)
    rates = [line["learning_rates"]["SGD"] for line in metrics_lines(execution, by="epoch")]
    assert rates == pytest.approx([0.05, 0.025])


@pytest.mark.parametrize("callback_first", [True, False])
def test_learning_rate_before_reduction(execution: Execution, callback_first: bool) -> None:
    """An epoch has the rate it was trained with, even if ReduceLROnPlateau lowers it at its end."""
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", mode="max", factor=0.1, patience=1, min_delta=1e6)
    recorded = DerivaMLCallback(execution, upload="never")
    with execution:
        fit(
            compile_model(keras.optimizers.SGD(0.01)), *([recorded, plateau] if callback_first else [plateau, recorded])
        )
    rates = [line["learning_rates"]["SGD"] for line in metrics_lines(execution, by="epoch")]
    assert rates == pytest.approx([0.01, 0.01, 0.001])


# Stages


def test_validation_within_fit_is_no_stage(execution: Execution) -> None:
    """The validation at an epoch's end is part of the epoch's metrics only."""
    with execution:
        fit(compile_model(), DerivaMLCallback(execution, upload="never"), validation_data=(POINTS, SUMS), epochs=2)
    assert [line["stage"] for line in metrics_lines(execution)] == ["fit", "fit"]
    assert "val_loss" in metrics_lines(execution)[0]["values"]


def test_evaluation_within_fit_is_a_test(execution: Execution) -> None:
    """An evaluation that a callback runs on its own data is a test; the fit continues."""
    model, recorded = compile_model(), DerivaMLCallback(execution, upload="never")
    with execution:
        evaluate = CallAtEpoch(0, lambda: model.evaluate(POINTS, SUMS, verbose=0, callbacks=[recorded]), end=True)
        fit(model, recorded, evaluate, validation_data=(POINTS, SUMS), epochs=2)
    assert [line["stage"] for line in metrics_lines(execution)] == ["fit", "test", "fit"]


def test_evaluation_after_failed_fit_is_a_test(execution: Execution) -> None:
    """An evaluation after a failed fit, whose end Keras does not report, is a test."""
    model, recorded = compile_model(), DerivaMLCallback(execution, upload="never")
    with execution:
        with pytest.raises(ZeroDivisionError):
            fit(model, recorded, CallAtEpoch(1, lambda: 1 / 0))
        model.evaluate(POINTS, SUMS, verbose=0, callbacks=[recorded])
    assert [line["stage"] for line in metrics_lines(execution)] == ["fit", "test"]
    assert metrics_lines(execution, stage="test")[0]["step"] == 5 - 1


def test_evaluation_without_fit(execution: Execution) -> None:
    """``evaluate`` is recorded without a fit."""
    with execution:
        compile_model().evaluate(POINTS, SUMS, verbose=0, callbacks=[DerivaMLCallback(execution, upload="never")])
    assert [(line["stage"], set(line["values"])) for line in metrics_lines(execution)] == [("test", {"loss", "mae"})]


def test_fits_are_numbered(execution: Execution) -> None:
    """Fits in one execution are numbered in the metrics and in training.json."""
    model, recorded = compile_model(), DerivaMLCallback(execution)
    with execution:
        fit(model, recorded, epochs=1)
        fit(model, recorded, epochs=3, initial_epoch=1)
    told_of = [(line["fit"], line["epoch"], line["step"]) for line in metrics_lines(execution)]
    assert told_of == [(1, 1, 4), (2, 2, 8), (2, 3, 12)]
    assert [(each["fit"], each["outcome"]) for each in fit_summaries(execution)] == [(1, "completed"), (2, "completed")]


def test_failed_fit_followed_by_another(execution: Execution) -> None:
    """A fit whose exception user code catches is recorded as interrupted by the next fit."""
    model, recorded = compile_model(), DerivaMLCallback(execution)
    with execution:
        with pytest.raises(ZeroDivisionError):
            fit(model, recorded, CallAtEpoch(1, lambda: 1 / 0))
        fit(model, recorded, epochs=1)
    assert [each["outcome"] for each in fit_summaries(execution)] == ["interrupted by another fit", "completed"]


def test_ranks_above_zero_record_nothing(execution: Execution) -> None:
    """In a process of a rank above 0 the callback records nothing."""
    follower = Execution(execution._connection, execution._row, execution.working_dir, rank=1)
    recorded = DerivaMLCallback(follower)
    with execution, follower:
        model = compile_model()
        fit(model, recorded, epochs=1)
        model.evaluate(POINTS, SUMS, verbose=0, callbacks=[recorded])
        assert list(follower.working_dir.rglob("*.keras")) == []
    assert status_messages(execution) == []
    assert not (execution.working_dir / "metrics.jsonl").exists()


# Why a fit ended


def outcome(execution: Execution, *callbacks: Any, **options: Any) -> str:
    """Return the recorded outcome of a fit."""
    with execution:
        fit(compile_model(), *callbacks, DerivaMLCallback(execution, upload="never"), **options)
    return str(fit_summaries(execution)[0]["outcome"])


def test_early_stopping(execution: Execution) -> None:
    """The stopped epoch, the reason, the best epoch and the restored weights are in the status and the summary."""
    early = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    reason = outcome(execution, SetLosses(3.0, 1.0, 2.0, 1.5, 1.0), early, epochs=5)
    assert reason == (
        "early stopping in epoch 4: loss did not improve in 2 epochs (best 1 in epoch 2, patience 2); "
        "the weights of epoch 2 were restored"
    )
    assert status_messages(execution)[-1] == f"Fit ended after 4 of 5 epochs: {reason}".partition(" (")[0]


def test_restored_weights_of_complete_fit(execution: Execution) -> None:
    """Keras restores the best weights even if training was not stopped; the outcome says so."""
    early = keras.callbacks.EarlyStopping("loss", patience=5, restore_best_weights=True)
    assert outcome(execution, SetLosses(3.0, 1.0, 2.0), early) == "the weights of epoch 2 were restored"


def test_nan_loss(execution: Execution) -> None:
    """TerminateOnNaN is the outcome of the fit, and NaN is in the metrics."""
    model = compile_model(keras.optimizers.SGD(1e30))
    recorded = DerivaMLCallback(execution, upload="never")
    with execution:
        fit(model, keras.callbacks.TerminateOnNaN(), recorded, epochs=9)
    assert fit_summaries(execution)[0]["outcome"].startswith("TerminateOnNaN in epoch 1: the loss was ")
    assert not math.isfinite(metrics_lines(execution)[-1]["values"]["loss"])


def test_stop_training(execution: Execution) -> None:
    """``model.stop_training`` set by user code is the outcome of the fit."""
    model = compile_model()
    stop = CallAtEpoch(1, lambda: setattr(model, "stop_training", True), end=True)
    with execution:
        fit(model, DerivaMLCallback(execution, upload="never"), stop)
    assert fit_summaries(execution)[0]["outcome"] == "model.stop_training was set in epoch 2"


def test_failure_in_user_execution(execution: Execution) -> None:
    """After an exception, the execution's end records the outcome and the best and last checkpoints."""
    with pytest.raises(ZeroDivisionError), execution:
        fit(compile_model(), DerivaMLCallback(execution, monitor="loss"), CallAtEpoch(2, lambda: 1 / 0))
    assert fit_summaries(execution)[0]["outcome"] == "ZeroDivisionError: division by zero"
    types = set().union(*staged_types(execution).values())
    assert types == {"Model_File", "Best_Checkpoint", "Last_Checkpoint"}


# Several callbacks, settings


def test_two_callbacks_for_one_execution(execution: Execution, own_callback: Make) -> None:
    """The second warns once and records nothing, with the same execution or without one."""
    one, other = DerivaMLCallback(execution, upload="never"), DerivaMLCallback(execution, upload="never")
    with execution, own_callback() as third:
        with pytest.warns(DerivaMLWarning, match="two DerivaMLCallbacks") as warned:
            fit(compile_model(), one, other, epochs=1)
            fit(compile_model(), one, other, epochs=1)
        assert sum(each.category is DerivaMLWarning for each in warned) == 1
        with pytest.warns(DerivaMLWarning, match="two DerivaMLCallbacks"):
            fit(compile_model(), one, third, epochs=1)
    assert [line["fit"] for line in metrics_lines(execution)] == [1, 2, 3]


def test_two_callbacks_for_two_executions(execution: Execution, new_execution: Callable[[], Execution]) -> None:
    """Each of two executions has the fit."""
    other = new_execution()
    with execution, other:
        fit(
            compile_model(),
            DerivaMLCallback(execution, upload="never"),
            DerivaMLCallback(other, upload="never"),
            epochs=1,
        )
    assert len(metrics_lines(execution)) == len(metrics_lines(other)) == 1


def test_settings_are_recorded(execution: Execution) -> None:
    """Model, optimizer, loss, batches, seed, backend and other callbacks are in training.json."""
    with execution:
        fit(compile_model(), DerivaMLCallback(execution), keras.callbacks.EarlyStopping("loss", patience=7))
    settings = fit_summaries(execution)[0]["settings"]
    assert settings["compiled"]["optimizer"]["class_name"] == "Adam"
    assert settings["compiled"]["loss"] == "mse"
    assert [layer["class_name"] for layer in settings["model"]["config"]["layers"]] == [
        "InputLayer",
        "Dense",
        "Dropout",
        "Dense",
    ]
    assert settings["summary"]["parameters"] == settings["summary"]["trainable_parameters"] == 3 * 8 + 8 + 8 + 1
    assert {name: settings[name] for name in ("backend", "batch_size", "epochs", "seed", "dtype_policy")} == {
        "backend": "torch",
        "batch_size": 8,
        "epochs": 3,
        "seed": 0,
        "dtype_policy": "float32",
    }
    early = next(each for each in settings["callbacks"] if each["class"] == "EarlyStopping")
    assert (early["monitor"], early["patience"]) == ("loss", 7)


def test_unreadable_settings_are_left_out(execution: Execution) -> None:
    """A model without a configuration is trained and recorded without it."""

    class Shy(keras.Sequential):  # type: ignore[misc]
        def get_config(self) -> Any:
            raise RuntimeError("not readable")

    model = Shy([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with execution:
        fit(model, DerivaMLCallback(execution, checkpoints="none"), epochs=1)
    assert "model" not in fit_summaries(execution)[0]["settings"]
    assert fit_summaries(execution)[0]["settings"]["summary"]["parameters"] == 4


# Fits that an exception ends


@pytest.mark.parametrize("callback_first", [True, False])
@pytest.mark.parametrize("caught", [True, False])
def test_validation_of_interrupted_epoch(
    ml: DerivaML, execution: Execution, callback_first: bool, caught: bool
) -> None:
    """If an exception ends an epoch after its validation, as a pruner does, the validation is recorded."""
    seen: list[float] = []

    class Pruner(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                seen.append(float(logs["val_loss"]))
                raise RuntimeError("pruned")

    recorded = DerivaMLCallback(execution, upload="never", checkpoints="none")
    callbacks = [recorded, Pruner()] if callback_first else [Pruner(), recorded]
    with suppress(RuntimeError), execution:
        try:
            fit(compile_model(), *callbacks, validation_data=(POINTS, SUMS))
        except RuntimeError:
            if not caught:
                raise
            fit(compile_model(), recorded, epochs=1)
    lines = [line for line in metrics_lines(execution) if line["fit"] == 1]
    by, training_names = ("epoch", {"loss", "mae"}) if callback_first else ("step", set())
    assert [(line["by"], line["epoch"], line["step"]) for line in lines] == [("epoch", 1, 4), (by, 2, 8)]
    assert (set(lines[1]["values"]), lines[1]["values"]["val_loss"]) == (
        training_names | {"val_loss", "val_mae"},
        seen[0],
    )
    outcome = "interrupted by another fit" if caught else "RuntimeError: pruned"
    assert fit_summaries(execution)[0]["outcome"] == outcome
    (row,) = ml.select_rows("Execution_Metric", {"Execution": execution.execution_rid, "Name": "val_loss"})
    assert row["Last"] == seen[0]


def test_unfinished_validation_is_not_recorded(execution: Execution) -> None:
    """A validation that an exception interrupts has no metrics, and that of an earlier epoch is not repeated."""

    class Failing(keras.callbacks.Callback):
        batches = 0

        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            self.batches += 1
            if self.batches == 2:
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), execution:
        fit(
            compile_model(),
            DerivaMLCallback(execution, upload="never"),
            Failing(),
            validation_data=(POINTS, SUMS),
            validation_batch_size=32,
        )
    assert [(line["by"], line["epoch"]) for line in metrics_lines(execution)] == [("epoch", 1)]


# Copies


def copy_by_pickle(callback: Any) -> Any:
    return pickle.loads(pickle.dumps(callback))


def copy_by_cloudpickle(callback: Any) -> Any:
    return pickle.loads(pytest.importorskip("cloudpickle").dumps(callback))


@pytest.mark.parametrize("copy_callback", [copy.deepcopy, copy_by_pickle, copy_by_cloudpickle])
def test_copies_within_the_with_block(ml: DerivaML, own_callback: Make, copy_callback: Callable[[Any], Any]) -> None:
    """Each copy, as a tuner makes it for each trial, records its own execution, which ends with the trial."""
    with own_callback(log_every_n_steps=2) as recorded:
        for fails in (False, True):
            (copied,) = copy_callback([recorded])
            with suppress(ZeroDivisionError):
                fit(compile_model(), copied, CallAtEpoch(1 if fails else 9, lambda: 1 / 0))
            assert [line["step"] for line in metrics_lines(copied.execution, by="step")] == [
                *(2, 4, 6),
                *(() if fails else (8, 10, 12)),
            ][: 2 if fails else 6]
    assert [each.status for each in ml.find_executions()] == [Status.failed, Status.completed]
    with pytest.raises(ExecutionNotStarted):
        recorded.execution  # noqa: B018


def test_copy_during_a_fit(ml: DerivaML, execution: Execution) -> None:
    """A copy that is made during a fit neither ends nor continues it."""
    with execution:
        recorded = DerivaMLCallback(execution, upload="never")
        copies: list[DerivaMLCallback] = []
        fit(compile_model(), recorded, CallAtEpoch(1, lambda: copies.append(copy.copy(recorded))))
        copies += [copy.deepcopy(recorded)]
        for each in copies:
            assert each.execution is execution
            fit(compile_model(), each, epochs=1)
    assert [fit["outcome"] for fit in fit_summaries(execution)] == ["completed"] * 3
