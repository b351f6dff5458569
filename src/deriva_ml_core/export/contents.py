"""What an execution was, in the words that every way to export it shares: who, when, by what, from what, into what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deriva_ml_core.analysis.describe import load_configuration, load_environment, load_execution_state
from deriva_ml_core.definitions import MLAsset, MLTable, Role, Status
from deriva_ml_core.execution.recorded import lookup_execution
from deriva_ml_core.models import Asset, MetricSummary
from deriva_ml_core.workflow import lookup_workflow

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection
    from deriva_ml_core.execution.recorded import RecordedExecution

__all__ = ["ExecutionExport", "Code", "DatasetVersion", "Agent", "collect_execution_export"]


@dataclass(frozen=True, slots=True)
class Agent:
    """Who ran it.

    Args:
        name: By git's settings, else by the operating system, else by the catalog.
        email: By git's settings; None where there is none.
        catalog_user: How the catalog names who was logged in.
    """

    name: str
    email: str | None
    catalog_user: str | None


@dataclass(frozen=True, slots=True)
class Code:
    """What ran.

    Args:
        name: The workflow's name.
        description: What it does.
        workflow_type: The workflow's type.
        url: Where the code is; empty where nobody knows.
        checksum: Git's hash of the file, or an image's digest; empty where there is none.
        version: The project's version.
        filename: The file's name; empty where it is not known.
        content: Its bytes, of a notebook without outputs; None where they are not at hand.
        is_image: Whether it is the image of a container.
        citation: How the catalog names the workflow.
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
    """A version of a dataset.

    Args:
        rid: The dataset's record id.
        version: Its version.
        description: What it holds.
        citation: How the catalog names it as it was then.
    """

    rid: str
    version: str
    description: str
    citation: str


@dataclass(frozen=True, slots=True)
class ExecutionExport:
    """An execution.

    Args:
        rid: Its record id.
        citation: How the catalog names it.
        description: What it was for.
        status: Its state.
        status_detail: The words beside it.
        started: When it began; None where that is not known.
        stopped: When it ended; None before that.
        agent: Who ran it; None where nobody is on record.
        code: What ran; None where it has no workflow.
        commit: The commit that was checked out; None where there was none.
        environment: The environment snapshot's own part.
        parameters: What it was configured with.
        inputs: The files that went in.
        outputs: The files that came out.
        records: The files that tell of it.
        input_datasets: The dataset versions that went in.
        output_datasets: The dataset versions that it made.
        metrics: Where its metrics stand.
        parents: How the catalog names the executions that it is nested in.
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

    @property
    def title(self) -> str:
        """What to call it."""
        return self.description or f"Execution {self.rid}"


def collect_execution_export(connection: Connection, rid: str) -> ExecutionExport:
    """Gather what an execution was.

    Raises:
        InvalidRID, UnknownRID, WrongTable: There is no such execution.
    """
    execution = lookup_execution(connection, rid)
    assets = execution.list_assets()
    snapshot = load_environment(connection, execution, assets)
    story = load_execution_state(connection, rid, assets)
    outputs = [asset for asset in assets if asset.role != Role.input]
    parameters = load_configuration(connection, execution, assets).get("parameters")
    return ExecutionExport(
        rid=execution.execution_rid,
        citation=execution.url,
        description=execution.description,
        status=execution.status,
        status_detail=execution.status_detail,
        started=story.start_time,
        stopped=story.stop_time,
        agent=_find_agent(connection, execution, snapshot),
        code=_collect_code(connection, execution, snapshot),
        commit=(snapshot.get("repository") or {}).get("head"),
        environment=snapshot.get("environment") or {},
        parameters=parameters if isinstance(parameters, Mapping) else {},
        inputs=tuple(asset for asset in assets if asset.role == Role.input),
        outputs=tuple(asset for asset in outputs if asset.table != MLAsset.execution_metadata),
        records=tuple(asset for asset in outputs if asset.table == MLAsset.execution_metadata),
        input_datasets=tuple(
            _iter_dataset_versions(connection, [(each.rid, each.version) for each in execution.list_input_datasets()])
        ),
        output_datasets=tuple(
            _iter_dataset_versions(connection, [(each.rid, each.version) for each in execution.list_output_datasets()])
        ),
        metrics=tuple(execution.list_metrics()),
        parents=tuple(each.url for each in execution.list_parent_executions()),
    )


def _find_agent(connection: Connection, execution: RecordedExecution, snapshot: Mapping[str, Any]) -> Agent | None:
    row = connection.require_row(MLTable.execution, execution.execution_rid)
    git_user = (snapshot.get("repository") or {}).get("user") or {}
    client = row.get("RCB")
    name = git_user.get("name") or (snapshot.get("environment") or {}).get("user") or client
    return None if not name else Agent(str(name), git_user.get("email"), None if client is None else str(client))


def _collect_code(connection: Connection, execution: RecordedExecution, snapshot: Mapping[str, Any]) -> Code | None:
    if execution.workflow_rid is None:
        return None
    workflow = lookup_workflow(connection, execution.workflow_rid)
    source = snapshot.get("source") or {}
    checksum = str(source.get("file_checksum") or workflow.checksum or "")
    path = str(source.get("path") or "")
    root = str((snapshot.get("repository") or {}).get("root") or "")
    return Code(
        name=workflow.name,
        description=workflow.description or "",
        workflow_type=workflow.workflow_type,
        url=workflow.url or "",
        checksum=checksum,
        version=workflow.version,
        filename=Path(path or (workflow.url or "").partition("#")[0]).name,
        content=_read_code(path, root, checksum),
        is_image=source.get("kind") == "container",
        citation=connection.catalog.cite(execution.workflow_rid),
    )


def _read_code(path: str, root: str, checksum: str) -> bytes | None:
    """The bytes of the code, where the file is still as it was, or git has them."""
    from deriva_ml_core.git import blob_hash, find_blob, read_without_outputs

    file = Path(path)
    if path and file.is_file() and blob_hash(file) == checksum:
        return read_without_outputs(file)
    return find_blob(checksum, [Path(root), Path.cwd()] if root else [Path.cwd()])


def _iter_dataset_versions(connection: Connection, specs: Sequence[tuple[str, str | None]]) -> Iterator[DatasetVersion]:
    catalog = connection.catalog
    rids = sorted({rid for rid, _ in specs})
    if not rids:
        return
    words = {row["RID"]: row["Description"] or "" for row in catalog.select(MLTable.dataset, {"RID": rids})}
    rows = catalog.select(MLTable.dataset_version, {"Dataset": rids})
    snapshots = {(row["Dataset"], row["Version"]): row["Snapshot"] for row in rows}
    for rid, version in specs:
        citation = catalog.cite(rid, snapshots.get((rid, version)))
        yield DatasetVersion(rid, version or "", words.get(rid, ""), citation)
