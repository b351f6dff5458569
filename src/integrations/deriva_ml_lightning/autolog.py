"""Recording every Trainer that follows, without a callback in each."""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from deriva_ml_core.training import TrainingKwargs, TrainingOptions
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
        self,
        ml: DerivaML | None,
        configuration: ExecutionConfiguration | None,
        description: str,
        options: TrainingKwargs,
    ) -> None:
        self._ml = ml
        self._configuration = configuration
        self._description = description
        self._options = options
        self._is_enabled = True
        self._previous = _ACTIVE.get()
        _ACTIVE.set(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disable()

    def disable(self) -> None:
        """Switch it off: Trainers that are made from now on are not recorded; those that were made, are."""
        self._is_enabled = False
        if _ACTIVE.get() is self:
            _ACTIVE.set(self._previous)

    def _create_callback(self) -> DerivaMLCallback | None:
        """A callback for one Trainer; None where it is switched off, and so was what it came after."""
        if not self._is_enabled:
            return None if self._previous is None else self._previous._create_callback()
        return _AutologCallback(
            ml=self._ml, configuration=self._configuration, description=self._description, **self._options
        )


# no plain variable, so that Trainers of other threads and tasks, which began without it, are left alone
_ACTIVE: ContextVar[Autolog | None] = ContextVar("deriva_ml_lightning_autolog", default=None)


class _AutologCallback(DerivaMLCallback):
    """Silent where the user gave a callback."""

    _is_autolog = True


def autolog(
    ml: DerivaML | None = None,
    configuration: ExecutionConfiguration | None = None,
    description: str = "",
    **options: Unpack[TrainingKwargs],
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
    TrainingOptions.from_kwargs(options)
    return Autolog(ml, configuration, description, options)


def added_callbacks() -> list[DerivaMLCallback]:
    """What a Trainer that is being made gets."""
    switched_on = _ACTIVE.get()
    callback = None if switched_on is None else switched_on._create_callback()
    return [] if callback is None else [callback]
