"""Files that describe a run: its configuration, environment snapshot and metrics.

Each is read from the working folder on this machine if it is there, since that copy is newer than the uploaded one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from deriva_ml_core.connection import Connection
from deriva_ml_core.execution.record_files import METRICS_TYPES, fetch_metadata_file, select_metadata_assets
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.models import Asset
from deriva_ml_core.training.files import TRAINING_SUMMARY_FILE
from deriva_ml_core.training.metrics_file import METRICS_FILE, MetricCurve, iter_metrics, read_curves

__all__ = [
    "fetch_metadata_file",
    "find_local_environment",
    "load_configuration",
    "load_curves",
    "load_environment",
    "load_epoch_costs",
    "load_fits",
    "safe_file_name",
    "select_metadata_assets",
]

ENVIRONMENT_SNAPSHOT_PREFIX = "environment_snapshot_"
ENVIRONMENT_SNAPSHOT_TYPES = ("Runtime_Env",)
CONFIGURATION_FILE = "configuration.json"
PATCH_FILE = "uncommitted.patch"
CONFIGURATION_TYPES = ("Deriva_Config", "Execution_Config")
TRAINING_SUMMARY_TYPES = ("Execution_Config",)


def load_configuration(
    connection: Connection, execution: RecordedExecution, assets: Sequence[Asset]
) -> Mapping[str, Any]:
    """Return the content of an execution's ``configuration.json``; empty if there is none."""
    local_path = execution.working_dir / "records" / CONFIGURATION_FILE
    with fetch_metadata_file(
        connection, execution, assets, CONFIGURATION_FILE, CONFIGURATION_TYPES, local_path=local_path
    ) as file:
        return _read_json_object(file)


def load_environment(
    connection: Connection, execution: RecordedExecution, assets: Sequence[Asset]
) -> Mapping[str, Any]:
    """Return the content of an execution's newest environment snapshot; empty if there is none."""
    with fetch_metadata_file(
        connection,
        execution,
        assets,
        ENVIRONMENT_SNAPSHOT_PREFIX,
        ENVIRONMENT_SNAPSHOT_TYPES,
        local_path=find_local_environment(execution),
        is_prefix=True,
    ) as file:
        return _read_json_object(file)


def find_local_environment(execution: RecordedExecution) -> Path | None:
    """Return an execution's newest environment snapshot in the working folder on this machine, or None."""
    try:
        local = sorted((execution.working_dir / "records").glob(f"{ENVIRONMENT_SNAPSHOT_PREFIX}*.json"))
    except OSError:  # another user's folder
        return None
    return local[-1] if local else None


def load_fits(connection: Connection, execution: RecordedExecution, assets: Sequence[Asset]) -> list[Mapping[str, Any]]:
    """Return the fits in an execution's training summary."""
    local_path = execution.working_dir / TRAINING_SUMMARY_FILE
    with fetch_metadata_file(
        connection, execution, assets, TRAINING_SUMMARY_FILE, TRAINING_SUMMARY_TYPES, local_path=local_path
    ) as file:
        fits = _read_json_object(file).get("fits")
    return [fit for fit in fits if isinstance(fit, dict)] if isinstance(fits, list) else []


def load_curves(connection: Connection, execution: RecordedExecution, assets: Sequence[Asset]) -> list[MetricCurve]:
    """Return the curves of an execution's metrics."""
    local_path = execution.working_dir / METRICS_FILE
    with fetch_metadata_file(connection, execution, assets, METRICS_FILE, METRICS_TYPES, local_path=local_path) as file:
        return read_curves(file, {metric.name: metric.larger_is_better for metric in execution.list_metrics()})


@dataclass(frozen=True, slots=True)
class EpochCost:
    """What an epoch of a fit cost; None is unknown.

    Args:
        fit: The number of the fit in its execution, from 1.
        epoch: The number of the epoch, from 1.
        seconds: How long it took.
        samples_per_second: Its throughput.
        peak_memory: The peak memory so far, in bytes.
    """

    fit: int
    epoch: int
    seconds: float | None
    samples_per_second: float | None
    peak_memory: int | None


def load_epoch_costs(
    connection: Connection, execution: RecordedExecution, assets: Sequence[Asset], *, limit: int = 5_000
) -> list[EpochCost]:
    """Return what the epochs of an execution cost, in order.

    Args:
        connection: The catalog.
        execution: The execution.
        assets: The execution's assets.
        limit: The maximum number of epochs.
    """
    local_path = execution.working_dir / METRICS_FILE
    with fetch_metadata_file(connection, execution, assets, METRICS_FILE, METRICS_TYPES, local_path=local_path) as file:
        lines = (line for line in iter_metrics(file, "epoch") if line.stage == "fit") if file else iter(())
        costs = (
            EpochCost(line.fit, line.epoch, line.seconds, line.samples_per_second, line.peak_memory)
            for line in lines
            if line.epoch is not None
        )
        return list(islice(costs, limit))


def safe_file_name(asset: Asset) -> str:
    """Return the name of an asset's file without folders, or the asset's RID if that is no usable file name."""
    name = PurePosixPath(asset.filename).name
    return asset.rid if name in ("", ".", "..") else name


def _read_json_object(file: Path | None) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
