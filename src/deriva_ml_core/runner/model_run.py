"""Run a model function as an execution: create it, call the function in it, and upload the outputs."""

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
    console: bool = False,
) -> Any:
    """Run a model function as an execution.

    The function receives two additional keyword arguments: ``ml_instance``, the client, and ``execution``, the running
    execution. Registered outputs are uploaded when the function ends, even if it fails. After Ctrl-C or SIGTERM they
    stay staged.

    ``deriva-ml-run`` does the same, with the model function's file as the source of the workflow. If a script calls
    this function through ``zen(run_model).hydra_main(config_name="deriva_model", version_base="1.3")``, the source is
    that script, and the jobs of a multirun are independent executions.

    Args:
        deriva_ml: The connection settings of the catalog.
        datasets: The input datasets, as RIDs or specs.
        assets: The input assets, as RIDs or specs.
        description: The description of the execution.
        workflow: The workflow of the execution.
        model_config: The model function with its own parameters bound: ``builds(function, …, zen_partial=True)``.
        dry_run: Whether to write nothing to the catalog and the store; the function is called either way. False by
            default.
        ml_class: The class of the client: `DerivaML` (the default) or a subclass of it.
        console: Whether to keep what the run prints; see ``DerivaML.create_execution``. False by default.

    Returns:
        The return value of the model function. Hydra's optimizing sweepers use it as the objective.

    Raises:
        ConfigurationError: The model function does not accept ``ml_instance`` and ``execution``.
        DerivaMLException: The execution cannot be created, or its outputs cannot be uploaded.
        Exception: The model function raised it.
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
        execution = create_execution(ml, configuration, _read_hydra_files(hydra), dry_run=dry_run, console=console)
        with execution._upload_before_last_line():
            returned = call_model(ml, execution, model_config)
            execution.upload_execution_outputs()
        return returned


def create_execution(
    ml: DerivaML,
    configuration: ExecutionConfiguration,
    texts: Mapping[str, str],
    *,
    dry_run: bool = False,
    console: bool = False,
) -> Execution:
    """Create an execution and upload Hydra's files as its metadata.

    Args:
        ml: The client.
        configuration: The configuration of the execution.
        texts: The texts of Hydra's files by name.
        dry_run: Whether to write nothing to the catalog and the store.
        console: Whether to keep what the run prints.

    Returns:
        The execution, not entered yet.
    """
    execution = ml.create_execution(configuration, dry_run=dry_run, console=console)
    upload_hydra_files(execution, texts)
    return execution


def call_model(ml: DerivaML, execution: Execution, function: Callable[..., Any]) -> Any:
    """Call a model function inside its execution; if it fails, upload what it registered.

    After Ctrl-C and SIGTERM nothing is uploaded, since the user is waiting for the process to exit. A warning shows how
    to upload the staged files.

    Args:
        ml: The client to pass to the function.
        execution: The execution to pass to the function, not entered yet.
        function: The model function, which accepts both as keywords.

    Returns:
        The return value of the function.
    """
    try:
        with execution, use_execution(execution):
            return function(ml_instance=ml, execution=execution)
    except BaseException:
        if execution.status is not Status.aborted:
            _upload_after_failure(execution)
        raise


def _upload_after_failure(execution: Execution) -> None:
    """Upload the outputs of a failed run; an error here is logged, so that it does not replace the run's own."""
    try:
        execution.upload_execution_outputs()
    except Exception:
        log.warning("Some outputs of execution %s were not uploaded.", execution.execution_rid, exc_info=True)


def run_parameters(hydra: Any) -> dict[str, JsonValue]:
    """Return the config choices and overrides of a run, to be recorded in ``configuration.json``.

    Args:
        hydra: The node ``hydra`` of the job's configuration.
    """
    return {"config_choices": dict(config_choices(hydra)), "overrides": to_json_value(hydra.overrides.task)}


def _read_hydra_files(hydra: Any) -> dict[str, str]:
    """Read the files that Hydra wrote for this job from its output folder."""
    if hydra is None or hydra.output_subdir is None:
        return {}
    folder = Path(hydra.runtime.output_dir) / hydra.output_subdir
    return {file.name: read_redacted_yaml(file) for file in sorted(folder.glob("*.yaml"))}


def _current_hydra_config() -> Any:
    """Return the node ``hydra`` of the current job; None outside of a job."""
    if "hydra" not in sys.modules:
        return None
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get() if HydraConfig.initialized() else None
