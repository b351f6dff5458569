"""The executions that a notebook's kernel has made, for the process that runs the notebook to find."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from deriva_ml_core._files.json_lines import append_line, complete_lines, parse_object
from deriva_ml_core.definitions import RID
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.models import Address, FrozenModel
from deriva_ml_core.workflow import Workflow

__all__ = ["REGISTRY_VARIABLE", "KernelExecution", "register_execution", "read_registry"]

log = logging.getLogger(__name__)

REGISTRY_VARIABLE = "DERIVA_ML_NOTEBOOK_RUN"
"""The environment variable that names the file in which a kernel notes its executions, one a line."""


class KernelExecution(FrozenModel):
    """An execution that a kernel made or went on with.

    Args:
        rid: Its record id, ``0000`` for a dry run.
        address: Where it is recorded, as it can be opened from another folder.
        folder: Its working folder.
        code: The file that it runs, where that is known.
    """

    rid: RID
    address: Address
    folder: Path
    code: Path | None = None


def register_execution(execution: Execution, workflow: Workflow | RID | None, environ: Mapping[str, str]) -> None:
    """Note an execution, where this process is a kernel and is asked to; a disk that does not take it is warned about.

    A program that the notebook begins is no kernel: what it makes is its own.

    Args:
        execution: What was made.
        workflow: What it runs.
        environ: The environment variables.
    """
    if not (file := environ.get(REGISTRY_VARIABLE)) or not _is_kernel():
        return
    made = KernelExecution(
        rid=execution.execution_rid,
        address=_absolute_address(execution),
        folder=execution.working_dir,
        code=workflow.source.path if isinstance(workflow, Workflow) else None,
    )
    try:
        append_line(Path(file), made.model_dump_json(), mode=0o600)
    except OSError as error:
        log.warning("Who runs this notebook cannot be told of execution %s: %s", made.rid, error)


def read_registry(file: Path) -> Iterator[KernelExecution]:
    """The executions that were noted, each once, the earliest first; none where there is no such file."""
    lines = complete_lines(file.read_bytes()) if file.is_file() else []
    executions = [KernelExecution.model_validate_json(line) for line in lines if parse_object(line) is not None]
    yield from {(execution.rid, execution.folder): execution for execution in executions}.values()


def _absolute_address(execution: Execution) -> Address:
    connection = execution.connection
    if not connection.address.is_embedded:
        return connection.address
    # a relative folder and DERIVA_ML_HOME mean something else in another process
    return connection.address.model_copy(update={"hostname": f"file:{connection.folder}"})


def _is_kernel() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
