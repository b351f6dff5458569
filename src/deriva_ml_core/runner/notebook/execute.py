"""Execute a notebook with papermill, and start and end its executions accordingly."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from deriva_ml_core._progress import is_terminal
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import NotebookFailed
from deriva_ml_core.execution import Execution
from deriva_ml_core.execution.exit_status import final_status
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import ProcessAttached, Started, Stopped, utc_now
from deriva_ml_core.runner.notebook.notebook_file import Notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from traitlets.config import Config

__all__ = [
    "INJECTED_PARAMETERS_TAG",
    "NotebookOutcome",
    "finish_execution",
    "patch_environ",
    "run_cells",
    "start_execution",
]


KERNEL_TIMEOUT = 600
"""Maximum seconds for a kernel to start, and to send a cell's remaining output after the cell has ended."""

INJECTED_PARAMETERS_TAG = "injected-parameters"
"""Tag of the cell in which papermill sets the parameters."""

RAISES_EXCEPTION_TAG = "raises-exception"
"""Tag of a cell whose error is intended; Jupyter continues after it."""

_ANSI_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class NotebookOutcome:
    """The outcome of running a notebook.

    Args:
        executed_notebook: The notebook with the outputs of the executed cells.
        started_at: When the run started, in UTC.
        error: The error that ended the run before its last cell; None if all cells ran.
    """

    executed_notebook: NotebookNode
    started_at: datetime
    error: BaseException | None = None


def run_cells(
    notebook: Notebook,
    parameters: Mapping[str, JsonValue],
    scratch: Path,
    environ: Mapping[str, str],
    *,
    cwd: Path,
    show_output: bool,
) -> NotebookOutcome:
    """Run the cells of a notebook in order until one fails.

    Args:
        notebook: The notebook.
        parameters: The values of its parameters.
        scratch: A temporary folder, to which the notebook is saved after each cell.
        environ: Environment variables of the kernel, added to those of this process.
        cwd: The working directory of the kernel.
        show_output: Whether to also print the output of the cells.

    Returns:
        The outcome. Errors of cells, Ctrl-C and SIGTERM are not raised; they are the outcome's `error`.
    """
    target = scratch / notebook.path.name
    started_at = utc_now()
    error: BaseException | None = None
    with patch_environ(environ):
        try:
            _execute(notebook, parameters, target, cwd=cwd, show_output=show_output)
        except BaseException as raised:  # noqa: BLE001 - after Ctrl-C too, the executed cells are recorded
            error = raised
    executed = _read_executed(target, notebook)
    return NotebookOutcome(executed, started_at, _translate_error(error, executed, notebook))


def _execute(
    notebook: Notebook, parameters: Mapping[str, JsonValue], target: Path, *, cwd: Path, show_output: bool
) -> None:
    from papermill import execute_notebook  # type: ignore[import-untyped]

    execute_notebook(
        _escape_braces(notebook.path),
        _escape_braces(target),
        parameters=dict(parameters),
        kernel_name=notebook.kernel.name,
        language=notebook.kernel.language,
        progress_bar=is_terminal(sys.stderr),
        stdout_file=sys.stdout if show_output else None,
        stderr_file=sys.stderr if show_output else None,
        start_timeout=KERNEL_TIMEOUT,
        iopub_timeout=KERNEL_TIMEOUT,
        cwd=str(cwd),
        config=_jupyter_config(),
    )


def _jupyter_config() -> Config:
    """Return Jupyter's settings, with encrypted connections to the kernel if ZeroMQ supports them."""
    import zmq
    from traitlets.config import Config

    return Config({"KernelManager": {"transport_encryption": "auto"}} if zmq.has("curve") else {})


def _escape_braces(path: Path) -> str:
    """Escape braces, which papermill would replace with parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


@contextmanager
def patch_environ(environ: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the duration of a block, for the processes started in it."""
    previous = {name: os.environ.get(name) for name in environ}
    os.environ.update(environ)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _read_executed(target: Path, notebook: Notebook) -> NotebookNode:
    import nbformat

    try:
        return nbformat.read(target, as_version=4)  # type: ignore[no-any-return, no-untyped-call]
    except Exception:  # noqa: BLE001 - no cell ran, or a full disk truncated the file
        return nbformat.from_dict(dict(notebook.content))  # type: ignore[no-any-return, no-untyped-call]


def _translate_error(error: BaseException | None, executed: NotebookNode, notebook: Notebook) -> BaseException | None:
    """Return the error that stopped a notebook, with the running cell named."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError  # type: ignore[import-untyped]

    if not isinstance(error, Exception):
        return error
    running = _last_started_cell(executed)
    if isinstance(error, PapermillExecutionError):
        return _cell_error(executed, running, notebook)
    if isinstance(error, DeadKernelError) and running is not None:
        return NotebookFailed(
            f"The kernel died in {_cell_name(executed, running)} of {notebook.path.name}: it crashed or was killed, "
            "for example because memory ran out"
        )
    message = f"{type(error).__name__}: {_ANSI_COLOURS.sub('', str(error))}"
    cell = f"{_cell_name(executed, running)} of " if running is not None else ""
    return NotebookFailed(f"{cell}{notebook.path.name} could not be run: {message}")


def _cell_error(executed: NotebookNode, index: int | None, notebook: Notebook) -> BaseException | None:
    """Return the error of the last cell; None if it is tagged as intended."""
    cell: Any = {} if index is None else executed.cells[index]
    errors = [each for each in cell.get("outputs", []) if each.output_type == "error"]
    if not errors or RAISES_EXCEPTION_TAG in cell.metadata.get("tags", []):
        return None
    name = f"{_cell_name(executed, index)} of {notebook.path.name}"
    if errors[0].ename == "KeyboardInterrupt":
        return KeyboardInterrupt(name)
    message = f"{errors[0].ename}: {_ANSI_COLOURS.sub('', errors[0].evalue)}"
    return NotebookFailed(f"{name} raised {message.rstrip(': ')}")


def _last_started_cell(executed: NotebookNode) -> int | None:
    """Return the index of the last cell that started."""
    started = [
        index
        for index, cell in enumerate(executed.cells)
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    return started[-1] if started else None


def _cell_name(executed: NotebookNode, index: int | None) -> str:
    """Return a cell's position in the user's file, counted from 1, and the execution count that Jupyter shows."""
    if index is None:
        return "A cell"
    cell: Any = executed.cells[index]
    if INJECTED_PARAMETERS_TAG in cell.metadata.get("tags", []):
        return "the parameters cell"
    added = {INJECTED_PARAMETERS_TAG, "papermill-error-cell-tag"}  # cells that papermill added
    number = sum(1 for each in executed.cells[: index + 1] if not added.intersection(each.metadata.get("tags", [])))
    count = cell.get("execution_count")
    return f"cell {number}" + (f" (In [{count}])" if count else "")


def start_execution(execution: Execution) -> None:
    """Set an execution to Running; `finish_execution` ends it when the notebook has run."""
    execution._runtime.status_tracker.append(
        ProcessAttached(lease=ProcessIdentity.current()), Started(monotonic=monotonic())
    )
    execution.update_status(Status.running)


def finish_execution(
    execution: Execution, started_at: datetime, error: BaseException | None, *, terminated: bool
) -> None:
    """End an execution with the status of its notebook.

    An execution that ended in its own ``with`` block keeps its status, unless a later cell failed. If the kernel was
    killed, the execution has not ended, and this process ends it.

    Args:
        execution: The execution.
        started_at: When the notebook started; used for an execution that was never entered.
        error: The error that ended the notebook before its last cell; None if all cells ran.
        terminated: Whether SIGTERM was received.
    """
    status, reason = final_status(error, terminated=terminated)
    tracker = execution._runtime.status_tracker
    current, _ = tracker.current
    if current.is_terminal and (status is Status.completed or current is Status.aborted):
        return
    if not current.is_terminal:
        tracker.append(
            ProcessAttached(lease=ProcessIdentity.current()),
            Started(time=started_at),  # changes nothing if the run has started
            Stopped(monotonic=monotonic()),
        )
    tracker.set(status, reason, error=reason if status is not Status.completed else "", resumed=current.is_terminal)
    tracker.flush()
