"""Keras callback that records fits, evaluations and predictions with a `TrainingReporter`."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self, SupportsFloat, Unpack

import keras

from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.implicit_execution import resolve_execution
from deriva_ml_core.media.logger import LoggedMedia, MediaLogger
from deriva_ml_core.training import TrainingKwargs, TrainingReporter
from deriva_ml_core.user_warnings import warn
from deriva_ml_keras.call_context import CallContext, CallWatch, report_exceptions
from deriva_ml_keras.fit_tracker import FitTracker, count_optimizer_steps
from deriva_ml_keras.settings import collect_settings

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import Execution, ExecutionConfiguration

__all__ = ["DerivaMLCallback"]

Logs = Mapping[str, SupportsFloat] | None


class DerivaMLCallback(keras.callbacks.Callback, MediaLogger):  # type: ignore[misc]  # Keras publishes no types
    """Records Keras fits, evaluations and predictions in an execution: status, metrics, settings and checkpoints.

    With an execution, the callback records in it, and the user's ``with`` block begins and ends it. Without one, the
    callback creates its own. That execution ends, and its files are uploaded, at the end of the fit, or of the ``with``
    block in which the callback is used. Later evaluations and predictions are added to it; without ``with``, a later
    fit is a new execution.

    Keras does not notify callbacks of exceptions. A callback without an execution therefore wraps Keras' ``fit``,
    ``evaluate`` and ``predict``. An exception of a loop that calls none of them is recorded when it ends the program,
    the thread or the notebook cell, or when the callback is used again.

    ``log_image``, ``log_figure`` and ``log_table`` record the current fit, epoch and step of the model. They can be
    called from a hook of another callback.

    Args:
        execution: Execution of the training; None to create one.
        ml: Client that creates the execution; ``DerivaML()`` by default.
        configuration: Configuration of the new execution; by default a workflow of type Training for the running
            script or notebook.
        description: Description of the new execution.
        console: Whether the new execution keeps what the program prints; see ``DerivaML.create_execution``.
        **options: Fields of ``deriva_ml_core.training.TrainingOptions``.

    Raises:
        ConfigurationError: An execution is combined with ml, configuration, description or console, or an option is
            unknown or has an invalid value.
        UnknownTable, UnknownTerm: The catalog does not have the asset table or asset type.

    Example:
        ::

            recorded = DerivaMLCallback()
            model.fit(x, y, epochs=10, callbacks=[recorded])
            model.evaluate(x_test, y_test, callbacks=[recorded])
    """

    _is_autolog = False
    """Whether `autolog` created the callback, in whose ``with`` block the fit runs."""

    def __init__(
        self,
        execution: Execution | None = None,
        *,
        ml: DerivaML | None = None,
        configuration: ExecutionConfiguration | None = None,
        description: str = "",
        console: bool = False,
        **options: Unpack[TrainingKwargs],
    ) -> None:
        super().__init__()
        if execution is not None and (ml is not None or configuration is not None or description or console):
            raise ConfigurationError(
                "DerivaMLCallback takes either an execution, or ml, configuration, description and console to create "
                "one."
            )
        target = resolve_execution(ml, configuration, description, console=console) if execution is None else execution
        self._reporter = TrainingReporter(target, **options)
        self._reset()

    def _reset(self) -> None:
        """Set what belongs to this object and not to its copies."""
        self._watch = CallWatch(self._fail_call)
        self._fit: FitTracker | None = None
        self._stage_started_at: float | None = None
        self._is_new_call = True
        self._has_warned = False
        if self._reporter.has_own_execution and not self._is_autolog:
            report_exceptions()
        options = self._reporter.options
        if options.log_every_n_steps or options.every_n_steps or options.save_every_n_steps:
            # set only on demand: with this hook, Keras reads the metrics of each step on the training thread
            self.on_train_batch_end = self._end_step

    def __getstate__(self) -> dict[str, object]:
        # a copy is outside of the calls and of the ``with`` block
        return {
            name: value for name, value in vars(self).items() if name not in ("_watch", "_fit", "on_train_batch_end")
        }

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._reset()

    @property
    def execution(self) -> Execution:
        """Execution of the training.

        Raises:
            ExecutionNotStarted: The callback creates the execution when training starts, and training has not started.
        """
        return self._reporter.execution

    def __enter__(self) -> Self:
        self._watch.end_unreported()
        self._reporter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._reporter.is_in_forked_child:
            self._on_exit(error)
        self._reporter.__exit__(kind, error, trace)

    def _on_exit(self, error: BaseException | None) -> None:
        """End an open fit when the ``with`` block of the callback or the execution ends."""
        if self._interrupt_fit() and error is not None:
            self._reporter.fail(error)

    def _fail_call(self, error: BaseException) -> None:
        """End a call after an exception that Keras does not report."""
        self._interrupt_fit()
        self._stage_started_at = None
        self._reporter.fail(error)

    def _interrupt_fit(self) -> bool:
        """Report what is left of a fit that an exception has ended, if there is one; return whether there is."""
        if (fit := self._fit) is None:
            return False
        self._fit = None
        fit.interrupt()
        return True

    def set_params(self, params: dict[str, object]) -> None:
        super().set_params(params)
        # not called for a validation within a fit, which shares the callback list of the fit
        self._is_new_call = True

    def on_train_begin(self, logs: Logs = None) -> None:
        self._watch.end_unreported()
        self._interrupt_fit()
        context = self._begin_call()
        if context is None:
            return
        params = self.params or {}
        epochs = params.get("epochs")
        fit = FitTracker(self.model, self._reporter, context, epochs)
        fit.resume_from_backup()
        settings = collect_settings(self.model, params, context)
        self._reporter.begin_fit(epochs, settings=settings, managed=fit.is_managed)
        if not self.execution.is_rank_zero:
            return  # rank 0 records for all processes
        self._fit = fit
        if not self._reporter.has_own_execution:
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
        self._watch.end()
        if (fit := self._fit) is not None:
            self._fit = None
            fit.end()

    def on_test_begin(self, logs: Logs = None) -> None:
        self._begin_stage()

    def on_test_end(self, logs: Logs = None) -> None:
        if self._fit is not None and self._stage_started_at is None:
            self._fit.end_validation(logs or {})
        self._end_stage("test", logs or {})

    def on_predict_begin(self, logs: Logs = None) -> None:
        self._begin_stage()

    def on_predict_end(self, logs: Logs = None) -> None:
        self._end_stage("predict", {})

    def _log_media(self, media: LoggedMedia) -> None:
        step = None if self.model is None else count_optimizer_steps(self.model)
        epoch = None if self._fit is None else self._fit.epoch
        self._reporter._log_media(media.with_defaults(step=step, epoch=epoch))

    def _begin_stage(self) -> None:
        self._stage_started_at = None
        if self._is_new_call and self._begin_call() is not None and self._reporter.begin().is_rank_zero:
            self._stage_started_at = monotonic()

    def _end_stage(self, stage: str, metrics: Mapping[str, SupportsFloat]) -> None:
        if (started_at := self._stage_started_at) is not None:
            self._stage_started_at = None
            if self._fit is None:
                self._watch.end()
            self._reporter.end_stage(
                stage, metrics, seconds=monotonic() - started_at, step=count_optimizer_steps(self.model)
            )

    def _begin_call(self) -> CallContext | None:
        """Return the context of a Keras call that begins; None if another callback records the call."""
        self._is_new_call = False
        context = CallContext.from_callback(self)
        earlier = context.callbacks[: context.callbacks.index(self)] if context.callbacks else ()
        if not any(isinstance(each, DerivaMLCallback) and self._is_duplicate_of(each) for each in earlier):
            is_watched = self._reporter.has_own_execution and not self._reporter.is_in_with_block
            if is_watched and not self._watch.is_open:  # within a fit, the fit handles the exception of an evaluation
                self._watch.begin()
            return context
        if not self._has_warned:
            self._has_warned = True
            warn("This Keras call has two DerivaMLCallbacks for one execution; only the first records it.")
        return None

    def _is_duplicate_of(self, other: DerivaMLCallback) -> bool:
        """Whether another callback records everything that this one would."""
        own_reporter, other_reporter = self._reporter, other._reporter
        if own_reporter.has_own_execution:
            return True
        return (
            not other_reporter.has_own_execution
            and own_reporter.execution.execution_rid == other_reporter.execution.execution_rid
        )
