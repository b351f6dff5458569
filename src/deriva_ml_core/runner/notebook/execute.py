"""The cells of a notebook run by papermill, in a kernel that is told what it runs; and how that ended."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

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
"""Seconds that a kernel may take to start, and to tell what a cell printed once the cell has ended."""

INJECTED_PARAMETERS_TAG = "injected-parameters"
"""The tag that papermill gives the cell with the parameters' values."""

RAISES_EXCEPTION_TAG = "raises-exception"
"""The tag of a cell whose error is intended, after which Jupyter goes on."""

_ANSI_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class NotebookOutcome:
    """How a notebook ran.

    Args:
        executed_notebook: The notebook with what its cells gave, as far as it came.
        started_at: When it began.
        error: What ended it before its last cell; None where it came there.
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
    """Run a notebook's cells from the first to the last, or to the first that fails.

    Args:
        notebook: The notebook.
        parameters: What its parameters are given.
        scratch: A folder of this run's own, where the notebook is kept as far as it has come.
        environ: The environment variables that the kernel gets beside those of this process.
        cwd: The folder that the kernel works in.
        show_output: Whether what the cells print is shown here as well.

    Returns:
        How it went; nothing that a cell does raises here, nor Ctrl-C and SIGTERM, which are the outcome's error.
    """
    target = scratch / notebook.path.name
    began = utc_now()
    error: BaseException | None = None
    with patch_environ(environ):
        try:
            _execute(notebook, parameters, target, cwd=cwd, show_output=show_output)
        except BaseException as raised:  # noqa: BLE001 - Ctrl-C too: what was executed so far is kept
            error = raised
    executed = _read_executed(target, notebook)
    return NotebookOutcome(executed, began, _translate_error(error, executed, notebook))


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
        progress_bar=sys.stderr.isatty(),
        stdout_file=sys.stdout if show_output else None,
        stderr_file=sys.stderr if show_output else None,
        start_timeout=KERNEL_TIMEOUT,
        iopub_timeout=KERNEL_TIMEOUT,
        cwd=str(cwd),
        config=_jupyter_config(),
    )


def _jupyter_config() -> Config:
    """Jupyter's settings for a kernel whose connections nobody else on this machine can read, where it knows how."""
    import zmq
    from traitlets.config import Config

    return Config({"KernelManager": {"transport_encryption": "auto"}} if zmq.has("curve") else {})


def _escape_braces(path: Path) -> str:
    """A path in which papermill finds nothing to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


@contextmanager
def patch_environ(environ: Mapping[str, str]) -> Iterator[None]:
    """Have the processes that are begun meanwhile inherit these variables."""
    before = {name: os.environ.get(name) for name in environ}
    os.environ.update(environ)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _read_executed(target: Path, notebook: Notebook) -> NotebookNode:
    import nbformat

    try:
        return nbformat.read(target, as_version=4)  # type: ignore[no-any-return, no-untyped-call]
    except Exception:  # noqa: BLE001 - it did not come to the first cell, or a full disk has torn what was written
        return nbformat.from_dict(dict(notebook.content))  # type: ignore[no-any-return, no-untyped-call]


def _translate_error(error: BaseException | None, executed: NotebookNode, notebook: Notebook) -> BaseException | None:
    """What stopped a notebook, with the cell named that was running."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError  # type: ignore[import-untyped]

    if not isinstance(error, Exception):
        return error
    running = _last_started_cell(executed)
    if isinstance(error, PapermillExecutionError):
        return _cell_error(executed, running, notebook)
    if isinstance(error, DeadKernelError) and running is not None:
        return NotebookFailed(
            f"The kernel died in {_cell_name(executed, running)} of {notebook.path.name}: it was killed, by the "
            "system for want of memory say, or it crashed"
        )
    said = f"{type(error).__name__}: {_ANSI_COLOURS.sub('', str(error))}"
    where = f"{_cell_name(executed, running)} of " if running is not None else ""
    return NotebookFailed(f"{where}{notebook.path.name} could not be run: {said}")


def _cell_error(executed: NotebookNode, index: int | None, notebook: Notebook) -> BaseException | None:
    """What the last cell raised; None where cells raised only what their tag says that they are to raise."""
    cell: Any = {} if index is None else executed.cells[index]
    errors = [each for each in cell.get("outputs", []) if each.output_type == "error"]
    if not errors or RAISES_EXCEPTION_TAG in cell.metadata.get("tags", []):
        return None
    where = f"{_cell_name(executed, index)} of {notebook.path.name}"
    if errors[0].ename == "KeyboardInterrupt":
        return KeyboardInterrupt(where)
    said = f"{errors[0].ename}: {_ANSI_COLOURS.sub('', errors[0].evalue)}"
    return NotebookFailed(f"{where} raised {said.rstrip(': ')}")


def _last_started_cell(executed: NotebookNode) -> int | None:
    """The last cell that was begun."""
    begun = [
        place
        for place, cell in enumerate(executed.cells)
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    return begun[-1] if begun else None


def _cell_name(executed: NotebookNode, index: int | None) -> str:
    """A cell by its place in the user's own file, from 1, and by the number that Jupyter shows."""
    if index is None:
        return "A cell"
    cell: Any = executed.cells[index]
    if INJECTED_PARAMETERS_TAG in cell.metadata.get("tags", []):
        return "the cell of parameters"
    ours = {INJECTED_PARAMETERS_TAG, "papermill-error-cell-tag"}
    number = sum(1 for each in executed.cells[: index + 1] if not ours.intersection(each.metadata.get("tags", [])))
    count = cell.get("execution_count")
    return f"cell {number}" + (f" (In [{count}])" if count else "")


def start_execution(execution: Execution) -> None:
    """Have an execution run from now on; whoever runs the notebook brings it to its end."""
    execution._runtime.status_tracker.append(ProcessAttached(lease=ProcessIdentity.current()), Started())
    execution.update_status(Status.running)


def finish_execution(
    execution: Execution, started_at: datetime, error: BaseException | None, *, terminated: bool
) -> None:
    """Bring an execution to the end that its notebook came to.

    One that its own ``with`` has ended keeps that end, unless a later cell failed. One whose kernel was killed has not
    ended: this process ends it.

    Args:
        execution: The execution.
        started_at: When the notebook began, for one that was never entered.
        error: What ended the notebook before its last cell; None where it came there.
        terminated: Whether SIGTERM came.
    """
    status, reason = final_status(error, terminated=terminated)
    course = execution._runtime.status_tracker
    present, _ = course.current
    if present.is_terminal and (status is Status.completed or present is Status.aborted):
        return
    if not present.is_terminal:
        course.append(ProcessAttached(lease=ProcessIdentity.current()), Started(time=started_at), Stopped())
    course.set(status, reason, error=reason if status is not Status.completed else "", resumed=present.is_terminal)
