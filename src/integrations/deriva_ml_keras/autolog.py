"""Recording of every fit without a callback; replaces ``Model.fit``, since Keras has no hook to add callbacks."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack

import keras

from deriva_ml_core.training import TrainingKwargs, TrainingOptions
from deriva_ml_keras.callback import DerivaMLCallback

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import ExecutionConfiguration

__all__ = ["Autolog", "autolog"]

P = ParamSpec("P")
R = TypeVar("R")


def autolog(
    ml: DerivaML | None = None,
    configuration: ExecutionConfiguration | None = None,
    description: str = "",
    console: bool = False,
    **options: Unpack[TrainingKwargs],
) -> Autolog:
    """Record each following ``fit`` in its own execution, until recording is disabled.

    The execution ends when the fit returns, with an exception or with Ctrl-C, and its files are uploaded. A fit with a
    `DerivaMLCallback` is recorded by that callback. A fit within a fit belongs to the outer one, so with a tuner each
    trial is an execution. Separate calls of ``evaluate`` and ``predict`` are not recorded. If several autologs are
    enabled, the last one records.

    Args:
        ml: Client that creates the executions; ``DerivaML()`` by default.
        configuration: Configuration of the executions; by default a workflow of type Training for the running script
            or notebook.
        description: Description of the executions.
        console: Whether the executions keep what the program prints; see ``DerivaML.create_execution``.
        **options: Fields of ``deriva_ml_core.training.TrainingOptions``.

    Returns:
        A switch; ``disable()`` or the end of its ``with`` block disables recording.

    Raises:
        ConfigurationError: An option is unknown or has an invalid value.

    Example:
        ::

            deriva_ml_keras.autolog()
            model.fit(x, y, epochs=10)
    """
    TrainingOptions.from_kwargs(options)  # raises here instead of in the first fit
    return Autolog(
        lambda: _AutologCallback(
            ml=ml, configuration=configuration, description=description, console=console, **options
        )
    )


class _AutologCallback(DerivaMLCallback):
    """Callback added by `autolog`."""

    _is_autolog = True


class Autolog:
    """Switch returned by `autolog`; recording is enabled when it is created.

    Args:
        create_callback: Creates the callback of one fit.
    """

    def __init__(self, create_callback: Callable[[], DerivaMLCallback]) -> None:
        self._create_callback = create_callback
        self._is_enabled = True
        self._thread_state = threading.local()
        # the class that defines fit, so that models of every backend and all subclasses are recorded
        self._fit_class = next(kind for kind in keras.Model.__mro__ if "fit" in vars(kind))
        self._original_fit = self._fit_class.fit
        recording: Any = self._wrap_fit(self._original_fit)
        recording.autolog = self
        self._recording_fit = self._fit_class.fit = recording

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()

    def disable(self) -> None:
        """Stop recording; further calls have no effect."""
        self._is_enabled = False
        # a wrapper below an enabled or a foreign one stays in place and only calls the original fit
        while isinstance(autolog := getattr(fit := vars(self._fit_class)["fit"], "autolog", None), Autolog):
            if autolog._is_enabled or autolog._recording_fit is not fit:
                break
            self._fit_class.fit = autolog._original_fit

    def _wrap_fit(self, fit: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(fit)

        @functools.wraps(fit)
        def recording(*args: P.args, **kwargs: P.kwargs) -> R:
            if not self._is_enabled or getattr(self._thread_state, "is_on", False):
                return fit(*args, **kwargs)
            call = parameters.bind(*args, **kwargs)
            user_callbacks = call.arguments.get("callbacks")
            if any(isinstance(each, DerivaMLCallback) for each in _flatten_callbacks(user_callbacks)):
                return fit(*args, **kwargs)
            self._thread_state.is_on = True
            try:
                with (
                    self._create_callback() as callback,
                    _AddedCallback(user_callbacks, callback, call.args[0]) as callbacks,
                ):
                    call.arguments["callbacks"] = callbacks
                    return fit(*call.args, **call.kwargs)
            finally:
                self._thread_state.is_on = False

        return recording


class _AddedCallback:
    """Adds a callback to the ``callbacks`` argument of a fit.

    Args:
        callbacks: The argument: a callback, several, None, or a ``CallbackList``, which is restored afterwards.
        callback: The callback to add.
        model: The model that is fitted.
    """

    def __init__(self, callbacks: Any, callback: DerivaMLCallback, model: Any) -> None:
        self._callbacks = callbacks
        self._callback = callback
        self._model = model

    def __enter__(self) -> Any:
        if not isinstance(self._callbacks, keras.callbacks.CallbackList):
            return [*_flatten_callbacks(self._callbacks), self._callback]
        self._callback.set_params(self._callbacks.params)
        self._callback.set_model(self._model)
        self._callbacks.callbacks.append(self._callback)
        return self._callbacks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self._callbacks, keras.callbacks.CallbackList):
            self._callbacks.callbacks.remove(self._callback)


def _flatten_callbacks(callbacks: Any) -> list[Any]:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return list(keras.tree.flatten(callbacks)) if callbacks else []
