"""Recording every Trainer that follows, without a callback in each."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from deriva_ml_core.training import OptionWords, TrainingOptions
from deriva_ml_lightning.callback import DerivaMLCallback

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import ExecutionConfiguration

__all__ = ["Autolog", "added_callbacks", "autolog"]


class Autolog:
    """What `autolog` switched on; also a context manager, for the Trainers that are made within it.

    Args:
        ml: Where executions are made.
        configuration: What they are to be.
        description: What they are for.
        options: The callbacks' options.
    """

    def __init__(
        self, ml: DerivaML | None, configuration: ExecutionConfiguration | None, description: str, options: OptionWords
    ) -> None:
        self._ml = ml
        self._configuration = configuration
        self._description = description
        self._options = options
        self._is_on = True
        self._before = _SWITCHED_ON.get()
        _SWITCHED_ON.set(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()

    def disable(self) -> None:
        """Switch it off: Trainers that are made from now on are not recorded; those that were made, are."""
        self._is_on = False
        if _SWITCHED_ON.get() is self:
            _SWITCHED_ON.set(self._before)

    def callback(self) -> DerivaMLCallback | None:
        """A callback for one Trainer; None where it is switched off, and so was what it came after."""
        if not self._is_on:
            return None if self._before is None else self._before.callback()
        return _AddedCallback(
            ml=self._ml, configuration=self._configuration, description=self._description, **self._options
        )


# no plain variable, so that Trainers of other threads and tasks, which began without it, are left alone
_SWITCHED_ON: ContextVar[Autolog | None] = ContextVar("deriva_ml_lightning_autolog", default=None)


class _AddedCallback(DerivaMLCallback):
    """Silent where the user gave a callback."""

    added = True


def autolog(
    ml: DerivaML | None = None,
    configuration: ExecutionConfiguration | None = None,
    description: str = "",
    **options: Unpack[OptionWords],
) -> Autolog:
    """Record every Trainer that is made from now on, in this thread, with an execution of its own.

    A Trainer that has a `DerivaMLCallback` already gets no other.

    Args:
        ml: Where executions are made; ``DerivaML()`` by default.
        configuration: What they are to be; by default of the script or notebook that runs.
        description: What they are for.
        **options: The fields of ``deriva_ml_core.training.TrainingOptions``.

    Returns:
        What switches it off again, by ``disable()`` or as a context manager.

    Raises:
        ConfigurationError: An option is wrong.

    Example:
        ::

            deriva_ml_lightning.autolog()
            Trainer(max_epochs=10).fit(model, data)
    """
    TrainingOptions.of(options)
    return Autolog(ml, configuration, description, options)


def added_callbacks() -> list[DerivaMLCallback]:
    """What a Trainer that is being made gets."""
    switched_on = _SWITCHED_ON.get()
    callback = None if switched_on is None else switched_on.callback()
    return [] if callback is None else [callback]
