"""What Keras says of a fit, an evaluation or a prediction, told to a `TrainingReporter`."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self, SupportsFloat, Unpack

import keras

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.implicit_execution import resolve_execution
from deriva_ml_core.training import TrainingKwargs, TrainingReporter
from deriva_ml_core.user_warnings import warn
from deriva_ml_keras.call_context import CallContext
from deriva_ml_keras.fit_tracker import FitTracker, count_optimizer_steps
from deriva_ml_keras.settings import collect_settings

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import Execution, ExecutionConfiguration

__all__ = ["DerivaMLCallback"]

Logs = Mapping[str, SupportsFloat] | None


class DerivaMLCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras publishes no types
    """Records fits, evaluations and predictions of Keras in an execution: statuses, metrics, settings, checkpoints.

    Given an execution, it records into that one, which the user's ``with`` begins and ends. Given none, it makes its
    own, and is itself the ``with``: Keras tells a callback nothing of an exception.

    Args:
        execution: The execution that the training belongs to; None to make one.
        ml: Where to make one; ``DerivaML()`` by default.
        configuration: What it is to be; by default of the script or notebook that runs, as a workflow of type Training.
        description: What the run is for.
        **options: The fields of ``deriva_ml_core.training.TrainingOptions``.

    Raises:
        ConfigurationError: Both an execution and what to make one of are given, or an option is wrong.
        UnknownTable, UnknownTerm: The execution's catalog has no such asset table or asset type.

    Example:
        ::

            with DerivaMLCallback() as recorded:
                model.fit(x, y, epochs=10, callbacks=[recorded])
                model.evaluate(x_test, y_test, callbacks=[recorded])
    """

    def __init__(
        self,
        execution: Execution | None = None,
        *,
        ml: DerivaML | None = None,
        configuration: ExecutionConfiguration | None = None,
        description: str = "",
        **options: Unpack[TrainingKwargs],
    ) -> None:
        super().__init__()
        if execution is not None and (ml is not None or configuration is not None or description):
            raise ConfigurationError(
                "DerivaMLCallback got an execution and also ml, configuration or description, of which it would make "
                "one: give either."
            )
        belongs_to = resolve_execution(ml, configuration, description) if execution is None else execution
        self._reporter = TrainingReporter(belongs_to, **options)
        self._fit: FitTracker | None = None
        self._stage_started_at: float | None = None
        self._is_new_call = True
        self._has_warned = False
        chosen = self._reporter.options
        if chosen.log_every_n_steps or chosen.every_n_steps or chosen.save_every_n_steps:
            # a callback that has this hook makes Keras read each step's values on the training's own thread
            self.on_train_batch_end = self._end_step

    @property
    def execution(self) -> Execution:
        """The execution.

        Raises:
            ExecutionNotStarted: The callback makes its own, and nothing was trained yet.
        """
        return self._reporter.execution

    def __enter__(self) -> Self:
        self._reporter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._on_exit(error)
        self._reporter.__exit__(kind, error, trace)

    def _on_exit(self, error: BaseException | None) -> None:
        """The ``with`` is left, its own or the execution's: by an exception, in the middle of a fit."""
        if (fit := self._fit) is not None:
            self._fit = None
            fit.scan_callbacks()
            if error is not None:
                self._reporter.fail(error)

    def set_params(self, params: dict[str, object]) -> None:
        super().set_params(params)
        # a validation within a fit gets none, since it shares the fit's list of callbacks
        self._is_new_call = True

    def on_train_begin(self, logs: Logs = None) -> None:
        self._fit = None
        around = self._begin_call()
        if around is None:
            return
        params = self.params or {}
        epochs = params.get("epochs")
        self._fit = fit = FitTracker(self.model, self._reporter, around, epochs)
        fit.resume_from_backup()
        settings = collect_settings(self.model, params, around)
        self._reporter.begin_fit(epochs, settings=settings, managed=fit.is_managed)
        if not self.execution.is_rank_zero:
            self._fit = None  # the process of rank zero tells and keeps what all of them train
        elif not self._reporter.has_own_execution:
            self.execution.add_exit_callback(self._on_exit)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        if self._fit is not None:
            self._fit.begin_epoch(epoch + 1)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        if self._fit is not None:
            self._fit.begin_batch(batch)

    def _end_step(self, batch: int, logs: Logs = None) -> None:
        if self._fit is not None:
            self._fit.end_step(batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self._fit is not None:
            self._fit.end_epoch(epoch + 1, logs or {})

    def on_train_end(self, logs: Logs = None) -> None:
        if (fit := self._fit) is not None:
            self._fit = None
            fit.end()

    def on_test_begin(self, logs: Logs = None) -> None:
        self._begin_stage()

    def on_test_end(self, logs: Logs = None) -> None:
        self._end_stage("test", logs or {})

    def on_predict_begin(self, logs: Logs = None) -> None:
        self._begin_stage()

    def on_predict_end(self, logs: Logs = None) -> None:
        self._end_stage("predict", {})

    def _begin_stage(self) -> None:
        if self._is_new_call and self._begin_call() is not None and self._reporter.begin().is_rank_zero:
            self._stage_started_at = monotonic()

    def _end_stage(self, stage: str, metrics: Mapping[str, SupportsFloat]) -> None:
        if (began := self._stage_started_at) is not None:
            self._stage_started_at = None
            self._reporter.end_stage(
                stage, metrics, seconds=monotonic() - began, step=count_optimizer_steps(self.model)
            )

    def _begin_call(self) -> CallContext | None:
        """What surrounds the call of Keras that begins; None where another callback records it already."""
        self._is_new_call = False
        if self._reporter.has_own_execution and not self._reporter.is_in_with_block:
            raise ConfigurationError(
                "Keras tells a callback nothing of an exception, so DerivaMLCallback without an execution ends its own "
                "by a with: 'with DerivaMLCallback() as recorded: model.fit(..., callbacks=[recorded])'; or call "
                "deriva_ml_keras.autolog() once, and each fit is recorded."
            )
        around = CallContext.from_callback(self)
        earlier = around.callbacks[: around.callbacks.index(self)] if around.callbacks else ()
        if not any(isinstance(each, DerivaMLCallback) and self._is_duplicate_of(each) for each in earlier):
            return around
        if not self._has_warned:
            self._has_warned = True
            warn(
                "This call of Keras has two DerivaMLCallbacks for one execution: the first records it, and the second "
                "does nothing."
            )
        return None

    def _is_duplicate_of(self, other: DerivaMLCallback) -> bool:
        """Whether all that it would record is recorded by another callback."""
        mine, theirs = self._reporter, other._reporter
        return mine.has_own_execution or (
            not theirs.has_own_execution and mine.execution.execution_rid == theirs.execution.execution_rid
        )
