"""Notebooks whose cells make executions: what the notebook left is attached to these, and they end as it did."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from notebooks import OWN, Project, begun, run_command, write_notebook

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import RecordedExecution

pytestmark = pytest.mark.usefixtures("at_home")

OURS = OWN.format(address="")


def outputs(execution: RecordedExecution) -> set[str]:
    """The names of what came out of it that are no records."""
    return {asset.filename for asset in execution.list_assets("Output") if asset.table != "Execution_Metadata"}


def only(project: Project, since: set[str]) -> RecordedExecution:
    """The one execution that is there now and was not before."""
    (found,) = (each for each in project.ml.find_executions() if each.execution_rid not in since)
    return found


@pytest.fixture
def before(project: Project) -> set[str]:
    """The executions that are there before."""
    return {each.execution_rid for each in project.ml.find_executions()}


def test_a_cell_fails_after_its_execution_has_completed(project: Project, before: set[str]) -> None:
    """There is one execution, the notebook's own; it is Failed, the cell and the error are named, all is uploaded."""
    cell = OURS + "with execution:\n    execution.asset_file_path('Model', 'model.txt').write_text('weights')"
    file = write_notebook(
        project.root / "own.ipynb", cell, "key = api_key\n{}[key]", "print('never')", parameters="api_key = ''"
    )
    head = project.commit()
    result = run_command(file, "-p", "api_key", "correct-horse")
    execution = only(project, before)
    reason = "cell 3 (In [4]) of own.ipynb raised KeyError: '[redacted]'"
    assert (result.code, result.stderr) == (1, f"error: {reason}\n")
    assert (execution.status, execution.status_detail) == (Status.failed, f"NotebookFailed: {reason}")
    assert outputs(execution) == {"own.ipynb", "own.html", "model.txt"}
    workflow = project.ml.lookup_workflow(execution.workflow_rid)
    assert (workflow.name, workflow.url) == ("Mine", f"https://github.com/org/repo/blob/{head}/own.ipynb")
    (snapshot,) = (execution.working_dir / "records").glob("environment_snapshot_*.json")
    found = json.loads(snapshot.read_text())
    assert found["repository"]["head"] == head
    assert found["environment"]["argv"] == [
        *("deriva-ml-run-notebook", str(file)),
        *("-p", "api_key", "[redacted: api_key]"),
    ]
    assert found["source"] | {"kind": "environment", "path": str(file), "dirty": False} == found["source"]


def test_a_kernel_that_is_killed(project: Project, before: set[str]) -> None:
    """The execution that ran is Failed, not forgotten: with what was executed so far, and what was staged."""
    (project.root / "ours.py").write_text(OURS)  # a module of the user's may make the execution too
    cell = "from ours import execution\nexecution.__enter__()\n"
    cell += "execution.asset_file_path('Model', 'model.txt').write_text('half')"
    kill = "print('so far', flush=True)\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    file = write_notebook(project.root / "killed.ipynb", cell, kill, "print('never')")
    project.commit()
    result = run_command(file)
    execution = only(project, before)
    assert result.code == 1
    assert "The kernel died in cell 2 (In [2]) of killed.ipynb" in result.stderr
    assert execution.status is Status.failed
    assert "kernel died in cell 2" in execution.status_detail
    assert outputs(execution) == {"killed.ipynb", "killed.html", "model.txt"}
    assert [update.status for update in execution.list_statuses()] == [Status.created, Status.running, Status.failed]


def test_another_catalog_and_another_file(project: Project, before: set[str]) -> None:
    """What is made in another catalog is found there, by a relative address too; another file's code is not meant.

    A program that the notebook begins has its own source, and its execution is its own.
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
    found = {other.lookup_workflow(each.workflow_rid).url.rpartition("/")[2]: each for each in other.find_executions()}
    assert len(other.find_executions()) == 3
    assert outputs(found["elsewhere.ipynb"]) == {"elsewhere.ipynb", "elsewhere.html"}
    assert found["elsewhere.ipynb"].status is Status.completed
    assert outputs(found["prepare.py"]) == set()
    assert {each.execution_rid for each in project.ml.find_executions()} == before


def test_none_and_a_dry_run(project: Project, before: set[str]) -> None:
    """A notebook that opens a catalog and makes nothing gets an execution at its end; one that only tries gets none.

    A cell whose tag says that it is to raise an error fails nothing, as in Jupyter.
    """
    looks = "from deriva_ml import DerivaML\nDerivaML().find_executions()"
    file = write_notebook(project.root / "looks.ipynb", looks, intended="1 / 0")
    cell = OURS.replace(", workflow=workflow", ", workflow=workflow, dry_run=True")
    trial = write_notebook(project.root / "tries.ipynb", cell)
    project.commit()
    assert run_command(file).code == 0
    execution = only(project, before)
    assert (execution.status, outputs(execution)) == (Status.completed, {"looks.ipynb", "looks.html"})
    assert execution.start_time is not None
    result = run_command(trial)
    assert (result.code, result.stdout) == (0, "The notebook made a dry run, so nothing is recorded.\n")
    assert only(project, before).execution_rid == execution.execution_rid


def test_sigterm(project: Project, before: set[str]) -> None:
    """The command, told to end, ends its notebook: Aborted, with what was executed so far, and the signal's code."""
    mark = project.root / "begun"
    file = write_notebook(project.root / "long.ipynb", "open('begun', 'w').close()", "import time\ntime.sleep(600)")
    process = begun(file, folder=project.root)
    while not mark.exists():
        assert process.poll() is None, process.communicate()
    process.terminate()
    _, stderr = process.communicate(timeout=120)
    execution = only(project, before)
    assert (process.returncode, execution.status) == (143, Status.aborted), stderr
    assert outputs(execution) == {"long.ipynb", "long.html"}
    assert execution.status_detail.startswith("SIGTERM")


def test_what_a_killed_command_left_goes_with_the_next(project: Project) -> None:
    """The cells that ran before kill -9 are kept no longer than until another notebook runs: secrets may be in them."""
    mark, kept = project.root / "lasting", project.home / "local" / "notebooks"
    told = set(kept.iterdir()) if kept.exists() else set()  # by tests before this one
    cell = "open('lasting', 'w').close()\nimport time\ntime.sleep(600)"
    process = begun(write_notebook(project.root / "lasting.ipynb", cell), folder=project.root)
    while not mark.exists():
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate(timeout=120)
    assert len(set(kept.iterdir()) - told) == 1
    short = write_notebook(project.root / "short.ipynb", "1")
    project.commit()
    assert run_command(short).code == 0
    assert set(kept.iterdir()) - told == set()


def test_a_store_that_takes_nothing(project: Project, before: set[str]) -> None:
    """What cannot be uploaded stays staged and is not lost: the words say so, and where the executed notebook lies."""
    objects, aside = project.home / "local" / "objects", project.home / "aside"
    spoil = f"import os\nos.rename({str(objects)!r}, {str(aside)!r})\nopen({str(objects)!r}, 'w').close()"
    file = write_notebook(project.root / "spoils.ipynb", spoil)
    project.commit()
    try:
        result = run_command(file)
    finally:
        objects.unlink()
        aside.rename(objects)
    execution = only(project, before)
    assert (result.code, execution.status) == (1, Status.completed)
    assert "stay staged" in result.stderr
    lying = Path(re.findall(r"as it was executed lies in (.*)\.$", result.stderr, re.M)[0])
    assert "os.rename" in lying.read_text()
    sent = project.ml.restore_execution(execution.execution_rid).upload_execution_outputs()
    assert {asset.filename for asset in sent["Execution_Asset"]} == {"spoils.ipynb", "spoils.html"}


def test_what_an_installed_package_makes(project: Project, before: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook that is on record from its beginning stays so; what a package makes in it is nested, and ended too."""
    package = project.root.parent / "site-packages" / "theirs.py"
    package.parent.mkdir()
    package.write_text(OURS + "execution.asset_file_path('Model', 'theirs.txt').write_text('theirs')\n")
    monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
    file = write_notebook(project.root / "uses.ipynb", "import theirs")
    project.commit()
    assert run_command(file).code == 0
    new = [each for each in project.ml.find_executions() if each.execution_rid not in before]
    (parent,) = (each for each in new if each.description == "Run of uses.ipynb")
    (child,) = parent.list_nested_executions()
    assert {each.execution_rid for each in new} == {parent.execution_rid, child.execution_rid}
    assert (outputs(parent), outputs(child)) == ({"uses.ipynb", "uses.html"}, {"theirs.txt"})
    assert {parent.status, child.status} == {Status.completed}
