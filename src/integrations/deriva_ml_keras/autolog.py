"""Every fit recorded, without a callback in the user's code; Keras has no place of its own to add one."""

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
    **options: Unpack[TrainingKwargs],
) -> Autolog:
    """Record each ``fit`` that follows in an execution of its own, until it is switched off.

    The execution is completed and uploaded when the fit returns, and ended as well by an exception and by Ctrl-C. A fit
    that is given a `DerivaMLCallback` is left to that one, and a fit within a fit belongs to the outer one: of a tuner,
    each trial is an execution. ``evaluate`` and ``predict`` by themselves are not recorded. Of several switched on, the
    last one records.

    Args:
        ml: Where to make the executions; ``DerivaML()`` by default.
        configuration: What they are to be; by default of the script or notebook that runs, as a workflow of type
            Training.
        description: What the runs are for.
        **options: The fields of ``deriva_ml_core.training.TrainingOptions``.

    Returns:
        Its switch: ``disable()``, or the end of a ``with``, switches it off.

    Raises:
        ConfigurationError: An option is wrong.

    Example:
        ::

            deriva_ml_keras.autolog()
            model.fit(x, y, epochs=10)
    """
    TrainingOptions.from_kwargs(options)  # what is wrong is said here, not in the first fit
    return Autolog(lambda: DerivaMLCallback(ml=ml, configuration=configuration, description=description, **options))


class Autolog:
    """The switch of `autolog`, which is on when it is made.

    Args:
        create_callback: Makes the callback of one fit.
    """

    def __init__(self, create_callback: Callable[[], DerivaMLCallback]) -> None:
        self._create_callback = create_callback
        self._is_enabled = True
        self._thread_state = threading.local()
        # where Model inherits it from, so that it holds for each backend's models and for all their subclasses
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
        """Record no further fit; doing so again changes nothing."""
        self._is_enabled = False
        # below others that are switched on, or that somebody else put there, it stays and only hands on
        while isinstance(found := getattr(fit := vars(self._fit_class)["fit"], "autolog", None), Autolog):
            if found._is_enabled or found._recording_fit is not fit:
                break
            self._fit_class.fit = found._original_fit

    def _wrap_fit(self, fit: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(fit)

        @functools.wraps(fit)
        def recording(*args: P.args, **kwargs: P.kwargs) -> R:
            if not self._is_enabled or getattr(self._thread_state, "is_on", False):
                return fit(*args, **kwargs)
            call = parameters.bind(*args, **kwargs)
            given = call.arguments.get("callbacks")
            if any(isinstance(each, DerivaMLCallback) for each in _flatten_callbacks(given)):
                return fit(*args, **kwargs)
            self._thread_state.is_on = True
            try:
                with self._create_callback() as callback, _AddedCallback(given, callback, call.args[0]) as callbacks:
                    call.arguments["callbacks"] = callbacks
                    return fit(*call.args, **call.kwargs)
            finally:
                self._thread_state.is_on = False

        return recording


class _AddedCallback:
    """A callback beside those that a fit was given.

    Args:
        callbacks: One, several, None, or a list of Keras' own, which is given back as it was.
        callback: The further one.
        model: What is fitted.
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
