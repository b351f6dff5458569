"""Everything that is known of an execution, workflow, dataset or asset, as one value."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from deriva_ml_core.analysis.runs import summarize_executions, workflow_to_dict
from deriva_ml_core.assets.lookup import download_asset, lookup_asset
from deriva_ml_core.datasets import lookup_dataset
from deriva_ml_core.definitions import MLTable, Role, split_rid
from deriva_ml_core.execution.query import find_executions
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME, RecordedExecution, load_local_state, lookup_execution
from deriva_ml_core.journal.journal import load_state
from deriva_ml_core.journal.state import ExecutionState
from deriva_ml_core.models import Asset
from deriva_ml_core.schema import asset_execution_table_name
from deriva_ml_core.training.files import TRAINING_SUMMARY_FILE
from deriva_ml_core.training.metrics_file import METRICS_FILE, MetricCurve, read_curves

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection

__all__ = [
    "ENVIRONMENT_SNAPSHOT_PREFIX",
    "MAX_DOWNLOAD_BYTES",
    "asset_to_dict",
    "describe",
    "fetch_metadata_file",
    "load_configuration",
    "load_curves",
    "load_environment",
    "load_execution_state",
    "lookup_table",
    "read_json_object",
    "safe_file_name",
]


ENVIRONMENT_SNAPSHOT_PREFIX = "environment_snapshot_"
NEWEST_EXECUTIONS_LIMIT = 10
"""Executions that are named with a workflow, a dataset or an asset."""


def lookup_table(connection: Connection, rid: str) -> str:
    """The table of a record id.

    Raises:
        InvalidRID: The text is none.
        UnknownRID: It names no row.
    """
    from deriva_ml_core.errors import UnknownRID

    plain = split_rid(rid)[0]
    found = connection.catalog.locate([plain])
    if plain not in found:
        raise UnknownRID(f"{plain} names no row of {connection.catalog.name}; `deriva-ml list` names executions.")
    return found[plain]


def describe(connection: Connection, rid: str) -> tuple[dict[str, Any], list[MetricCurve]]:
    """Everything that is known of a row, and an execution's curves.

    Raises:
        InvalidRID, UnknownRID: It names no row.
    """
    table, plain = lookup_table(connection, rid), split_rid(rid)[0]
    if table == MLTable.execution:
        return _describe_execution(connection, plain)
    if table == MLTable.workflow:
        return _describe_workflow(connection, plain), []
    if table == MLTable.dataset:
        return _describe_dataset(connection, plain), []
    if connection.catalog.model.table(table).is_asset:
        return _describe_asset(connection, plain), []
    row = connection.catalog.select(table, {"RID": plain})[0]
    return {"kind": "row", "rid": plain, "table": table, "columns": row}, []


def _describe_execution(connection: Connection, rid: str) -> tuple[dict[str, Any], list[MetricCurve]]:
    execution = lookup_execution(connection, rid)
    assets = execution.list_assets()
    story = load_execution_state(connection, rid, assets)
    curves = load_curves(connection, execution, assets)
    (run,) = summarize_executions(connection, [execution])
    inputs = [asset for asset in assets if asset.role == Role.input]
    outputs = [asset for asset in assets if asset.role != Role.input]
    return {
        "kind": "execution",
        **run.to_dict(),
        "started": story.start_time,
        "stopped": story.stop_time,
        "citation": execution.url,
        "working_dir": execution.working_dir if execution.working_dir.is_dir() else None,
        "inputs": {
            "datasets": _describe_input_datasets(connection, execution),
            "assets": [asset_to_dict(asset) for asset in inputs],
        },
        "outputs": [asset_to_dict(asset) for asset in outputs],
        "datasets_made": [spec.model_dump(include={"rid", "version"}) for spec in execution.list_output_datasets()],
        "unsent": [file.asset.filename for file in story.pending_files() if not file.asset.record],
        "parents": _describe_related(connection, execution.list_parent_executions()),
        "children": _describe_related(connection, execution.list_nested_executions()),
        "environment": _summarize_environment(load_environment(connection, execution, assets), story),
        "fits": _load_fits(connection, execution, assets),
        "metrics": [curve.to_dict() for curve in curves],
        "metric_values": [each.model_dump() for each in execution.list_metrics()],
        "timeline": [
            {"time": each.time, "status": str(each.status), "message": each.error or each.message}
            for each in story.statuses
        ],
    }, curves


def load_curves(connection: Connection, execution: RecordedExecution, assets: Sequence[Asset]) -> list[MetricCurve]:
    """The curves of an execution's metrics, from its working folder here, or from the store."""
    with fetch_metadata_file(connection, assets, METRICS_FILE, local_path=execution.working_dir / METRICS_FILE) as file:
        return read_curves(file, {each.name: each.larger_is_better for each in execution.list_metrics()})


def load_environment(
    connection: Connection, execution: RecordedExecution, assets: Sequence[Asset]
) -> Mapping[str, Any]:
    """The environment snapshot of an execution; empty where none was kept."""
    local = sorted((execution.working_dir / "records").glob(f"{ENVIRONMENT_SNAPSHOT_PREFIX}*.json"))
    with fetch_metadata_file(
        connection, assets, ENVIRONMENT_SNAPSHOT_PREFIX, local_path=local[-1] if local else None, is_prefix=True
    ) as file:
        return read_json_object(file)


def _load_fits(connection: Connection, execution: RecordedExecution, assets: Sequence[Asset]) -> list[dict[str, Any]]:
    with fetch_metadata_file(
        connection, assets, TRAINING_SUMMARY_FILE, local_path=execution.working_dir / TRAINING_SUMMARY_FILE
    ) as file:
        fits = read_json_object(file).get("fits", [])
    wanted = ("fit", "began", "ended", "outcome", "epochs", "epochs_done", "best")
    if not isinstance(fits, list):
        return []
    return [{name: fit.get(name) for name in wanted} for fit in fits if isinstance(fit, dict)]


def _summarize_environment(snapshot: Mapping[str, Any], state: ExecutionState) -> dict[str, Any]:
    environment, source = snapshot.get("environment") or {}, snapshot.get("source") or {}
    repository = snapshot.get("repository") or {}
    return {
        "host": environment.get("hostname") or (state.process.host if state.process else None),
        "process": state.process.pid if state.process else environment.get("pid"),
        "python": (environment.get("python") or {}).get("version"),
        "platform": environment.get("platform"),
        "gpus": environment.get("gpus") or [],
        "command": environment.get("argv") or [],
        "code_url": source.get("url"),
        "code_checksum": source.get("file_checksum") or source.get("checksum"),
        "code_changed": source.get("dirty"),
        "head": repository.get("head"),
        "branch": repository.get("branch"),
        "repository_changed": repository.get("dirty"),
        "folder": snapshot.get("folder") or (state.creation.folder if state.creation else None),
    }


def _describe_input_datasets(connection: Connection, execution: RecordedExecution) -> list[dict[str, Any]]:
    specs = execution.list_input_datasets()
    rows = connection.catalog.select(MLTable.dataset, {"RID": [spec.rid for spec in specs]}) if specs else []
    words = {row["RID"]: row["Description"] or "" for row in rows}
    return [{"rid": s.rid, "version": s.version, "description": words.get(s.rid, "")} for s in specs]


def _describe_related(connection: Connection, executions: Sequence[RecordedExecution]) -> list[dict[str, Any]]:
    return [
        {"rid": run.rid, "status": str(run.status), "description": run.description}
        for run in summarize_executions(connection, executions)
    ]


def asset_to_dict(asset: Asset) -> dict[str, Any]:
    """An asset for programs."""
    return asset.model_dump(mode="json")


def _describe_workflow(connection: Connection, rid: str) -> dict[str, Any]:
    row = connection.require_row(MLTable.workflow, rid)
    newest = summarize_executions(connection, find_executions(connection, workflow=rid, limit=NEWEST_EXECUTIONS_LIMIT))
    return {"kind": "workflow", **workflow_to_dict(row), "newest_executions": [run.to_dict() for run in newest]}


def _describe_dataset(connection: Connection, rid: str) -> dict[str, Any]:
    from deriva_ml_core.datasets.members import member_links

    dataset = lookup_dataset(connection, rid)
    history = dataset.dataset_history()
    row = connection.require_row(MLTable.dataset, rid)
    catalog = connection.catalog
    then = catalog.at(history[-1].snapshot) if history else catalog
    counts = {
        element: sum(len(page) for page in then.pages(link.table, {link.dataset_column: rid}))
        for element, link in member_links(catalog.model).items()
    }
    return {
        "kind": "dataset",
        "rid": rid,
        "description": dataset.description,
        "types": list(dataset.dataset_types),
        "created": row.get("RCT"),
        "deleted": bool(row.get("Deleted")),
        "version": history[-1].version if history else None,
        "members": {element: count for element, count in counts.items() if count},
        "versions": [each.model_dump(mode="json", exclude={"dataset"}) for each in history],
        "parents": [each.rid for each in dataset.list_dataset_parents()],
        "newest_executions": [
            run.to_dict()
            for run in summarize_executions(
                connection, find_executions(connection, dataset=rid, limit=NEWEST_EXECUTIONS_LIMIT)
            )
        ],
    }


def _describe_asset(connection: Connection, rid: str) -> dict[str, Any]:
    asset = lookup_asset(connection, rid)
    catalog = connection.catalog
    row = connection.require_row(asset.table, rid)
    links = catalog.select(asset_execution_table_name(asset.table), {asset.table: rid})
    rows = catalog.select(MLTable.execution, {"RID": [link["Execution"] for link in links]}) if links else []
    roles = {link["Execution"]: link["Asset_Role"] for link in links}
    runs = summarize_executions(connection, [RecordedExecution(connection, each) for each in rows])
    executions = [{"role": roles[run.rid], **run.to_dict()} for run in runs]
    return {
        "kind": "asset",
        **asset_to_dict(asset),
        "created": row.get("RCT"),
        "source": connection.store.source(asset.url),
        "executions": executions,
    }


MAX_DOWNLOAD_BYTES = 256 * 2**20
"""Bytes up to which a kept file is brought from the store only to be shown."""

METADATA_TABLE = "Execution_Metadata"


def load_execution_state(connection: Connection, rid: str, assets: Sequence[Asset]) -> ExecutionState:
    """What an execution's journal tells, here or as it was kept; an empty story where there is none."""
    if (story := load_local_state(connection, rid)) is not None:
        return story
    with fetch_metadata_file(connection, assets, JOURNAL_FILENAME) as file:
        return load_state(file) if file else ExecutionState()


def load_configuration(
    connection: Connection, execution: RecordedExecution, assets: Sequence[Asset]
) -> Mapping[str, Any]:
    """What ``configuration.json`` of an execution says; empty where none was kept."""
    name = "configuration.json"
    with fetch_metadata_file(connection, assets, name, local_path=execution.working_dir / "records" / name) as file:
        return read_json_object(file)


@contextmanager
def fetch_metadata_file(
    connection: Connection,
    assets: Sequence[Asset],
    name: str,
    *,
    local_path: Path | None = None,
    is_prefix: bool = False,
) -> Iterator[Path | None]:
    """One of the files that describe an execution.

    Args:
        connection: The catalog.
        assets: The execution's assets.
        name: The file's name.
        local_path: Where it lies on this machine, which is newer than what was sent, where it is there.
        is_prefix: Whether `name` is only how the name begins.

    Yields:
        The file; None where there is none, or one that is too large to be brought.
    """
    if local_path is not None and local_path.is_file():
        yield local_path
        return
    found = [
        asset
        for asset in assets
        if asset.table == METADATA_TABLE and (asset.filename.startswith(name) if is_prefix else asset.filename == name)
    ]
    if not found or found[-1].length > MAX_DOWNLOAD_BYTES:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield download_asset(connection, found[-1], Path(folder))


def safe_file_name(asset: Asset) -> str:
    """The name of an asset's file without folders; its record id where that would be no name of a file."""
    name = PurePosixPath(asset.filename).name
    return asset.rid if name in ("", ".", "..") else name


def read_json_object(file: Path | None) -> Mapping[str, Any]:
    """The object that a file holds; empty where it holds none, or there is no file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
