"""Run one of Hydra's jobs: instantiate its configuration, create the execution, call the model function, upload."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from deriva_ml_core._progress import is_quiet, is_watched
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.runner.connection_config import DerivaMLConfig
from deriva_ml_core.runner.hydra_files import config_choices, to_json_value
from deriva_ml_core.runner.model_function import check_function, function_file, function_name, is_model_function
from deriva_ml_core.runner.model_run import call_model, create_execution, run_model, run_parameters
from deriva_ml_core.workflow import Workflow

__all__ = ["JobArguments", "JobError", "JobContext", "instantiate_arguments", "translate_errors", "run_job"]


log = logging.getLogger(__name__)


class JobError(CompactHydraException):
    """A job did not start, or its outputs were not uploaded; Hydra prints the message without a traceback."""


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise this package's errors, and pydantic's, as `JobError`."""
    try:
        yield
    except DerivaMLException as error:
        raise JobError(str(error)) from error
    except ValidationError as error:
        raise JobError(f"Invalid configuration: {_format_error(error)}") from error


@dataclass(frozen=True)
class JobArguments:
    """The instantiated parts of a job's configuration.

    Args:
        values: The arguments of `run_model` by name.
        parameters: The parameters to record in ``configuration.json``.
    """

    values: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @property
    def function(self) -> Callable[..., Any]:
        """The model function with its own parameters bound."""
        return self.values["model_config"]  # type: ignore[no-any-return]

    @property
    def dry_run(self) -> bool:
        """Whether to write nothing to the catalog and the store."""
        return bool(self.values["dry_run"])

    @property
    def console(self) -> bool:
        """Whether to keep what the run prints."""
        return bool(self.values["console"])

    @property
    def description(self) -> str:
        """The description of the run."""
        return str(self.values["description"] or "")

    def connect(self) -> DerivaML:
        """Connect to the catalog."""
        return self.values["deriva_ml"].connect(self.values["ml_class"])  # type: ignore[no-any-return]

    def build_configuration(self, description: str) -> ExecutionConfiguration:
        """Return the configuration of the execution."""
        inputs = {name: self.values[name] or () for name in ("datasets", "assets")}
        return ExecutionConfiguration(
            workflow=self.values["workflow"], description=description, parameters=self.parameters, **inputs
        )


class JobContext:
    """Steps around a job. They do nothing for a single job; a job of a sweep overrides them."""

    def check_catalog(self, ml: DerivaML) -> None:
        """Check that the job may use this catalog, before anything is written to it."""

    def format_description(self, description: str) -> str:
        """Return the description of the execution for that of the configuration."""
        return description

    def register_execution(self, ml: DerivaML, execution: Execution) -> None:
        """Register the new execution before the model function is called."""


def run_job(
    config: DictConfig,
    hydra: DictConfig,
    texts: Mapping[str, str],
    context: JobContext,
) -> Any:
    """Run a job: create its execution, call the model function, and upload the outputs.

    Args:
        config: The configuration with resolved interpolations.
        hydra: The node ``hydra`` of the composed configuration.
        texts: The texts of Hydra's files by name.
        context: The steps around the job.

    Returns:
        The return value of the model function.

    Raises:
        JobError: The configuration is invalid, the execution cannot be created, or its outputs are not uploaded.
    """
    arguments = instantiate_arguments(config, hydra)
    with translate_errors():
        ml = arguments.connect()
    with ml:
        with translate_errors():
            context.check_catalog(ml)
            configuration = arguments.build_configuration(context.format_description(arguments.description))
            execution = create_execution(ml, configuration, texts, dry_run=arguments.dry_run, console=arguments.console)
            context.register_execution(ml, execution)
        has_lines = is_watched() or is_quiet()
        if not has_lines:
            log.info("Execution %s started: %s", execution.execution_rid, execution.url)
        try:
            with execution._upload_before_last_line():
                returned = call_model(ml, execution, arguments.function)
                with translate_errors():
                    execution.upload_execution_outputs()
        finally:
            if not has_lines:
                log.info("Execution %s: %s", execution.execution_rid, execution.status)
        return returned


def instantiate_arguments(config: DictConfig, hydra: DictConfig) -> JobArguments:
    """Instantiate each part of a job's configuration, with the model function's file as the source of the workflow.

    Args:
        config: The configuration with resolved interpolations.
        hydra: The node ``hydra`` of the composed configuration.

    Returns:
        The instantiated arguments.

    Raises:
        JobError: A part is missing or cannot be instantiated; the message names the config and the key.
    """
    chosen = config_choices(hydra)
    names = signature(run_model).parameters
    settings = to_json_value(config.get("model_config"))
    _set_workflow_script(config, chosen)
    values = {
        name: _instantiate(config, name, chosen) if name in config else parameter.default
        for name, parameter in names.items()
    }
    if missing := [name for name, value in values.items() if value is names[name].empty]:
        raise JobError(f"The configuration lacks {', '.join(missing)}. Build it with create_model_config().")
    if not isinstance(values["deriva_ml"], DerivaMLConfig):
        raise JobError(f"The config {_config_name('deriva_ml', chosen)} does not build a DerivaMLConfig.")
    for name in ("dry_run", "console"):
        if not isinstance(values[name], bool):
            raise JobError(f"{name} must be true or false, not {values[name]!r}.")
    with translate_errors():
        check_function(values["model_config"], _config_name("model_config", chosen))
    return JobArguments(values, {**run_parameters(hydra), "model_config": settings})


def _instantiate(config: DictConfig, name: str, chosen: Mapping[str, str]) -> Any:
    from hydra_zen import instantiate

    try:
        value = config[name]
        instance = instantiate(value) if OmegaConf.is_config(value) else value
        return OmegaConf.to_object(instance) if OmegaConf.is_config(instance) else instance
    except Exception as error:  # noqa: BLE001 - a config may build anything
        raise _make_job_error(name, chosen, error) from _chainable_cause(error)


def _set_workflow_script(config: DictConfig, chosen: Mapping[str, str]) -> None:
    """Set the workflow's script to the model function's file, unless its config names a source."""
    workflow, model = config.get("workflow"), config.get("model_config")
    if not OmegaConf.is_dict(workflow) or not OmegaConf.is_dict(model):
        return
    function = _get_target(model, "model_config", chosen)
    if is_model_function(function) and not any(model.get(name) for name in ("_partial_", "_zen_partial")):
        raise JobError(
            f"The config {_config_name('model_config', chosen)} calls {function_name(function)} before the execution "
            "exists. Build it with zen_partial=True."
        )
    if not _is_workflow_class(_get_target(workflow, "workflow", chosen)):
        return
    if any(workflow.get(name) for name in ("script", "url", "rid")):
        return
    if (file := function_file(function)) is not None:
        with open_dict(workflow):
            workflow.script = str(file)


def _is_workflow_class(target: Any) -> bool:
    return isinstance(target, type) and issubclass(target, Workflow)


def _get_target(node: DictConfig, name: str, chosen: Mapping[str, str]) -> Any:
    """Return the class or function that a config names as its target."""
    from hydra_zen import get_target

    try:
        return get_target(node)
    except Exception as error:  # noqa: BLE001 - it imports the target's module, which may raise anything
        raise _make_job_error(name, chosen, error) from _chainable_cause(error)


def _chainable_cause(error: Exception) -> Exception | None:
    """Return an error to chain; None for OmegaConf's, whose text Hydra would print a second time."""
    return None if isinstance(error, OmegaConfBaseException) else error


def _make_job_error(name: str, chosen: Mapping[str, str], error: Exception) -> JobError:
    cause = error
    while not isinstance(cause, ValidationError | DerivaMLException) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    return JobError(f"The config {_config_name(name, chosen)} is invalid: {_format_error(cause)}")


def _config_name(name: str, chosen: Mapping[str, str]) -> str:
    return f"{name}={chosen[name]}" if name in chosen else name


def _format_error(error: Exception) -> str:
    if isinstance(error, ValidationError):
        faults = ((".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors())
        return "; ".join(f"{key}: {message}" if key else message for key, message in faults)
    if isinstance(error, OmegaConfBaseException):
        return str(error).partition("\n")[0]  # the first line names the key; the others name OmegaConf's classes
    kind = "" if isinstance(error, DerivaMLException | CompactHydraException) else f"{type(error).__name__}: "
    return f"{kind}{error}"
