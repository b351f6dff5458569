"""Lists the executions that a notebook kernel created, for the process that runs the notebook."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from deriva_ml_core._files.json_lines import append_line, complete_lines, parse_object
from deriva_ml_core._progress import REGISTRY_VARIABLE, is_kernel
from deriva_ml_core.definitions import RID
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.models import Address, FrozenModel
from deriva_ml_core.workflow import Workflow

__all__ = ["REGISTRY_VARIABLE", "KernelExecution", "register_execution", "read_registry"]

log = logging.getLogger(__name__)


class KernelExecution(FrozenModel):
    """An execution that a kernel created or resumed.

    Args:
        rid: RID of the execution, ``0000`` for a dry run.
        address: Address of its catalog, valid from any folder.
        folder: The working folder.
        code: The file that it runs, or None if unknown.
    """

    rid: RID
    address: Address
    folder: Path
    code: Path | None = None


def register_execution(execution: Execution, workflow: Workflow | RID | None, environ: Mapping[str, str]) -> None:
    """Register an execution if this process is a kernel and `REGISTRY_VARIABLE` is set; log a warning if that fails.

    A program that the notebook starts is no kernel, so its executions are not registered.

    Args:
        execution: The new or resumed execution.
        workflow: The workflow that it runs.
        environ: The environment variables.
    """
    if not (file := environ.get(REGISTRY_VARIABLE)) or not is_kernel():
        return
    entry = KernelExecution(
        rid=execution.execution_rid,
        address=_absolute_address(execution),
        folder=execution.working_dir,
        code=workflow.source.path if isinstance(workflow, Workflow) else None,
    )
    try:
        append_line(Path(file), entry.model_dump_json(), mode=0o600)
    except OSError as error:
        log.warning("Failed to report execution %s to the notebook runner: %s", entry.rid, error)


def read_registry(file: Path) -> Iterator[KernelExecution]:
    """Yield each registered execution once, oldest first; none if there is no such file."""
    lines = complete_lines(file.read_bytes()) if file.is_file() else []
    executions = [KernelExecution.model_validate_json(line) for line in lines if parse_object(line) is not None]
    yield from {(execution.rid, execution.folder): execution for execution in executions}.values()


def _absolute_address(execution: Execution) -> Address:
    connection = execution._connection
    if not connection.address.is_embedded:
        return connection.address
    # a relative folder and DERIVA_ML_HOME can mean another place in another process
    return connection.address.model_copy(update={"hostname": f"file:{connection.folder}"})
