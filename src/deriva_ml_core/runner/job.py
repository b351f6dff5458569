"""One job of hydra's: its configuration made into a run, by the file that the model function is written in."""

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

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import DerivaMLException
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.runner.connection_config import DerivaMLConfig
from deriva_ml_core.runner.hydra_files import config_choices, to_json_value
from deriva_ml_core.runner.model_function import check_function, function_file, function_name, is_model_function
from deriva_ml_core.runner.run_model import call_model, create_execution, run_model, run_parameters
from deriva_ml_core.workflow import Workflow

__all__ = ["JobArguments", "JobError", "JobContext", "instantiate_arguments", "translate_errors", "run_job"]


log = logging.getLogger(__name__)


class JobError(CompactHydraException):
    """A job that is not begun, or whose outputs are not sent; hydra prints the sentence alone, without a traceback."""


@contextmanager
def translate_errors() -> Iterator[None]:
    """Say an error of ours in its own words."""
    try:
        yield
    except DerivaMLException as error:
        raise JobError(str(error)) from error
    except ValidationError as error:
        raise JobError(f"The configuration cannot be used: {_format_error(error)}") from error


@dataclass(frozen=True)
class JobArguments:
    """What the parts of a job's configuration became."""

    values: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @property
    def function(self) -> Callable[..., Any]:
        """The model function, with its own parameters."""
        return self.values["model_config"]  # type: ignore[no-any-return]

    @property
    def dry_run(self) -> bool:
        """Whether to write nothing."""
        return bool(self.values["dry_run"])

    @property
    def description(self) -> str:
        """What the run is for."""
        return str(self.values["description"] or "")

    def connect(self) -> DerivaML:
        """Open the catalog."""
        return self.values["deriva_ml"].connect(self.values["ml_class"])  # type: ignore[no-any-return]

    def build_configuration(self, description: str) -> ExecutionConfiguration:
        """What the execution is to be."""
        inputs = {name: self.values[name] or () for name in ("datasets", "assets")}
        return ExecutionConfiguration(
            workflow=self.values["workflow"], description=description, parameters=self.parameters, **inputs
        )


class JobContext:
    """A job by itself; a class made of this one says what else belongs to it."""

    def check_catalog(self, ml: DerivaML) -> None:
        """See that the job may go to this catalog; nothing is written there yet."""

    def format_description(self, description: str) -> str:
        """What the run is for, by what its configuration says."""
        return description

    def register_execution(self, ml: DerivaML, execution: Execution) -> None:
        """Take note of the execution, before the model function begins."""


def run_job(
    config: DictConfig,
    hydra: DictConfig,
    texts: Mapping[str, str],
    context: JobContext,
) -> Any:
    """Run what a job's configuration says.

    Args:
        config: The configuration, each interpolation resolved.
        hydra: The node ``hydra`` beside it.
        texts: The texts of hydra's files by name.
        context: Whether it stands by itself, or in a sweep.

    Returns:
        What the model function returns.

    Raises:
        Refused: The configuration is wrong, the execution cannot be created, or its outputs are not sent.
    """
    fields = instantiate_arguments(config, hydra)
    with translate_errors():
        ml = fields.connect()
    with ml:
        with translate_errors():
            context.check_catalog(ml)
            configuration = fields.build_configuration(context.format_description(fields.description))
            execution = create_execution(ml, configuration, texts, dry_run=fields.dry_run)
            context.register_execution(ml, execution)
        log.info("Execution %s begins: %s", execution.execution_rid, execution.url)
        try:
            returned = call_model(ml, execution, fields.function)
            with translate_errors():
                execution.upload_execution_outputs()
        finally:
            log.info("Execution %s: %s", execution.execution_rid, execution.status)
        return returned


def instantiate_arguments(config: DictConfig, hydra: DictConfig) -> JobArguments:
    """Instantiate each part of a job's configuration; the workflow's source is the model function's file.

    Args:
        config: The configuration, each interpolation resolved.
        hydra: The node ``hydra`` beside it.

    Raises:
        Refused: A part is missing or cannot be instantiated; the message names the config and the key.
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
        raise JobError(f"The configuration has no key {', '.join(missing)}: make it by create_model_config().")
    if not isinstance(values["deriva_ml"], DerivaMLConfig):
        raise JobError(f"The config {_config_name('deriva_ml', chosen)} is none of DerivaMLConfig: build it of that.")
    if not isinstance(values["dry_run"], bool):
        raise JobError(f"The key dry_run is {values['dry_run']!r}, and has to be true or false.")
    with translate_errors():
        check_function(values["model_config"], _config_name("model_config", chosen))
    return JobArguments(values, {**run_parameters(hydra), "model_config": settings})


def _instantiate(config: DictConfig, name: str, chosen: Mapping[str, str]) -> Any:
    from hydra_zen import instantiate

    try:
        value = config[name]
        found = instantiate(value) if OmegaConf.is_config(value) else value
        return OmegaConf.to_object(found) if OmegaConf.is_config(found) else found
    except Exception as error:  # noqa: BLE001 - a config may build anything
        raise _make_job_error(name, chosen, error) from _chainable_cause(error)


def _set_workflow_script(config: DictConfig, chosen: Mapping[str, str]) -> None:
    """Have the workflow look at the model function's file, where its config says nothing of the source."""
    workflow, model = config.get("workflow"), config.get("model_config")
    if not OmegaConf.is_dict(workflow) or not OmegaConf.is_dict(model):
        return
    function = _get_target(model, "model_config", chosen)
    if is_model_function(function) and not any(model.get(name) for name in ("_partial_", "_zen_partial")):
        raise JobError(
            f"The config {_config_name('model_config', chosen)} would call {function_name(function)} before there is "
            "an execution: build it with zen_partial=True."
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
    """What a config builds: the class or the function itself."""
    from hydra_zen import get_target

    try:
        return get_target(node)
    except Exception as error:  # noqa: BLE001 - what it names is imported by that
        raise _make_job_error(name, chosen, error) from _chainable_cause(error)


def _chainable_cause(error: Exception) -> Exception | None:
    """An error as a cause; hydra would print one of omegaconf's after our own words, in which it is told already."""
    return None if isinstance(error, OmegaConfBaseException) else error


def _make_job_error(name: str, chosen: Mapping[str, str], error: Exception) -> JobError:
    cause = error
    while not isinstance(cause, ValidationError | DerivaMLException) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    return JobError(f"The config {_config_name(name, chosen)} cannot be used: {_format_error(cause)}")


def _config_name(name: str, chosen: Mapping[str, str]) -> str:
    return f"{name}={chosen[name]}" if name in chosen else name


def _format_error(error: Exception) -> str:
    if isinstance(error, ValidationError):
        faults = ((".".join(map(str, fault["loc"])), fault["msg"]) for fault in error.errors())
        return "; ".join(f"its key {key}: {message}" if key else message for key, message in faults)
    if isinstance(error, OmegaConfBaseException):
        return str(error).partition("\n")[0]  # which names the key; what follows are classes of its own
    kind = "" if isinstance(error, DerivaMLException | CompactHydraException) else f"{type(error).__name__}: "
    return f"{kind}{error}"
