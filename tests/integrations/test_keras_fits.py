"""What is told of fits, evaluations and predictions of Keras."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from keras_trainings import NUMPY_2, POINTS, SUMS, At, Losses, compiled, facts, fit, keras, lines, staged
from trainings import outputs, told

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError, DerivaMLWarning, ExecutionNotStarted
from deriva_ml_core.execution import Execution
from deriva_ml_keras import DerivaMLCallback

pytestmark = [NUMPY_2]

Make = Callable[..., DerivaMLCallback]


@pytest.fixture
def configuration() -> ExecutionConfiguration:
    """Of a workflow whose source is given, so that nothing is detected."""
    workflow = Workflow(name="Own", workflow_type="Training", url="https://example.org/own.py", checksum="0")
    return ExecutionConfiguration(workflow=workflow)


@pytest.fixture
def own(ml: DerivaML, configuration: ExecutionConfiguration) -> Make:
    """Makes callbacks that make their own execution."""
    return lambda **options: DerivaMLCallback(ml=ml, configuration=configuration, **options)


# An execution of its own


def test_its_own_execution_ends_and_is_uploaded_with_its_with(ml: DerivaML, own: Make) -> None:
    """Fit, evaluation and prediction in one ``with`` are one execution, completed and uploaded when it is left."""
    with own() as recorded:
        model = compiled()
        fit(model, recorded, epochs=1)
        assert recorded.execution.status is Status.running
        model.evaluate(POINTS, SUMS, verbose=0, callbacks=[recorded])
        model.predict(POINTS, verbose=0, callbacks=[recorded])
    assert recorded.execution.status is Status.completed
    assert [words.partition(":")[0] for words in told(recorded.execution)] == ["Epoch 1/1", "Test", "Prediction"]
    assert list(outputs(ml, recorded.execution, "Model")) == ["epoch-0001.keras"]
    assert {"metrics.jsonl", "training.json"} <= set(outputs(ml, recorded.execution, "Execution_Metadata"))


@pytest.mark.parametrize("error", [RuntimeError("no more data"), KeyboardInterrupt()])
def test_its_own_execution_ends_with_an_exception(ml: DerivaML, own: Make, error: BaseException) -> None:
    """What leaves the ``with`` ends the execution and goes on up; what was kept until then is uploaded."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)), own() as recorded:
        fit(compiled(), recorded, At(1, fail))
    execution = recorded.execution
    expected = Status.failed if isinstance(error, RuntimeError) else Status.aborted
    assert (execution.status, type(error).__name__ in execution.status_detail) == (expected, True)
    assert set(outputs(ml, execution, "Model")["epoch-0001.keras"].asset_types) > {"Best_Checkpoint", "Last_Checkpoint"}
    assert type(error).__name__ in facts(execution)[0]["outcome"]


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict"])
def test_bare_it_refuses_and_says_what_to_write(ml: DerivaML, own: Make, call: str) -> None:
    """Without an execution and outside its ``with`` nothing is trained or made: the error names the line."""
    model = compiled()
    before = model.get_weights()
    data = [POINTS] if call == "predict" else [POINTS, SUMS]
    with pytest.raises(ConfigurationError, match=r"with DerivaMLCallback\(\) as recorded: .*autolog\(\)"):
        getattr(model, call)(*data, verbose=0, callbacks=[own()])
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    assert ml.find_executions() == []


def test_an_execution_and_what_to_make_one_of_is_a_mistake(
    execution: Execution, configuration: ExecutionConfiguration
) -> None:
    """The one or the other is given."""
    with pytest.raises(ConfigurationError, match="give either"):
        DerivaMLCallback(execution, configuration=configuration)


def test_an_unknown_option_is_named(execution: Execution) -> None:
    """A misspelt option is found when the callback is made."""
    with pytest.raises(ConfigurationError, match="every_epoch"):
        DerivaMLCallback(execution, every_epoch=1)  # type: ignore[call-arg]


def test_there_is_no_execution_before_the_first_fit(own: Make) -> None:
    """Nothing is made by the ``with`` alone."""
    with own() as recorded, pytest.raises(ExecutionNotStarted):
        recorded.execution  # noqa: B018


# Epochs and steps


def test_metrics_of_steps_are_kept_where_asked(execution: Execution) -> None:
    """Each second step has a line with its metrics, numbered through the epochs; epochs have theirs as well."""
    with execution:
        fit(compiled(), DerivaMLCallback(execution, log_every_n_steps=2, upload="never"), epochs=2)
    assert [(line["epoch"], line["step"]) for line in lines(execution, by="step")] == [(1, 2), (1, 4), (2, 6), (2, 8)]
    assert all(set(line["values"]) == {"loss", "mae"} for line in lines(execution, by="step"))
    assert [line["step"] for line in lines(execution, by="epoch")] == [4, 8]


def test_statuses_of_steps_are_told_where_asked(execution: Execution) -> None:
    """``every_n_steps`` tells how an epoch goes on."""
    with execution:
        fit(compiled(), DerivaMLCallback(execution, every_n_steps=3, upload="never"), epochs=1)
    assert [words.partition(":")[0] for words in told(execution)] == ["Epoch 1/1, step 3", "Epoch 1/1"]


def test_without_options_of_steps_keras_has_no_hook_of_ours_to_call(execution: Execution) -> None:
    """Steps cost nothing where nothing of them is kept: Keras goes on reading their values beside the training."""
    assert getattr(DerivaMLCallback(execution).on_train_batch_end, "_is_default", False)
    assert not getattr(DerivaMLCallback(execution, log_every_n_steps=1).on_train_batch_end, "_is_default", False)


def test_gathered_gradients_count_as_one_step(execution: Execution) -> None:
    """With ``gradient_accumulation_steps`` a step is an optimizer's, in lines of steps and of epochs."""
    model = compiled(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2))
    with execution:
        fit(model, DerivaMLCallback(execution, log_every_n_steps=1, upload="never"), epochs=2)
    assert [line["step"] for line in lines(execution, by="step")] == [1, 2, 3, 4]
    assert [line["step"] for line in lines(execution, by="epoch")] == [2, 4]


def test_a_model_that_steps_by_itself_is_counted_in_batches(execution: Execution) -> None:
    """Without an optimizer of Keras, as in a GAN with two of its own, the batches count."""

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
    assert [line["step"] for line in lines(execution, by="step")] == [3, 6]
    assert [line["step"] for line in lines(execution, by="epoch")] == [4, 8]
    assert "learning_rates" not in lines(execution, by="epoch")[0]


def test_samples_a_second_are_told_also_of_a_smaller_last_batch(execution: Execution) -> None:
    """Batches of 10 of 32 samples make 32 samples an epoch."""
    with execution:
        compiled().fit(POINTS, SUMS, batch_size=10, verbose=0, callbacks=[DerivaMLCallback(execution, upload="never")])
    (line,) = lines(execution, by="epoch")
    assert line["samples_per_second"] * line["seconds"] == pytest.approx(32, rel=1e-3)


def test_data_of_unknown_length_are_recorded(execution: Execution) -> None:
    """A generator tells neither its length nor its batches' size; steps and metrics are kept all the same."""

    def batches() -> Any:
        for start in range(0, 24, 8):
            yield POINTS[start : start + 8], SUMS[start : start + 8]

    with execution:
        compiled().fit(batches(), verbose=0, callbacks=[DerivaMLCallback(execution, upload="never")])
    (line,) = lines(execution, by="epoch")
    assert (line["step"], "samples_per_second" in line) == (3, False)


def test_a_torch_loader_tells_its_batches(execution: Execution) -> None:
    """A DataLoader's batch size is on record, and samples are counted by it."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    data = DataLoader(TensorDataset(torch.tensor(POINTS), torch.tensor(SUMS)), batch_size=16)
    with execution:
        compiled().fit(data, verbose=0, callbacks=[DerivaMLCallback(execution)])
    (line,) = lines(execution, by="epoch")
    assert line["samples_per_second"] * line["seconds"] == pytest.approx(32, rel=1e-3)
    assert facts(execution)[0]["settings"]["batch_size"] == 16


# Learning rates


def test_a_schedules_learning_rate_is_told(execution: Execution) -> None:
    """Of a schedule the rate at the epoch's end is kept, under the optimizer's name."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=4, decay_rate=0.5)
    with execution:
        fit(compiled(keras.optimizers.SGD(schedule)), DerivaMLCallback(execution, upload="never"), epochs=2)
    rates = [line["learning_rates"]["SGD"] for line in lines(execution, by="epoch")]
    assert rates == pytest.approx([0.05, 0.025])


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_rate_is_that_of_the_epoch_whatever_lowers_it_at_its_end(execution: Execution, ours_first: bool) -> None:
    """ReduceLROnPlateau lowers the rate when an epoch ends; that epoch had the one before, wherever it stands."""
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", mode="max", factor=0.1, patience=1, min_delta=1e6)
    ours = DerivaMLCallback(execution, upload="never")
    with execution:
        fit(compiled(keras.optimizers.SGD(0.01)), *([ours, plateau] if ours_first else [plateau, ours]))
    rates = [line["learning_rates"]["SGD"] for line in lines(execution, by="epoch")]
    assert rates == pytest.approx([0.01, 0.01, 0.001])


# Stages


def test_a_validation_within_a_fit_is_no_stage(execution: Execution) -> None:
    """What Keras evaluates at each epoch's end is in the epoch's values, and nothing else is told of it."""
    with execution:
        fit(compiled(), DerivaMLCallback(execution, upload="never"), validation_data=(POINTS, SUMS), epochs=2)
    assert [line["stage"] for line in lines(execution)] == ["fit", "fit"]
    assert "val_loss" in lines(execution)[0]["values"]


def test_an_evaluation_asked_for_within_a_fit_is_a_test(execution: Execution) -> None:
    """A callback that evaluates on data of its own, with ours, is told as a test; the fit goes on as before."""
    model, ours = compiled(), DerivaMLCallback(execution, upload="never")
    with execution:
        evaluate = At(0, lambda: model.evaluate(POINTS, SUMS, verbose=0, callbacks=[ours]), end=True)
        fit(model, ours, evaluate, validation_data=(POINTS, SUMS), epochs=2)
    assert [line["stage"] for line in lines(execution)] == ["fit", "test", "fit"]


def test_an_evaluation_after_a_fit_that_failed_is_a_test(execution: Execution) -> None:
    """Of a fit that an exception ended Keras tells nobody; what is evaluated later is no validation of it."""
    model, ours = compiled(), DerivaMLCallback(execution, upload="never")
    with execution:
        with pytest.raises(ZeroDivisionError):
            fit(model, ours, At(1, lambda: 1 / 0))
        model.evaluate(POINTS, SUMS, verbose=0, callbacks=[ours])
    assert [line["stage"] for line in lines(execution)] == ["fit", "test"]
    assert lines(execution, stage="test")[0]["step"] == 5 - 1


def test_an_evaluation_alone_is_recorded(execution: Execution) -> None:
    """``evaluate`` needs no fit before it."""
    with execution:
        compiled().evaluate(POINTS, SUMS, verbose=0, callbacks=[DerivaMLCallback(execution, upload="never")])
    assert [(line["stage"], set(line["values"])) for line in lines(execution)] == [("test", {"loss", "mae"})]


def test_fits_keep_their_order(execution: Execution) -> None:
    """Several fits in one execution are numbered, in the metrics and in training.json."""
    model, ours = compiled(), DerivaMLCallback(execution)
    with execution:
        fit(model, ours, epochs=1)
        fit(model, ours, epochs=3, initial_epoch=1)
    told_of = [(line["fit"], line["epoch"], line["step"]) for line in lines(execution)]
    assert told_of == [(1, 1, 4), (2, 2, 8), (2, 3, 12)]
    assert [(each["fit"], each["outcome"]) for each in facts(execution)] == [(1, "completed"), (2, "completed")]


def test_a_fit_that_failed_and_was_followed_by_another_is_on_record_as_that(execution: Execution) -> None:
    """Where user code catches what ended a fit, nobody tells of that; the next fit does."""
    model, ours = compiled(), DerivaMLCallback(execution)
    with execution:
        with pytest.raises(ZeroDivisionError):
            fit(model, ours, At(1, lambda: 1 / 0))
        fit(model, ours, epochs=1)
    assert [each["outcome"] for each in facts(execution)] == ["broken off: another fit followed", "completed"]


def test_a_process_that_follows_records_nothing(execution: Execution) -> None:
    """In a process of a rank above zero the callback is silent: that of rank zero records."""
    follower = Execution(execution._connection, execution._row, execution.working_dir, rank=1)
    recorded = DerivaMLCallback(follower)
    with execution, follower:
        model = compiled()
        fit(model, recorded, epochs=1)
        model.evaluate(POINTS, SUMS, verbose=0, callbacks=[recorded])
        assert list(follower.working_dir.rglob("*.keras")) == []
    assert told(execution) == []
    assert not (execution.working_dir / "metrics.jsonl").exists()


# Why a fit ended


def outcome(execution: Execution, *callbacks: Any, **options: Any) -> str:
    """What is on record of a fit's end."""
    with execution:
        fit(compiled(), *callbacks, DerivaMLCallback(execution, upload="never"), **options)
    return str(facts(execution)[0]["outcome"])


def test_early_stopping_is_told_with_its_best_epoch(execution: Execution) -> None:
    """Which epoch stopped, why, which was the best, and whose weights the model has now: in words and on record."""
    early = keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True)
    found = outcome(execution, Losses(3.0, 1.0, 2.0, 1.5, 1.0), early, epochs=5)
    assert found == (
        "early stopping in epoch 4: loss did not improve in 2 epochs (best 1 in epoch 2, patience 2); "
        "the weights of epoch 2 were restored"
    )
    assert told(execution)[-1] == f"Fit ended after 4 of 5 epochs: {found}".partition(" (")[0]


def test_weights_that_were_restored_are_told_of_a_whole_fit(execution: Execution) -> None:
    """Keras restores the best weights at the end also where nothing was stopped."""
    early = keras.callbacks.EarlyStopping("loss", patience=5, restore_best_weights=True)
    assert outcome(execution, Losses(3.0, 1.0, 2.0), early) == "the weights of epoch 2 were restored"


def test_a_loss_that_is_no_number_is_told_and_kept(execution: Execution) -> None:
    """TerminateOnNaN is named as what ended the fit, and NaN is in the metrics."""
    model = compiled(keras.optimizers.SGD(1e30))
    ours = DerivaMLCallback(execution, upload="never")
    with execution:
        fit(model, keras.callbacks.TerminateOnNaN(), ours, epochs=9)
    assert facts(execution)[0]["outcome"].startswith("TerminateOnNaN in epoch 1: the loss was ")
    assert not math.isfinite(lines(execution)[-1]["values"]["loss"])


def test_a_fit_that_user_code_stops_is_told(execution: Execution) -> None:
    """``model.stop_training`` set by anybody."""
    model = compiled()
    stop = At(1, lambda: setattr(model, "stop_training", True), end=True)
    with execution:
        fit(model, DerivaMLCallback(execution, upload="never"), stop)
    assert facts(execution)[0]["outcome"] == "model.stop_training was set in epoch 2"


def test_a_failure_in_the_users_with_is_on_record(execution: Execution) -> None:
    """Keras tells of no exception, the execution does: on record is what ended the fit, and which are best and last."""
    with pytest.raises(ZeroDivisionError), execution:
        fit(compiled(), DerivaMLCallback(execution, monitor="loss"), At(2, lambda: 1 / 0))
    assert facts(execution)[0]["outcome"] == "ZeroDivisionError: division by zero"
    types = set().union(*staged(execution).values())
    assert types == {"Model_File", "Best_Checkpoint", "Last_Checkpoint"}


# Two callbacks, settings


def test_of_two_callbacks_for_one_execution_the_first_records(execution: Execution, own: Make) -> None:
    """The second says so once and does nothing, whether it is for the same execution or would make its own."""
    one, other = DerivaMLCallback(execution, upload="never"), DerivaMLCallback(execution, upload="never")
    with execution, own() as third:
        with pytest.warns(DerivaMLWarning, match="two DerivaMLCallbacks") as warned:
            fit(compiled(), one, other, epochs=1)
            fit(compiled(), one, other, epochs=1)
        assert sum(each.category is DerivaMLWarning for each in warned) == 1
        with pytest.warns(DerivaMLWarning, match="two DerivaMLCallbacks"):
            fit(compiled(), one, third, epochs=1)
    assert [line["fit"] for line in lines(execution)] == [1, 2, 3]


def test_callbacks_for_two_executions_both_record(execution: Execution, new_execution: Callable[[], Execution]) -> None:
    """Each execution that the user gave has the fit."""
    other = new_execution()
    with execution, other:
        fit(compiled(), DerivaMLCallback(execution, upload="never"), DerivaMLCallback(other, upload="never"), epochs=1)
    assert len(lines(execution)) == len(lines(other)) == 1


def test_how_a_fit_is_set_up_is_on_record(execution: Execution) -> None:
    """Model, optimizer, loss, batches, seed, backend and the other callbacks are in training.json."""
    with execution:
        fit(compiled(), DerivaMLCallback(execution), keras.callbacks.EarlyStopping("loss", patience=7))
    settings = facts(execution)[0]["settings"]
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


def test_settings_that_cannot_be_read_are_left_out(execution: Execution) -> None:
    """A model that cannot say how it is made is trained and recorded without that."""

    class Shy(keras.Sequential):  # type: ignore[misc]
        def get_config(self) -> Any:
            raise RuntimeError("not to be told")

    model = Shy([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with execution:
        fit(model, DerivaMLCallback(execution, checkpoints="none"), epochs=1)
    assert "model" not in facts(execution)[0]["settings"]
    assert facts(execution)[0]["settings"]["summary"]["parameters"] == 4
