"""`deriva_ml_keras.autolog`: every Keras fit is recorded, without a callback in the user's code."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from keras_helpers import NUMPY_2, POINTS, SUMS, CallAtEpoch, compile_model, fit, keras, metrics_lines
from training_helpers import outputs, status_messages

from deriva_ml import DerivaML, ExecutionConfiguration, Workflow
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution import Execution
from deriva_ml_keras import Autolog, DerivaMLCallback, autolog
from waits import HANG

pytestmark = [NUMPY_2]

CONFIGURATION = ExecutionConfiguration(
    workflow=Workflow(name="Own", workflow_type="Training", url="https://example.org/own.py", checksum="0")
)


@pytest.fixture
def enabled_autolog(ml: DerivaML) -> Iterator[Autolog]:
    """An enabled autolog."""
    with autolog(ml, CONFIGURATION, "Logged by itself", upload="end") as on:
        yield on


def find_executions(ml: DerivaML) -> list[Any]:
    """Return all executions, oldest first."""
    return sorted(ml.find_executions(), key=lambda each: str(each.execution_rid))


def test_each_fit_is_an_execution(ml: DerivaML, enabled_autolog: Autolog) -> None:
    """A fit returns what it returned before; each is recorded, completed and uploaded."""
    model = compile_model()
    history = fit(model, validation_data=(POINTS, SUMS))
    assert set(history.history) == {"loss", "mae", "val_loss", "val_mae"}
    fit(model, epochs=1)
    first, second = find_executions(ml)
    assert (first.status, first.description) == (Status.completed, "Logged by itself")
    assert len([each for each in first.list_assets("Output") if each.table == "Model"]) in (1, 2)
    assert second.status is Status.completed


@pytest.mark.parametrize("form", ["nothing", "one", "a tuple", "a list of Keras"])
def test_user_callbacks_are_called(ml: DerivaML, enabled_autolog: Autolog, form: str) -> None:
    """The user's callbacks are called in every form of the argument; a CallbackList is restored afterwards."""
    seen: list[int] = []
    look = CallAtEpoch(0, lambda: seen.append(0))
    model = compile_model()
    its_list = keras.callbacks.CallbackList([look], add_history=True, model=model, epochs=1)
    callbacks = {"nothing": None, "one": look, "a tuple": (look,), "a list of Keras": its_list}[form]
    before = list(its_list.callbacks)
    model.fit(POINTS, SUMS, verbose=0, callbacks=callbacks)
    assert seen == ([] if form == "nothing" else [0])
    assert its_list.callbacks == before
    (execution,) = find_executions(ml)
    assert [message.partition(":")[0] for message in status_messages(execution)] == ["Epoch 1/1"]


def test_positional_arguments(ml: DerivaML, enabled_autolog: Autolog) -> None:
    """``fit(x, y, batch_size, epochs, verbose, callbacks)`` works with positional arguments."""
    compile_model().fit(POINTS, SUMS, 8, 1, 0, [])
    assert len(find_executions(ml)) == 1


def test_wrong_argument_raises_keras_error(ml: DerivaML, enabled_autolog: Autolog) -> None:
    """An unknown argument of fit raises Keras' own error, and nothing is recorded."""
    with pytest.raises(TypeError, match="epoch_count"):
        compile_model().fit(POINTS, SUMS, epoch_count=1)
    assert find_executions(ml) == []


def test_user_callback_records_alone(ml: DerivaML, enabled_autolog: Autolog, execution: Execution) -> None:
    """If the user passes a DerivaMLCallback, no other is added."""
    with execution:
        fit(compile_model(), DerivaMLCallback(execution), epochs=1)
    assert [each.execution_rid for each in find_executions(ml)] == [execution.execution_rid]
    assert len(metrics_lines(execution)) == 1


@pytest.mark.parametrize("error", [RuntimeError("no more data"), KeyboardInterrupt()])
def test_failing_fit_ends_execution(ml: DerivaML, enabled_autolog: Autolog, error: BaseException) -> None:
    """The execution is failed, or aborted by Ctrl-C, and keeps its files; the next fit is recorded."""

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        fit(compile_model(), CallAtEpoch(1, fail))
    (execution,) = find_executions(ml)
    assert execution.status is (Status.failed if isinstance(error, RuntimeError) else Status.aborted)
    assert "epoch-0001.keras" in outputs(ml, execution, "Model")
    fit(compile_model(), epochs=1)
    assert len(find_executions(ml)) == 2


def test_separate_evaluations_are_not_recorded(ml: DerivaML, enabled_autolog: Autolog) -> None:
    """An evaluation or prediction outside a fit is not recorded."""
    model = compile_model()
    model.evaluate(POINTS, SUMS, verbose=0)
    model.predict(POINTS, verbose=0)
    assert find_executions(ml) == []


def test_subclass_with_own_fit(ml: DerivaML, enabled_autolog: Autolog) -> None:
    """A subclass whose fit calls Model.fit is recorded once."""

    class Mine(keras.Sequential):  # type: ignore[misc]
        def fit(self, *args: Any, **options: Any) -> Any:
            return super().fit(*args, **options)

    model = Mine([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(POINTS, SUMS, verbose=0)
    assert len(find_executions(ml)) == 1


def test_nested_fit_is_not_recorded(ml: DerivaML, enabled_autolog: Autolog) -> None:
    """A fit within a fit creates no execution; the consecutive trials of a tuner do."""
    other = compile_model()
    fit(compile_model(), CallAtEpoch(0, lambda: fit(other, epochs=1)), epochs=1)
    assert len(find_executions(ml)) == 1
    for _ in range(2):
        fit(compile_model(), epochs=1)
    assert len(find_executions(ml)) == 3


def test_fits_in_two_threads(ml: DerivaML, enabled_autolog: Autolog) -> None:
    """Concurrent fits in two threads are both recorded."""
    models = [compile_model(), compile_model()]
    together = threading.Barrier(2, timeout=HANG)
    threads = [
        threading.Thread(target=fit, args=(each, CallAtEpoch(0, together.wait)), kwargs={"epochs": 1})
        for each in models
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert [each.status for each in find_executions(ml)] == [Status.completed, Status.completed]


def test_disable_restores_keras(ml: DerivaML) -> None:
    """``disable`` and the end of the ``with`` block restore Keras' own method."""
    before = keras.Model.fit
    enabled_autolog = autolog(ml, CONFIGURATION)
    assert keras.Model.fit is not before
    enabled_autolog.disable()
    enabled_autolog.disable()
    assert keras.Model.fit is before
    with autolog(ml, CONFIGURATION):
        pass
    assert keras.Model.fit is before
    fit(compile_model(), epochs=1)
    assert find_executions(ml) == []


def test_enabled_twice(ml: DerivaML) -> None:
    """Of two enabled autologs the last records, and both can be disabled in any order."""
    before = keras.Model.fit
    one = autolog(ml, CONFIGURATION, "one")
    other = autolog(ml, CONFIGURATION, "other")
    fit(compile_model(), epochs=1)
    assert [each.description for each in find_executions(ml)] == ["other"]
    one.disable()
    fit(compile_model(), epochs=1)
    assert [each.description for each in find_executions(ml)] == ["other", "other"]
    other.disable()
    fit(compile_model(), epochs=1)
    assert len(find_executions(ml)) == 2
    assert keras.Model.fit is before


def test_wrong_option_raises_at_once(ml: DerivaML) -> None:
    """A wrong option raises before the first fit, and nothing is enabled."""
    before = keras.Model.fit
    with pytest.raises(ConfigurationError, match="checkpoint="):
        autolog(ml, checkpoint="best")  # type: ignore[call-arg]
    assert keras.Model.fit is before


def test_without_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """``autolog()`` records in the default catalog, with the running file as the workflow."""
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_URL", "https://example.org/mine.py")
    monkeypatch.setenv("DERIVA_ML_WORKFLOW_CHECKSUM", "0")
    with autolog():
        fit(compile_model(), epochs=1)
    ml = DerivaML()
    (execution,) = find_executions(ml)
    assert ml.lookup_workflow(execution.workflow_rid).name == "mine.py"
