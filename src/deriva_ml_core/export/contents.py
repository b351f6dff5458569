"""What an export of a run contains, for every format: who ran what, when, on which inputs, with which outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from deriva_ml_core.analysis.run_files import find_local_environment, load_configuration, load_environment
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import MLAsset, MLTable, Role, Status
from deriva_ml_core.execution.recorded import RecordedExecution, lookup_execution
from deriva_ml_core.git import blob_hash, find_blob, read_without_outputs
from deriva_ml_core.models import Asset, MetricSummary
from deriva_ml_core.paths import find_current_folder
from deriva_ml_core.workflow import lookup_workflow

__all__ = ["Agent", "Code", "DatasetVersion", "ExecutionExport", "collect_execution_export"]


@dataclass(frozen=True, slots=True)
class Agent:
    """The person who ran an execution.

    Args:
        name: The name in Git's settings; without one the user of the operating system, or the catalog's user.
        email: The address in Git's settings; None if there is none.
        catalog_user: The user who was logged in to the catalog, as the catalog names them.
    """

    name: str
    email: str | None
    catalog_user: str | None


@dataclass(frozen=True, slots=True)
class Code:
    """The code that an execution ran.

    Args:
        name: The workflow's name.
        description: The workflow's description.
        workflow_type: The workflow's type.
        url: The URL of the code; empty if unknown.
        checksum: The Git hash of the file, or the digest of the container image; empty if unknown.
        version: The version of the code's project.
        filename: The name of the file; empty if unknown.
        content: The bytes of the file, without outputs if it is a notebook; None if they are not on this machine.
        is_image: Whether the code is a container image.
        citation: The URL that identifies the workflow outside the catalog.
    """

    name: str
    description: str
    workflow_type: str
    url: str
    checksum: str
    version: str | None
    filename: str
    content: bytes | None
    is_image: bool
    citation: str


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A version of a dataset that an execution used or created.

    Args:
        rid: The RID of the dataset.
        version: The version.
        description: The description of the dataset.
        citation: The URL that identifies this version outside the catalog.
    """

    rid: str
    version: str
    description: str
    citation: str


@dataclass(frozen=True, slots=True)
class ExecutionExport:
    """Everything that the exports of an execution contain.

    Args:
        rid: Its RID.
        citation: The URL that identifies it outside the catalog.
        description: Its description.
        status: Its status.
        status_detail: The message of its last status.
        started: When it started; None if unknown.
        stopped: When it stopped; None before that, and if unknown.
        agent: Who ran it; None if unknown.
        code: What it ran; None if it has no workflow.
        commit: The commit that was checked out; None if it ran outside of a repository.
        environment: The environment part of its environment snapshot.
        parameters: Its parameters, from its configuration.
        inputs: The assets that it used.
        outputs: The assets that it produced, without its metadata files.
        records: Its metadata files.
        input_datasets: The dataset versions that it used.
        output_datasets: The dataset versions that it created.
        metrics: The last and best value of each metric.
        parents: The citations of the executions that it is nested in.
        tags: Its tags, sorted.
    """

    rid: str
    citation: str
    description: str
    status: Status
    status_detail: str
    started: datetime | None
    stopped: datetime | None
    agent: Agent | None
    code: Code | None
    commit: str | None
    environment: Mapping[str, Any]
    parameters: Mapping[str, Any]
    inputs: tuple[Asset, ...]
    outputs: tuple[Asset, ...]
    records: tuple[Asset, ...]
    input_datasets: tuple[DatasetVersion, ...]
    output_datasets: tuple[DatasetVersion, ...]
    metrics: tuple[MetricSummary, ...]
    parents: tuple[str, ...]
    tags: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Its description, or its RID if it has none."""
        return self.description or f"Execution {self.rid}"


def collect_execution_export(connection: Connection, rid: str) -> ExecutionExport:
    """Collect what the exports of an execution contain.

    Raises:
        InvalidRID, UnknownRID, WrongTable: The RID is not that of an execution.
    """
    execution = lookup_execution(connection, rid)
    assets = execution.list_assets()
    snapshot = load_environment(connection, execution, assets)
    state = execution._load_state()
    outputs = [asset for asset in assets if asset.role != Role.input]
    parameters = load_configuration(connection, execution, assets).get("parameters")
    return ExecutionExport(
        rid=execution.execution_rid,
        citation=execution.url,
        description=execution.description,
        status=execution.status,
        status_detail=execution.status_detail,
        started=state.start_time,
        stopped=state.stop_time,
        agent=_find_agent(connection, execution, snapshot),
        code=_collect_code(connection, execution, snapshot),
        commit=(snapshot.get("repository") or {}).get("head"),
        environment=snapshot.get("environment") or {},
        parameters=parameters if isinstance(parameters, Mapping) else {},
        inputs=tuple(asset for asset in assets if asset.role == Role.input),
        outputs=tuple(asset for asset in outputs if asset.table != MLAsset.execution_metadata),
        records=tuple(asset for asset in outputs if asset.table == MLAsset.execution_metadata),
        input_datasets=tuple(
            _iter_dataset_versions(connection, [(spec.rid, spec.version) for spec in execution.list_input_datasets()])
        ),
        output_datasets=tuple(
            _iter_dataset_versions(connection, [(spec.rid, spec.version) for spec in execution.list_output_datasets()])
        ),
        metrics=tuple(execution.list_metrics()),
        parents=tuple(parent.url for parent in execution.list_parent_executions()),
        tags=execution.tags,
    )


def _find_agent(connection: Connection, execution: RecordedExecution, snapshot: Mapping[str, Any]) -> Agent | None:
    row = connection.require_row(MLTable.execution, execution.execution_rid)
    git_user = (snapshot.get("repository") or {}).get("user") or {}
    catalog_user = row.get("RCB")
    name = git_user.get("name") or (snapshot.get("environment") or {}).get("user") or catalog_user
    return (
        None
        if not name
        else Agent(str(name), git_user.get("email"), None if catalog_user is None else str(catalog_user))
    )


def _collect_code(connection: Connection, execution: RecordedExecution, snapshot: Mapping[str, Any]) -> Code | None:
    if execution.workflow_rid is None:
        return None
    workflow = lookup_workflow(connection, execution.workflow_rid)
    source = snapshot.get("source") or {}
    checksum = str(source.get("file_checksum") or workflow.checksum or "")
    path = str(source.get("path") or "")
    root = str((snapshot.get("repository") or {}).get("root") or "")
    is_local = find_local_environment(execution) is not None
    return Code(
        name=workflow.name,
        description=workflow.description or "",
        workflow_type=workflow.workflow_type,
        url=workflow.url or "",
        checksum=checksum,
        version=workflow.version,
        filename=Path(path or (workflow.url or "").partition("#")[0]).name,
        # paths in a snapshot from the catalog are not opened
        content=_read_code(path if is_local else "", root if is_local else "", checksum),
        is_image=source.get("kind") == "container",
        citation=connection.catalog.cite(execution.workflow_rid),
    )


def _read_code(path: str, root: str, checksum: str) -> bytes | None:
    """Return the bytes of the code from the file if it is unchanged, else from a Git repository."""
    file = Path(path)
    if path and file.is_file() and blob_hash(file) == checksum:
        return read_without_outputs(file)
    return find_blob(checksum, [each for each in (Path(root) if root else None, find_current_folder()) if each])


def _iter_dataset_versions(connection: Connection, specs: Sequence[tuple[str, str | None]]) -> Iterator[DatasetVersion]:
    catalog = connection.catalog
    rids = sorted({rid for rid, _ in specs})
    if not rids:
        return
    descriptions = {row["RID"]: row["Description"] or "" for row in catalog.select(MLTable.dataset, {"RID": rids})}
    rows = catalog.select(MLTable.dataset_version, {"Dataset": rids})
    snapshots = {(row["Dataset"], row["Version"]): row["Snapshot"] for row in rows}
    for rid, version in specs:
        citation = catalog.cite(rid, snapshots.get((rid, version)))
        yield DatasetVersion(rid, version or "", descriptions.get(rid, ""), citation)
