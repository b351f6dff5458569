"""A notebook that knows nothing of us, run by the command: all that is on record of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from notebooks import Result, run_command, write_notebook

from conftest import Project
from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import RecordedExecution
from deriva_ml_core.git import blob_hash

SECRET = "correct-horse-battery"
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
CELLS = (
    "print('epochs', epochs + 1, name, token)",
    f"from base64 import b64decode\nfrom IPython.display import Image\nImage(b64decode('{PICTURE}'))",
    "from IPython.display import HTML\nHTML('<script src=\"https://example.org/x.js\"></script><b>bold</b>')",
    "import os\nwith open('beside.txt', 'w') as file:\n    file.write(' '.join(os.environ))",
)


@pytest.fixture(scope="module")
def ran(project: Project) -> Result:
    """What the command result of a committed notebook in a sub-folder."""
    file = write_notebook(
        project.root / "notes" / "my {x} notebook.ipynb", *CELLS, parameters="epochs = 1\nname = ''\ntoken = ''"
    )
    project.commit()
    parameters = project.root.parent / "parameters.yaml"
    parameters.write_text("epochs: 7\nname: from the file\n")
    given = ("-f", parameters, "-p", "name", "2E5", "-p", "token", SECRET)
    return run_command(file, *given, "--description", "Just looking")


@pytest.fixture(scope="module")
def execution(project: Project, ran: Result) -> RecordedExecution:
    """Its only execution."""
    (found,) = project.ml.find_executions()
    return found


@pytest.fixture(scope="module")
def outputs(execution: RecordedExecution, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What it left, by the ends of the files' names, as it comes from the store."""
    folder = tmp_path_factory.mktemp("outputs")
    left = [asset for asset in execution.list_assets("Output") if "Notebook_Output" in asset.asset_types]
    assert {asset.table for asset in left} == {"Execution_Asset"}
    files = [download_asset(execution._connection, asset, folder) for asset in left]
    return {file.suffix: file for file in files}


def test_it_gets_an_execution(ran: Result, execution: RecordedExecution) -> None:
    """It makes none, so one is made: Completed, with its duration, its description, and its record id on the screen."""
    assert (ran.code, execution.status, execution.description) == (0, Status.completed, "Just looking")
    assert ran.stdout == f"{execution.execution_rid}  Completed  {execution.url}\n"
    assert [update.status for update in execution.list_statuses()] == [Status.created, Status.running, Status.completed]
    assert execution.duration


def test_no_bar_off_a_terminal(ran: Result) -> None:
    """Nothing but its one line is written where nobody looks."""
    assert (ran.stdout.count("\n"), ran.stderr) == (1, "")


def test_its_workflow_is_the_notebook(project: Project, execution: RecordedExecution) -> None:
    """The URL is that of its commit, the checksum git's own of the notebook without outputs."""
    workflow = execution._connection.catalog.select("Workflow", {"RID": execution.workflow_rid})[0]
    head, place = project.git("rev-parse", "HEAD"), "notes/my {x} notebook.ipynb"
    assert workflow["URL"] == f"https://github.com/org/repo/blob/{head}/notes/my%20%7Bx%7D%20notebook.ipynb"
    assert workflow["Checksum"] == blob_hash(project.root / place)
    assert (workflow["Name"], workflow["Workflow_Type"]) == ("my {x} notebook.ipynb", "Evaluation")


def test_the_parameters_arrive(outputs: dict[str, Path]) -> None:
    """Those of the command line stand above the file's, and keep the type of the notebook's default."""
    executed = nbformat.read(outputs[".ipynb"], as_version=4)
    printed = [output["text"] for cell in executed.cells for output in cell.get("outputs", []) if "text" in output]
    assert printed[0].startswith("epochs 8 2E5 ")


def test_the_executed_notebook_runs_again(outputs: dict[str, Path], execution: RecordedExecution) -> None:
    """It is valid, has what each cell gave, and no path of this machine; what was stripped of it is the same code."""
    executed = nbformat.read(outputs[".ipynb"], as_version=4)
    nbformat.validate(executed)
    sources = [cell.source for cell in executed.cells if "injected-parameters" not in cell.metadata.tags]
    assert sources[1:] == list(CELLS)
    assert any("image/png" in output.get("data", {}) for cell in executed.cells for output in cell.outputs)
    assert str(execution._connection.folder.parent) not in json.dumps(executed.metadata)


def test_the_page_is_whole(outputs: dict[str, Path]) -> None:
    """The page has the picture in it, asks for nothing from elsewhere, and executes nothing that a cell put out."""
    page = outputs[".html"].read_text(encoding="utf-8")
    assert PICTURE in page
    assert "default-src 'none'" in page.partition("<body>")[0]
    assert re.findall(r'<(?:link|script|img)[^>]*(?:src|href)="http[^"]*"', page.partition("<body>")[0]) == []
    assert "epochs 8 2E5" in page


def test_a_secret_parameter_is_nowhere(project: Project, ran: Result, execution: RecordedExecution) -> None:
    """What was given for ``token`` is in no file that the run left, though a cell printed it, and on no screen."""
    assert SECRET not in ran.stdout + ran.stderr
    files = [file for file in project.home.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


@pytest.mark.parametrize("words", [("-p", "token"), ("-ptoken",), ("--parameter", "token"), ("--parameter=token",)])
def test_a_secret_is_hidden_in_each_spelling(words: tuple[str, ...]) -> None:
    """The command that is recorded loses a secret parameter's value however the option is written, and nothing else."""
    from deriva_ml_core.runner.notebook.cli import _redact_command

    command = ["deriva-ml-run-notebook", "a.ipynb", *words, SECRET, "-p", "name", "x"]
    assert _redact_command(command) == [*command[:2], *words, "[redacted: token]", "-p", "name", "x"]


def test_what_reproduces_it(execution: RecordedExecution) -> None:
    """The record has the command with its words, its folder, the repository's HEAD, and each parameter."""
    records = execution.working_dir / "records"
    (snapshot,) = (json.loads(file.read_text()) for file in records.glob("environment_snapshot_*.json"))
    environment, argv = snapshot["environment"], snapshot["environment"]["argv"]
    assert argv[:1] == ["deriva-ml-run-notebook"]
    assert argv[1].endswith("my {x} notebook.ipynb")
    assert argv[argv.index("name") - 1 :][:3] == ["-p", "name", "2E5"]
    assert argv[argv.index("token") + 1] == "[redacted: token]"
    assert environment["working_directory"] == str(Path.cwd())
    assert snapshot["source"]["path"].endswith("my {x} notebook.ipynb")
    assert snapshot["repository"]["head"]
    configuration = json.loads((records / "configuration.json").read_text())
    assert configuration["parameters"]["parameters"] == {"epochs": 7, "name": "2E5", "token": "[redacted: token]"}
    assert configuration["parameters"]["kernel"] == "python3"


def test_the_kernel_works_beside_the_notebook(project: Project, ran: Result) -> None:
    """A relative path means what it means in JupyterLab, and the kernel is told which notebook it runs."""
    told = (project.root / "notes" / "beside.txt").read_text()
    for variable in ("DERIVA_ML_WORKFLOW_URL", "DERIVA_ML_WORKFLOW_CHECKSUM", "DERIVA_ML_NOTEBOOK_PATH"):
        assert variable in told


def test_nothing_of_the_run_lies_about(project: Project, ran: Result) -> None:
    """The folder in which the notebook was kept meanwhile, with its secrets, is gone."""
    assert list((project.home / "local" / "notebooks").iterdir()) == []
