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

__all__ = ["called_in", "opening"]

WORKFLOW_TYPE = "Training"
NO_FILE = "Interactive training"
"""What the workflow is called where no file runs."""


_CALLED_IN: ContextVar[Execution | None] = ContextVar("deriva_ml_called_in", default=None)
"""The execution that a runner has called the present code in; of this call alone, and of no other thread's."""


@contextmanager
def called_in(execution: Execution) -> Iterator[None]:
    """Have trainings that are given no execution belong to this one, as long as this lasts.

    Args:
        execution: One that has been entered.
    """
    token = _CALLED_IN.set(execution)
    try:
        yield
    finally:
        _CALLED_IN.reset(token)


def opening(
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
    if (execution := _CALLED_IN.get()) is not None and ml is None and configuration is None and not description:
        return execution
    return partial(_opened, ml, configuration, description)  # which, other than an inner function, can be pickled


def _opened(
    ml: DerivaML | None, configuration: ExecutionConfiguration | None, description: str, resumed: RID | None
) -> Execution:
    catalog = ml or DerivaML()
    if resumed is not None:
        return catalog.resume_execution(resumed)
    wanted = configuration or ExecutionConfiguration()
    if description and not wanted.description:
        wanted = wanted.model_copy(update={"description": description})
    return catalog.create_execution(wanted, workflow=None if wanted.workflow else _running_code(catalog))


def _running_code(ml: DerivaML) -> Workflow:
    found = ml.create_workflow(NO_FILE, WORKFLOW_TYPE)
    path = found.source.path or Path(found.url.partition("@")[0])
    return found.model_copy(update={"name": path.name or NO_FILE})
