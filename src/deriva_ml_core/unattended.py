"""The execution of a training that was given none: of the script that runs, in the catalog on this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import RID
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

__all__ = ["opening"]

WORKFLOW_TYPE = "Training"
NO_FILE = "Interactive training"
"""What the workflow is called where no file runs."""


def opening(
    ml: DerivaML | None = None, configuration: ExecutionConfiguration | None = None, description: str = ""
) -> Callable[[RID | None], Execution]:
    """What makes a training's own execution when it begins; nothing is opened or detected before.

    Args:
        ml: The catalog; ``DerivaML()`` by default.
        configuration: What the execution is to be. Where it names no workflow, that is the script or notebook that
            runs, called by its name, of type Training.
        description: What the run is for, where the configuration does not say.

    Returns:
        A function of an execution's record id that opens that one to go on with it, and of None that makes a new one.
    """
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
