"""autolog: every fit of Keras is recorded, without a callback in the user's code."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from keras_trainings import NUMPY_2, POINTS, SUMS, At, compiled, fit, keras, lines
from trainings import outputs, told

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution import Execution
from deriva_ml_keras import Autolog, DerivaMLCallback, autolog

pytestmark = [NUMPY_2]

CONFIGURATION = ExecutionConfiguration(
    workflow=Workflow(name="Own", workflow_type="Training", url="https://example.org/own.py", checksum="0")
)


@pytest.fixture
def switch(ml: DerivaML) -> Iterator[Autolog]:
    """autolog, switched on."""
    with autolog(ml, CONFIGURATION, "Logged by itself", upload="end") as on:
        yield on


def recorded(ml: DerivaML) -> list[Any]:
    """All executions, the first made first."""
    return sorted(ml.find_executions(), key=lambda each: str(each.execution_rid))


def test_each_fit_is_an_execution(ml: DerivaML, switch: Autolog) -> None:
    """A fit returns what it returned before, and is on record completed and uploaded; so is the next."""
    model = compiled()
    history = fit(model, validation_data=(POINTS, SUMS))
    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae"}
    fit(model, epochs=1)
    first, second = recorded(ml)
    assert (first.status, first.description) == (Status.completed, "Logged by itself")
    assert len([each for each in first.list_assets("Output") if each.table == "Model"]) in (1, 2)
    assert second.status is Status.completed


@pytest.mark.parametrize("given", ["nothing", "one", "a tuple", "a list of Keras"])
def test_callbacks_of_the_user_are_called_as_before(ml: DerivaML, switch: Autolog, given: str) -> None:
    """Whatever way they are given; Keras' own list is given back as it was."""
    seen: list[int] = []
    look = At(0, lambda: seen.append(0))
    model = compiled()
    its_list = keras.callbacks.CallbackList([look], add_history=True, model=model, epochs=1)
    callbacks = {"nothing": None, "one": look, "a tuple": (look,), "a list of Keras": its_list}[given]
    before = list(its_list.callbacks)
    model.fit(POINTS, SUMS, verbose=0, callbacks=callbacks)
    assert seen == ([] if given == "nothing" else [0])
    assert its_list.callbacks == before
    (execution,) = recorded(ml)
    assert [words.partition(":")[0] for words in told(execution)] == ["Epoch 1/1"]


def test_positional_arguments_are_the_same(ml: DerivaML, switch: Autolog) -> None:
    """``fit(x, y, batch_size, epochs, verbose, callbacks)``."""
    compiled().fit(POINTS, SUMS, 8, 1, 0, [])
    assert len(recorded(ml)) == 1


def test_a_wrong_argument_is_keras_own_error(ml: DerivaML, switch: Autolog) -> None:
    """What fit does not take is refused, and nothing is recorded."""
    with pytest.raises(TypeError, match="epoch_count"):
        compiled().fit(POINTS, SUMS, epoch_count=1)
    assert recorded(ml) == []


def test_a_callback_of_the_users_own_records_alone(ml: DerivaML, switch: Autolog, execution: Execution) -> None:
    """Beside a DerivaMLCallback none is added."""
    with execution:
        fit(compiled(), DerivaMLCallback(execution), epochs=1)
    assert [each.execution_rid for each in recorded(ml)] == [execution.execution_rid]
    assert len(lines(execution)) == 1


@pytest.mark.parametrize("error", [RuntimeError("no more data"), KeyboardInterrupt()])
def test_a_fit_that_raises_is_ended(ml: DerivaML, switch: Autolog, error: BaseException) -> None:
    """Failed, or Aborted by Ctrl-C, with what was kept until then; the next fit is recorded as ever."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        fit(compiled(), At(1, fail))
    (execution,) = recorded(ml)
    assert execution.status is (Status.failed if isinstance(error, RuntimeError) else Status.aborted)
    assert "epoch-0001.keras" in outputs(ml, execution, "Model")
    fit(compiled(), epochs=1)
    assert len(recorded(ml)) == 2


def test_evaluations_alone_are_not_recorded(ml: DerivaML, switch: Autolog) -> None:
    """Nor is a prediction."""
    model = compiled()
    model.evaluate(POINTS, SUMS, verbose=0)
    model.predict(POINTS, verbose=0)
    assert recorded(ml) == []


def test_a_subclass_that_has_a_fit_of_its_own_is_recorded_once(ml: DerivaML, switch: Autolog) -> None:
    """What calls Model's is recorded as that."""

    class Mine(keras.Sequential):  # type: ignore[misc]
        def fit(self, *args: Any, **words: Any) -> Any:
            return super().fit(*args, **words)

    model = Mine([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(POINTS, SUMS, verbose=0)
    assert len(recorded(ml)) == 1


def test_a_fit_within_a_fit_belongs_to_the_outer_one(ml: DerivaML, switch: Autolog) -> None:
    """A callback that fits another model makes no execution; the trials of a tuner, one after the other, do."""
    other = compiled()
    fit(compiled(), At(0, lambda: fit(other, epochs=1)), epochs=1)
    assert len(recorded(ml)) == 1
    for _ in range(2):
        fit(compiled(), epochs=1)
    assert len(recorded(ml)) == 3


def test_fits_of_two_threads_are_both_recorded(ml: DerivaML, switch: Autolog) -> None:
    """What one thread does keeps no other from its record."""
    models = [compiled(), compiled()]
    together = threading.Barrier(2, timeout=60)
    threads = [threading.Thread(target=fit, args=(each, At(0, together.wait)), kwargs={"epochs": 1}) for each in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [each.status for each in recorded(ml)] == [Status.completed, Status.completed]


def test_switched_off_keras_is_as_it_was(ml: DerivaML) -> None:
    """``disable`` and the end of the ``with`` put back Keras' own method; nothing is recorded any more."""
    before = keras.Model.fit
    switch = autolog(ml, CONFIGURATION)
    assert keras.Model.fit is not before
    switch.disable()
    switch.disable()
    assert keras.Model.fit is before
    with autolog(ml, CONFIGURATION):
        pass
    assert keras.Model.fit is before
    fit(compiled(), epochs=1)
    assert recorded(ml) == []


def test_switched_on_twice_the_last_records_and_any_order_switches_off(ml: DerivaML) -> None:
    """As a cell of a notebook that is run again: one record a fit."""
    before = keras.Model.fit
    one = autolog(ml, CONFIGURATION, "one")
    other = autolog(ml, CONFIGURATION, "other")
    fit(compiled(), epochs=1)
    assert [each.description for each in recorded(ml)] == ["other"]
    one.disable()
    fit(compiled(), epochs=1)
    assert [each.description for each in recorded(ml)] == ["other", "other"]
    other.disable()
    fit(compiled(), epochs=1)
    assert len(recorded(ml)) == 2
    assert keras.Model.fit is before


def test_a_wrong_option_is_found_at_once(ml: DerivaML) -> None:
    """Not in the first fit, and nothing is switched on."""
    before = keras.Model.fit
    with pytest.raises(ConfigurationError, match="checkpoint="):
        autolog(ml, checkpoint="best")  # type: ignore[call-arg]
    assert keras.Model.fit is before


def test_it_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """``autolog()`` alone records in the catalog of this machine, the workflow called as the file that runs."""
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", "https://example.org/mine.py")
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_CHECKSUM", "0")
    with autolog():
        fit(compiled(), epochs=1)
    ml = DerivaML()
    (execution,) = recorded(ml)
    assert ml.lookup_workflow(execution.workflow_rid).name == "mine.py"
