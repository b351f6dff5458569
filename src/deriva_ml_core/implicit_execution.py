"""Finds or creates the execution of a training that is not passed one: the runner's, else one for the script.

`ExceptionWatch` learns of the exception that ends such a training if the framework does not report it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import RID
from deriva_ml_core.errors import TrainingInterrupted
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

__all__ = ["ExceptionWatch", "interruption", "resolve_execution", "use_execution"]

WORKFLOW_TYPE = "Training"
INTERACTIVE_WORKFLOW_NAME = "Interactive training"
"""Name of the workflow if no file is running."""

WORKFLOW_NAMES = {"command": "python -c", "stdin": "Program from the standard input"}
"""Name of the workflow of a program without a file, by the kind of its source."""

_CURRENT_EXECUTION: ContextVar[Execution | None] = ContextVar("deriva_ml_called_in", default=None)
"""The execution in which a runner called the current code; it is not visible to other threads."""


@contextmanager
def use_execution(execution: Execution) -> Iterator[None]:
    """Make an execution the default for trainings inside the ``with`` block.

    Args:
        execution: An execution that has been entered.
    """
    token = _CURRENT_EXECUTION.set(execution)
    try:
        yield
    finally:
        _CURRENT_EXECUTION.reset(token)


def resolve_execution(
    ml: DerivaML | None = None,
    configuration: ExecutionConfiguration | None = None,
    description: str = "",
    *,
    console: bool = False,
) -> Execution | Callable[[RID | None], Execution]:
    """Return the execution of a training that was not passed one.

    Without arguments, this is the execution in which a runner called the current code. Otherwise the execution is
    created when the training starts; nothing is opened or detected before.

    Args:
        ml: The catalog; ``DerivaML()`` by default.
        configuration: Configuration of the new execution. Without a workflow, the running script or notebook becomes
            one, named after its file, of type Training.
        description: Description of the run, if the configuration has none.
        console: Whether the execution keeps what the program prints, from now on if it is running.

    Returns:
        A running execution; or a function that creates a new execution when called with None, and resumes an
        execution when called with its RID.
    """
    if (execution := _CURRENT_EXECUTION.get()) is not None and ml is None and configuration is None and not description:
        if console:
            execution._begin_console()
        return execution
    return partial(_open_execution, ml, configuration, description, console)  # unlike a closure, it can be pickled


def _open_execution(
    ml: DerivaML | None,
    configuration: ExecutionConfiguration | None,
    description: str,
    console: bool,
    resume_rid: RID | None,
) -> Execution:
    catalog = ml or DerivaML()
    if resume_rid is not None:
        return catalog.resume_execution(resume_rid, console=console)
    configuration = configuration or ExecutionConfiguration()
    if description and not configuration.description:
        configuration = configuration.model_copy(update={"description": description})
    workflow = None if configuration.workflow else _detect_workflow(catalog)
    return catalog.create_execution(configuration, workflow=workflow, console=console)


def _detect_workflow(ml: DerivaML) -> Workflow:
    workflow = ml.create_workflow(INTERACTIVE_WORKFLOW_NAME, WORKFLOW_TYPE)
    path = workflow.source.path or Path(workflow.url.partition("@")[0])
    name = path.name or WORKFLOW_NAMES.get(workflow.source.kind, INTERACTIVE_WORKFLOW_NAME)
    return workflow.model_copy(update={"name": name})


class ExceptionWatch:
    """Learns of the exception that ends a call of a framework, if the framework does not report it.

    The exception ends the program, the thread or the notebook cell in which the call was made, or the program handles
    it in the same cell. Until then the watch cannot know that the call has ended.

    Args:
        on_exception: Called with the exception, at most once for each `install`.
    """

    def __init__(self, on_exception: Callable[[BaseException], object]) -> None:
        self._on_exception = on_exception
        self._thread = 0
        self.is_active = False
        """Whether the hooks are installed."""
        # kept, since each access to a method is a new object
        self._hooks = (self._end_program, self._end_thread, self._end_cell)
        self._previous_hooks: tuple[Callable[..., object], Callable[..., object]] = (
            sys.excepthook,
            threading.excepthook,
        )
        self._shell: Any = None

    def install(self) -> None:
        """Watch the current thread."""
        if self.is_active:
            return
        self._thread, self.is_active = threading.get_ident(), True
        self._previous_hooks = sys.excepthook, threading.excepthook
        sys.excepthook, threading.excepthook = self._hooks[:2]
        self._shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if self._shell is not None:
            self._shell.events.register("post_run_cell", self._hooks[2])

    def uninstall(self) -> None:
        """Stop watching, and restore the earlier hooks unless others were set meanwhile."""
        if not self.is_active:
            return
        self.is_active = False
        if sys.excepthook is self._hooks[0]:
            sys.excepthook = self._previous_hooks[0]
        if threading.excepthook is self._hooks[1]:
            threading.excepthook = self._previous_hooks[1]
        if self._shell is not None:
            self._shell.events.unregister("post_run_cell", self._hooks[2])

    def report(self, error: BaseException) -> None:
        """Stop watching and report an exception, if the watch is active."""
        if self.is_active:
            self.uninstall()
            self._on_exception(error)

    def _end_program(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._report_in_thread(error)
        self._previous_hooks[0](kind, error, trace)

    def _end_thread(self, arguments: threading.ExceptHookArgs) -> None:
        self._report_in_thread(arguments.exc_value)
        self._previous_hooks[1](arguments)

    def _end_cell(self, result: Any) -> None:
        self._report_in_thread(result.error_before_exec or result.error_in_exec)

    def _report_in_thread(self, error: BaseException | None) -> None:
        if self._thread == threading.get_ident():
            self.report(interruption() if error is None else error)


def interruption() -> BaseException:
    """Return the exception that the calling code handles; one without a cause if it handles none."""
    return sys.exception() or TrainingInterrupted(
        "The training ended before its last epoch, and the program handled the exception that ended it."
    )
