"""Finds or creates the execution of a training that is not passed one: the runner's, else one for the script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import RID
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

__all__ = ["use_execution", "resolve_execution"]

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
    ml: DerivaML | None = None, configuration: ExecutionConfiguration | None = None, description: str = ""
) -> Execution | Callable[[RID | None], Execution]:
    """Return the execution of a training that was not passed one.

    Without arguments, this is the execution in which a runner called the current code. Otherwise the execution is
    created when the training starts; nothing is opened or detected before.

    Args:
        ml: The catalog; ``DerivaML()`` by default.
        configuration: Configuration of the new execution. Without a workflow, the running script or notebook becomes
            one, named after its file, of type Training.
        description: Description of the run, if the configuration has none.

    Returns:
        A running execution; or a function that creates a new execution when called with None, and resumes an
        execution when called with its RID.
    """
    if (execution := _CURRENT_EXECUTION.get()) is not None and ml is None and configuration is None and not description:
        return execution
    return partial(_open_execution, ml, configuration, description)  # unlike a closure, it can be pickled


def _open_execution(
    ml: DerivaML | None, configuration: ExecutionConfiguration | None, description: str, resume_rid: RID | None
) -> Execution:
    catalog = ml or DerivaML()
    if resume_rid is not None:
        return catalog.resume_execution(resume_rid)
    configuration = configuration or ExecutionConfiguration()
    if description and not configuration.description:
        configuration = configuration.model_copy(update={"description": description})
    workflow = None if configuration.workflow else _detect_workflow(catalog)
    return catalog.create_execution(configuration, workflow=workflow)


def _detect_workflow(ml: DerivaML) -> Workflow:
    workflow = ml.create_workflow(INTERACTIVE_WORKFLOW_NAME, WORKFLOW_TYPE)
    path = workflow.source.path or Path(workflow.url.partition("@")[0])
    name = path.name or WORKFLOW_NAMES.get(workflow.source.kind, INTERACTIVE_WORKFLOW_NAME)
    return workflow.model_copy(update={"name": name})
