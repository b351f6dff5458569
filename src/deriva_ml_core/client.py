"""The door: one object that opens a catalog, and from which everything else is created, looked up and found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pluggy
from pydantic import SecretStr

from deriva_ml_core import datasets, workflow
from deriva_ml_core._deprecation import deprecated_keywords
from deriva_ml_core.assets import lookup as assets
from deriva_ml_core.connection import Connection, open_connection
from deriva_ml_core.datasets import Dataset
from deriva_ml_core.definitions import RID, MLVocab, Status
from deriva_ml_core.errors import UnknownColumn
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import RecordedExecution, lookup_execution
from deriva_ml_core.models import Address, Asset, UploadOptions, UploadProgress
from deriva_ml_core.plugins import plugin_manager
from deriva_ml_core.plugins.notifications import DEFAULT_EXIT_TIMEOUT
from deriva_ml_core.schema import DOMAIN_SCHEMA, Column, ForeignKey, Table, asset_tables, vocabulary_table
from deriva_ml_core.workflow import CatalogWorkflow, Workflow

if TYPE_CHECKING:
    from deriva_ml_core.push import PushReport

__all__ = ["DerivaML"]


class DerivaML:
    """A catalog of machine-learning runs.

    Args:
        hostname: A server's host name; ``file:<folder>`` for the embedded catalog in that folder; nothing for the
            embedded catalog under ``DERIVA_ML_HOME`` (``~/.deriva-ml`` by default), which is made on first use.
        catalog_id: The catalog's number on that server.
        working_dir: The folder for executions' working folders, instead of the catalog's own place.
        credential: What logs in on a server: ``{"bearer-token": …}`` or ``{"cookie": …}``.
        plugins: Who answers hooks, instead of the process's own plugins.
        clean_execution_dir: Whether uploads empty the staging folders of what was sent.
        exit_timeout: Seconds that the end of a run waits, all in all, for what is still under way beside it: its last
            status on the way to the catalog, its news to the plugins; 30 by default.

    Raises:
        UnknownAddress: No backend answers for that address.
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
    ) -> None:
        address = Address(
            hostname=hostname,
            catalog_id=None if catalog_id is None else str(catalog_id),
            working_dir=None if working_dir is None else Path(working_dir).expanduser().absolute(),
            credential=_wrap_credential(credential),
        )
        self._connection = open_connection(
            address, plugins, clean_execution_dir=clean_execution_dir, exit_timeout=exit_timeout
        )

    @classmethod
    def create(
        cls,
        hostname: str,
        project_name: str,
        *,
        catalog_id: str | int | None = None,
        acls: Mapping[str, Sequence[str]] | None = None,
        credential: Mapping[str, str] | None = None,
        working_dir: str | Path | None = None,
        plugins: pluggy.PluginManager | None = None,
    ) -> Self:
        """Make a catalog on a server, with the standard tables and terms, and open it.

        Args:
            hostname: The server's host name.
            project_name: The name of the schema for the project's own tables.
            catalog_id: A catalog that is there: it gets the tables and terms that it lacks, and loses nothing. By
                default a new one is made.
            acls: Who may do what: users and groups by ``enumerate``, ``select``, ``write`` and ERMrest's other rights;
                by default whoever makes it may do all, and nobody else may see it.
            credential: What logs in, as above; what the user has stored by default.
            working_dir: The folder for executions' working folders, instead of the catalog's own place.
            plugins: Who answers hooks, instead of the process's own plugins.

        Raises:
            LoginRequired, AccessRefused: The user may not make catalogs there.
        """
        given = None if catalog_id is None else str(catalog_id)
        address = Address(hostname=hostname, catalog_id=given, credential=_wrap_credential(credential))
        asked = (plugins or plugin_manager()).hook.create_catalog
        number = asked(address=address, project_name=project_name, acls=acls)
        return cls(hostname, number, working_dir=working_dir, credential=credential, plugins=plugins)

    def __repr__(self) -> str:
        return f"<DerivaML {self._connection.catalog.name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections; the next call opens them again."""
        self._connection.catalog.close()
        self._connection.store.close()

    @property
    def connection(self) -> Connection:
        """The catalog, the store and the plugins that all this stands on."""
        return self._connection

    # Workflows

    def create_workflow(self, name: str, workflow_type: str, description: str = "") -> Workflow:
        """Describe the running code as a workflow; its source is found automatically.

        Args:
            name: What to call it.
            workflow_type: A term of the vocabulary Workflow_Type.
            description: What it does.

        Returns:
            A workflow that is not yet in the catalog.

        Raises:
            UnknownTerm: The catalog has no such workflow type; those that it has are named.
        """
        self._connection.terms.require(MLVocab.workflow_type, [workflow_type])
        return workflow.create_workflow(
            name=name, workflow_type=workflow_type, description=description, plugins=self._connection.plugins
        )

    def add_workflow(self, workflow_: Workflow) -> RID:
        """Register a workflow; one with the same URL or checksum is reused.

        Returns:
            The record id of the workflow in the catalog.
        """
        return workflow.register_workflow(self._connection, workflow_)

    def lookup_workflow(self, rid: RID) -> CatalogWorkflow:
        """The workflow of a record id; assigning its ``description`` or ``workflow_type`` writes to the catalog."""
        return workflow.lookup_workflow(self._connection, rid)

    def lookup_workflow_by_url(self, url_or_checksum: str) -> CatalogWorkflow:
        """The workflow with that URL or checksum."""
        return workflow.lookup_workflow_by_url(self._connection, url_or_checksum)

    def find_workflows(self) -> list[CatalogWorkflow]:
        """All workflows."""
        return workflow.find_workflows(self._connection)

    # Executions

    def create_execution(
        self,
        configuration: ExecutionConfiguration,
        workflow: Workflow | RID | None = None,
        dry_run: bool = False,
    ) -> Execution:
        """Create an execution, with its inputs and its records; nothing is downloaded.

        Args:
            configuration: What it is to be.
            workflow: What runs, where the configuration does not say.
            dry_run: Whether to write nothing to catalog and store; the execution's record id is then ``0000``.

        Raises:
            WorkflowMissing: There is no workflow.
            ConflictingWorkflow: There are two different ones.
            UnknownRID, WrongTable, UnknownVersion, UnknownTerm: An input or the workflow's type does not exist.
        """
        from deriva_ml_core.execution.multi_process import create_execution

        return create_execution(self._connection, configuration, workflow, dry_run=dry_run)

    def restore_execution(self, execution_rid: RID) -> Execution:
        """Find an execution again, with its inputs, staged files, statuses and timings.

        One whose process died without a word is written as Aborted. Where its working folder is not on this machine, it
        is put together from what the catalog kept.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
        """
        from deriva_ml_core.execution.multi_process import restore_execution

        return restore_execution(self._connection, execution_rid)

    def resume_execution(self, execution_rid: RID) -> Execution:
        """Find an execution again to go on with it: its ``with`` may be entered once more, though it has ended.

        Then it is Running again, keeps its start, inputs, files and statuses, and its duration counts on.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
            ExecutionRunning: Another process runs it, or this one does.
        """
        from deriva_ml_core.execution.multi_process import resume_execution

        return resume_execution(self._connection, execution_rid)

    def lookup_execution(self, execution_rid: RID) -> RecordedExecution:
        """The execution of a record id, to be read.

        Raises:
            UnknownRID, WrongTable: There is no such execution.
        """
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
    ) -> list[RecordedExecution]:
        """The executions that match, newest first.

        Args:
            workflow: Of this workflow.
            workflow_type: Of workflows of this type.
            status: In this state; one whose process died without a word is Aborted.
            dataset: Of which this dataset went in, in whichever version.
            limit: How many at most; None for all.
            sort: The metric by whose best value they are ordered, the best first, such as ``"val_loss"``; by its last
                value with ``"val_loss:last"``. Executions without a finite number there are left out.
            stage: Of which stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``; None for the first that has
                the metric.

        Raises:
            UnknownMetric: No execution has told of the metric; those that there are, are named.
            ConfigurationError: The catalog has no place for metrics, or there is no such stage.
        """
        from deriva_ml_core.execution.query import find_executions, resolve_ranking

        ranking = None if sort is None else resolve_ranking(self._connection, sort, stage)
        rid = workflow.rid if isinstance(workflow, Workflow) else workflow
        if isinstance(workflow, Workflow) and rid is None:
            return []
        return find_executions(
            self._connection,
            workflow=rid,
            workflow_type=workflow_type,
            status=None if status is None else Status(status),
            dataset=dataset.rid if isinstance(dataset, Dataset) else dataset,
            limit=limit,
            ranking=ranking,
        )

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
        """Copy an execution that has ended to another catalog, with its workflow, datasets, files and records.

        Every row gets a new record id there; where it came from is in the copies' descriptions and in a record that is
        kept with the execution. Doing it again copies what is new and nothing twice; what was cut off goes on.

        Args:
            execution_rid: The execution.
            to: Where to.
            children: Whether the executions nested in it are copied too: they are what it consists of.
            lineage: Whether the executions are copied too that made what went into it, and so on. Else its inputs are
                copied without them, since the history of an input may be long, and others' to publish.
            make_tables: Whether tables that lack there are made as they are here.
            options: How to send files.
            progress_callback: Told of the files on their way.

        Returns:
            Which row there is the copy of which row here, and what is new.

        Raises:
            ExecutionRunning: One of the executions has not ended.
            UnknownTable, UnknownColumn: What lacks there, all of it; nothing was written.
            MetadataConflict, DuplicateRow: A file or a dataset's version is there already, and is another.
            CatalogReadOnly, LoginRequired: The target may not be written.
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
        """Make an empty dataset, version 0.1.0.

        Args:
            description: What it holds.
            dataset_types: Terms of the vocabulary Dataset_Type.
        """
        return datasets.create_dataset(self._connection, description=description, dataset_types=dataset_types)

    def lookup_dataset(self, rid: RID) -> Dataset:
        """The dataset of a record id."""
        return datasets.lookup_dataset(self._connection, rid)

    def find_datasets(self) -> list[Dataset]:
        """All datasets."""
        return datasets.find_datasets(self._connection)

    def delete_dataset(self, dataset: Dataset | RID) -> None:
        """Mark a dataset as deleted: it is found no more, and its versions stay for the executions that used them."""
        datasets.delete_dataset(self._connection, dataset.rid if isinstance(dataset, Dataset) else dataset)

    def add_dataset_element_type(self, table: str) -> None:
        """Let the rows of a table be members of datasets."""
        datasets.add_dataset_element_type(self._connection, table)

    # Assets

    def lookup_asset(self, rid: RID) -> Asset:
        """The asset of a record id, whichever asset table it is in."""
        return assets.lookup_asset(self._connection, rid)

    def verify_asset(self, asset: Asset | RID) -> None:
        """Read an asset's bytes where the store keeps them.

        Raises:
            ChecksumMismatch: They are not those that were recorded.
        """
        found = self.lookup_asset(asset) if isinstance(asset, str) else asset
        assets.verify_asset(self._connection, found)

    # Tables and terms

    def create_asset(
        self,
        asset_name: str,
        columns: Sequence[Column] = (),
        foreign_keys: Sequence[ForeignKey] = (),
        comment: str = "",
        schema: str = DOMAIN_SCHEMA,
    ) -> Table:
        """Add an asset table, its links to types and executions, and an asset type of its name.

        Args:
            asset_name: The table's name.
            columns: Metadata columns of its own.
            foreign_keys: Of these columns.
            comment: What it holds.
            schema: The schema it lies in.

        Raises:
            DuplicateRow: There is a table of that name with other columns.
        """
        tables = asset_tables(asset_name, *columns, foreign_keys=tuple(foreign_keys), schema=schema, comment=comment)
        self._connection.catalog.create_tables(tables)
        self._add_term(MLVocab.asset_type, asset_name, comment or f"A row of the asset table {asset_name}", ())
        return tables[0]

    def create_vocabulary(self, name: str, comment: str = "", schema: str = DOMAIN_SCHEMA) -> Table:
        """Add a table of terms.

        Raises:
            DuplicateRow: There is a table of that name that is none.
        """
        table = vocabulary_table(name, schema=schema, curie_prefix=schema, comment=comment)
        self._connection.catalog.create_tables([table])
        return table

    def create_table(self, table: Table) -> None:
        """Add a plain table to the domain.

        Raises:
            DuplicateRow: There is a table of that name with other columns.
        """
        self._connection.catalog.create_tables([table])

    def add_term(self, table: str, term_name: str, description: str = "", synonyms: Iterable[str] = ()) -> RID:
        """Add a term to a vocabulary; one that is there already is left as it is.

        Args:
            table: The vocabulary.
            term_name: The term.
            description: What it means.
            synonyms: Other names for it.

        Returns:
            The term's record id.
        """
        return self._add_term(table, term_name, description, synonyms)

    def _add_term(self, vocabulary: str, name: str, description: str, synonyms: Iterable[str]) -> RID:
        table = self._connection.catalog.model.vocabulary(vocabulary).name
        row = {"Name": name, "Description": description, "Synonyms": list(synonyms) or None}
        found, _ = self._connection.catalog.insert_unless(table, {"Name": name}, row)
        return str(found["RID"])

    def list_terms(self, vocabulary: str) -> dict[str, str]:
        """The terms of a vocabulary with their descriptions."""
        table = self._connection.catalog.model.vocabulary(vocabulary).name
        rows = self._connection.catalog.select(table, order=("Name",))
        return {row["Name"]: row["Description"] for row in rows}

    def insert_rows(self, table: str, rows: Sequence[Mapping[str, Any]], skip_existing: bool = False) -> int:
        """Add rows to a table of the domain.

        Args:
            table: The table.
            rows: Their columns.
            skip_existing: Whether rows whose key is taken are passed over.

        Returns:
            How many were added.

        Raises:
            UnknownTable, UnknownColumn, UnknownRID, DuplicateRow: By what is wrong; nothing was added then.
        """
        self._reject_asset_table(table)
        return self._connection.catalog.insert(table, rows, skip_existing=skip_existing)

    def select_rows(self, table: str, where: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a table for which each column has the value, or one of the values, given for it."""
        return self._connection.catalog.select(table, dict(where or {}))

    def _reject_asset_table(self, table: str) -> None:
        if self._connection.catalog.model.table(table).is_asset:
            raise UnknownColumn(f"Rows of the asset table {table} are made by uploading files, not by insert_rows.")


def _wrap_credential(credential: Mapping[str, str] | None) -> dict[str, SecretStr] | None:
    return None if credential is None else {key: SecretStr(value) for key, value in credential.items()}
