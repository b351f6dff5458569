"""The execution that a training belongs to: the user's own, or one that is made when it is needed and ended for him."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ExecutionNotStarted

if TYPE_CHECKING:
    from deriva_ml_core.definitions import RID
    from deriva_ml_core.execution import Execution
    from deriva_ml_core.models import Progress

__all__ = ["ExecutionFactory", "ExecutionHandle"]

log = logging.getLogger(__name__)

ExecutionFactory = Callable[["RID | None"], "Execution"]
"""Makes an execution, or opens the one of a record id again so that it goes on."""


class ExecutionHandle:
    """The execution of a training.

    Args:
        execution: The user's, entered by his ``with``; or what makes one, which is entered and ended here.
    """

    def __init__(self, execution: Execution | ExecutionFactory) -> None:
        self._factory: ExecutionFactory | None = None
        self._execution: Execution | None = None
        if callable(execution):
            self._factory = execution
        else:
            self._execution = execution
        self._is_entered = False
        self.is_in_with_block = False
        """Whether a ``with`` of the user's ends it, and not the end of the first fit."""

    @property
    def is_owned(self) -> bool:
        """Whether it is made and ended here."""
        return self._factory is not None

    @property
    def current(self) -> Execution | None:
        """The execution; None before one is made."""
        return self._execution

    @property
    def execution(self) -> Execution:
        """The execution.

        Raises:
            ExecutionNotStarted: It is to be made when a training begins, and none has.
        """
        if self._execution is None:
            raise ExecutionNotStarted("There is no execution yet: it is made when the first fit begins.")
        return self._execution

    def begin(self, resume_rid: RID | None = None, check: Callable[[Execution], None] | None = None) -> Execution:
        """Make and enter the execution where that is to be done here and is not done yet.

        Args:
            resume_rid: The execution that is to go on; None for a new one.
            check: What may raise before the one that is to go on does.
        """
        if self._factory is None:
            return self.execution
        execution = self._execution
        if execution is None or (not self._is_entered and execution.status is not Status.completed):
            execution = self._factory(resume_rid)  # also after one that failed: a second try is a run of its own
            if resume_rid is not None and check is not None:
                check(execution)
            execution.__enter__()
            execution._uploads_after_exit = True
            self._execution, self._is_entered = execution, True
        return execution

    def report_status(self, message: str, progress: Progress | None = None) -> None:
        """Tell a status; a run that has ended stays in its state."""
        execution = self.execution
        status = execution.status
        told = status if status.is_terminal else Status.running
        execution.update_status(told, message, progress=progress, wait=False)

    def end(self, error: BaseException | None = None) -> None:
        """End the execution where that is done here, as a ``with`` would."""
        if self._execution is not None and self._is_entered:
            self._is_entered = False
            kind, trace = (None, None) if error is None else (type(error), error.__traceback__)
            self._execution.__exit__(kind, error, trace)

    @contextmanager
    def warn_if_not_uploaded(self) -> Iterator[None]:
        """End and send a run; of one that did not complete what is staged even then is told."""
        try:
            yield
        finally:
            if self.execution.status is not Status.completed:
                self.execution._warn_not_uploaded()

    @property
    def is_entered(self) -> bool:
        """Whether it is entered here and not ended."""
        return self._is_entered
