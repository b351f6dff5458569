"""A notebook's run on record: as executions that it made or one made for it, with what it left and how it ended."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from deriva_ml_core.client import DerivaML
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import DRY_RUN_RID, MLTable, MLVocab
from deriva_ml_core.errors import UnknownWorkflow
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.exit_status import SigtermHandler
from deriva_ml_core.execution.kernel_registry import REGISTRY_VARIABLE, KernelExecution, read_registry
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.runner.notebook.archive import redact_error, redact_notebook, render_ipynb, upload_notebook
from deriva_ml_core.runner.notebook.execute import finish_execution, patch_environ, run_cells, start_execution
from deriva_ml_core.runner.notebook.kernel_api import CONFIG_FOLDER_VARIABLE, OVERRIDES_VARIABLE
from deriva_ml_core.runner.notebook.notebook_file import Notebook
from deriva_ml_core.workflow import Workflow, create_workflow

__all__ = ["NotebookRun", "NotebookRunResult", "find_notebook_executions", "run_and_record"]


COMMAND_VARIABLE = "DERIVA_ML_NOTEBOOK_COMMAND"
"""The variable by which the environment snapshot, also one that the kernel makes, knows the command."""

OWNER_FILE = ".lease.json"
"""The file that says which process a folder of executed cells belongs to."""

DEFAULT_WORKFLOW_TYPE = "Evaluation"


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """What is to be run, and what is known of it beforehand.

    Args:
        notebook: The notebook.
        parameters: What its parameters are given.
        cwd: The folder that its kernel works in.
        command: The command line that asked for it, without secrets.
        overrides: What it says to hydra, for the configuration in the notebook.
        config_folder: The folder of configs that it names.
        description: What the run is for, where the notebook does not make its own execution.
        workflow_type: The notebook's type there; by default that which the catalog knows it by, else Evaluation.
        show_output: Whether what the cells print is shown as they do.
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
    """What came of a run.

    Args:
        executions: As what it is on record; empty where the notebook's own execution was a dry run.
        error: What ended it before its last cell; None where it came there.
    """

    executions: tuple[Execution, ...]
    error: BaseException | None


def run_and_record(ml: DerivaML, run: NotebookRun) -> NotebookRunResult:
    """Run a notebook and record it: as the executions that its cells make, or as one that is made for it.

    A notebook whose code names this project, or runs the user's own, may make its own execution, perhaps in another
    catalog: it gets one at its end, if it has made none. Any other is on record from its beginning; what an installed
    package makes in it all the same is nested in that.

    Args:
        ml: The catalog in which an execution is made for it.
        run: The run.

    Returns:
        The executions, ended, and with the executed notebook among their outputs.

    Raises:
        NotReproducible: Its code cannot be rebuilt, and ``DERIVA_ML_REQUIRE_CLEAN=1`` asks for that.
        DerivaMLException: It cannot be recorded; after it ran, a note at the error says where it lies as executed.
    """
    workflow = _detect_workflow(ml, run)
    with _scratch_folder(ml) as scratch, _watch_termination() as watch, patch_environ(_command_environ(run)):
        made = scratch / "executions.jsonl"
        first = None if run.notebook.can_create_execution else _create_execution(ml, workflow, run)
        if first is not None:
            start_execution(first)
        environ = {**_kernel_environ(workflow, run), REGISTRY_VARIABLE: str(made)}
        outcome = run_cells(run.notebook, run.parameters, scratch, environ, cwd=run.cwd, show_output=run.show_output)
        watch.defer()
        executed = redact_notebook(outcome.executed_notebook, run.notebook, run.parameters)
        error = redact_error(outcome.error, run.parameters)
        lying = scratch / run.notebook.path.name
        lying.write_text(render_ipynb(executed), encoding="utf-8")
        try:
            found = list(find_notebook_executions(ml, made, run.notebook))
            own = found if first is None else [first]
            if not (own or _is_dry_run(made)):
                own = [_create_execution(ml, workflow, run)]
            for execution in {id(each): each for each in (*found, *own)}.values():
                finish_execution(execution, outcome.started_at, error, terminated=watch.terminated)
            for execution in own:
                upload_notebook(execution, executed, run.notebook.path)
            if first is not None:
                _nest_executions(first, found)
        except Exception as reason:
            reason.add_note(f"The notebook as it was executed lies in {lying}.")
            raise
    return NotebookRunResult(tuple(own), error)


def _detect_workflow(ml: DerivaML, run: NotebookRun) -> Workflow:
    name = run.notebook.path.name
    found = create_workflow(
        name, run.workflow_type or DEFAULT_WORKFLOW_TYPE, script=run.notebook.path, plugins=ml.connection.plugins
    )
    if run.workflow_type is None and (known := _find_registered_workflow(ml, found)) is not None:
        found = found.model_copy(update={"name": known.name, "workflow_type": known.workflow_type})
    if not run.notebook.can_create_execution:
        ml.connection.terms.require(MLVocab.workflow_type, [found.workflow_type])
    return found


def _find_registered_workflow(ml: DerivaML, workflow: Workflow) -> Workflow | None:
    """The same code in the catalog, whose name and type it keeps."""
    for sign in (workflow.checksum, "" if workflow.url.startswith("file:") else workflow.url):
        try:
            return ml.lookup_workflow_by_url(sign)
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
    """Whether the notebook has made dry runs and nothing else."""
    return any(each.rid == DRY_RUN_RID for each in read_registry(executions_file))


def _kernel_environ(workflow: Workflow, run: NotebookRun) -> dict[str, str]:
    """What the kernel is told of the notebook, so that its workflow is this one, whatever the file is by then."""
    environ = {"DERIVA_ML_NOTEBOOK_PATH": str(run.notebook.path), OVERRIDES_VARIABLE: json.dumps(list(run.overrides))}
    if run.config_folder is not None:
        environ[CONFIG_FOLDER_VARIABLE] = str(run.config_folder)
    if workflow.source.kind != "container":  # which the kernel knows of as well
        environ |= {"DERIVA_ML_WORKFLOW_URL": workflow.url, "DERIVA_ML_WORKFLOW_CHECKSUM": workflow.checksum}
    return environ


def _command_environ(run: NotebookRun) -> dict[str, str]:
    return {COMMAND_VARIABLE: json.dumps({"argv": list(run.command), "working_directory": str(Path.cwd())})}


@contextmanager
def _scratch_folder(ml: DerivaML) -> Iterator[Path]:
    """A folder that nobody else can read, which goes unless something was not recorded."""
    parent = ml.connection.folder / "notebooks"
    parent.mkdir(parents=True, exist_ok=True)
    _remove_stale_folders(parent)
    folder = Path(tempfile.mkdtemp(dir=parent))
    lease = folder / OWNER_FILE
    lease.write_text(ProcessIdentity.current().model_dump_json(), encoding="utf-8")
    try:
        yield folder
    except BaseException:
        lease.unlink(missing_ok=True)  # what is in it now stays until somebody takes it away
        if not any(folder.iterdir()):  # nothing ran
            folder.rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _remove_stale_folders(parent: Path) -> None:
    """Delete what runs left that were killed: notebooks as far as they came, with their secrets."""
    for file in parent.glob(f"*/{OWNER_FILE}"):
        with suppress(OSError, ValueError):  # it goes just now, or is not wholly written
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
    """The executions of a notebook's own code that its kernel noted; those of another file's code are not meant.

    They are opened as they are, and not restored: the kernel is gone by now, and how they ended is for the one who ran
    it to say.

    Args:
        ml: The catalog, which is taken where it is the same.
        executions_file: The file in which the kernel noted them.
        notebook: The notebook.

    Raises:
        UnknownAddress, CatalogUnavailable: One is in another catalog, which cannot be reached.
    """
    for each in read_registry(executions_file):
        if each.rid != DRY_RUN_RID and (each.code is None or each.code.resolve() == notebook.path.resolve()):
            connection = _open_connection(ml, each)
            yield Execution(connection, connection.require_row(MLTable.execution, each.rid), each.folder, restored=True)


def _open_connection(ml: DerivaML, created: KernelExecution) -> Connection:
    present, address = ml.connection.address, created.address
    here = f"file:{ml.connection.folder}" if present.is_embedded else present.hostname
    if (here, present.catalog_id, present.working_dir) == (address.hostname, address.catalog_id, address.working_dir):
        return ml.connection
    return DerivaML(address.hostname, address.catalog_id, working_dir=address.working_dir).connection
