"""Client for a catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

import pluggy
from pydantic import SecretStr

from deriva_ml_core import datasets, workflow
from deriva_ml_core._deprecation import deprecated_keywords
from deriva_ml_core._lazy import require_extra
from deriva_ml_core._text import escape_surrogates
from deriva_ml_core._views import Grid, Presentable, View
from deriva_ml_core.assets import lookup as assets
from deriva_ml_core.connection import Connection, open_connection
from deriva_ml_core.definitions import RID, MLVocab, Status
from deriva_ml_core.errors import ConfigurationError, UnknownColumn
from deriva_ml_core.models import Address, Asset, UploadOptions, UploadProgress
from deriva_ml_core.paths import expand_home, to_absolute_path
from deriva_ml_core.plugins import plugin_manager
from deriva_ml_core.plugins.notifications import DEFAULT_EXIT_TIMEOUT
from deriva_ml_core.schema import DOMAIN_SCHEMA, Column, ForeignKey, Table, asset_tables, vocabulary_table
from deriva_ml_core.workflow import CatalogWorkflow, Workflow

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]
    from pydantic import JsonValue

    from deriva_ml_core.analysis.compare import Comparison
    from deriva_ml_core.analysis.describe import Description
    from deriva_ml_core.analysis.lineage import Lineage
    from deriva_ml_core.analysis.reproduce import Reproduction
    from deriva_ml_core.analysis.runs import DatasetPage, ExecutionList, ExecutionPage, WorkflowPage
    from deriva_ml_core.analysis.verify import VerificationProgress, VerificationResult
    from deriva_ml_core.datasets import Dataset
    from deriva_ml_core.deletion import DeletedExecution, Deletion
    from deriva_ml_core.execution import Execution, ExecutionConfiguration, RecordedExecution
    from deriva_ml_core.export import ExportFormat, IncludedFiles
    from deriva_ml_core.push import PushReport

__all__ = ["DerivaML"]

NEWEST_LIMIT = 5
"""Executions that a notebook shows for a client."""


class ExecutionRowFilters(TypedDict, total=False):
    """Arguments of ``DerivaML.execution_rows``."""

    workflow: RID | None
    workflow_type: str | None
    status: Status | None
    dataset: RID | None
    text: str | None
    sort: str | None
    stage: str | None
    where: str | Sequence[str]
    params: Mapping[str, JsonValue]
    tags: str | Sequence[str]
    user: str | None
    parent: RID | None
    limit: int | None


class DerivaML(Presentable):
    """Client for a catalog of machine-learning runs.

    Args:
        hostname: Host name of a Deriva server, or ``file:<folder>`` for the embedded catalog in a folder. By default
            the embedded catalog in ``DERIVA_ML_HOME`` (``~/.deriva-ml``), which is created on first use.
        catalog_id: Number of the catalog on the server. It can end in ``@<snapshot>``.
        working_dir: Parent folder of the executions' working folders. By default the catalog's own folder.
        credential: Login for a server: ``{"bearer-token": …}`` or ``{"cookie": …}``. By default the stored login.
        plugins: Plugin manager to use instead of the process's own.
        clean_execution_dir: Whether uploads remove uploaded files from the staging folders.
        exit_timeout: Maximum seconds to wait at the end of a run for background writes and plugins. Default 30.
        store: Address of the catalog's object store, such as ``s3://bucket/prefix``. It confirms the first use of a
            store; by default only stores that this user has confirmed are used.

    Raises:
        UnknownAddress: No backend serves this address.
        UnconfirmedStore: The catalog has its files in a store that this user has not confirmed.
        StoreConflict: The catalog has its files in another store than `store`.
    """

    @deprecated_keywords({"patience": "exit_timeout"})
    def __init__(
        self,
        hostname: str | None = None,
        catalog_id: str | int | None = None,
        *,
        working_dir: str | Path | None = None,
        credential: Mapping[str, str] | None = None,
        plugins: pluggy.PluginManager | None = None,
        clean_execution_dir: bool = True,
        exit_timeout: float = DEFAULT_EXIT_TIMEOUT,
        store: str | None = None,
    ) -> None:
        address = Address(
            hostname=hostname,
            catalog_id=None if catalog_id is None else str(catalog_id),
            working_dir=None if working_dir is None else to_absolute_path(expand_home(Path(working_dir))),
            credential=_wrap_credential(credential),
            store=store,
        )
        self._connection = open_connection(
            address, plugins, clean_execution_dir=clean_execution_dir, exit_timeout=exit_timeout
        )

    @classmethod
    def create(
        cls,
        hostname: str,
        project_name: str | None = None,
        *,
        catalog_id: str | int | None = None,
        acls: Mapping[str, Sequence[str]] | None = None,
        credential: Mapping[str, str] | None = None,
        working_dir: str | Path | None = None,
        plugins: pluggy.PluginManager | None = None,
        store: str | None = None,
    ) -> Self:
        """Create a catalog with the standard tables and terms, and return a client for it.

        Args:
            hostname: Host name of a Deriva server, ``postgresql://<user>@<host>/<database>`` for an existing database,
                or ``file:<folder>`` for an embedded catalog with its files in `store`.
            project_name: Name of the schema for the project's tables. Required on a server.
            catalog_id: Number of an existing catalog. Missing tables and terms are added, and nothing is removed. By
                default a new catalog is created.
            acls: Users and groups by right: ``enumerate``, ``select``, ``write`` and the other rights of ERMrest. By
                default only the creator can see and change the catalog.
            credential: Login, as for `DerivaML`. By default the stored login.
            working_dir: Parent folder of the executions' working folders. By default the catalog's own folder.
            plugins: Plugin manager to use instead of the process's own.
            store: Address of the object store of a new embedded catalog or one in PostgreSQL:
                ``s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1``, or ``file:<folder>`` for a
                folder that all users share. The catalog keeps it.

        Returns:
            A client for the catalog.

        Raises:
            LoginRequired: The server or the store does not know the user.
            AccessRefused: The user is not allowed to create catalogs, or to write to the store.
            ConfigurationError: The server needs a project name, or an embedded catalog a store.
            StoreConflict: There is an embedded catalog with another store.
        """
        existing = None if catalog_id is None else str(catalog_id)
        address = Address(hostname=hostname, catalog_id=existing, credential=_wrap_credential(credential), store=store)
        if project_name is None and address.is_on_server:
            raise ConfigurationError(
                f"{address.printable_hostname} is a server; add project_name, the name of the schema for your tables."
            )
        create_catalog = (plugins or plugin_manager()).hook.create_catalog
        number = create_catalog(address=address, project_name=project_name or "", acls=acls)
        return cls(hostname, number or None, working_dir=working_dir, credential=credential, plugins=plugins)

    def __repr__(self) -> str:
        return f"<DerivaML {self._connection.catalog.name}>"

    def _view(self) -> View:
        from deriva_ml_core.analysis.runs import ExecutionFilters, build_execution_grid, list_executions

        page = list_executions(self._connection, ExecutionFilters(), limit=NEWEST_LIMIT, page=1)
        newest = build_execution_grid(page.executions, title="Newest executions")
        fields = Grid([("working folders and downloads", str(self._connection.folder))])
        is_empty = "The catalog has no executions yet."
        return View(f"DerivaML {self._connection.catalog.name}", [fields, newest if page.executions else is_empty])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. The next call opens them again."""
        self._connection.catalog.close()
        self._connection.store.close()

    @property
    def connection(self) -> Connection:
        """Catalog, object store and plugins of this client.

        For code that needs the `Catalog` or `ObjectStore` protocol directly, such as plugins and other tools.
        """
        return self._connection

    # Workflows

    def create_workflow(self, name: str, workflow_type: str, description: str = "") -> Workflow:
        """Create a workflow for the running code, whose source is detected automatically.

        Args:
            name: Name of the workflow.
            workflow_type: A term of the vocabulary Workflow_Type.
            description: Description of the workflow.

        Returns:
            A workflow that is not registered in the catalog yet.

        Raises:
            UnknownTerm: The catalog has no such workflow type. The message names the existing types.
        """
        self._connection.terms.require(MLVocab.workflow_type, [workflow_type])
        return workflow.create_workflow(
            name=name, workflow_type=workflow_type, description=description, plugins=self._connection.plugins
        )

    def add_workflow(self, workflow_: Workflow) -> RID:
        """Register a workflow, or reuse the registered workflow with the same URL or checksum.

        Args:
            workflow_: The workflow.

        Returns:
            RID of the workflow in the catalog.

        Raises:
            UnknownTerm: The catalog has no such workflow type.
        """
        return workflow.register_workflow(self._connection, workflow_)

    def lookup_workflow(self, rid: RID) -> CatalogWorkflow:
        """Return a workflow. Assigning its ``description`` or ``workflow_type`` writes to the catalog.

        Args:
            rid: RID of the workflow.

        Returns:
            The workflow, bound to the catalog.

        Raises:
            UnknownRID: No row has this RID.
            WrongTable: The RID belongs to a row of another table.
        """
        return workflow.lookup_workflow(self._connection, rid)

    def lookup_workflow_by_url(self, url_or_checksum: str) -> CatalogWorkflow:
        """Return the workflow with a URL or checksum.

        Args:
            url_or_checksum: URL or Git checksum of the workflow.

        Returns:
            The workflow, bound to the catalog.

        Raises:
            UnknownWorkflow: No workflow has this URL or checksum.
        """
        return workflow.lookup_workflow_by_url(self._connection, url_or_checksum)

    def find_workflows(self) -> list[CatalogWorkflow]:
        """Return all workflows.

        Returns:
            The workflows, bound to the catalog. An empty list if there are none.
        """
        return workflow.find_workflows(self._connection)

    # Executions

    def create_execution(
        self,
        configuration: ExecutionConfiguration,
        workflow: Workflow | RID | None = None,
        dry_run: bool = False,
        console: bool = False,
    ) -> Execution:
        """Create an execution and record its inputs. Nothing is downloaded.

        Args:
            configuration: Inputs, description and parameters of the execution.
            workflow: The workflow or its RID, if the configuration has none.
            dry_run: Whether to write nothing to the catalog and the store. The execution's RID is then ``0000``.
            console: Whether to keep what the program and its child processes print in the ``with`` block, as
                ``console.txt``. Within the block, standard output and standard error are then files, so that
                ``isatty()`` is False; the terminal still shows everything.

        Returns:
            The execution, to be entered by ``with``.

        Raises:
            WorkflowMissing: Neither the configuration nor `workflow` names a workflow.
            ConflictingWorkflow: The configuration has another workflow than `workflow`.
            UnknownRID, WrongTable, UnknownVersion, UnknownTerm: An input or the workflow's type does not exist.
        """
        from deriva_ml_core.execution.multi_process import create_execution

        execution = create_execution(self._connection, configuration, workflow, dry_run=dry_run)
        execution._has_console = console
        return execution

    def restore_execution(self, execution_rid: RID) -> Execution:
        """Restore an execution with its inputs, staged files, statuses and timings.

        If the process of the execution died, the execution is marked as Aborted. If its working folder is not on this
        machine, the execution is restored from the records in the catalog.

        Args:
            execution_rid: RID of the execution.

        Returns:
            The execution, to which outputs can be added and uploaded.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
        """
        from deriva_ml_core.execution.multi_process import restore_execution

        return restore_execution(self._connection, execution_rid)

    def resume_execution(self, execution_rid: RID, console: bool = False) -> Execution:
        """Restore an execution to continue it: its ``with`` can be entered again, even if the execution has ended.

        On entry the status is Running again. Start time, inputs, files and statuses stay, and the duration adds up.

        Args:
            execution_rid: RID of the execution.
            console: Whether to keep what the program prints, as in `create_execution`. It is added to the output of
                earlier parts of the run.

        Returns:
            The execution, not entered yet.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
            ExecutionRunning: A process is running the execution.
        """
        from deriva_ml_core.execution.multi_process import resume_execution

        execution = resume_execution(self._connection, execution_rid)
        execution._has_console = console
        return execution

    def correct_status(self, execution_rid: RID, status: Status | str, reason: str) -> RecordedExecution:
        """Correct the status of an execution that has ended, when the recorded one is wrong.

        The former status stays on record: `list_statuses` returns both. The message of the new one, which is in the
        catalog's row too, names the reason, the user and the former status. A copy of the journal with the correction
        is stored in the catalog.

        Args:
            execution_rid: RID of the execution.
            status: How the run really ended: ``completed``, ``failed`` or ``aborted``.
            reason: Why the recorded status is wrong.

        Returns:
            The recorded execution.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
            ConfigurationError: The status is not one of these, or the reason is empty.
            InvalidTransition: The execution has that status already.
            ExecutionRunning: A process is running the execution.
        """
        from deriva_ml_core.execution.restore import correct_status

        correct_status(self._connection, execution_rid, status, reason)
        return self.lookup_execution(execution_rid)

    def correct_best_checkpoint(self, execution_rid: RID, checkpoint: RID | str, reason: str) -> RecordedExecution:
        """Name another checkpoint of an execution that has ended as the best, when the recorded one is wrong.

        The asset type Best_Checkpoint moves to it. `list_best_corrections` of the execution returns who corrected it,
        when, why, and which checkpoint was the best before. A copy of the journal with the correction is stored in the
        catalog. A file that another execution uploaded too keeps its types; for this execution, the correction counts.

        A training that is resumed afterwards chooses the best checkpoint by its metric again.

        Args:
            execution_rid: RID of the execution.
            checkpoint: RID of an uploaded file of the checkpoint, or the name of the file or folder.
            reason: Why the recorded best checkpoint is wrong.

        Returns:
            The recorded execution.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
            UnknownCheckpoint: The execution has uploaded no such checkpoint; the message names the existing ones. Or
                the RID is that of one of several files in a folder.
            AlreadyBestCheckpoint: It is the best one already.
            ConfigurationError: The reason is empty.
            ExecutionRunning: A process is running the execution.
            UnknownTerm: The catalog has no asset type Best_Checkpoint.
        """
        from deriva_ml_core.training.best_correction import correct_best_checkpoint

        correct_best_checkpoint(self._connection, execution_rid, checkpoint, reason)
        return self.lookup_execution(execution_rid)

    def lookup_execution(self, execution_rid: RID) -> RecordedExecution:
        """Return an execution for reading.

        Args:
            execution_rid: RID of the execution.

        Returns:
            The recorded execution.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
        """
        from deriva_ml_core.execution.recorded import lookup_execution

        return lookup_execution(self._connection, execution_rid)

    def find_executions(
        self,
        workflow: Workflow | RID | None = None,
        workflow_type: str | None = None,
        status: Status | None = None,
        dataset: Dataset | RID | None = None,
        limit: int | None = None,
        sort: str | None = None,
        stage: str | None = None,
        *,
        where: str | Sequence[str] = (),
        params: Mapping[str, JsonValue] = MappingProxyType({}),
        tags: str | Sequence[str] = (),
        user: str | None = None,
        parent: RID | None = None,
    ) -> ExecutionList:
        """Return the matching executions, newest first.

        Args:
            workflow: Only executions of this workflow.
            workflow_type: Only executions of workflows of this type.
            status: Only executions with this status. An execution whose process died counts as Aborted.
            dataset: Only executions with this input dataset, in any version.
            limit: Maximum number of executions. None for all.
            sort: Metric to sort by its best value, best first, such as ``"val_loss"``; ``"val_loss:last"`` sorts by the
                last value, ``"lr:min"`` and ``"lr:max"`` by the smallest or the largest last value. Executions without
                a finite value are left out.
            stage: Stage of the metric: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``. None for the first
                stage that has the metric.
            where: Conditions on parameters and metrics, such as ``"lr > 0.001"`` or ``"val_loss < 0.3"``; all must
                hold. The operators are ``=``, ``!=``, ``<``, ``<=``, ``>`` and ``>=``. A metric means its best value,
                ``"last(val_loss) < 0.3"`` its last. ``params.`` or ``metrics.`` before a name selects one of them.
            params: Values of parameters, such as ``{"optimizer": "Adam"}``; all must be equal.
            tags: Tags; an execution must have all of them.
            user: User who created them, as ``RecordedExecution.user`` names it.
            parent: RID of the execution that they are nested in, such as that of a sweep.

        Returns:
            The recorded executions, a list that notebooks show as a table. An empty list if none matches.

        Raises:
            InvalidCondition: A condition cannot be parsed. The message shows where.
            UnknownParameter: No execution has a parameter or metric of that name. The message names similar ones.
            AmbiguousName: A name is that of a parameter and of a metric.
            UnknownMetric: No execution has reported the metric. The message names the existing metrics.
            ConfigurationError: The catalog has no table for metrics, the stage is unknown, or the metric has no best
                value.
        """
        from deriva_ml_core.analysis.runs import ExecutionList
        from deriva_ml_core.execution.conditions import resolve_conditions
        from deriva_ml_core.execution.query import find_executions, resolve_ranking
        from deriva_ml_core.execution.tags import as_tags

        conditions = resolve_conditions(self._connection, where, params, stage)
        ranking = None if sort is None else resolve_ranking(self._connection, sort, stage)
        rid = workflow.rid if isinstance(workflow, Workflow) else workflow
        if isinstance(workflow, Workflow) and rid is None:
            return ExecutionList(self._connection)
        found = find_executions(
            self._connection,
            workflow=rid,
            workflow_type=workflow_type,
            status=None if status is None else Status(status),
            dataset=dataset.rid if isinstance(dataset, datasets.Dataset) else dataset,
            limit=limit,
            ranking=ranking,
            conditions=conditions,
            tags=as_tags(tags),
            user=user,
            parent=parent,
        )
        return ExecutionList(self._connection, found)

    def set_baseline(self, execution_rid: RID, name: str = "baseline") -> RecordedExecution:
        """Make an execution the baseline that others are compared with.

        A name has one baseline: the execution gets the tag ``baseline``, or ``baseline:NAME`` for another name, and the
        former one loses it. `RecordedExecution.remove_tags` removes it without a successor.

        Args:
            execution_rid: RID of the execution.
            name: Name of the baseline.

        Returns:
            The execution.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
            InvalidTag: The name makes no valid tag.
            ConfigurationError: The catalog has no table for tags; the message names who adds it.
        """
        from deriva_ml_core.execution.tags import set_baseline

        set_baseline(self._connection, execution_rid, name)
        return self.lookup_execution(execution_rid)

    def lookup_baseline(self, name: str = "baseline") -> RecordedExecution:
        """Return the execution that is the baseline of a name.

        Args:
            name: Name of the baseline.

        Returns:
            The execution.

        Raises:
            UnknownBaseline: No execution is the baseline of that name. The message names the existing ones.
        """
        from deriva_ml_core.execution.tags import lookup_baseline

        return self.lookup_execution(lookup_baseline(self._connection, name))

    def list_baselines(self) -> dict[str, RID]:
        """Return all baselines.

        Returns:
            The RID of the execution by the name of the baseline. Empty if there is none.
        """
        from deriva_ml_core.execution.tags import list_baselines

        return list_baselines(self._connection)

    def delete_execution(
        self, execution_rid: RID, outputs: bool = True, *, dry_run: bool = False, expected: Deletion | None = None
    ) -> Deletion:
        """Delete an execution that has ended, with its details, links, metadata files and output files.

        Nothing else is deleted. The deletion is refused while anything else refers to the execution or its files: a
        dataset with a present or past version, a value of a feature, another execution, or a row of any other table.

        In an embedded catalog, `restore_deleted_execution` restores it for 30 days; its objects and its working folder
        are kept for that time. On a server only rows are deleted, at once and for good: the files stay in Hatrac, where
        a name is never given again.

        Args:
            execution_rid: RID of the execution.
            outputs: Whether to delete its output files too. Its metadata files are deleted in any case. A file that
                another execution has as an output too stays.
            dry_run: Whether to list only what would be deleted.
            expected: The result of a dry run that the user has seen: if other rows would be deleted, none is.

        Returns:
            The deleted rows.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
            RowInUse: Something else refers to it or its files, or other rows than expected would be deleted.
            ExecutionRunning: It has not ended, or another process uploads its files.
        """
        from deriva_ml_core.deletion import delete_execution

        return delete_execution(self._connection, execution_rid, outputs=outputs, dry_run=dry_run, expected=expected)

    def list_deleted_executions(self) -> list[DeletedExecution]:
        """Return the executions in the trash, the newest deletion first.

        Returns:
            The executions with the time until which each can be restored. An empty list for a server, which has no
            trash.
        """
        from deriva_ml_core.deletion import list_deleted_executions

        return list_deleted_executions(self._connection)

    def restore_deleted_execution(self, execution_rid: RID) -> RecordedExecution:
        """Restore an execution from the trash, with the same RIDs, files and working folder.

        A file that was recorded again meanwhile keeps its newer row, and a baseline that moved stays where it is.

        Args:
            execution_rid: RID of the execution.

        Returns:
            The execution.

        Raises:
            NotInTrash: It is not in the trash, its time is over, or a row that it refers to was deleted too.
        """
        from deriva_ml_core.deletion import restore_deleted_execution

        restore_deleted_execution(self._connection, execution_rid)
        return self.lookup_execution(execution_rid)

    # Questions about recorded runs

    def list_executions(
        self,
        *,
        workflow: RID | None = None,
        workflow_type: str | None = None,
        status: Status | None = None,
        dataset: RID | None = None,
        text: str | None = None,
        sort: str | None = None,
        stage: str | None = None,
        where: str | Sequence[str] = (),
        params: Mapping[str, JsonValue] = MappingProxyType({}),
        tags: str | Sequence[str] = (),
        user: str | None = None,
        parent: RID | None = None,
        limit: int = 20,
        page: int = 1,
    ) -> ExecutionPage:
        """List executions as frozen summaries, page by page, newest first or best first.

        Args:
            workflow: The RID of their workflow.
            workflow_type: The type of their workflow, a term of the vocabulary Workflow_Type.
            status: Their status. An execution whose process died is Aborted.
            dataset: The RID of a dataset that they used as input.
            text: A text in their description or in their workflow's name, upper or lower case.
            sort: The metric to sort by, best value first, such as ``"val_loss"``; ``"val_loss:last"`` sorts by its
                last value, ``"lr:min"`` and ``"lr:max"`` by the smallest or the largest last value. Executions without
                the metric are left out.
            stage: The stage of that metric: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``; by default the
                first stage that has it.
            where: Conditions on parameters and metrics, such as ``"lr > 0.001"``; see ``find_executions``.
            params: Values of parameters, such as ``{"optimizer": "Adam"}``.
            tags: Tags; an execution must have all of them.
            user: User who created them, as ``RecordedExecution.user`` names it.
            parent: RID of the execution that they are nested in, such as that of a sweep.
            limit: Executions on a page.
            page: The page, from 1.

        Returns:
            The page, and whether another one follows.

        Raises:
            InvalidRID, UnknownRID, WrongTable, UnknownTerm, UnknownMetric, UnknownParameter: A filter names what does
                not exist.
            InvalidCondition: A condition cannot be parsed. The message shows where.
            ConfigurationError: There is no such stage, or the catalog has no table for metrics.
        """
        from deriva_ml_core.analysis.runs import ExecutionFilters, list_executions

        filters = ExecutionFilters(
            workflow, workflow_type, status, dataset, text, sort, stage, where, params, tags, user, parent
        )
        return list_executions(self._connection, filters, limit=limit, page=page)

    def execution_rows(
        self,
        *,
        workflow: RID | None = None,
        workflow_type: str | None = None,
        status: Status | None = None,
        dataset: RID | None = None,
        text: str | None = None,
        sort: str | None = None,
        stage: str | None = None,
        where: str | Sequence[str] = (),
        params: Mapping[str, JsonValue] = MappingProxyType({}),
        tags: str | Sequence[str] = (),
        user: str | None = None,
        parent: RID | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return one flat row for each execution, with its parameters and metrics.

        Args:
            workflow: The RID of their workflow.
            workflow_type: The type of their workflow.
            status: Their status.
            dataset: The RID of a dataset that they used as input.
            text: A text in their description or in their workflow's name, upper or lower case.
            sort: The metric to sort by; see ``list_executions``.
            stage: The stage of that metric and of metrics in `where`.
            where: Conditions on parameters and metrics; see ``find_executions``.
            params: Values of parameters.
            tags: Tags; an execution must have all of them.
            user: User who created them, as ``RecordedExecution.user`` names it.
            parent: RID of the execution that they are nested in, such as that of a sweep.
            limit: Maximum number of executions; None for all.

        Returns:
            Dictionaries with the same keys: ``rid``, ``workflow``, ``status``, ``status_detail``, ``created``,
            ``duration_seconds``, ``description``, ``tags`` (separated by commas), ``user``, ``params.NAME`` and
            ``metrics.NAME``.
            A metric's value is its best one, or its last one if it has no best value. A missing value is None.

        Raises:
            DerivaMLException: As ``list_executions``.
        """
        from deriva_ml_core.analysis.runs import ExecutionFilters, list_execution_rows

        filters = ExecutionFilters(
            workflow, workflow_type, status, dataset, text, sort, stage, where, params, tags, user, parent
        )
        return list_execution_rows(self._connection, filters, limit)

    def executions_dataframe(self, **filters: Unpack[ExecutionRowFilters]) -> pd.DataFrame:
        """Return one row for each execution, with its parameters and metrics, as a pandas DataFrame.

        Args:
            **filters: Arguments of ``execution_rows``.

        Returns:
            The rows of ``execution_rows``; a missing value is NaN.

        Raises:
            MissingDependency: pandas is not installed: the extra is ``pandas``.
            DerivaMLException: As ``list_executions``.
        """
        with require_extra("pandas", "A DataFrame"):
            import pandas as pd
        return pd.DataFrame(self.execution_rows(**filters))

    def list_workflows(
        self, *, workflow_type: str | None = None, text: str | None = None, limit: int = 20, page: int = 1
    ) -> WorkflowPage:
        """List workflows as frozen summaries, page by page, newest first.

        Args:
            workflow_type: Their type, a term of the vocabulary Workflow_Type.
            text: A text in their name, description or URL, upper or lower case.
            limit: Workflows on a page.
            page: The page, from 1.

        Returns:
            The page, and whether another one follows.

        Raises:
            UnknownTerm: There is no such type.
        """
        from deriva_ml_core.analysis.runs import list_workflows

        return list_workflows(self._connection, workflow_type=workflow_type, text=text, limit=limit, page=page)

    def list_datasets(
        self, *, text: str | None = None, include_deleted: bool = False, limit: int = 20, page: int = 1
    ) -> DatasetPage:
        """List datasets as frozen summaries, page by page, newest first.

        Args:
            text: A text in their description, upper or lower case.
            include_deleted: Whether to list deleted datasets too.
            limit: Datasets on a page.
            page: The page, from 1.

        Returns:
            The page, and whether another one follows.
        """
        from deriva_ml_core.analysis.runs import list_datasets

        return list_datasets(self._connection, text=text, include_deleted=include_deleted, limit=limit, page=page)

    def describe(self, rid: RID, *, include_curves: bool = True) -> Description:
        """Return everything that is recorded about a row.

        Args:
            rid: The RID of an execution, a workflow, a dataset, an asset or any other row.
            include_curves: Whether to read the values of an execution's metrics, which may take long.

        Returns:
            A frozen value: `ExecutionDescription`, `WorkflowDescription`, `DatasetDescription`, `AssetDescription` or
            `RowDescription`, all in `deriva_ml_core.analysis.describe`.

        Raises:
            InvalidRID, UnknownRID: The RID names no row.
        """
        from deriva_ml_core.analysis.describe import describe

        return describe(self._connection, rid, include_curves=include_curves)

    def lineage(self, rid: RID, *, depth: int = 20, limit: int = 300, siblings: int = 10) -> Lineage:
        """Return what a row is derived from and what used it.

        Args:
            rid: The RID of an execution, a dataset or an asset.
            depth: How many links to follow in each direction.
            limit: The maximum number of nodes in each direction.
            siblings: The maximum number of neighbours of one table to follow from a node; the others are counted.

        Returns:
            Nodes and edges, and what was left out.

        Raises:
            InvalidRID, UnknownRID, WrongTable: The RID is not that of an execution, a dataset or an asset.
        """
        from deriva_ml_core.analysis.lineage import find_lineage

        return find_lineage(self._connection, rid, depth=depth, limit=limit, siblings=siblings)

    def compare(self, rids: RID | Iterable[RID], *others: RID) -> Comparison:
        """Compare executions: outcome, code, configuration, inputs, environment, packages and metrics.

        The items of a list are compared by name. An execution's own RID in a text, such as a path, is no difference.

        Args:
            rids: The RIDs of two or more executions, or the RID of the first one.
            *others: The RIDs of further executions.

        Returns:
            The values that differ, and the number of equal ones.

        Raises:
            ConfigurationError: These are fewer than two RIDs.
            InvalidRID, UnknownRID, WrongTable: A RID is not that of an execution.
        """
        from deriva_ml_core.analysis.compare import compare_executions

        return compare_executions(self._connection, *([rids] if isinstance(rids, str) else rids), *others)

    def verify(
        self, rid: RID | None = None, *, progress_callback: Callable[[VerificationProgress], None] | None = None
    ) -> VerificationResult:
        """Read stored files and compare their length and MD5 with what was recorded.

        Args:
            rid: The RID of an execution (its files and links), a dataset (its members' files) or an asset. By default
                the whole catalog is verified: the file of every asset, and every foreign key.
            progress_callback: Called after each object.

        Returns:
            What was read, and every problem found.

        Raises:
            InvalidRID, UnknownRID, WrongTable: The RID names nothing that has files.
            StoreUnavailable: The store cannot be reached.
        """
        from deriva_ml_core.analysis.verify import verify

        return verify(self._connection, rid, progress_callback=progress_callback)

    def reproduce(
        self,
        rid: RID,
        into: str | Path | None = None,
        *,
        repository: str | Path | None = None,
        download_inputs: bool = True,
        run: bool = False,
    ) -> Reproduction:
        """Rebuild a run in a new folder: the commit with its uncommitted changes, the inputs and the metadata files.

        Nothing of the run is executed unless `run` is set; ``run()`` of the result does it later. What the catalog
        names is not trusted: a clone of the recorded remote is checked out without hooks and filters.

        Args:
            rid: The RID of the execution.
            into: The folder to create; ``reproduce-<RID>`` in the current folder by default.
            repository: A clone that has the commit, and whose filters may be run. The repository of the current folder
                is tried too, and then the recorded remote.
            download_inputs: Whether to download the inputs.
            run: Whether to run the recorded command then; its exit code is in the result.

        Returns:
            Where everything is, the command to run, and what differs between the recorded and this environment.

        Raises:
            InvalidRID, UnknownRID, WrongTable: The RID is not that of an execution.
            FileConflict: The folder exists.
            NotReproducible: It ran outside of a Git repository, or its commit is in no repository that was tried. Or
                the command is to be run and is not recorded, or a secret in it was not.
        """
        from deriva_ml_core.analysis.reproduce import reproduce_execution

        folder = expand_home(Path(into or f"reproduce-{rid}"))
        clone = None if repository is None else Path(repository)
        rebuilt = reproduce_execution(self._connection, rid, folder, clone, download_inputs=download_inputs)
        return replace(rebuilt, exit_code=rebuilt.run()) if run else rebuilt

    @deprecated_keywords({"path": "into"})
    def export(
        self,
        rid: RID | Sequence[RID],
        into: str | Path | None = None,
        *,
        format: ExportFormat = "ro-crate",  # noqa: A002 - the name of the option of the command
        include: IncludedFiles = "records",
        license: str = "",  # noqa: A002 - as above
        as_zip: bool = False,
    ) -> Path:
        """Export a run to a file or folder for other software, or to a page of HTML for people.

        RO-Crate and PROV-JSON need the extra ``export``. The page is one file without scripts, which opens from disk:
        parameters, metrics, curves, images, lineage, code with its uncommitted changes, files and environment. Several
        runs are compared, with their curves in the same pictures.

        Args:
            rid: The RID of the execution; for ``"html"`` also a sequence of at most 50 RIDs.
            into: The folder to create for an RO-Crate; the file to create for a ZIP archive, PROV-JSON or HTML. By
                default ``crate-<RID>``, ``crate-<RID>.zip``, ``prov-<RID>.json`` or ``run-<RID>.html`` in the current
                folder.
            format: ``"ro-crate"``, a Workflow Run RO-Crate; ``"prov-json"``, W3C PROV; or ``"html"``.
            include: The files in an RO-Crate: ``"none"``, ``"records"`` (metadata files), ``"outputs"`` (those and the
                outputs) or ``"all"`` (the inputs too). Other files are referenced by URL.
            license: The licence of an RO-Crate's content, as a URL or a text.
            as_zip: Whether to write an RO-Crate as a ZIP archive.

        Returns:
            The path.

        Raises:
            InvalidRID, UnknownRID, WrongTable: The RID is not that of an execution.
            FileConflict: The path exists.
            ConfigurationError: There is no such format, or it holds only one execution.
            MissingDependency: The extra is not installed.
        """
        from deriva_ml_core.export import export_execution

        return export_execution(
            self._connection,
            [rid] if isinstance(rid, str) else list(rid),
            None if into is None else expand_home(Path(into)),
            format_=format,
            include=include,
            license_=license,
            as_zip=as_zip,
        )

    def export_prov(self, rid: RID) -> str:
        """Return a run as PROV-JSON text; needs the extra ``export``.

        Args:
            rid: The RID of the execution.

        Returns:
            The PROV-JSON document.

        Raises:
            InvalidRID, UnknownRID, WrongTable: The RID is not that of an execution.
            MissingDependency: The extra is not installed.
        """
        from deriva_ml_core.export import export_prov

        return export_prov(self._connection, rid)

    # Other catalogs

    def push(
        self,
        execution_rid: RID,
        to: DerivaML,
        *,
        children: bool = True,
        lineage: bool = False,
        make_tables: bool = False,
        options: UploadOptions | None = None,
        progress_callback: Callable[[UploadProgress], None] | None = None,
    ) -> PushReport:
        """Copy a finished execution to another catalog, with its workflow, datasets, files and records.

        Every row gets a new RID in the target. The copies' descriptions, and a record of the execution, name the
        source. A repeated push copies only what is new, and an interrupted push resumes.

        Args:
            execution_rid: RID of the execution.
            to: Client for the target catalog.
            children: Whether to copy nested executions too.
            lineage: Whether to copy the executions that produced the inputs too, recursively. By default inputs are
                copied without them, because their history can be long and belong to other people.
            make_tables: Whether to create tables that the target lacks.
            options: Settings of the upload.
            progress_callback: Function that receives the progress of the files.

        Returns:
            The target row of each source row, and the rows that are new.

        Raises:
            ExecutionRunning: One of the executions has not ended.
            UnknownTable, UnknownColumn: The target lacks tables or columns. The message names all of them, and nothing
                was written.
            MetadataConflict, DuplicateRow: The target has a different file or dataset version of the same name.
            CatalogReadOnly, LoginRequired: The user cannot write to the target.
        """
        from deriva_ml_core.push import push

        return push(
            self._connection,
            execution_rid,
            to.connection,
            children=children,
            lineage=lineage,
            make_tables=make_tables,
            options=options,
            progress_callback=progress_callback,
        )

    # Datasets

    def create_dataset(self, description: str = "", dataset_types: str | Iterable[str] = ()) -> Dataset:
        """Create an empty dataset with version 0.1.0.

        To record an execution as the producer of a dataset, use ``Execution.create_dataset``.

        Args:
            description: Description of the dataset.
            dataset_types: Terms of the vocabulary Dataset_Type.

        Returns:
            The new dataset.

        Raises:
            UnknownTerm: The catalog has no such dataset type.
        """
        return datasets.create_dataset(self._connection, description=description, dataset_types=dataset_types)

    def lookup_dataset(self, rid: RID) -> Dataset:
        """Return a dataset.

        Args:
            rid: RID of the dataset.

        Returns:
            The dataset, which may be marked as deleted.

        Raises:
            UnknownRID, WrongTable: There is no such dataset.
        """
        return datasets.lookup_dataset(self._connection, rid)

    def find_datasets(self) -> list[Dataset]:
        """Return all datasets that are not deleted, oldest first.

        Returns:
            The datasets. An empty list if there are none.
        """
        return datasets.find_datasets(self._connection)

    def delete_dataset(self, dataset: Dataset | RID) -> None:
        """Mark a dataset as deleted.

        `find_datasets` no longer returns it. Its versions stay for the executions that used them.

        Args:
            dataset: The dataset or its RID.
        """
        datasets.delete_dataset(self._connection, dataset.rid if isinstance(dataset, datasets.Dataset) else dataset)

    def add_dataset_element_type(self, table: str) -> None:
        """Allow rows of a table as members of datasets.

        Args:
            table: Name of the table.
        """
        datasets.add_dataset_element_type(self._connection, table)

    # Assets

    def lookup_asset(self, rid: RID) -> Asset:
        """Return an asset of any asset table.

        Args:
            rid: RID of the asset.

        Returns:
            The asset.

        Raises:
            UnknownRID, WrongTable: There is no such asset.
        """
        return assets.lookup_asset(self._connection, rid)

    def download_asset(self, asset: Asset | RID, into: str | Path | None = None, *, overwrite: bool = False) -> Path:
        """Download an asset and check its length and MD5. It is not recorded as an input of a run.

        Args:
            asset: The asset or its RID.
            into: The folder for the file, which keeps its name. None for the cache, where a file that was downloaded
                before is only checked.
            overwrite: Whether to replace an existing file in the folder.

        Returns:
            The file.

        Raises:
            UnknownRID, WrongTable: There is no such asset.
            FileConflict: The file exists in the folder, and `overwrite` is not set.
            ChecksumMismatch: The bytes in the store differ from the recorded checksum.
        """
        asset = self.lookup_asset(asset) if isinstance(asset, str) else asset
        if into is None:
            return assets.cache_asset(self._connection, asset)
        return assets.save_asset(self._connection, asset, expand_home(Path(into)), overwrite=overwrite)

    def verify_asset(self, asset: Asset | RID) -> None:
        """Read an asset's bytes in the store and compare them with the recorded length and MD5.

        Args:
            asset: The asset or its RID.

        Raises:
            ChecksumMismatch: The bytes differ.
        """
        asset = self.lookup_asset(asset) if isinstance(asset, str) else asset
        assets.verify_asset(self._connection, asset)

    # Tables and terms

    def create_asset(
        self,
        asset_name: str,
        columns: Sequence[Column] = (),
        foreign_keys: Sequence[ForeignKey] = (),
        comment: str = "",
        schema: str = DOMAIN_SCHEMA,
    ) -> Table:
        """Create an asset table, its association tables, and an asset type of the same name.

        Args:
            asset_name: Name of the table.
            columns: Metadata columns.
            foreign_keys: Foreign keys of the metadata columns.
            comment: Description of the table.
            schema: Schema of the table.

        Returns:
            The table. A table that already exists with the same columns stays unchanged.

        Raises:
            DuplicateRow: A table of that name exists with other columns.
        """
        tables = [
            _redact_comments(table)
            for table in asset_tables(
                asset_name, *columns, foreign_keys=tuple(foreign_keys), schema=schema, comment=comment
            )
        ]
        self._connection.catalog.create_tables(tables)
        self._add_term(MLVocab.asset_type, asset_name, comment or f"A row of the asset table {asset_name}", ())
        return tables[0]

    def create_vocabulary(self, name: str, comment: str = "", schema: str = DOMAIN_SCHEMA) -> Table:
        """Create a vocabulary, a table of terms.

        Args:
            name: Name of the vocabulary.
            comment: Description of the vocabulary.
            schema: Schema of the table.

        Returns:
            The table. A vocabulary that already exists stays unchanged.

        Raises:
            DuplicateRow: A table of that name exists and is not a vocabulary.
        """
        table = vocabulary_table(name, schema=schema, curie_prefix=schema, comment=_redact(comment))
        self._connection.catalog.create_tables([table])
        return table

    def create_table(self, table: Table) -> None:
        """Create a table. A table that already exists with the same columns stays unchanged.

        Args:
            table: The table. ``Table(..., schema="domain")`` adds it to the project's schema.

        Raises:
            DuplicateRow: A table of that name exists with other columns.
        """
        self._connection.catalog.create_tables([_redact_comments(table)])

    def add_term(self, table: str, term_name: str, description: str = "", synonyms: Iterable[str] = ()) -> RID:
        """Add a term to a vocabulary. A term that already exists stays unchanged.

        Args:
            table: Name of the vocabulary.
            term_name: Name of the term.
            description: Meaning of the term.
            synonyms: Other names of the term.

        Returns:
            RID of the term.

        Raises:
            UnknownTable: The catalog has no such vocabulary.
        """
        return self._add_term(table, term_name, description, synonyms)

    def _add_term(self, vocabulary: str, name: str, description: str, synonyms: Iterable[str]) -> RID:
        table = self._connection.catalog.model.vocabulary(vocabulary).name
        name = escape_surrogates(name)
        others = [escape_surrogates(each) for each in synonyms]
        row = {"Name": name, "Description": _redact(description), "Synonyms": others or None}
        term, _ = self._connection.catalog.insert_unless(table, {"Name": name}, row)
        return str(term["RID"])

    def list_terms(self, vocabulary: str) -> dict[str, str]:
        """Return the terms of a vocabulary with their descriptions.

        Args:
            vocabulary: Name of the vocabulary.

        Returns:
            The description of each term by its name.

        Raises:
            UnknownTable: The catalog has no such vocabulary.
        """
        table = self._connection.catalog.model.vocabulary(vocabulary).name
        rows = self._connection.catalog.select(table, order=("Name",))
        return {row["Name"]: row["Description"] for row in rows}

    def insert_rows(self, table: str, rows: Sequence[Mapping[str, Any]], skip_existing: bool = False) -> int:
        """Insert rows into a table that is not an asset table.

        Args:
            table: Name of the table.
            rows: Rows as mappings from column names to values.
            skip_existing: Whether to skip rows whose key exists.

        Returns:
            Number of inserted rows.

        Raises:
            UnknownTable, UnknownColumn: The table or a column does not exist, or the table is an asset table.
            UnknownRID: A foreign key refers to no row.
            DuplicateRow: A key exists, and `skip_existing` is not set.
        """
        self._reject_asset_table(table)
        return self._connection.catalog.insert(table, rows, skip_existing=skip_existing)

    def select_rows(self, table: str, where: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the matching rows of a table, sorted by RID.

        Args:
            table: Name of the table.
            where: Value of each column, or a list of allowed values. None for all rows.

        Returns:
            The rows, each with the values of its columns by name.

        Raises:
            UnknownTable, UnknownColumn: The table or a column does not exist.
        """
        return self._connection.catalog.select(table, dict(where or {}))

    def _reject_asset_table(self, table: str) -> None:
        if self._connection.catalog.model.table(table).is_asset:
            raise UnknownColumn(
                f"{table} is an asset table, and insert_rows cannot add rows to it. Upload a file instead."
            )


def _wrap_credential(credential: Mapping[str, str] | None) -> dict[str, SecretStr] | None:
    if credential is None:
        return None
    if not isinstance(credential, Mapping):
        raise ConfigurationError(
            f"credential= is a {type(credential).__name__}, not a mapping. Pass {{'bearer-token': '<token>'}} or "
            "{'cookie': 'webauthn=<value>'}."
        )
    return {key: SecretStr(value) for key, value in credential.items()}


def _redact_comments(table: Table) -> Table:
    columns = tuple(replace(column, comment=_redact(column.comment or "") or None) for column in table.columns)
    return replace(table, columns=columns, comment=_redact(table.comment or "") or None)


def _redact(text: str) -> str:
    from deriva_ml_core.redaction import redact_text  # many patterns to compile

    return redact_text(text)
