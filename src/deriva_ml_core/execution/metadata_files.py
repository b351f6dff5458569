"""Writes the metadata files of an execution: configuration, environment snapshot, uncommitted changes, lock files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from deriva_ml_core import git
from deriva_ml_core.assets.staging import StagingArea
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLVocab
from deriva_ml_core.execution.configuration import ExecutionConfiguration
from deriva_ml_core.journal.state import utc_now
from deriva_ml_core.models import DatasetSpec, SourceCode, StagedAsset
from deriva_ml_core.plugins.manager import collect
from deriva_ml_core.redaction import redact, redact_text
from deriva_ml_core.workflow import Workflow

__all__ = ["write_metadata_files"]

LOCK_FILES = ("uv.lock", "poetry.lock", "pdm.lock", "pixi.lock", "Pipfile.lock", "conda-lock.yml", "pylock.toml")
"""Lock files in a repository's root, by the tools that write them."""

_URL_WITH_CREDENTIALS = re.compile(rb"://[^\s'\"]*[@?]")


def write_metadata_files(
    connection: Connection,
    staging: StagingArea,
    folder: Path,
    *,
    configuration: ExecutionConfiguration,
    workflow: Workflow,
    workflow_rid: RID,
    datasets: list[DatasetSpec],
) -> list[StagedAsset]:
    """Write an execution's metadata files into its working folder and stage them. Secrets are redacted.

    Args:
        connection: Plugins that describe the environment, and the asset types of the catalog.
        staging: The staging area.
        folder: The working folder; the files are in its sub-folder ``records``.
        configuration: The execution's configuration.
        workflow: The workflow that it runs.
        workflow_rid: RID of the workflow.
        datasets: The input datasets with their versions.
    """
    records = folder / "records"
    records.mkdir(parents=True, exist_ok=True)
    known_types = connection.terms.cached_terms(MLVocab.asset_type)
    configuration_json = _dump_configuration(configuration, workflow_rid, datasets)
    environment = _describe_environment(connection, workflow.source, folder)
    name = f"environment_snapshot_{utc_now():%Y%m%dT%H%M%S.%fZ}.json"
    files = {
        _write_json(records / "configuration.json", configuration_json): _select_asset_type(
            known_types, "Deriva_Config", "Execution_Config"
        ),
        _write_json(records / name, environment): _select_asset_type(known_types, "Runtime_Env"),
    }
    for path in _write_code_files(connection, workflow.source, records):
        files[path] = _select_asset_type(known_types)
    return [staging.stage_metadata_file(path.name, path, asset_type) for path, asset_type in files.items()]


def _select_asset_type(known_types: frozenset[str], *types: str) -> str:
    """Return the first of these types that the catalog has, else the type named after the metadata table."""
    return next((name for name in types if name in known_types), "Execution_Metadata")


def _dump_configuration(
    configuration: ExecutionConfiguration, workflow_rid: RID, datasets: list[DatasetSpec]
) -> Mapping[str, Any]:
    """Return the configuration with every open version resolved, in a form that can be loaded again."""
    return {
        "workflow": workflow_rid,
        "description": configuration.description,
        "datasets": [spec.model_dump() for spec in datasets],
        "assets": [{"rid": rid} for rid in configuration.asset_rids],
        "parameters": dict(configuration.parameters),
        **({"tags": list(configuration.tags)} if configuration.tags else {}),
    }


def _describe_environment(connection: Connection, source: SourceCode, folder: Path) -> Mapping[str, Any]:
    environ = dict(os.environ)
    parts = collect(connection.plugins, "describe_environment", {"environ": environ})
    repository = git.repository_state(source.repository, excluded=connection.own_paths) if source.repository else None
    return {
        "time": utc_now().isoformat(),
        "folder": str(folder),
        "source": {**source.model_dump(mode="json"), **_file_checksum(source)},
        "repository": asdict(repository) if repository else None,
        **parts,
    }


def _file_checksum(source: SourceCode) -> Mapping[str, str]:
    """Return Git's hash of the script in a container, where the workflow's checksum is that of the whole image."""
    if source.kind != "container" or source.path is None or not source.path.is_file():
        return {}
    return {"file_checksum": git.blob_hash(source.path)}


def _write_code_files(connection: Connection, source: SourceCode, records: Path) -> list[Path]:
    """Write the uncommitted changes as a patch and copy the lock files, if there are any."""
    repository = source.repository
    if repository is None:
        return []
    files = []
    own_paths = connection.own_paths
    patch = git.uncommitted_patch(
        repository, os.environ, excluded=own_paths, script=source.path, fallback_folder=records
    )
    if patch:
        files.append(records / "uncommitted.patch")
        files[-1].write_bytes(patch)
    locks = [name for name in LOCK_FILES if (repository / name).is_file()]
    return files + [_copy_lock_file(repository / name, records / name) for name in locks]


def _copy_lock_file(lock: Path, target: Path) -> Path:
    """Copy a lock file, with credentials in package URLs redacted."""
    content = lock.read_bytes()
    if _URL_WITH_CREDENTIALS.search(content):  # lock files can have megabytes, and few contain credentials
        content = redact_text(content.decode("latin-1")).encode("latin-1")
    target.write_bytes(content)
    return target


def _write_json(path: Path, value: Mapping[str, JsonValue]) -> Path:
    text = json.dumps(redact(dict(value)), indent=2, ensure_ascii=False, default=str)
    path.write_text(text + "\n", encoding="utf-8")
    return path
