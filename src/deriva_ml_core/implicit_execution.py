"""The execution of a training that was given none: the one that its code was called in, else one of the script."""

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
"""What the workflow is called where no file runs."""


_CURRENT_EXECUTION: ContextVar[Execution | None] = ContextVar("deriva_ml_called_in", default=None)
"""The execution that a runner has called the present code in; of this call alone, and of no other thread's."""


@contextmanager
def use_execution(execution: Execution) -> Iterator[None]:
    """Have trainings that are given no execution belong to this one, as long as this lasts.

    Args:
        execution: One that has been entered.
    """
    token = _CURRENT_EXECUTION.set(execution)
    try:
        yield
    finally:
        _CURRENT_EXECUTION.reset(token)


def resolve_execution(
    ml: DerivaML | None = None, configuration: ExecutionConfiguration | None = None, description: str = ""
) -> Execution | Callable[[RID | None], Execution]:
    """What a training belongs to that is given no execution.

    That is the execution that a runner has called this code in, unless it is said here what to make. Else it is what
    makes the training's own when it begins; nothing is opened or detected before.

    Args:
        ml: The catalog; ``DerivaML()`` by default.
        configuration: What the execution is to be. Where it names no workflow, that is the script or notebook that
            runs, called by its name, of type Training.
        description: What the run is for, where the configuration does not say.

    Returns:
        An execution that runs; or a function of an execution's record id that opens that one to go on with it, and of
        None that makes a new one.
    """
    if (execution := _CURRENT_EXECUTION.get()) is not None and ml is None and configuration is None and not description:
        return execution
    return partial(
        _open_execution, ml, configuration, description
    )  # which, other than an inner function, can be pickled


def _open_execution(
    ml: DerivaML | None, configuration: ExecutionConfiguration | None, description: str, resume_rid: RID | None
) -> Execution:
    catalog = ml or DerivaML()
    if resume_rid is not None:
        return catalog.resume_execution(resume_rid)
    wanted = configuration or ExecutionConfiguration()
    if description and not wanted.description:
        wanted = wanted.model_copy(update={"description": description})
    return catalog.create_execution(wanted, workflow=None if wanted.workflow else _detect_workflow(catalog))


def _detect_workflow(ml: DerivaML) -> Workflow:
    found = ml.create_workflow(INTERACTIVE_WORKFLOW_NAME, WORKFLOW_TYPE)
    path = found.source.path or Path(found.url.partition("@")[0])
    return found.model_copy(update={"name": path.name or INTERACTIVE_WORKFLOW_NAME})
