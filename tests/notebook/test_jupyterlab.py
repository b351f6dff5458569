"""Notebooks in two JupyterLab servers at once, one with a token and one with a password."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from notebooks import Project, ask, write_notebook

for name in ("jupyterlab", "sklearn", "PIL"):
    pytest.importorskip(name, reason=f"{name}, which these notebooks need, is not installed")

from labs import PASSWORD, Lab, connected, started  # noqa: E402 - which imports some of them

pytestmark = pytest.mark.usefixtures("at_home")

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.ipynb"
DIGITS = "some where/digits.ipynb"
SMALL = "deep/er/small.ipynb"
ASKS = (
    "import json, warnings\nfrom deriva_ml import Workflow",
    "with warnings.catch_warnings(record=True) as said:\n"
    "    warnings.simplefilter('always')\n"
    "    workflow = Workflow(name='Small', workflow_type='Training')\n"
    "print(json.dumps([workflow.url, workflow.checksum, [str(each.message) for each in said]]))",
)


@pytest.fixture(scope="module")
def committed(project: Project) -> str:
    """The commit that has the example and a small notebook."""
    (project.root / DIGITS).parent.mkdir()
    shutil.copy(EXAMPLE, project.root / DIGITS)
    write_notebook(project.root / "notes" / SMALL, *ASKS)
    return project.commit()


@pytest.fixture(scope="module")
def labs(project: Project, committed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Lab]]:
    """Two servers that share what describes them: one for the project, one for a folder of it."""
    from jupyter_server.auth import passwd

    folder = tmp_path_factory.mktemp("labs")
    (folder / "runtime").mkdir()
    hashed = passwd(PASSWORD, algorithm="sha256")
    processes = {
        "token": started(project.root, folder, "token", "--IdentityProvider.token=a-token-of-ours"),
        "password": started(
            project.root / "notes", folder, "password", f"--PasswordIdentityProvider.hashed_password={hashed}"
        ),
    }
    try:
        yield {name: connected(process, folder, name) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(60)


def test_the_example_in_jupyterlab_and_from_a_terminal(project: Project, committed: str, labs: dict[str, Lab]) -> None:
    """One workflow, whoever runs it and how often: the notebook's, at its commit, also once outputs are saved in it."""
    cells = [cell["source"] for cell in nbformat.read(EXAMPLE, as_version=4)["cells"] if cell["cell_type"] == "code"]
    lab = labs["token"]
    kernel = lab.open(DIGITS)
    lab.save(DIGITS, lab.run(kernel, *cells))
    assert project.git("diff", "--name-only").strip('"') == DIGITS
    tried = [cells[0] + "\nepochs = 1", *cells[1:]]  # and not saved
    lab.run(kernel, *tried)
    said = ask(project.root / DIGITS, "-p", "epochs", "2")
    assert said.code == 0, said
    executions = project.ml.find_executions()
    assert [each.description for each in executions] == [f"{epochs} epochs at 0.005" for epochs in (2, 1, 12)]
    (rid,) = {each.workflow_rid for each in executions}
    assert rid
    workflow = project.ml.lookup_workflow(rid)
    assert workflow.url == f"https://github.com/org/repo/blob/{committed}/some%20where/digits.ipynb"
    assert workflow.checksum == project.git("rev-parse", f"HEAD:{DIGITS}")
    outputs = [{asset.filename for asset in each.list_assets("Output")} for each in executions]
    assert all({"digits.npz", "metrics.jsonl"} <= names for names in outputs)
    assert [{"digits.ipynb", "digits.html"} <= names for names in outputs] == [True, False, False]
    sources = [each.working_dir / "records" for each in executions]
    told = [json.loads(next(folder.glob("environment_snapshot_*.json")).read_text())["source"] for folder in sources]
    assert {(each["dirty"], each["path"]) for each in told} == {(False, str(project.root / DIGITS))}


def test_a_server_with_a_password(committed: str, labs: dict[str, Lab]) -> None:
    """It answers no kernel that asks without a login; the notebook is found all the same, in a folder of a folder."""
    lab = labs["password"]
    url, _, said = json.loads(lab.run(lab.open(SMALL), *ASKS)[-1])
    assert url == f"https://github.com/org/repo/blob/{committed}/notes/deep/er/small.ipynb"
    assert said == []
