"""One run of a model function: its execution made, entered, handed to the function, ended and uploaded."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import RID, Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.implicit_execution import use_execution
from deriva_ml_core.models import AssetSpec, DatasetSpec
from deriva_ml_core.runner.connection_config import DerivaMLConfig
from deriva_ml_core.runner.hydra_files import config_choices, read_redacted_yaml, to_json_value, upload_hydra_files
from deriva_ml_core.runner.model_function import check_function
from deriva_ml_core.workflow import Workflow

__all__ = ["call_model", "create_execution", "run_parameters", "run_model"]

log = logging.getLogger(__name__)


def run_model(
    deriva_ml: DerivaMLConfig,
    datasets: Sequence[DatasetSpec | RID],
    assets: Sequence[AssetSpec | RID],
    description: str,
    workflow: Workflow,
    model_config: Callable[..., Any],
    dry_run: bool = False,
    ml_class: type[DerivaML] | None = None,
) -> Any:
    """Run a model function as an execution.

    The function gets two more keyword arguments: ``ml_instance``, the client, and ``execution``, which runs while the
    function does. What the function registered is uploaded at its end, also when it failed.

    ``deriva-ml-run`` does the same, and finds the workflow's source in the model function's file. A script of one's own
    that calls this by ``zen(run_model).hydra_main(config_name="deriva_model", version_base="1.3")`` is itself what is
    recorded as the source, and each job of its multirun is an execution that belongs to no other.

    Args:
        deriva_ml: The catalog.
        datasets: The datasets that go in.
        assets: The assets that go in.
        description: What the run is for.
        workflow: What runs.
        model_config: The model function with its own parameters, ``builds(function, …, zen_partial=True)``.
        dry_run: Whether to write nothing to catalog and store; the function runs all the same.
        ml_class: The class of the client, one that is made of `DerivaML`; by default that itself.

    Returns:
        What the model function returns: hydra's sweepers that search for a best value ask for it.

    Raises:
        ConfigurationError: The model function does not take ``ml_instance`` and ``execution``.
        DerivaMLException: The execution cannot be created, or its outputs cannot be uploaded.
    """
    check_function(model_config)
    hydra = _current_hydra_config()
    configuration = ExecutionConfiguration(
        workflow=workflow,
        description=description,
        datasets=datasets,
        assets=assets,
        parameters={} if hydra is None else run_parameters(hydra),
    )
    with deriva_ml.connect(ml_class) as ml:
        execution = create_execution(ml, configuration, _read_hydra_files(hydra), dry_run=dry_run)
        returned = call_model(ml, execution, model_config)
        execution.upload_execution_outputs()
        return returned


def create_execution(
    ml: DerivaML, configuration: ExecutionConfiguration, texts: Mapping[str, str], *, dry_run: bool = False
) -> Execution:
    """Create an execution that has hydra's files among its records.

    Args:
        ml: The catalog.
        configuration: What it is to be.
        texts: The texts of hydra's files by name.
        dry_run: Whether to write nothing.
    """
    execution = ml.create_execution(configuration, dry_run=dry_run)
    upload_hydra_files(execution, texts)
    return execution


def call_model(ml: DerivaML, execution: Execution, function: Callable[..., Any]) -> Any:
    """Call a model function inside its execution; where it fails, what it registered is uploaded.

    After Ctrl-C and SIGTERM nothing is sent: who ends a run does not wait for an upload. The log says how it is sent.

    Args:
        ml: The client that the function gets.
        execution: The execution that it gets, not entered yet.
        function: What takes both by keyword.

    Returns:
        What the function returns.
    """
    try:
        with execution, use_execution(execution):
            return function(ml_instance=ml, execution=execution)
    except BaseException:
        if execution.status is not Status.aborted:
            _upload_after_failure(execution)
        raise


def _upload_after_failure(execution: Execution) -> None:
    """Upload what a run registered that did not get to its end."""
    try:
        execution.upload_execution_outputs()
    except Exception:
        log.warning("Not all outputs of execution %s are uploaded.", execution.execution_rid, exc_info=True)


def run_parameters(hydra: Any) -> dict[str, JsonValue]:
    """What ``configuration.json`` keeps of the choices that led to a run.

    Args:
        hydra: The node ``hydra`` of the job's configuration.
    """
    return {"config_choices": dict(config_choices(hydra)), "overrides": to_json_value(hydra.overrides.task)}


def _read_hydra_files(hydra: Any) -> dict[str, str]:
    """Hydra's files of this job, read from its output folder."""
    if hydra is None or hydra.output_subdir is None:
        return {}
    folder = Path(hydra.runtime.output_dir) / hydra.output_subdir
    return {file.name: read_redacted_yaml(file) for file in sorted(folder.glob("*.yaml"))}


def _current_hydra_config() -> Any:
    """The node ``hydra`` of the job that hydra runs now; None where it runs none."""
    if "hydra" not in sys.modules:
        return None
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get() if HydraConfig.initialized() else None
