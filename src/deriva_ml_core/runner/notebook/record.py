"""Record the run of a notebook: as the executions that its cells create, or as one created for it."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._files.permissions import create_folder
from deriva_ml_core.client import DerivaML
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLTable, MLVocab
from deriva_ml_core.errors import UnknownWorkflow
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.exit_status import SigtermHandler
from deriva_ml_core.execution.kernel_registry import REGISTRY_VARIABLE, KernelExecution, read_registry
from deriva_ml_core.execution.run_lines import print_begin, print_end
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.paths import find_current_folder
from deriva_ml_core.runner.notebook.archive import redact_error, redact_notebook, render_ipynb, upload_notebook
from deriva_ml_core.runner.notebook.execute import finish_execution, patch_environ, run_cells, start_execution
from deriva_ml_core.runner.notebook.kernel_api import CONFIG_FOLDER_VARIABLE, OVERRIDES_VARIABLE
from deriva_ml_core.runner.notebook.notebook_file import Notebook
from deriva_ml_core.workflow import Workflow, create_workflow

__all__ = ["NotebookRun", "NotebookRunResult", "find_notebook_executions", "run_and_record"]


COMMAND_VARIABLE = "DERIVA_ML_NOTEBOOK_COMMAND"
"""Environment variable with the command line, for environment snapshots taken here and in the kernel."""

OWNER_FILE = ".lease.json"
"""File that identifies the process that uses a scratch folder."""

POLL_INTERVAL = 0.5
"""Seconds between two looks at the executions that the kernel has created."""

DEFAULT_WORKFLOW_TYPE = "Evaluation"


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """What to run, and how to record it.

    Args:
        notebook: The notebook.
        parameters: The values of its parameters.
        cwd: The working directory of its kernel.
        command: The command line, without secrets.
        overrides: Hydra overrides for the notebook's configuration.
        config_folder: The config folder; None to search for it.
        description: The description of the execution that is created if the notebook creates none.
        workflow_type: The type of the workflow; None for the type that it has in the catalog, else Evaluation.
        show_output: Whether to print the output of the cells while they run.
    """

    notebook: Notebook
    parameters: Mapping[str, JsonValue]
    cwd: Path
    command: Sequence[str]
    overrides: Sequence[str] = ()
    config_folder: Path | None = None
    description: str = ""
    workflow_type: str | None = None
    show_output: bool = False


@dataclass(frozen=True, slots=True)
class NotebookRunResult:
    """The result of a run.

    Args:
        executions: The executions that record it; empty if the notebook's own execution was a dry run.
        error: The error that ended it before its last cell; None if all cells ran.
    """

    executions: tuple[Execution, ...]
    error: BaseException | None


def run_and_record(ml: DerivaML, run: NotebookRun) -> NotebookRunResult:
    """Run a notebook and record it, as the executions that its cells create or as one created for it.

    A notebook that names this project or runs the user's own code may create an execution itself, even in another
    catalog. Such a notebook gets an execution at its end, if it has created none. For any other notebook the execution
    is created before it runs. Executions that an installed package creates in it are nested in that one.

    Args:
        ml: The client of the catalog in which to create an execution.
        run: The run.

    Returns:
        The ended executions, which have the executed notebook as output.

    Raises:
        NotReproducible: The code cannot be restored, and ``DERIVA_ML_REQUIRE_CLEAN=1`` requires that.
        DerivaMLException: The run cannot be recorded. If the notebook ran, a note of the error names the file with the
            executed notebook.
    """
    workflow = _detect_workflow(ml, run)
    with _scratch_folder(ml) as scratch, _watch_termination() as watch, patch_environ(_command_environ(run)):
        registry = scratch / "executions.jsonl"
        parent = None if run.notebook.can_create_execution else _create_execution(ml, workflow, run)
        if parent is not None:
            start_execution(parent)
            print_begin(ml.connection.catalog.name, parent.execution_rid, workflow.name)
        environ = {**_kernel_environ(workflow, run), REGISTRY_VARIABLE: str(registry)}
        with _print_begins(registry):
            outcome = run_cells(
                run.notebook, run.parameters, scratch, environ, cwd=run.cwd, show_output=run.show_output
            )
        watch.defer()
        executed = redact_notebook(outcome.executed_notebook, run.notebook, run.parameters)
        error = redact_error(outcome.error, run.parameters)
        file = scratch / run.notebook.path.name
        file.write_text(render_ipynb(executed), encoding="utf-8")
        try:
            created = list(find_notebook_executions(ml, registry, run.notebook))
            recorded = created if parent is None else [parent]
            if not (recorded or _is_dry_run(registry)):
                recorded = [_create_execution(ml, workflow, run)]
                print_begin(ml.connection.catalog.name, recorded[0].execution_rid, workflow.name)
            executions = {id(each): each for each in (*created, *recorded)}.values()
            for execution in executions:
                finish_execution(execution, outcome.started_at, error, terminated=watch.terminated)
            for execution in recorded:
                upload_notebook(execution, executed, run.notebook.path)
            if parent is not None:
                _nest_executions(parent, created)
            for execution in executions:
                print_end(execution._connection, execution.execution_rid, execution._load_state())
        except Exception as reason:
            reason.add_note(f"The executed notebook is in {file}.")
            raise
    return NotebookRunResult(tuple(recorded), error)


@contextmanager
def _print_begins(registry: Path) -> Iterator[None]:
    """Print a line about each execution that the kernel creates, when it does; the kernel's own output is kept.

    If the system refuses to start the thread, the lines come after the notebook.
    """
    stop = threading.Event()
    printed: set[tuple[RID, Path]] = set()

    def poll(*, over_bar: bool = True) -> None:
        with suppress(Exception):  # the kernel is writing the file
            for each in read_registry(registry):
                if (each.rid, each.folder) not in printed:
                    printed.add((each.rid, each.folder))
                    name = "" if each.code is None else each.code.name
                    print_begin(_printable_name(each), each.rid, name, over_bar=over_bar)

    def run() -> None:
        while not stop.wait(POLL_INTERVAL):
            poll()

    thread = threading.Thread(target=run, name="deriva-ml-notebook", daemon=True)
    with suppress(RuntimeError):  # a container's limit is reached
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()
        poll(over_bar=False)


def _printable_name(created: KernelExecution) -> str:
    address = created.address
    return "/".join(filter(None, (address.printable_hostname.removeprefix("file:"), address.catalog_id)))


def _detect_workflow(ml: DerivaML, run: NotebookRun) -> Workflow:
    name = run.notebook.path.name
    workflow = create_workflow(
        name, run.workflow_type or DEFAULT_WORKFLOW_TYPE, script=run.notebook.path, plugins=ml.connection.plugins
    )
    if run.workflow_type is None and (registered := _find_registered_workflow(ml, workflow)) is not None:
        workflow = workflow.model_copy(update={"name": registered.name, "workflow_type": registered.workflow_type})
    if not run.notebook.can_create_execution:
        ml.connection.terms.require(MLVocab.workflow_type, [workflow.workflow_type])
    return workflow


def _find_registered_workflow(ml: DerivaML, workflow: Workflow) -> Workflow | None:
    """Return the catalog's workflow for the same code, whose name and type are reused; None if there is none."""
    for url_or_checksum in (workflow.checksum, "" if workflow.url.startswith("file:") else workflow.url):
        try:
            return ml.lookup_workflow_by_url(url_or_checksum)
        except UnknownWorkflow:
            continue
    return None


def _create_execution(ml: DerivaML, workflow: Workflow, run: NotebookRun) -> Execution:
    configuration = ExecutionConfiguration(
        workflow=workflow,
        description=run.description or f"Run of {run.notebook.path.name}",
        parameters={
            "notebook": run.notebook.path.name,
            "kernel": run.notebook.kernel.name,
            "parameters": dict(run.parameters),
            "overrides": list(run.overrides),
        },
    )
    return ml.create_execution(configuration)


def _nest_executions(parent: Execution, children: Sequence[Execution]) -> None:
    for child in children:
        child.upload_execution_outputs()
        if child._connection is parent._connection:
            parent.add_nested_execution(child)


def _is_dry_run(executions_file: Path) -> bool:
    """Whether the notebook created a dry run; only called if it created no recorded execution."""
    return any(each.rid == DRY_RUN_RID for each in read_registry(executions_file))


def _kernel_environ(workflow: Workflow, run: NotebookRun) -> dict[str, str]:
    """Return the variables by which the kernel detects this workflow, even if the file changes while it runs."""
    environ = {"DERIVA_ML_NOTEBOOK_PATH": str(run.notebook.path), OVERRIDES_VARIABLE: json.dumps(list(run.overrides))}
    if run.config_folder is not None:
        environ[CONFIG_FOLDER_VARIABLE] = str(run.config_folder)
    if workflow.source.kind != "container":  # the kernel inherits the container's own variables
        environ |= {"DERIVA_ML_WORKFLOW_URL": workflow.url, "DERIVA_ML_WORKFLOW_CHECKSUM": workflow.checksum}
    return environ


def _command_environ(run: NotebookRun) -> dict[str, str]:
    folder = find_current_folder()
    return {COMMAND_VARIABLE: json.dumps({"argv": list(run.command), "working_directory": folder and str(folder)})}


@contextmanager
def _scratch_folder(ml: DerivaML) -> Iterator[Path]:
    """Create a folder that only this user can read; it is deleted at the end, unless something was not recorded."""
    parent = ml.connection.folder / "notebooks"
    with translate_os_errors(f"Cannot create a folder in {parent}", ml.connection.folder):
        create_folder(parent, ml.connection.folder)
        _remove_stale_folders(parent)
        folder = Path(tempfile.mkdtemp(dir=parent))
        owner = folder / OWNER_FILE
        owner.write_text(ProcessIdentity.current().model_dump_json(), encoding="utf-8")
    try:
        yield folder
    except BaseException:
        owner.unlink(missing_ok=True)  # without this file, no later run deletes the folder
        if not any(folder.iterdir()):  # nothing ran
            folder.rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _remove_stale_folders(parent: Path) -> None:
    """Delete the folders of killed runs: their partly executed notebooks may contain secrets."""
    for file in parent.glob(f"*/{OWNER_FILE}"):
        with suppress(OSError, ValueError):  # another process may be writing or deleting it
            if ProcessIdentity.model_validate_json(file.read_bytes()).is_dead():
                shutil.rmtree(file.parent, ignore_errors=True)


@contextmanager
def _watch_termination() -> Iterator[SigtermHandler]:
    watch = SigtermHandler()
    watch.install()
    try:
        yield watch
    finally:
        watch.uninstall()


def find_notebook_executions(ml: DerivaML, executions_file: Path, notebook: Notebook) -> Iterator[Execution]:
    """Open the executions that a notebook's own code created; those created by code of other files are left out.

    They are not opened with `restore_execution`, which would mark them as aborted because the kernel is gone. The
    caller records how they ended.

    Args:
        ml: The client, whose connection is used for executions in the same catalog.
        executions_file: The file in which the kernel registered the executions.
        notebook: The notebook.

    Yields:
        The executions, in the order of their creation.

    Raises:
        UnknownAddress: An execution is in a catalog that no backend supports.
        CatalogUnavailable: An execution is in a catalog that cannot be reached.
    """
    for each in read_registry(executions_file):
        if each.rid != DRY_RUN_RID and (each.code is None or each.code.resolve() == notebook.path.resolve()):
            connection = _open_connection(ml, each)
            yield Execution(connection, connection.require_row(MLTable.execution, each.rid), each.folder, restored=True)


def _open_connection(ml: DerivaML, created: KernelExecution) -> Connection:
    own, address = ml.connection.address, created.address
    hostname = f"file:{ml.connection.folder}" if own.is_embedded else own.hostname
    if (hostname, own.catalog_id, own.working_dir) == (address.hostname, address.catalog_id, address.working_dir):
        return ml.connection
    return DerivaML(address.hostname, address.catalog_id, working_dir=address.working_dir).connection
