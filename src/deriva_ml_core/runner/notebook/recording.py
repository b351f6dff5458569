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
from deriva_ml_core.definitions import DRY_RUN_RID, MLVocab
from deriva_ml_core.errors import UnknownWorkflow
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.ending import TerminationWatch
from deriva_ml_core.execution.made import RUN, read_made
from deriva_ml_core.journal.lease import Lease
from deriva_ml_core.runner.notebook.document import Notebook
from deriva_ml_core.runner.notebook.finding import own_executions
from deriva_ml_core.runner.notebook.inside import CONFIG_FOLDER, OVERRIDES
from deriva_ml_core.runner.notebook.keeping import as_text, keep_notebook, without_secrets, without_secrets_said
from deriva_ml_core.runner.notebook.running import run_cells, told
from deriva_ml_core.runner.notebook.states import begin, end
from deriva_ml_core.workflow import Workflow, detected

__all__ = ["NotebookRun", "Recorded", "record_run"]

COMMAND = "DERIVA_ML_NOTEBOOK_COMMAND"
"""The variable by which the environment snapshot, also one that the kernel makes, knows the command."""

LEASE = ".lease.json"
"""The file that says which process a folder of executed cells belongs to."""

WORKFLOW_TYPE = "Evaluation"


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
class Recorded:
    """What came of a run.

    Args:
        executions: As what it is on record; empty where the notebook's own execution was a dry run.
        error: What ended it before its last cell; None where it came there.
    """

    executions: tuple[Execution, ...]
    error: BaseException | None


def record_run(ml: DerivaML, run: NotebookRun) -> Recorded:
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
    workflow = _workflow(ml, run)
    with _scratch(ml) as scratch, _watched() as watch, told(_command(run)):
        made = scratch / "executions.jsonl"
        first = None if run.notebook.may_record_itself else _created(ml, workflow, run)
        if first is not None:
            begin(first)
        environ = {**_told_of(workflow, run), RUN: str(made)}
        outcome = run_cells(run.notebook, run.parameters, scratch, environ, cwd=run.cwd, show_output=run.show_output)
        watch.hold()
        executed = without_secrets(outcome.executed, run.notebook, run.parameters)
        error = without_secrets_said(outcome.error, run.parameters)
        lying = scratch / run.notebook.path.name
        lying.write_text(as_text(executed), encoding="utf-8")
        try:
            found = list(own_executions(ml, made, run.notebook))
            own = found if first is None else [first]
            if not (own or _is_trial(made)):
                own = [_created(ml, workflow, run)]
            for execution in {id(each): each for each in (*found, *own)}.values():
                end(execution, outcome.began, error, terminated=watch.terminated)
            for execution in own:
                keep_notebook(execution, executed, run.notebook.path)
            if first is not None:
                _nest(first, found)
        except Exception as reason:
            reason.add_note(f"The notebook as it was executed lies in {lying}.")
            raise
    return Recorded(tuple(own), error)


def _workflow(ml: DerivaML, run: NotebookRun) -> Workflow:
    name = run.notebook.path.name
    found = detected(name, run.workflow_type or WORKFLOW_TYPE, script=run.notebook.path, plugins=ml.connection.plugins)
    if run.workflow_type is None and (known := _known(ml, found)) is not None:
        found = found.model_copy(update={"name": known.name, "workflow_type": known.workflow_type})
    if not run.notebook.may_record_itself:
        ml.connection.terms.require(MLVocab.workflow_type, [found.workflow_type])
    return found


def _known(ml: DerivaML, workflow: Workflow) -> Workflow | None:
    """The same code in the catalog, whose name and type it keeps."""
    for sign in (workflow.checksum, "" if workflow.url.startswith("file:") else workflow.url):
        try:
            return ml.lookup_workflow_by_url(sign)
        except UnknownWorkflow:
            continue
    return None


def _created(ml: DerivaML, workflow: Workflow, run: NotebookRun) -> Execution:
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


def _nest(parent: Execution, children: Sequence[Execution]) -> None:
    for child in children:
        child.upload_execution_outputs()
        if child.connection is parent.connection:
            parent.add_nested_execution(child)


def _is_trial(made: Path) -> bool:
    """Whether the notebook has made dry runs and nothing else."""
    return any(each.rid == DRY_RUN_RID for each in read_made(made))


def _told_of(workflow: Workflow, run: NotebookRun) -> dict[str, str]:
    """What the kernel is told of the notebook, so that its workflow is this one, whatever the file is by then."""
    environ = {"DERIVA_ML_NOTEBOOK_PATH": str(run.notebook.path), OVERRIDES: json.dumps(list(run.overrides))}
    if run.config_folder is not None:
        environ[CONFIG_FOLDER] = str(run.config_folder)
    if workflow.source.kind != "container":  # which the kernel knows of as well
        environ |= {"DERIVA_ML_WORKFLOW_URL": workflow.url, "DERIVA_ML_WORKFLOW_CHECKSUM": workflow.checksum}
    return environ


def _command(run: NotebookRun) -> dict[str, str]:
    return {COMMAND: json.dumps({"argv": list(run.command), "working_directory": str(Path.cwd())})}


@contextmanager
def _scratch(ml: DerivaML) -> Iterator[Path]:
    """A folder that nobody else can read, which goes unless something was not recorded."""
    parent = ml.connection.folder / "notebooks"
    parent.mkdir(parents=True, exist_ok=True)
    _clear(parent)
    folder = Path(tempfile.mkdtemp(dir=parent))
    lease = folder / LEASE
    lease.write_text(Lease.taken().model_dump_json(), encoding="utf-8")
    try:
        yield folder
    except BaseException:
        lease.unlink(missing_ok=True)  # what is in it now stays until somebody takes it away
        if not any(folder.iterdir()):  # nothing ran
            folder.rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _clear(parent: Path) -> None:
    """Delete what runs left that were killed: notebooks as far as they came, with their secrets."""
    for file in parent.glob(f"*/{LEASE}"):
        with suppress(OSError, ValueError):  # it goes just now, or is not wholly written
            if Lease.model_validate_json(file.read_bytes()).is_dead():
                shutil.rmtree(file.parent, ignore_errors=True)


@contextmanager
def _watched() -> Iterator[TerminationWatch]:
    watch = TerminationWatch()
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
