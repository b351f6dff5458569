"""Notebooks whose cells create executions: the notebook's outputs and status are recorded in them."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from notebooks import OWN, Project, run_command, start_command, write_notebook

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import FileUnavailable
from deriva_ml_core.execution import RecordedExecution
from deriva_ml_core.runner.notebook.record import _scratch_folder

pytestmark = pytest.mark.usefixtures("project_home")

CREATE_EXECUTION = OWN.format(address="")


def output_names(execution: RecordedExecution) -> set[str]:
    """Return the names of the outputs that are no metadata."""
    return {asset.filename for asset in execution.list_assets("Output") if asset.table != "Execution_Metadata"}


def new_execution(project: Project, before: set[str]) -> RecordedExecution:
    """Return the only execution that did not exist before."""
    (execution,) = (each for each in project.ml.find_executions() if each.execution_rid not in before)
    return execution


@pytest.fixture
def before(project: Project) -> set[str]:
    """The RIDs of the executions that exist before the test."""
    return {execution.execution_rid for execution in project.ml.find_executions()}


def test_cell_fails_after_the_execution_completed(project: Project, before: set[str]) -> None:
    """An error in a later cell makes the execution Failed and names the cell; all outputs are uploaded."""
    cell = (
        CREATE_EXECUTION + "with execution:\n    execution.asset_file_path('Model', 'model.txt').write_text('weights')"
    )
    file = write_notebook(
        project.root / "own.ipynb", cell, "key = api_key\n{}[key]", "print('never')", parameters="api_key = ''"
    )
    head = project.commit()
    result = run_command(file, "-p", "api_key", "correct-horse")
    execution = new_execution(project, before)
    reason = "cell 3 (In [4]) of own.ipynb raised KeyError: '[redacted]'"
    assert (result.code, result.stderr) == (1, f"error: {reason}\n")
    assert (execution.status, execution.status_detail) == (Status.failed, f"NotebookFailed: {reason}")
    assert output_names(execution) == {"own.ipynb", "own.html", "model.txt"}
    workflow = project.ml.lookup_workflow(execution.workflow_rid)
    assert (workflow.name, workflow.url) == ("Mine", f"https://github.com/org/repo/blob/{head}/own.ipynb")
    (snapshot,) = (execution.working_dir / "records").glob("environment_snapshot_*.json")
    recorded = json.loads(snapshot.read_text())
    assert recorded["repository"]["head"] == head
    assert recorded["environment"]["argv"] == [
        *("deriva-ml-run-notebook", str(file)),
        *("-p", "api_key", "[redacted: api_key]"),
    ]
    assert recorded["source"] | {"kind": "environment", "path": str(file), "dirty": False} == recorded["source"]


def test_killed_kernel(project: Project, before: set[str]) -> None:
    """If the kernel is killed, the execution is Failed, and the executed cells and staged files are uploaded."""
    (project.root / "create.py").write_text(CREATE_EXECUTION)  # a user's module can create the execution too
    cell = "from create import execution\nexecution.__enter__()\n"
    cell += "execution.asset_file_path('Model', 'model.txt').write_text('half')"
    kill = "print('so far', flush=True)\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    file = write_notebook(project.root / "killed.ipynb", cell, kill, "print('never')")
    project.commit()
    result = run_command(file)
    execution = new_execution(project, before)
    assert result.code == 1
    assert "The kernel died in cell 2 (In [2]) of killed.ipynb" in result.stderr
    assert execution.status is Status.failed
    assert "kernel died in cell 2" in execution.status_detail
    assert output_names(execution) == {"killed.ipynb", "killed.html", "model.txt"}
    assert [update.status for update in execution.list_statuses()] == [Status.created, Status.running, Status.failed]


def test_other_catalog_and_other_source_files(project: Project, before: set[str]) -> None:
    """Only the notebook's own execution gets its outputs, also in another catalog with a relative address.

    Executions with another source are left alone: one whose workflow names another script, and one of a program that
    the notebook starts.
    """
    script = project.root / "prepare.py"
    script.write_text(OWN.format(address="'file:other'") + "with execution:\n    print(workflow.url)\n")
    write_notebook(
        project.root / "elsewhere.ipynb",
        "import subprocess, sys\nsubprocess.run([sys.executable, 'prepare.py'], check=True)",
        OWN.format(address="'file:other'"),
        "from deriva_ml import Workflow\nfrom pathlib import Path\n"
        "prepared = Workflow(name='Prepared', workflow_type='Preprocessing', script=Path('prepare.py'))\n"
        "with ml.create_execution(ExecutionConfiguration(), workflow=prepared):\n    pass",
    )
    project.commit()
    result = run_command(project.root / "elsewhere.ipynb")
    assert result.code == 0, result
    other = DerivaML(f"file:{project.root / 'other'}")
    runs = {other.lookup_workflow(run.workflow_rid).url.rpartition("/")[2]: run for run in other.find_executions()}
    assert len(other.find_executions()) == 3
    assert output_names(runs["elsewhere.ipynb"]) == {"elsewhere.ipynb", "elsewhere.html"}
    assert runs["elsewhere.ipynb"].status is Status.completed
    assert output_names(runs["prepare.py"]) == set()
    assert {run.execution_rid for run in project.ml.find_executions()} == before


def test_no_execution_and_dry_run(project: Project, before: set[str]) -> None:
    """A notebook that creates no execution gets one at its end; one that creates a dry run gets none.

    An error in a cell tagged as raising is intended, as in Jupyter.
    """
    query = "from deriva_ml import DerivaML\nDerivaML().find_executions()"
    file = write_notebook(project.root / "query.ipynb", query, intended="1 / 0")
    cell = CREATE_EXECUTION.replace(", workflow=workflow", ", workflow=workflow, dry_run=True")
    dry_run = write_notebook(project.root / "dry_run.ipynb", cell)
    project.commit()
    assert run_command(file).code == 0
    execution = new_execution(project, before)
    assert (execution.status, output_names(execution)) == (Status.completed, {"query.ipynb", "query.html"})
    assert execution.start_time is not None
    result = run_command(dry_run)
    assert (result.code, result.stdout) == (0, "The notebook's execution was a dry run: nothing is recorded.\n")
    assert new_execution(project, before).execution_rid == execution.execution_rid


def test_sigterm(project: Project, before: set[str]) -> None:
    """SIGTERM aborts the notebook; the executed cells are uploaded, and the exit code is that of the signal."""
    marker = project.root / "started"
    file = write_notebook(project.root / "long.ipynb", "open('started', 'w').close()", "import time\ntime.sleep(600)")
    process = start_command(file, folder=project.root)
    while not marker.exists():
        assert process.poll() is None, process.communicate()
    process.terminate()
    _, stderr = process.communicate()
    execution = new_execution(project, before)
    assert (process.returncode, execution.status) == (143, Status.aborted), stderr
    assert output_names(execution) == {"long.ipynb", "long.html"}
    assert execution.status_detail.startswith("SIGTERM")


def test_next_run_deletes_the_folder_of_a_killed_one(project: Project) -> None:
    """The next run deletes the scratch folder of a killed command, since the executed cells may contain secrets."""
    marker, folder = project.root / "lasting", project.home / "local" / "notebooks"
    existing = set(folder.iterdir()) if folder.exists() else set()  # left by other tests
    cell = "open('lasting', 'w').close()\nimport time\ntime.sleep(600)"
    process = start_command(write_notebook(project.root / "lasting.ipynb", cell), folder=project.root)
    while not marker.exists():
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert len(set(folder.iterdir()) - existing) == 1
    short = write_notebook(project.root / "short.ipynb", "1")
    project.commit()
    assert run_command(short).code == 0
    assert set(folder.iterdir()) - existing == set()


def test_scratch_folder_that_cannot_be_created(ml: DerivaML) -> None:
    """A file in the place of the folder is an error that names it."""
    folder = ml.connection.folder / "notebooks"
    shutil.rmtree(folder, ignore_errors=True)  # of earlier tests, which share the catalog
    folder.write_text("")
    with pytest.raises(FileUnavailable, match=r"Cannot create a folder in .*/notebooks"), _scratch_folder(ml):
        pass
    folder.unlink()


def test_failed_upload(project: Project, before: set[str]) -> None:
    """Files that cannot be uploaded stay staged, and the error names the file with the executed notebook."""
    objects, moved = project.home / "local" / "objects", project.home / "moved"
    break_store = f"import os\nos.rename({str(objects)!r}, {str(moved)!r})\nopen({str(objects)!r}, 'w').close()"
    file = write_notebook(project.root / "break_store.ipynb", break_store)
    project.commit()
    try:
        result = run_command(file)
    finally:
        objects.unlink()
        moved.rename(objects)
    execution = new_execution(project, before)
    assert (result.code, execution.status) == (1, Status.completed)
    assert "stay staged" in result.stderr
    executed = Path(re.findall(r"The executed notebook is in (.*)\.$", result.stderr, re.M)[0])
    assert "os.rename" in executed.read_text()
    uploaded = project.ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert {asset.filename for asset in uploaded["Execution_Asset"]} == {"break_store.ipynb", "break_store.html"}


def test_execution_of_an_installed_package(project: Project, before: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An execution that an installed package creates is nested in the notebook's own, and ends with it."""
    package = project.root.parent / "site-packages" / "theirs.py"
    package.parent.mkdir()
    package.write_text(CREATE_EXECUTION + "execution.asset_file_path('Model', 'theirs.txt').write_text('theirs')\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
    file = write_notebook(project.root / "uses.ipynb", "import theirs")
    project.commit()
    assert run_command(file).code == 0
    created = [run for run in project.ml.find_executions() if run.execution_rid not in before]
    (parent,) = (run for run in created if run.description == "Run of uses.ipynb")
    (child,) = parent.list_nested_executions()
    assert {run.execution_rid for run in created} == {parent.execution_rid, child.execution_rid}
    assert (output_names(parent), output_names(child)) == ({"uses.ipynb", "uses.html"}, {"theirs.txt"})
    assert {parent.status, child.status} == {Status.completed}
