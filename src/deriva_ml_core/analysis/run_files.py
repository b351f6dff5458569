"""Files that describe a run: its configuration, environment snapshot and metrics.

Each is read from the working folder on this machine if it is there, since that copy is newer than the uploaded one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import MLAsset, Role
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.models import Asset
from deriva_ml_core.training.files import TRAINING_SUMMARY_FILE
from deriva_ml_core.training.metrics_file import METRICS_FILE, MetricCurve, read_curves

__all__ = [
    "fetch_metadata_file",
    "find_local_environment",
    "load_configuration",
    "load_curves",
    "load_environment",
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
METRICS_TYPES = ("Metrics_File",)

MAX_DOWNLOAD_BYTES = 256 * 2**20
"""Largest file, in bytes, that is downloaded only to be shown."""


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


@contextmanager
def fetch_metadata_file(
    connection: Connection,
    execution: RecordedExecution,
    assets: Sequence[Asset],
    name: str,
    types: Collection[str] = (),
    *,
    local_path: Path | None = None,
    is_prefix: bool = False,
) -> Iterator[Path | None]:
    """Provide one of the files that describe an execution, downloaded if need be.

    Args:
        connection: The catalog.
        execution: The execution.
        assets: The execution's assets.
        name: The file's name.
        types: The asset types of the file, see `select_metadata_assets`.
        local_path: The file in the working folder; used if it exists.
        is_prefix: Whether `name` is only the beginning of the file's name.

    Yields:
        The file, valid inside the ``with`` block; None if there is no such file or it is over `MAX_DOWNLOAD_BYTES`.
    """
    # another user's file may not be readable; its copy in the store is
    if local_path is not None and os.access(local_path, os.R_OK):
        yield local_path
        return
    matching = select_metadata_assets(execution, assets, name, types, is_prefix=is_prefix)
    if not matching or matching[-1].length > MAX_DOWNLOAD_BYTES:
        yield None
        return
    with scratch_folder(connection.folder) as folder:
        yield download_asset(connection, matching[-1], folder)


def select_metadata_assets(
    execution: RecordedExecution,
    assets: Sequence[Asset],
    name: str,
    types: Collection[str] = (),
    *,
    is_prefix: bool = False,
) -> list[Asset]:
    """Return the copies of one of the files that describe an execution, the newest last.

    A name alone does not identify such a file: an input, or another output, can have the same name. The file is an
    output with one of its asset types. If that leaves a choice, the journal lists the files that the run itself wrote.

    Args:
        execution: The execution.
        assets: The execution's assets.
        name: The file's name.
        types: The asset types that only files of this kind have; empty if there are none. A catalog that lacks them has
            the type Execution_Metadata instead.
        is_prefix: Whether `name` is only the beginning of the file's name.
    """
    table = MLAsset.execution_metadata
    named = [
        asset
        for asset in assets
        if asset.table == table
        and asset.role == Role.output
        and (asset.filename.startswith(name) if is_prefix else asset.filename == name)
    ]
    typed = [asset for asset in named if not asset.asset_types or {table, *types}.intersection(asset.asset_types)]
    specific = [asset for asset in typed if set(types).intersection(asset.asset_types)]
    if not typed or len(specific) == 1:
        return specific
    order = {rid: number for number, rid in enumerate(execution._load_state().own_record_rids())}
    if not order:  # no journal, or one that lists no files
        return specific or typed
    own = [asset for asset in typed if asset.rid in order]
    return sorted(own, key=lambda asset: order[asset.rid]) or specific


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
