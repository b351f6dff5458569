"""The record of a notebook that does not use this package, run by ``deriva-ml-run-notebook``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from notebooks import Project, Result, run_command, write_notebook

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
    "import os\nwith open('environ.txt', 'w') as file:\n    file.write(' '.join(os.environ))",
)


@pytest.fixture(scope="module")
def ran(project: Project) -> Result:
    """The result of running a committed notebook in a subfolder."""
    file = write_notebook(
        project.root / "notes" / "my {x} notebook.ipynb", *CELLS, parameters="epochs = 1\nname = ''\ntoken = ''"
    )
    project.commit()
    parameters = project.root.parent / "parameters.yaml"
    parameters.write_text("epochs: 7\nname: from the file\n")
    options = ("-f", parameters, "-p", "name", "2E5", "-p", "token", SECRET)
    return run_command(file, *options, "--description", "Just looking")


@pytest.fixture(scope="module")
def execution(project: Project, ran: Result) -> RecordedExecution:
    """The only execution of the project."""
    (execution,) = project.ml.find_executions()
    return execution


@pytest.fixture(scope="module")
def outputs(execution: RecordedExecution, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The notebook's outputs, downloaded from the store, by file name suffix."""
    folder = tmp_path_factory.mktemp("outputs")
    assets = [asset for asset in execution.list_assets("Output") if "Notebook_Output" in asset.asset_types]
    assert {asset.table for asset in assets} == {"Execution_Asset"}
    files = [download_asset(execution._connection, asset, folder) for asset in assets]
    return {file.suffix: file for file in files}


def test_execution_is_created(ran: Result, execution: RecordedExecution) -> None:
    """A notebook that creates no execution gets one: Completed, with duration and description, and its RID printed."""
    assert (ran.code, execution.status, execution.description) == (0, Status.completed, "Just looking")
    assert ran.stdout == f"{execution.execution_rid}  Completed  {execution.url}\n"
    assert [update.status for update in execution.list_statuses()] == [Status.created, Status.running, Status.completed]
    assert execution.duration


def test_no_progress_bar_without_a_terminal(ran: Result) -> None:
    """Without a terminal, only one line is printed."""
    assert (ran.stdout.count("\n"), ran.stderr) == (1, "")


def test_workflow_is_the_notebook(project: Project, execution: RecordedExecution) -> None:
    """The workflow has the notebook's URL at its commit, and Git's hash of the notebook without outputs."""
    workflow = execution._connection.catalog.select("Workflow", {"RID": execution.workflow_rid})[0]
    head, path = project.git("rev-parse", "HEAD"), "notes/my {x} notebook.ipynb"
    assert workflow["URL"] == f"https://github.com/org/repo/blob/{head}/notes/my%20%7Bx%7D%20notebook.ipynb"
    assert workflow["Checksum"] == blob_hash(project.root / path)
    assert (workflow["Name"], workflow["Workflow_Type"]) == ("my {x} notebook.ipynb", "Evaluation")


def test_parameters(outputs: dict[str, Path]) -> None:
    """Parameters of the command line override the file's, and have the type of the notebook's default."""
    executed = nbformat.read(outputs[".ipynb"], as_version=4)
    printed = [output["text"] for cell in executed.cells for output in cell.get("outputs", []) if "text" in output]
    assert printed[0].startswith("epochs 8 2E5 ")


def test_executed_notebook(outputs: dict[str, Path], execution: RecordedExecution) -> None:
    """The executed notebook is valid, has the original code and the outputs, and contains no local path."""
    executed = nbformat.read(outputs[".ipynb"], as_version=4)
    nbformat.validate(executed)
    sources = [cell.source for cell in executed.cells if "injected-parameters" not in cell.metadata.tags]
    assert sources[1:] == list(CELLS)
    assert any("image/png" in output.get("data", {}) for cell in executed.cells for output in cell.outputs)
    assert str(execution._connection.folder.parent) not in json.dumps(executed.metadata)


def test_html_page(outputs: dict[str, Path]) -> None:
    """The HTML page embeds the images, fetches nothing, and does not execute outputs of cells."""
    page = outputs[".html"].read_text(encoding="utf-8")
    assert PICTURE in page
    assert "default-src 'none'" in page.partition("<body>")[0]
    assert re.findall(r'<(?:link|script|img)[^>]*(?:src|href)="http[^"]*"', page.partition("<body>")[0]) == []
    assert "epochs 8 2E5" in page


def test_secret_parameter_is_not_stored(project: Project, ran: Result, execution: RecordedExecution) -> None:
    """The value of ``token`` is in no file of the run and not printed, although a cell prints it."""
    assert SECRET not in ran.stdout + ran.stderr
    files = [file for file in project.home.rglob("*") if file.is_file()]
    assert len(files) > 5
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


@pytest.mark.parametrize("option", [("-p", "token"), ("-ptoken",), ("--parameter", "token"), ("--parameter=token",)])
def test_secret_is_redacted_from_the_command(option: tuple[str, ...]) -> None:
    """In each spelling of the option, only the value of a secret parameter is redacted from the recorded command."""
    from deriva_ml_core.runner.notebook.cli import _redact_command

    command = ["deriva-ml-run-notebook", "a.ipynb", *option, SECRET, "-p", "name", "x"]
    assert _redact_command(command) == [*command[:2], *option, "[redacted: token]", "-p", "name", "x"]


def test_records_to_reproduce_the_run(execution: RecordedExecution) -> None:
    """The command, its working directory, the repository's HEAD and each parameter are recorded."""
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


def test_kernel_runs_in_the_folder_of_the_notebook(project: Project, ran: Result) -> None:
    """The kernel's working directory is the notebook's folder, and its environment identifies the notebook."""
    environ = (project.root / "notes" / "environ.txt").read_text()
    for variable in ("DERIVA_ML_WORKFLOW_URL", "DERIVA_ML_WORKFLOW_CHECKSUM", "DERIVA_ML_NOTEBOOK_PATH"):
        assert variable in environ


def test_scratch_folder_is_deleted(project: Project, ran: Result) -> None:
    """The scratch folder, which contained secrets, is deleted."""
    assert list((project.home / "local" / "notebooks").iterdir()) == []
