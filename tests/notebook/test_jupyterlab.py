"""Notebooks in two running JupyterLab servers, one with a token and one with a password."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from notebooks import Project, run_command, write_notebook

for name in ("jupyterlab", "sklearn", "PIL"):
    pytest.importorskip(name, reason=f"{name}, needed by these notebooks, is not installed")

from labs import PASSWORD, Lab, connect_lab, start_lab  # noqa: E402 - the module imports some of these packages

pytestmark = pytest.mark.usefixtures("project_home")

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.ipynb"
DIGITS = "some where/digits.ipynb"
SMALL = "deep/er/small.ipynb"
DETECTION_CELLS = (
    "import json, warnings\nfrom deriva_ml import Workflow",
    "with warnings.catch_warnings(record=True) as caught:\n"
    "    warnings.simplefilter('always')\n"
    "    workflow = Workflow(name='Small', workflow_type='Training')\n"
    "print(json.dumps([workflow.url, workflow.checksum, [str(warning.message) for warning in caught]]))",
)


@pytest.fixture(scope="module")
def committed(project: Project) -> str:
    """The hash of the commit that contains the example and a small notebook."""
    (project.root / DIGITS).parent.mkdir()
    shutil.copy(EXAMPLE, project.root / DIGITS)
    write_notebook(project.root / "notes" / SMALL, *DETECTION_CELLS)
    return project.commit()


@pytest.fixture(scope="module")
def labs(project: Project, committed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Lab]]:
    """Two servers with a common runtime folder: one for the project, and one for a subfolder."""
    from jupyter_server.auth import passwd

    folder = tmp_path_factory.mktemp("labs")
    (folder / "runtime").mkdir()
    hashed = passwd(PASSWORD, algorithm="sha256")
    processes = {
        "token": start_lab(project.root, folder, "token", "--IdentityProvider.token=a-token"),
        "password": start_lab(
            project.root / "notes", folder, "password", f"--PasswordIdentityProvider.hashed_password={hashed}"
        ),
    }
    try:
        yield {name: connect_lab(process, folder, name) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(60)


def test_same_workflow_in_jupyterlab_and_terminal(project: Project, committed: str, labs: dict[str, Lab]) -> None:
    """Runs in JupyterLab and from a terminal share one workflow, even after outputs are saved in the notebook."""
    cells = [cell["source"] for cell in nbformat.read(EXAMPLE, as_version=4)["cells"] if cell["cell_type"] == "code"]
    lab = labs["token"]
    kernel = lab.open(DIGITS)
    lab.save(DIGITS, lab.run(kernel, *cells))
    assert project.git("diff", "--name-only").strip('"') == DIGITS
    unsaved = [cells[0] + "\nepochs = 1", *cells[1:]]
    lab.run(kernel, *unsaved)
    result = run_command(project.root / DIGITS, "-p", "epochs", "2")
    assert result.code == 0, result
    executions = project.ml.find_executions()
    assert [run.description for run in executions] == [f"{epochs} epochs at 0.005" for epochs in (2, 1, 12)]
    (rid,) = {run.workflow_rid for run in executions}
    assert rid
    workflow = project.ml.lookup_workflow(rid)
    assert workflow.url == f"https://github.com/org/repo/blob/{committed}/some%20where/digits.ipynb"
    assert workflow.checksum == project.git("rev-parse", f"HEAD:{DIGITS}")
    outputs = [{asset.filename for asset in run.list_assets("Output")} for run in executions]
    assert all({"digits.npz", "metrics.jsonl"} <= names for names in outputs)
    assert [{"digits.ipynb", "digits.html"} <= names for names in outputs] == [True, False, False]
    folders = [run.working_dir / "records" for run in executions]
    snapshots = [json.loads(next(folder.glob("environment_snapshot_*.json")).read_text()) for folder in folders]
    sources = [snapshot["source"] for snapshot in snapshots]
    assert {(source["dirty"], source["path"]) for source in sources} == {(False, str(project.root / DIGITS))}


def test_notebook_on_a_server_with_a_password(committed: str, labs: dict[str, Lab]) -> None:
    """A notebook in a nested folder is detected although the server rejects requests without a login."""
    lab = labs["password"]
    url, _, messages = json.loads(lab.run(lab.open(SMALL), *DETECTION_CELLS)[-1])
    assert url == f"https://github.com/org/repo/blob/{committed}/notes/deep/er/small.ipynb"
    assert messages == []
