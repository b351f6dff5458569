"""Context of a Keras call, which Keras does not pass to a callback: other callbacks, the data, and its exception."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import keras

from deriva_ml_core.implicit_execution import ExceptionWatch, interruption

__all__ = ["CallContext", "CallWatch", "report_exceptions"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class CallContext:
    """Callbacks and data of one call.

    Args:
        callbacks: All callbacks in order, including this one; empty if they were not found.
        epoch_iterator: Keras' iterator over the batches of an epoch; None without one, as in a hand-written loop.
    """

    callbacks: tuple[Any, ...] = ()
    epoch_iterator: Any = None

    @classmethod
    def from_callback(cls, callback: keras.callbacks.Callback) -> CallContext:
        """Read the context from the stack: the list that calls the callback, and the fit that calls the list."""
        callbacks: tuple[Any, ...] = ()
        frame = sys._getframe(1)
        while frame.f_back is not None:
            frame = frame.f_back
            code = frame.f_code
            if not callbacks and code.co_varnames[:1] == ("self",):
                caller = frame.f_locals.get("self")
                if isinstance(caller, keras.callbacks.CallbackList) and callback in caller.callbacks:
                    callbacks = tuple(caller.callbacks)
            elif callbacks and "epoch_iterator" in code.co_varnames:
                return cls(callbacks, frame.f_locals.get("epoch_iterator"))
        return cls(callbacks)

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch; None if unknown."""
        return self._adapter_value("batch_size")

    def count_samples(self, batches: int) -> int | None:
        """Return the number of samples in the first batches of an epoch; None if unknown."""
        size, last = self.batch_size, self._adapter_value("partial_batch_size")
        if size is None:
            return None
        is_whole = batches == self._adapter_value("num_batches")
        return (batches - 1) * size + last if is_whole and last else batches * size

    def _adapter_value(self, name: str) -> int | None:
        try:
            value = getattr(self.epoch_iterator.data_adapter, name)
        except Exception:  # noqa: BLE001 - an adapter raises if it does not know, and may call the user's dataset
            return None
        return value if isinstance(value, int) else None


class CallWatch:
    """Learns of the exception that ends a call of Keras, as early as possible.

    Args:
        on_exception: Called with the exception, at most once for each call.
    """

    def __init__(self, on_exception: Callable[[BaseException], object]) -> None:
        self._on_exception = on_exception
        self._watch = ExceptionWatch(self.end_with)
        self.is_open = False
        """Whether a call has begun and not ended."""

    def begin(self) -> None:
        """Begin a call, in one of its callbacks."""
        self.is_open = True
        if (watches := _WATCHES.get()) is None:  # a loop that calls neither fit nor evaluate nor predict
            self._watch.install()
        else:
            watches.append(self)

    def end(self) -> None:
        """End a call that has reported its end."""
        self.is_open = False
        self._watch.uninstall()

    def end_with(self, error: BaseException) -> None:
        """End a call with an exception, unless it has ended."""
        if self.is_open:
            self.end()
            self._on_exception(error)

    def end_unreported(self) -> None:
        """End a call that another one follows, if nothing has reported its end."""
        self._watch.report(interruption())


_WATCHES: ContextVar[list[CallWatch] | None] = ContextVar("deriva_ml_keras_watches", default=None)
"""The watches of the current call of Keras; None outside a call that reports exceptions."""


def report_exceptions() -> None:
    """Let Keras' fit, evaluate and predict report their exceptions to `CallWatch`; repeated calls have no effect."""
    for name in ("fit", "evaluate", "predict"):
        kind = next(kind for kind in keras.Model.__mro__ if name in vars(kind))
        if not getattr(method := vars(kind)[name], "reports_exceptions", False):
            setattr(kind, name, _add_report(method))


def _add_report(method: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(method)
    def reporting(*args: P.args, **kwargs: P.kwargs) -> R:
        watches: list[CallWatch] = []
        token = _WATCHES.set(watches)
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            for watch in watches:
                watch.end_with(error)
            raise
        finally:
            _WATCHES.reset(token)

    reporting.reports_exceptions = True  # type: ignore[attr-defined]
    return reporting
