"""The execution of a training: the user's, or one that is created and ended on demand."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ExecutionNotStarted

if TYPE_CHECKING:
    from deriva_ml_core.definitions import RID
    from deriva_ml_core.execution import Execution
    from deriva_ml_core.models import Progress

__all__ = ["ExecutionFactory", "ExecutionHandle"]

log = logging.getLogger(__name__)

ExecutionFactory = Callable[["RID | None"], "Execution"]
"""Creates an execution, or restores the one with the passed RID so that it continues."""


class ExecutionHandle:
    """Execution of a training.

    A copy, and a forked child, use the execution of the user. Of an owned one they know nothing, nor of the ``with``
    block: each creates its own executions, which end with their fits.

    Args:
        execution: An execution that the user has entered, or a factory; an execution from a factory is owned, so
            this handle enters and ends it.
    """

    def __init__(self, execution: Execution | ExecutionFactory) -> None:
        self._factory: ExecutionFactory | None = None
        self._execution: Execution | None = None
        if callable(execution):
            self._factory = execution
        else:
            self._execution = execution
        self._entered_pid: int | None = None
        """Id of the process that entered the execution."""
        self._block_pid: int | None = None
        """Id of the process that entered the ``with`` block."""

    def __getstate__(self) -> dict[str, object]:
        state = self.__dict__ | {"_entered_pid": None, "_block_pid": None}
        return state if self._factory is None else state | {"_execution": None}

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__getstate__())  # the client and the user's execution are shared
        return copied

    def enter_block(self) -> None:
        """Enter a ``with`` block, whose end ends the execution."""
        self._block_pid = os.getpid()

    def leave_block(self) -> None:
        """Leave the ``with`` block."""
        self._block_pid = None

    @property
    def is_in_with_block(self) -> bool:
        """Whether the user's ``with`` block ends the execution; otherwise the end of a fit or stage does."""
        return self._block_pid == os.getpid()

    @property
    def is_in_forked_child(self) -> bool:
        """Whether another process entered the ``with`` block."""
        return self._block_pid not in (None, os.getpid())

    @property
    def is_owned(self) -> bool:
        """Whether this handle creates and ends the execution."""
        return self._factory is not None

    @property
    def current(self) -> Execution | None:
        """The execution; None before it is created."""
        return self._execution

    @property
    def execution(self) -> Execution:
        """The execution.

        Raises:
            ExecutionNotStarted: The execution is created when training starts, and training has not started.
        """
        if self._execution is None:
            raise ExecutionNotStarted(
                "The execution was accessed before it exists; it is created when training starts."
            )
        return self._execution

    def begin(
        self,
        resume_rid: RID | None = None,
        check: Callable[[Execution], None] | None = None,
        *,
        for_fit: bool = False,
    ) -> Execution:
        """Create and enter an owned execution, unless that is done.

        A fit after the end of the execution needs a new one, since an execution that has ended cannot fail. Stages
        belong to the execution that has completed.

        Args:
            resume_rid: RID of the execution to continue; None for a new one.
            check: Called with the restored execution before it is entered; raises to refuse it.
            for_fit: Whether a fit begins.
        """
        if self._factory is None:
            return self.execution
        execution = self._execution
        if for_fit and not self.is_in_with_block and execution is not None and not execution.is_rank_zero:
            self.end()  # rank 0 has ended it; the framework's last callbacks may run on rank 0 only
        is_usable = execution is not None and (
            self.is_entered or (execution.status is Status.completed and not for_fit)
        )
        if execution is None or not is_usable:
            execution = self._factory(resume_rid)
            if resume_rid is not None and check is not None:
                check(execution)
            execution.__enter__()
            execution._uploads_after_exit = True
            self._execution, self._entered_pid = execution, os.getpid()
        return execution

    def report_status(self, message: str, progress: Progress | None = None) -> None:
        """Report a status; an execution in a terminal status keeps it."""
        execution = self.execution
        current = execution.status
        status = current if current.is_terminal else Status.running
        execution.update_status(status, message, progress=progress, wait=False)

    def end(self, error: BaseException | None = None) -> None:
        """End an owned execution, as the end of a ``with`` block would."""
        if self._execution is not None and self.is_entered:
            self._entered_pid = None
            kind, trace = (None, None) if error is None else (type(error), error.__traceback__)
            self._execution.__exit__(kind, error, trace)

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """End and upload the execution in the block; then warn about staged files if it did not complete.

        The line about the end of the run is printed after that.
        """
        with self.execution._upload_before_last_line():
            try:
                yield
            finally:
                if self.execution.status is not Status.completed:
                    self.execution._warn_not_uploaded()

    @property
    def is_entered(self) -> bool:
        """Whether this process has entered the execution by this handle, and has not ended it."""
        return self._entered_pid == os.getpid()

    @property
    def has_ended(self) -> bool:
        """Whether there is an execution that has ended."""
        return self._execution is not None and self._execution.status.is_terminal
