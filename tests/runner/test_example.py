"""The example project, run from the shell as its README describes."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import EXAMPLE, Project, make_project

from deriva_ml import DerivaML, Status
from deriva_ml_core.execution import RecordedExecution

for name in ("torch", "sklearn"):
    pytest.importorskip(name, reason=f"{name}, which the example uses, is not installed")
pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")

SWEEP = ("--multirun", "+experiment=digits_cnn", "model_config.epochs=1", "model_config.rate=0.1,-1,0.01,0.001")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the example in its own repository."""
    return make_project(tmp_path_factory.mktemp("example"), EXAMPLE)


def workflow_url(run: RecordedExecution) -> str:
    return DerivaML(str(run._connection.address.hostname)).lookup_workflow(str(run.workflow_rid)).url


def model_url(example: Project) -> str:
    return f"https://github.com/org/digits/blob/{example.git('rev-parse', 'HEAD')}/src/models/digits_cnn.py"


def test_single_run(example: Project) -> None:
    """A run of chosen configs has the model function's file at its commit as its source."""
    result = example.run("workflow=digits", "model_config=small")
    assert result.code == 0, result.stderr
    run = example.newest()
    assert (run.status, run.description) == (Status.completed, "Model execution")
    assert workflow_url(run) == model_url(example)
    assert {"digits_cnn.pt", "metrics.jsonl", "config.yaml"} <= {asset.filename for asset in run.list_assets("Output")}
    assert example.git("status", "--short") == ""  # Hydra's output is no change of the project


def test_preset_with_override(example: Project) -> None:
    """``+experiment=digits_cnn`` runs the preset with one value overridden."""
    result = example.run("+experiment=digits_cnn", "model_config.epochs=3")
    assert result.code == 0, result.stderr
    run = example.newest()
    assert run.description == "A small CNN learns handwritten digits"
    assert run.list_statuses()[-1].status is Status.completed
    assert any("Epoch 3/3" in update.message for update in run.list_statuses())
    assert workflow_url(run) == model_url(example)


@pytest.mark.parametrize("launcher", ["joblib", pytest.param("basic", marks=pytest.mark.long)])
def test_sweep_with_one_failed_job(example: Project, launcher: str) -> None:
    """With either launcher, three of four jobs complete; the sweep's execution contains them in order."""
    result = example.run(f"hydra/launcher={launcher}", *SWEEP)
    assert result.code == 1, result.stderr
    sweep = example.sweep()
    jobs = sweep.list_nested_executions()
    assert [job.status for job in jobs] == [Status.completed, Status.failed, Status.completed, Status.completed]
    rates = [rate.removesuffix(")").rpartition("=")[2] for rate in (job.description for job in jobs)]
    assert rates == ["0.1", "-1", "0.01", "0.001"]
    assert sweep.status is Status.failed
    assert sweep.status_detail == (
        f"4 of 4 jobs ended: 3 completed, 1 failed. Job 1 (execution {jobs[1].execution_rid}) failed: "
        "ValueError: rate=-1.0 must be above zero."
    )
    assert {workflow_url(run) for run in (sweep, *jobs)} == {model_url(example)}
    weights = [asset for job in jobs for asset in job.list_assets("Output") if asset.table == "Model"]
    assert len({asset.md5 for asset in weights}) == 3


def test_readme_names_existing_files() -> None:
    """Each file that the example's README names exists."""
    names = [line.split()[0] for line in (EXAMPLE / "README.md").read_text().splitlines() if line.startswith("src/")]
    assert len(names) == 4
    assert all(Path(EXAMPLE, name).is_file() for name in names)
