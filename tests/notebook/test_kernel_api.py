"""Notebooks with a configuration, composed from the project's configs and the command line."""

from __future__ import annotations

import json

import pytest
from notebooks import Project, run_command, write_notebook

pytest.importorskip("hydra_zen", reason="hydra-zen, needed to configure notebooks, is not installed")

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.runner.notebook.kernel_api import run_notebook

pytestmark = pytest.mark.usefixtures("project_home")

CONFIGS = """
from dataclasses import dataclass

from hydra_zen import store

from deriva_ml.execution import BaseConfig, notebook_config


@dataclass
class Roc(BaseConfig):
    threshold: float = 0.5


notebook_config("roc", Roc, description="A curve")
store([], group="assets", name="no_runs")
"""
CELLS = (
    "from deriva_ml.execution import run_notebook\nml, execution, config = run_notebook('roc')",
    "path = execution.asset_file_path('Model', 'threshold.txt')\n"
    "path.write_text(f'{config.threshold} {config.assets} {execution.status}')",
)


def test_overrides_reach_the_configuration(project: Project) -> None:
    """Overrides and --host apply to the configuration; the execution runs from run_notebook() to the notebook's end."""
    configs = project.root / "src" / "configs"
    configs.mkdir(parents=True)
    (configs / "__init__.py").touch()
    (configs / "roc.py").write_text(CONFIGS)
    file = write_notebook(project.root / "notebooks" / "roc.ipynb", *CELLS)
    head = project.commit()
    elsewhere = f"file:{project.root.parent}/it's elsewhere"
    result = run_command(file, "threshold=0.7", "assets=no_runs", "--host", elsewhere)
    assert result.code == 0, result
    ml = DerivaML(elsewhere)
    (execution,) = ml.find_executions()
    assert (execution.status, execution.description) == (Status.completed, "A curve")
    assert ml.lookup_workflow(execution.workflow_rid).url.endswith(f"/blob/{head}/notebooks/roc.ipynb")
    outputs = {asset.filename: asset for asset in execution.list_assets("Output")}
    assert {"roc.ipynb", "roc.html", "threshold.txt", "config.yaml", "overrides.yaml", "hydra.yaml"} <= set(outputs)
    assert outputs["threshold.txt"].length == len("0.7 [] Running")
    configuration = json.loads((execution.working_dir / "records" / "configuration.json").read_text())
    assert configuration["parameters"]["config_choices"]["assets"] == "no_runs"
    assert configuration["parameters"]["config"]["threshold"] == 0.7
    assert not (project.home / "local").exists() or project.ml.find_executions() == []


def test_missing_config_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error without a config folder names the searched folders, or the folder that does not exist."""
    monkeypatch.chdir(project.root.parent)
    with pytest.raises(ConfigurationError, match="neither src/configs nor configs"):
        run_notebook("roc")
    monkeypatch.setenv("DERIVA_ML_CONFIG_DIR", "none")
    with pytest.raises(ConfigurationError, match="none"):
        run_notebook("roc")
