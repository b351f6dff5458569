"""Functions for the first cell of a notebook: compose its configuration and create its execution."""

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
from deriva_ml_core.paths import to_absolute_path
from deriva_ml_core.runner.configs import CONFIG_FOLDERS, CONFIG_GROUPS, find_config_folder, load_config_folder
from deriva_ml_core.runner.connection_config import DerivaMLConfig
from deriva_ml_core.runner.notebook.execute import start_execution

if TYPE_CHECKING:
    from deriva_ml_core.runner.plan import Plan

__all__ = ["CONFIG_FOLDER_VARIABLE", "OVERRIDES_VARIABLE", "BaseConfig", "notebook_config", "run_notebook"]

OVERRIDES_VARIABLE = "DERIVA_ML_HYDRA_OVERRIDES"
"""Environment variable that passes the command line's overrides to the notebook, as a JSON list."""

CONFIG_FOLDER_VARIABLE = "DERIVA_ML_CONFIG_DIR"
"""Environment variable with the config folder, if the command line names one."""

NOTEBOOK_GROUPS = ("deriva_ml", "datasets", "assets")
"""The config groups of every notebook's configuration."""


@dataclass
class BaseConfig:
    """Base class for the configuration of a notebook. Subclass it as a dataclass to add fields.

    Args:
        deriva_ml: The connection settings of the catalog, a `DerivaMLConfig`.
        datasets: The input datasets, a list of RIDs or specs.
        assets: The input assets, a list of RIDs or specs.
        description: The description of the execution. Empty by default.
        workflow: The workflow of the execution; None (the default) for the notebook itself.
        dry_run: Whether to write nothing to the catalog and the store. False by default.
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
    """Store the configuration of a notebook. Call it in a module of the project's configs.

    Args:
        name: The name to pass to `run_notebook`.
        config_class: The class of the configuration: `BaseConfig` (the default) or a subclass of it.
        defaults: The config to choose in each group, for example ``{"assets": "last_runs"}``. The groups ``deriva_ml``,
            ``datasets`` and ``assets`` use their default configs unless named here.
        description: The default description of runs. Empty by default.
    """
    from hydra_zen import builds, store

    choices = {**{group: CONFIG_GROUPS[group] for group in NOTEBOOK_GROUPS}, **(defaults or {})}
    config = builds(
        config_class,
        populate_full_signature=True,
        hydra_convert="all",
        hydra_defaults=["_self_", *({group: choice} for group, choice in choices.items())],
        description=description,
    )
    store(config, name=name)


def run_notebook(
    config_name: str,
    overrides: Sequence[str] = (),
    workflow_name: str | None = None,
    workflow_type: str = "Evaluation",
    ml_class: type[DerivaML] | None = None,
) -> tuple[DerivaML, Execution, Any]:
    """Create the execution of a notebook from its configuration.

    Under ``deriva-ml-run-notebook`` the execution is running when this function returns. It ends with the notebook,
    and its outputs are uploaded then. In Jupyter, use ``with execution:`` around the work, and call
    ``execution.upload_execution_outputs()`` afterwards.

    Args:
        config_name: The name of the configuration, as stored by `notebook_config`.
        overrides: Hydra overrides; those of the command line take precedence. None by default.
        workflow_name: The name of the workflow; by default the name of the configuration as a title.
        workflow_type: A term of the vocabulary Workflow_Type. ``Evaluation`` by default.
        ml_class: The class of the client: `DerivaML` (the default) or a subclass of it.

    Returns:
        The client, the execution, and the instantiated configuration.

    Raises:
        ConfigurationError: The configuration does not exist or is invalid, or an override asks for several runs.
        DerivaMLException: The execution cannot be created.
    """
    from deriva_ml_core.runner.hydra_files import config_choices, render_hydra_files, to_json_value
    from deriva_ml_core.runner.model_run import create_execution
    from deriva_ml_core.runner.plan import make_plan

    folder = _find_notebook_config_folder()
    load_config_folder(folder)
    all_overrides = [*overrides, *json.loads(os.environ.get(OVERRIDES_VARIABLE) or "[]")]
    with _translate_hydra_errors(config_name):
        plan = make_plan(folder, config_name, all_overrides, multirun=False)
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
            "overrides": list(all_overrides),
            "config": to_json_value(plan.config),
        },
    )
    execution = create_execution(ml, configuration, render_hydra_files(plan.config, plan.hydra), dry_run=config.dry_run)
    if REGISTRY_VARIABLE in os.environ:
        start_execution(execution)
    return ml, execution, config


def _find_notebook_config_folder() -> Path:
    """Return the config folder that the command names, or else the nearest one above the notebook."""
    if path := os.environ.get(CONFIG_FOLDER_VARIABLE):
        return find_config_folder(Path(path))
    notebook = to_absolute_path(os.environ.get("DERIVA_ML_NOTEBOOK_PATH") or "notebook")
    for parent in notebook.parents:
        for folder in CONFIG_FOLDERS:
            if (parent / folder).is_dir():
                return find_config_folder(parent / folder)
    raise ConfigurationError(
        f"{notebook.parent} and its parents contain neither {' nor '.join(map(str, CONFIG_FOLDERS))}. Pass the config "
        f"folder with --config-dir, or set {CONFIG_FOLDER_VARIABLE}."
    )


@contextmanager
def _translate_hydra_errors(config_name: str) -> Iterator[None]:
    """Raise Hydra's errors as `ConfigurationError`."""
    from hydra.errors import HydraException

    try:
        yield
    except HydraException as error:
        raise ConfigurationError(f"The configuration {config_name!r} cannot be composed: {error}") from error


def _instantiate_config(config_name: str, plan: Plan) -> Any:
    from hydra_zen import instantiate

    if plan.is_sweep:
        raise ConfigurationError(
            f"{', '.join(plan.sweep_overrides)} asks for several runs, but a notebook runs once. Give a single value."
        )
    try:
        config = instantiate(plan.config)
    except Exception as error:
        cause = error.__cause__ or error
        raise ConfigurationError(f"The configuration {config_name!r} is invalid: {cause}") from error
    if not isinstance(config, BaseConfig) or not isinstance(config.deriva_ml, DerivaMLConfig):
        raise ConfigurationError(
            f"{config_name!r} is not the configuration of a notebook. Store it with notebook_config()."
        )
    return config
