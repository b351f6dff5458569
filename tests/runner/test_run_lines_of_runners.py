"""The lines that the runners print on a terminal about their runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from projects import COMMAND, Project

from deriva_ml_core.assets.lookup import download_asset
from pseudo_terminal import run_in_terminal

LINE = re.compile(r"Execution (\S+) (?:of (\S+) )?(began|completed|failed|continues)\b(.*)")


def run_lines(project: Project, *arguments: str | Path) -> tuple[int, list[tuple[str, str, str]]]:
    """Run a command on a terminal; return its exit status, and RID, verb and the rest of each line about a run."""
    status, text = run_in_terminal(arguments, cwd=project.root, env=project.environment)
    return status, [(rid, verb, rest) for rid, _, verb, rest in LINE.findall(text)]


@pytest.mark.parametrize(
    ("arguments", "status", "verb"), [((), 0, "completed"), (("model_config.action=fail",), 1, "failed")]
)
def test_single_run(project: Project, arguments: tuple[str, ...], status: int, verb: str) -> None:
    """``deriva-ml-run`` prints both lines once, the last one after the upload, and no further ones through Hydra."""
    code, lines = run_lines(project, COMMAND, *arguments)
    rid = project.newest().execution_rid
    assert (code, [(each[0], each[1]) for each in lines]) == (status, [(rid, "began"), (rid, verb)])
    assert f"Details: deriva-ml show {rid}" in lines[1][2]


def test_sweep(project: Project) -> None:
    """A sweep and each of its jobs have one line at the begin and one at the end; the sweep's are the outer ones."""
    code, lines = run_lines(project, COMMAND, "--multirun", "model_config.rate=0.1,0.2")
    sweep = project.sweep()
    jobs = [job.execution_rid for job in sweep.list_nested_executions()]
    expected = [(rid, verb) for rid in jobs for verb in ("began", "completed")]
    assert (code, [each[:2] for each in lines]) == (
        0,
        [(sweep.execution_rid, "began"), *expected, (sweep.execution_rid, "completed")],
    )


def test_notebook(project: Project) -> None:
    """The notebook runner prints both lines of an execution that a cell creates, and the notebook has neither."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("papermill")
    cell = nbformat.v4.new_code_cell(
        "from deriva_ml import DerivaML, ExecutionConfiguration\nml = DerivaML()\n"
        "execution = ml.create_execution(ExecutionConfiguration(), workflow=ml.create_workflow('Mine', 'Training'))\n"
        "with execution:\n    print('inside')"
    )
    notebook = nbformat.v4.new_notebook(
        cells=[cell], metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
    )
    nbformat.write(notebook, project.root / "own.ipynb")
    code, lines = run_lines(project, Path(COMMAND).with_name("deriva-ml-run-notebook"), "own.ipynb")
    run = project.newest()
    assert (code, [each[:2] for each in lines]) == (
        0,
        [(run.execution_rid, "began"), (run.execution_rid, "completed")],
    )
    (executed,) = (asset for asset in run.list_assets("Output") if asset.filename == "own.ipynb")
    cells = nbformat.read(download_asset(run._connection, executed, project.root / "kept"), as_version=4).cells
    assert [output["text"] for each in cells for output in each.outputs if output["name"] == "stdout"] == ["inside\n"]
    assert not [output for each in cells for output in each.outputs if "Execution" in output["text"]]


@pytest.mark.parametrize(
    "arguments", [("--console",), ("console=true",), ("--console", "--multirun", "model_config.rate=0.1,0.2")]
)
def test_console_option(project: Project, arguments: tuple[str, ...]) -> None:
    """``--console`` keeps what each run prints, also in the jobs of a sweep; the lines about runs stay the same."""
    code, lines = run_lines(project, COMMAND, "model_config.action=print", *arguments)
    runs = [run for run in project.executions() if not run.list_nested_executions()][: 2 if len(arguments) > 1 else 1]
    assert code == 0
    assert [run.read_console() for run in runs] == ["learning\n"] * len(runs)
    assert len(lines) == (6 if len(arguments) > 1 else 2)
