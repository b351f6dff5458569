"""Context of a Keras call: the other callbacks and the data, which Keras does not pass to a callback."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import keras

__all__ = ["CallContext"]


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
