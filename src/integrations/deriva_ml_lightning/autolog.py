"""Recording of every Trainer without a callback in the user's code."""

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
    """Switch returned by `autolog`; as a context manager it records the Trainers created in the block.

    Args:
        ml: Client that creates the executions.
        configuration: Configuration of the executions.
        description: Description of the executions.
        console: Whether the executions keep what the program prints.
        options: Options of the callbacks.
    """

    def __init__(
        self,
        ml: DerivaML | None,
        configuration: ExecutionConfiguration | None,
        description: str,
        console: bool,
        options: TrainingKwargs,
    ) -> None:
        self._ml = ml
        self._configuration = configuration
        self._description = description
        self._console = console
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
        """Stop adding callbacks to new Trainers; existing Trainers are still recorded."""
        self._is_enabled = False
        if _ACTIVE.get() is self:
            _ACTIVE.set(self._previous)

    def _create_callback(self) -> DerivaMLCallback | None:
        """Return a callback for one Trainer; None if this switch and all earlier ones are disabled."""
        if not self._is_enabled:
            return None if self._previous is None else self._previous._create_callback()
        return _AutologCallback(
            ml=self._ml,
            configuration=self._configuration,
            description=self._description,
            console=self._console,
            **self._options,
        )


# a ContextVar, so that Trainers in other threads and tasks are not recorded
_ACTIVE: ContextVar[Autolog | None] = ContextVar("deriva_ml_lightning_autolog", default=None)


class _AutologCallback(DerivaMLCallback):
    """Callback added by `autolog`, which records nothing if the user passed a callback."""

    _is_autolog = True


def autolog(
    ml: DerivaML | None = None,
    configuration: ExecutionConfiguration | None = None,
    description: str = "",
    console: bool = False,
    **options: Unpack[TrainingKwargs],
) -> Autolog:
    """Record each Trainer created from now on in this thread, in its own execution.

    A Trainer with a `DerivaMLCallback` is recorded by that callback.

    Args:
        ml: Client that creates the executions; ``DerivaML()`` by default.
        configuration: Configuration of the executions; by default a workflow for the running script or notebook.
        description: Description of the executions.
        console: Whether the executions keep what the program prints; see ``DerivaML.create_execution``.
        **options: Fields of ``deriva_ml_core.training.TrainingOptions``.

    Returns:
        A switch; ``disable()`` or the end of its ``with`` block disables recording.

    Raises:
        ConfigurationError: An option is unknown or has an invalid value.

    Example:
        ::

            deriva_ml_lightning.autolog()
            Trainer(max_epochs=10).fit(model, data)
    """
    TrainingOptions.from_kwargs(options)
    return Autolog(ml, configuration, description, console, options)


def added_callbacks() -> list[DerivaMLCallback]:
    """Return the callbacks to add to a new Trainer."""
    active = _ACTIVE.get()
    callback = None if active is None else active._create_callback()
    return [] if callback is None else [callback]
