"""Everything that is recorded about one execution, workflow, dataset, asset or other row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from deriva_ml_core._text import format_duration, format_size, format_time
from deriva_ml_core._views import Badge, Cell, Grid, Link, Presentable, View
from deriva_ml_core.analysis.run_files import load_curves, load_environment, load_fits
from deriva_ml_core.analysis.runs import (
    ExecutionSummary,
    WorkflowSummary,
    build_execution_grid,
    lookup_table,
    summarize_execution,
    summarize_executions,
)
from deriva_ml_core.assets.lookup import lookup_asset
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import DatasetVersion, lookup_dataset
from deriva_ml_core.datasets.members import member_links
from deriva_ml_core.definitions import MLTable, Role, split_rid
from deriva_ml_core.execution.query import find_executions
from deriva_ml_core.execution.recorded import RecordedExecution, lookup_execution
from deriva_ml_core.journal.state import ExecutionState
from deriva_ml_core.models import Asset, BestCorrection, DatasetSpec, MetricSummary, StatusUpdate
from deriva_ml_core.schema import asset_execution_table_name
from deriva_ml_core.training.metrics_file import MetricCurve

__all__ = [
    "AssetDescription",
    "AssetUse",
    "DatasetDescription",
    "Description",
    "ExecutionDescription",
    "FitDescription",
    "InputDataset",
    "RowDescription",
    "RunEnvironment",
    "WorkflowDescription",
    "asset_to_dict",
    "describe",
]

NEWEST_EXECUTIONS_LIMIT = 10
"""Executions in the description of a workflow or a dataset."""


@dataclass(frozen=True, slots=True)
class InputDataset:
    """A dataset that an execution used.

    Args:
        rid: Its RID.
        version: The version that was used.
        description: Its description.
    """

    rid: str
    version: str | None
    description: str


@dataclass(frozen=True, slots=True)
class RunEnvironment:
    """Where an execution ran and which code it ran; None and empty values are unknown.

    Args:
        host: The host's name.
        process: The process id.
        python: The version of Python.
        platform: The operating system.
        gpus: The names of the GPUs.
        command: The command line.
        code_url: Where the code is.
        code_checksum: The Git hash of the code's file, or the digest of the container image.
        code_changed: Whether that file had uncommitted changes.
        head: The commit of the repository.
        branch: The branch of the repository.
        repository_changed: Whether the repository had uncommitted changes.
        repository_pushed: Whether a remote branch contained the commit, as far as the repository knew.
        folder: The working folder on that host.
    """

    host: str | None
    process: int | None
    python: str | None
    platform: str | None
    gpus: tuple[str, ...]
    command: tuple[str, ...]
    code_url: str | None
    code_checksum: str | None
    code_changed: bool | None
    head: str | None
    branch: str | None
    repository_changed: bool | None
    repository_pushed: bool | None
    folder: str | Path | None


@dataclass(frozen=True, slots=True)
class FitDescription:
    """One fit of a training.

    Args:
        fit: Its number in the execution.
        began: When it began, as ISO 8601.
        ended: When it ended, as ISO 8601.
        outcome: How it ended.
        epochs: The planned number of epochs.
        epochs_done: The number of completed epochs.
        best: The best value of the monitored metric: ``metric``, ``value``, ``epoch``.
    """

    fit: int | None
    began: str | None
    ended: str | None
    outcome: str | None
    epochs: int | None
    epochs_done: int | None
    best: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class ExecutionDescription(Presentable):
    """Everything that is recorded about an execution.

    Args:
        summary: Its status, description, duration, workflow, parameters and metrics.
        start_time: When it started, in UTC; None before that, and if its journal is not available.
        stop_time: When it stopped, in UTC; None before that, and if its journal is not available.
        citation: The URL that identifies it outside the catalog.
        working_dir: Its working folder; None if that is not on this machine.
        input_datasets: The datasets that it used.
        input_assets: The assets that it used.
        outputs: The assets that it produced, metadata files included.
        output_datasets: The dataset versions that it created.
        unsent: The names of registered files that are not uploaded.
        parents: The executions that it is nested in.
        children: The executions nested in it.
        environment: Where it ran and which code it ran.
        fits: The fits of its training.
        curves: The values of its metrics by epoch or step.
        metrics: The last and best value of each metric, as the catalog has them.
        statuses: Its statuses, in order.
        best_corrections: The corrections of its best checkpoint, in order.
    """

    kind: ClassVar[str] = "execution"
    summary: ExecutionSummary
    start_time: datetime | None
    stop_time: datetime | None
    citation: str
    working_dir: Path | None
    input_datasets: tuple[InputDataset, ...]
    input_assets: tuple[Asset, ...]
    outputs: tuple[Asset, ...]
    output_datasets: tuple[DatasetSpec, ...]
    unsent: tuple[str, ...]
    parents: tuple[ExecutionSummary, ...]
    children: tuple[ExecutionSummary, ...]
    environment: RunEnvironment
    fits: tuple[FitDescription, ...]
    curves: tuple[MetricCurve, ...]
    metrics: tuple[MetricSummary, ...]
    statuses: tuple[StatusUpdate, ...]
    best_corrections: tuple[BestCorrection, ...] = ()

    @property
    def rid(self) -> str:
        """The execution's RID."""
        return self.summary.rid

    def to_dict(self) -> dict[str, Any]:
        """Return the description as ``deriva-ml show --json`` prints it."""
        return {
            "kind": self.kind,
            **self.summary.to_dict(),
            "started": self.start_time,
            "stopped": self.stop_time,
            "citation": self.citation,
            "working_dir": self.working_dir,
            "inputs": {
                "datasets": [asdict(dataset) for dataset in self.input_datasets],
                "assets": [asset_to_dict(asset) for asset in self.input_assets],
            },
            "outputs": [asset_to_dict(asset) for asset in self.outputs],
            "datasets_made": [spec.model_dump(include={"rid", "version"}) for spec in self.output_datasets],
            "unsent": list(self.unsent),
            "parents": _related_to_dicts(self.parents),
            "children": _related_to_dicts(self.children),
            "environment": asdict(self.environment),
            "fits": [asdict(fit) for fit in self.fits],
            "metrics": [curve.to_dict() for curve in self.curves],
            "metric_values": [metric.model_dump() for metric in self.metrics],
            "timeline": [
                {
                    "time": update.time,
                    "status": str(update.status),
                    "message": update.error or update.message,
                    **({"corrected_by": update.corrected_by} if update.corrected_by else {}),
                }
                for update in self.statuses
            ],
            "best_corrections": [each.model_dump() for each in self.best_corrections],
        }

    def _view(self) -> View:
        summary, workflow = self.summary, self.summary.workflow
        datasets = (f"{each.rid} {each.version or ''}".strip() for each in self.input_datasets)
        inputs = (*datasets, *(f"{each.filename} ({each.rid})" for each in self.input_assets))
        made = (f"{each.rid} {each.version or ''}".strip() for each in self.output_datasets)
        fields: list[tuple[str, Cell]] = [
            ("workflow", Link(workflow.name or workflow.rid, workflow.url or "") if workflow else None),
            ("host", self.environment.host),
            ("command", " ".join(self.environment.command)),
            ("inputs", ", ".join(inputs)),
            ("datasets made", ", ".join(made)),
            ("not uploaded", ", ".join(self.unsent)),
            ("parents", ", ".join(each.rid for each in self.parents)),
            ("children", ", ".join(each.rid for each in self.children)),
        ]
        metrics = [(each.label, each.last, each.best, each.best_at) for each in self.metrics]
        outputs = [(each.filename, ", ".join(each.asset_types), format_size(each.length)) for each in self.outputs]
        statuses = [
            (format_time(each.time, show_seconds=True), Badge(str(each.status)), each.error or each.message)
            for each in self.statuses
        ]
        grids = [
            Grid([field for field in fields if field[1]]),
            Grid([(name, str(value)) for name, value in summary.params.items()], title="Parameters"),
            Grid(metrics, ("", "last", "best", "at epoch"), title="Metrics"),
            Grid(outputs, title="Outputs"),
            Grid(statuses, title="Statuses"),
        ]
        return View(
            Link(f"Execution {self.rid}", self.citation),
            [summary.description, summary.status_detail, *(grid for grid in grids if grid.rows)],
            status=str(summary.status),
            note=format_duration(summary.duration_seconds),
        )


@dataclass(frozen=True, slots=True)
class WorkflowDescription(Presentable):
    """Everything that is recorded about a workflow.

    Args:
        workflow: The workflow.
        newest_executions: Its newest executions, at most ten.
    """

    kind: ClassVar[str] = "workflow"
    workflow: WorkflowSummary
    newest_executions: tuple[ExecutionSummary, ...]

    @property
    def rid(self) -> str:
        """The workflow's RID."""
        return self.workflow.rid

    def to_dict(self) -> dict[str, Any]:
        """Return the description as ``deriva-ml show --json`` prints it."""
        return {
            "kind": self.kind,
            **self.workflow.to_dict(),
            "newest_executions": [execution.to_dict() for execution in self.newest_executions],
        }

    def _view(self) -> View:
        workflow = self.workflow
        fields = [("type", workflow.workflow_type), ("version", workflow.version), ("checksum", workflow.checksum)]
        runs = build_execution_grid(self.newest_executions, title="Newest executions")
        return View(
            Link(f"Workflow {workflow.rid}: {workflow.name or ''}", workflow.url or ""),
            [workflow.description, Grid([field for field in fields if field[1]]), *([runs] if runs.rows else [])],
        )


@dataclass(frozen=True, slots=True)
class DatasetDescription(Presentable):
    """Everything that is recorded about a dataset.

    Args:
        rid: Its RID.
        description: Its description.
        types: Its types, terms of the vocabulary Dataset_Type.
        created: When its row was created, as ISO 8601.
        deleted: Whether it is marked as deleted.
        version: Its current version; None if it has none.
        members: The number of its members in the current version, by table.
        versions: Its versions, the oldest first.
        parents: The RIDs of the datasets that it is a member of.
        newest_executions: The newest executions that used it, at most ten.
    """

    kind: ClassVar[str] = "dataset"
    rid: str
    description: str
    types: tuple[str, ...]
    created: str | None
    deleted: bool
    version: str | None
    members: Mapping[str, int]
    versions: tuple[DatasetVersion, ...]
    parents: tuple[str, ...]
    newest_executions: tuple[ExecutionSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the description as ``deriva-ml show --json`` prints it."""
        return {
            "kind": self.kind,
            "rid": self.rid,
            "description": self.description,
            "types": list(self.types),
            "created": self.created,
            "deleted": self.deleted,
            "version": self.version,
            "members": dict(self.members),
            "versions": [version.model_dump(mode="json", exclude={"dataset"}) for version in self.versions],
            "parents": list(self.parents),
            "newest_executions": [execution.to_dict() for execution in self.newest_executions],
        }

    def _view(self) -> View:
        members = [(table, f"{count:,}") for table, count in self.members.items()]
        versions = [(each.version, format_time(each.created), each.description) for each in reversed(self.versions)]
        grids = [
            Grid(members, title="Members"),
            Grid(versions, title="Versions, newest first"),
            build_execution_grid(self.newest_executions, title="Newest executions that used it"),
        ]
        note = ", ".join(self.types) + (" (deleted)" if self.deleted else "")
        title = f"Dataset {self.rid}, version {self.version}" if self.version else f"Dataset {self.rid}"
        return View(title, [self.description, *(grid for grid in grids if grid.rows)], note=note)


@dataclass(frozen=True, slots=True)
class AssetUse:
    """An execution that produced or used an asset.

    Args:
        role: ``Input`` or ``Output``.
        execution: The execution.
    """

    role: str
    execution: ExecutionSummary

    def to_dict(self) -> dict[str, Any]:
        """Return the execution with its role, for JSON."""
        return {"role": self.role, **self.execution.to_dict()}


@dataclass(frozen=True, slots=True)
class AssetDescription(Presentable):
    """Everything that is recorded about an asset.

    Args:
        asset: The asset.
        created: When its row was created, as ISO 8601.
        source: The URL or file of its bytes.
        uses: The executions that produced or used it.
    """

    kind: ClassVar[str] = "asset"
    asset: Asset
    created: str | None
    source: str
    uses: tuple[AssetUse, ...]

    @property
    def rid(self) -> str:
        """The asset's RID."""
        return self.asset.rid

    def to_dict(self) -> dict[str, Any]:
        """Return the description as ``deriva-ml show --json`` prints it."""
        return {
            "kind": self.kind,
            **asset_to_dict(self.asset),
            "created": self.created,
            "source": self.source,
            "executions": [use.to_dict() for use in self.uses],
        }

    def _view(self) -> View:
        uses = [
            (use.role, use.execution.rid, Badge(str(use.execution.status)), use.execution.description)
            for use in self.uses
        ]
        view = self.asset._view()
        return replace(view, parts=[*view.parts, *([Grid(uses, title="Executions")] if uses else [])])


@dataclass(frozen=True, slots=True)
class RowDescription(Presentable):
    """A row of any other table.

    Args:
        rid: Its RID.
        table: Its table.
        columns: Its values by column.
    """

    kind: ClassVar[str] = "row"
    rid: str
    table: str
    columns: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the description as ``deriva-ml show --json`` prints it."""
        return {"kind": self.kind, "rid": self.rid, "table": self.table, "columns": dict(self.columns)}

    def _view(self) -> View:
        rows = [(name, None if value is None else str(value)) for name, value in self.columns.items()]
        return View(f"{self.table} {self.rid}", [Grid(rows)])


Description = ExecutionDescription | WorkflowDescription | DatasetDescription | AssetDescription | RowDescription


def describe(connection: Connection, rid: str, *, include_curves: bool = True) -> Description:
    """Return everything that is recorded about a row; see ``DerivaML.describe``."""
    table, bare_rid = lookup_table(connection, rid), split_rid(rid)[0]
    if table == MLTable.execution:
        return _describe_execution(connection, bare_rid, include_curves=include_curves)
    if table == MLTable.workflow:
        return _describe_workflow(connection, bare_rid)
    if table == MLTable.dataset:
        return _describe_dataset(connection, bare_rid)
    if connection.catalog.model.table(table).is_asset:
        return _describe_asset(connection, bare_rid)
    row = connection.catalog.select(table, {"RID": bare_rid})[0]
    return RowDescription(bare_rid, table, row)


def _describe_execution(connection: Connection, rid: str, *, include_curves: bool) -> ExecutionDescription:
    execution = lookup_execution(connection, rid)
    assets = execution.list_assets()
    state = execution._load_state()
    summary = replace(summarize_execution(connection, execution), tags=execution.tags)
    return ExecutionDescription(
        summary=replace(summary, params=execution.params, metrics=tuple(execution.list_metrics())),
        start_time=state.start_time,
        stop_time=state.stop_time,
        citation=execution.url,
        working_dir=execution.working_dir if execution.working_dir.is_dir() else None,
        input_datasets=tuple(_describe_input_datasets(connection, execution)),
        input_assets=tuple(asset for asset in assets if asset.role == Role.input),
        outputs=tuple(asset for asset in assets if asset.role != Role.input),
        output_datasets=tuple(execution.list_output_datasets()),
        unsent=state.unsent_filenames(),
        parents=summarize_executions(connection, execution.list_parent_executions()),
        children=summarize_executions(connection, execution.list_nested_executions()),
        environment=_describe_environment(load_environment(connection, execution, assets), state),
        fits=tuple(map(_describe_fit, load_fits(connection, execution, assets))),
        curves=tuple(load_curves(connection, execution, assets)) if include_curves else (),
        metrics=tuple(execution.list_metrics()),
        statuses=tuple(state.statuses),
        best_corrections=tuple(state.best_corrections),
    )


def _describe_input_datasets(connection: Connection, execution: RecordedExecution) -> list[InputDataset]:
    specs = execution.list_input_datasets()
    rows = connection.catalog.select(MLTable.dataset, {"RID": [spec.rid for spec in specs]}) if specs else []
    descriptions = {row["RID"]: row["Description"] or "" for row in rows}
    return [InputDataset(spec.rid, spec.version, descriptions.get(spec.rid, "")) for spec in specs]


def _describe_environment(snapshot: Mapping[str, Any], state: ExecutionState) -> RunEnvironment:
    environment, source, repository = (_get_object(snapshot, name) for name in ("environment", "source", "repository"))
    process = state.process or state.process_elsewhere
    return RunEnvironment(
        host=environment.get("hostname") or (process.host if process else None),
        process=process.pid if process else environment.get("pid"),
        python=_get_object(environment, "python").get("version"),
        platform=environment.get("platform"),
        gpus=_get_list(environment, "gpus"),
        command=_get_list(environment, "argv"),
        code_url=source.get("url"),
        code_checksum=source.get("file_checksum") or source.get("checksum"),
        code_changed=source.get("dirty"),
        head=repository.get("head"),
        branch=repository.get("branch"),
        repository_changed=repository.get("dirty"),
        repository_pushed=repository.get("pushed"),
        folder=snapshot.get("folder") or (state.creation.folder if state.creation else None),
    )


def _get_object(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, dict) else {}


def _get_list(values: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    value = values.get(name)
    return tuple(value) if isinstance(value, list) else ()


def _describe_fit(fit: Mapping[str, Any]) -> FitDescription:
    return FitDescription(
        fit=fit.get("fit"),
        began=fit.get("began"),
        ended=fit.get("ended"),
        outcome=fit.get("outcome"),
        epochs=fit.get("epochs"),
        epochs_done=fit.get("epochs_done"),
        best=fit.get("best"),
    )


def _describe_workflow(connection: Connection, rid: str) -> WorkflowDescription:
    workflow = WorkflowSummary.from_row(connection.require_row(MLTable.workflow, rid))
    newest = find_executions(connection, workflow=rid, limit=NEWEST_EXECUTIONS_LIMIT)
    return WorkflowDescription(workflow, summarize_executions(connection, newest))


def _describe_dataset(connection: Connection, rid: str) -> DatasetDescription:
    dataset = lookup_dataset(connection, rid)
    versions = dataset.dataset_history()
    row: Mapping[str, Any] = connection.require_row(MLTable.dataset, rid)
    newest = find_executions(connection, dataset=rid, limit=NEWEST_EXECUTIONS_LIMIT)
    return DatasetDescription(
        rid=rid,
        description=dataset.description,
        types=tuple(dataset.dataset_types),
        created=row.get("RCT"),
        deleted=bool(row.get("Deleted")),
        version=versions[-1].version if versions else None,
        members=_count_members(connection, rid, versions[-1].snapshot if versions else None),
        versions=tuple(versions),
        parents=tuple(parent.rid for parent in dataset.list_dataset_parents()),
        newest_executions=summarize_executions(connection, newest),
    )


def _count_members(connection: Connection, rid: str, snapshot: str | None) -> dict[str, int]:
    catalog = connection.catalog.at(snapshot) if snapshot else connection.catalog
    counts = {
        table: sum(len(page) for page in catalog.pages(link.table, {link.dataset_column: rid}))
        for table, link in member_links(connection.catalog.model).items()
    }
    return {table: count for table, count in counts.items() if count}


def _describe_asset(connection: Connection, rid: str) -> AssetDescription:
    asset = lookup_asset(connection, rid)
    row: Mapping[str, Any] = connection.require_row(asset.table, rid)
    links = connection.catalog.select(asset_execution_table_name(asset.table), {asset.table: rid})
    roles = {link["Execution"]: link["Asset_Role"] for link in links}
    rows = connection.catalog.select(MLTable.execution, {"RID": [link["Execution"] for link in links]}) if links else []
    executions = summarize_executions(connection, [RecordedExecution(connection, each) for each in rows])
    return AssetDescription(
        asset=asset,
        created=row.get("RCT"),
        source=connection.store.source(asset.url),
        uses=tuple(AssetUse(roles[execution.rid], execution) for execution in executions),
    )


def asset_to_dict(asset: Asset) -> dict[str, Any]:
    """Return an asset's values for JSON."""
    return asset.model_dump(mode="json")


def _related_to_dicts(executions: Iterable[ExecutionSummary]) -> Sequence[dict[str, Any]]:
    return [
        {"rid": execution.rid, "status": str(execution.status), "description": execution.description}
        for execution in executions
    ]
