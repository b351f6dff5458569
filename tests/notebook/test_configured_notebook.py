"""A notebook that asks for its configuration: composed of the project's configs with what the command line says."""

from __future__ import annotations

import json

import pytest
from notebooks import Project, ask, write_notebook

pytest.importorskip("hydra_zen", reason="hydra-zen, which configures notebooks, is not installed")

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.runner.notebook.kernel_api import run_notebook

pytestmark = pytest.mark.usefixtures("at_home")

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
    """Overrides and address of the command line count; the execution runs from the call on, to the notebook's end."""
    configs = project.root / "src" / "configs"
    configs.mkdir(parents=True)
    (configs / "__init__.py").touch()
    (configs / "roc.py").write_text(CONFIGS)
    file = write_notebook(project.root / "notebooks" / "roc.ipynb", *CELLS)
    head = project.commit()
    elsewhere = f"file:{project.root.parent}/it's elsewhere"
    said = ask(file, "threshold=0.7", "assets=no_runs", "--host", elsewhere)
    assert said.code == 0, said
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


def test_no_configs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are no configs the words say where they were looked for; an unknown folder is named."""
    monkeypatch.chdir(project.root.parent)
    with pytest.raises(ConfigurationError, match="neither src/configs nor configs"):
        run_notebook("roc")
    monkeypatch.setenv("DERIVA_ML_CONFIG_DIR", "none")
    with pytest.raises(ConfigurationError, match="none"):
        run_notebook("roc")
