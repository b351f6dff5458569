"""What a notebook's first cell calls: its configuration composed, its execution made, both handed over."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.kernel_registry import REGISTRY_VARIABLE
from deriva_ml_core.runner.configs import CONFIG_FOLDERS, CONFIG_GROUPS, find_config_folder, load_config_folder
from deriva_ml_core.runner.connection_config import DerivaMLConfig
from deriva_ml_core.runner.notebook.execute import start_execution

if TYPE_CHECKING:
    from deriva_ml_core.runner.plan import Plan

__all__ = ["CONFIG_FOLDER_VARIABLE", "OVERRIDES_VARIABLE", "BaseConfig", "notebook_config", "run_notebook"]

OVERRIDES_VARIABLE = "DERIVA_ML_HYDRA_OVERRIDES"
"""The variable that brings the command line's overrides to the notebook, as a JSON list."""

CONFIG_FOLDER_VARIABLE = "DERIVA_ML_CONFIG_DIR"
"""The variable that names the folder of configs, where the command line does."""

NOTEBOOK_GROUPS = ("deriva_ml", "datasets", "assets")
"""The groups that every notebook's configuration chooses from."""


@dataclass
class BaseConfig:
    """What every notebook's configuration has; make a dataclass of it that has the notebook's own fields too.

    Args:
        deriva_ml: The catalog.
        datasets: The datasets that go in.
        assets: The assets that go in.
        description: What the run is for.
        workflow: What runs; by default the notebook.
        dry_run: Whether to write nothing to catalog and store.
    """

    deriva_ml: Any = None
    datasets: Any = None
    assets: Any = None
    description: str = ""
    workflow: Any = None
    dry_run: bool = False


def notebook_config(
    name: str,
    config_class: type[BaseConfig] = BaseConfig,
    defaults: Mapping[str, str] | None = None,
    description: str = "",
) -> None:
    """Store the configuration of a notebook, in a module of the project's configs.

    Args:
        name: What `run_notebook` calls it.
        config_class: The class that its values become.
        defaults: Which config is chosen in a group, such as ``{"assets": "last_runs"}``; in ``deriva_ml``,
            ``datasets`` and ``assets`` the standard one where nothing is said.
        description: What runs are for where nothing else is said.
    """
    from hydra_zen import builds, store

    chosen = {**{group: CONFIG_GROUPS[group] for group in NOTEBOOK_GROUPS}, **(defaults or {})}
    made = builds(
        config_class,
        populate_full_signature=True,
        hydra_convert="all",
        hydra_defaults=["_self_", *({group: each} for group, each in chosen.items())],
        description=description,
    )
    store(made, name=name)


def run_notebook(
    config_name: str,
    overrides: Sequence[str] = (),
    workflow_name: str | None = None,
    workflow_type: str = "Evaluation",
    ml_class: type[DerivaML] | None = None,
) -> tuple[DerivaML, Execution, Any]:
    """Make a notebook's execution from its configuration.

    Under ``deriva-ml-run-notebook`` the execution runs from here on, ends as the notebook does, and is uploaded then.
    In Jupyter, put what it is to run into ``with execution:``, and call ``execution.upload_execution_outputs()``.

    Args:
        config_name: The configuration, as `notebook_config` stored it.
        overrides: Overrides of hydra's; those of the command line stand above them.
        workflow_name: What the notebook is called in the catalog; by default as the configuration, in words.
        workflow_type: A term of the vocabulary Workflow_Type.
        ml_class: The class of the client, one that is made of `DerivaML`; by default that itself.

    Returns:
        The client, the execution, and the configuration with its values.

    Raises:
        ConfigurationError: There is no such configuration, or it cannot be used.
    """
    from deriva_ml_core.runner.hydra_files import config_choices, render_hydra_files, to_json_value
    from deriva_ml_core.runner.plan import make_plan
    from deriva_ml_core.runner.run_model import create_execution

    folder = _find_notebook_config_folder()
    load_config_folder(folder)
    told = [*overrides, *json.loads(os.environ.get(OVERRIDES_VARIABLE) or "[]")]
    with _translate_hydra_errors(config_name):
        plan = make_plan(folder, config_name, told, multirun=False)
    config = _instantiate_config(config_name, plan)
    ml = config.deriva_ml.connect(ml_class)
    name = workflow_name or config_name.replace("_", " ").title()
    configuration = ExecutionConfiguration(
        workflow=config.workflow or ml.create_workflow(name, workflow_type),
        description=config.description,
        datasets=config.datasets or (),
        assets=config.assets or (),
        parameters={
            "config_name": config_name,
            "config_choices": dict(config_choices(plan.hydra)),
            "overrides": list(told),
            "config": to_json_value(plan.config),
        },
    )
    execution = create_execution(ml, configuration, render_hydra_files(plan.config, plan.hydra), dry_run=config.dry_run)
    if REGISTRY_VARIABLE in os.environ:
        start_execution(execution)
    return ml, execution, config


def _find_notebook_config_folder() -> Path:
    """The folder of configs that the command named, else the nearest one above the notebook."""
    if named := os.environ.get(CONFIG_FOLDER_VARIABLE):
        return find_config_folder(Path(named))
    here = Path(os.environ.get("DERIVA_ML_NOTEBOOK_PATH") or Path.cwd() / "notebook").absolute()
    for above in here.parents:
        for folder in CONFIG_FOLDERS:
            if (above / folder).is_dir():
                return find_config_folder(above / folder)
    raise ConfigurationError(
        f"There is neither {' nor '.join(map(str, CONFIG_FOLDERS))} in {here.parent} or above it: name the folder of "
        f"configs with --config-dir, or set {CONFIG_FOLDER_VARIABLE}."
    )


@contextmanager
def _translate_hydra_errors(config_name: str) -> Iterator[None]:
    """Say what hydra finds wrong as an error of ours."""
    from hydra.errors import HydraException

    try:
        yield
    except HydraException as error:
        raise ConfigurationError(f"The configuration {config_name!r} cannot be made: {error}") from error


def _instantiate_config(config_name: str, plan: Plan) -> Any:
    from hydra_zen import instantiate

    if plan.is_sweep:
        raise ConfigurationError(f"A notebook runs once, and {', '.join(plan.sweep_overrides)} asks for several runs.")
    try:
        made = instantiate(plan.config)
    except Exception as error:
        cause = error.__cause__ or error
        raise ConfigurationError(f"The configuration {config_name!r} cannot be used: {cause}") from error
    if not isinstance(made, BaseConfig) or not isinstance(made.deriva_ml, DerivaMLConfig):
        raise ConfigurationError(f"{config_name!r} is no configuration of a notebook: store it by notebook_config().")
    return made
