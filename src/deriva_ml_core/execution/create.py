"""Creates an execution: check the configuration, record row and inputs, upload the metadata files.

The metadata files are uploaded at once to the store of an embedded catalog. For a server they are flushed to disk and
uploaded in the background, since a busy server may refuse a write for minutes. If a step fails, the row is marked as
failed. Ctrl-C deletes it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deriva_ml_core._files.atomic import sync_path
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._files.permissions import adopt_permissions, create_folder
from deriva_ml_core._retry import limit_repeats
from deriva_ml_core._text import describe_error, escape_surrogates
from deriva_ml_core.assets.lookup import lookup_assets
from deriva_ml_core.assets.staging import StagingArea
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import resolve_version
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLAsset, MLTable, Status
from deriva_ml_core.errors import (
    ConfigurationError,
    ConflictingWorkflow,
    DerivaMLException,
    UploadFailed,
    WorkflowMissing,
)
from deriva_ml_core.execution.configuration import ExecutionConfiguration
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.execution.inputs import Inputs
from deriva_ml_core.execution.outputs import Outputs
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME
from deriva_ml_core.execution.tags import add_tags
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import Created, CreationStarted, ParametersSet, ProcessAttached, StatusSet, utc_now
from deriva_ml_core.models import Asset, DatasetSpec, StagedAsset, StatusUpdate
from deriva_ml_core.parameter_values import limit_parameters, select_run_parameters, to_json_value
from deriva_ml_core.schema import asset_execution_table_name
from deriva_ml_core.workflow import Workflow, lookup_workflow, register_workflow

__all__ = ["create_execution"]

log = logging.getLogger(__name__)

MAX_UNDO_SECONDS = 10.0
"""Seconds in which a failed creation tries to delete its row or to mark it as failed."""


def create_execution(
    connection: Connection, configuration: ExecutionConfiguration, workflow: Workflow | RID | None, *, dry_run: bool
) -> Execution:
    """Create an execution; see ``DerivaML.create_execution``."""
    from deriva_ml_core.execution.metadata_files import write_metadata_files
    from deriva_ml_core.redaction import redact_text

    description = redact_text(configuration.description)
    selected = _select_workflow(connection, configuration, workflow)
    datasets = [resolve_version(connection, spec) for spec in configuration.datasets]
    assets = lookup_assets(connection, configuration.asset_rids)
    is_local = not connection.has_remote_store
    if dry_run:
        execution = _create_dry_run(connection, configuration, description, datasets, assets)
        execution._workflow_name = selected.name
        return execution
    workflow_rid = register_workflow(connection, selected)
    rid, folder = _create_working_folder(connection)
    journal = Journal(folder / JOURNAL_FILENAME)
    try:
        row = _insert_row(connection, journal, rid, description, workflow_rid)
        Inputs(connection, journal, rid).record(datasets, assets)
        _add_tags(connection, rid, configuration.tags)
        staging = StagingArea(connection, journal, folder / "outputs")
        with translate_os_errors(f"Cannot write the records of execution {rid}", folder):
            files = write_metadata_files(
                connection,
                staging,
                folder,
                configuration=configuration,
                workflow=selected,
                workflow_rid=workflow_rid,
                datasets=datasets,
            )
        if is_local:
            _upload_metadata_files(Outputs(connection, journal, staging, rid), files, rid)
        journal.append(Created(), *_parameter_events(configuration))
        if not is_local:
            _sync_metadata_files(journal, files)
    except KeyboardInterrupt as error:
        _discard(connection, journal, rid, error)
        raise
    except BaseException as error:
        _mark_failed(connection, journal, rid, error)
        raise
    journal.close()
    execution = Execution(connection, row, folder, configuration=configuration)
    execution._workflow_name = selected.name
    execution._runtime.status_tracker.record_created()
    if not is_local:
        execution._runtime.background.upload_records(execution._runtime.outputs.upload_records)
    return execution


def _add_tags(connection: Connection, rid: RID, tags: Sequence[str]) -> None:
    """Write the tags of the configuration; a catalog without a table for them is no reason not to run."""
    if tags:
        try:
            add_tags(connection, rid, tags)
        except ConfigurationError as error:
            log.warning("Execution %s has its tags only in configuration.json: %s", rid, error)


def _parameter_events(configuration: ExecutionConfiguration) -> list[ParametersSet]:
    from deriva_ml_core.redaction import redact

    values = redact(to_json_value(configuration.parameters))
    parameters, _ = limit_parameters(select_run_parameters(values if isinstance(values, dict) else {}), known={})
    return [ParametersSet(parameters=parameters)] if parameters else []


def _insert_row(
    connection: Connection, journal: Journal, rid: RID, description: str, workflow_rid: RID
) -> dict[str, Any]:
    """Insert the row, after the journal has recorded the intent."""
    folder = journal.path.parent
    intent = CreationStarted(
        rid=rid, description=description, workflow_rid=workflow_rid, folder=escape_surrogates(str(folder))
    )
    with translate_os_errors(f"Cannot create the journal in {folder}", folder):
        journal.append(intent, ProcessAttached(lease=ProcessIdentity.current()))
        journal.sync()
        for path in (folder, folder.parent):
            sync_path(path)
    values = {"Workflow": workflow_rid, "Description": description, "Status": Status.created, "Status_Detail": ""}
    (row,) = connection.catalog.insert_missing(MLTable.execution, [{"RID": rid, **values}], "RID")
    return row


def _create_working_folder(connection: Connection) -> tuple[RID, Path]:
    """Reserve a RID that no execution on this machine had, and create its working folder.

    A catalog that was restored from a backup may allocate the RID of an execution that it has lost.
    """
    while True:
        (rid,) = connection.catalog.reserve(1)
        folder = connection.working_folder(rid)
        with translate_os_errors(f"Cannot create the working folder {folder}", folder.parent):
            create_folder(folder.parent, connection.folder)
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            adopt_permissions(folder)
            return rid, folder


def _select_workflow(
    connection: Connection, configuration: ExecutionConfiguration, workflow: Workflow | RID | None
) -> Workflow:
    workflows = [candidate for candidate in (configuration.workflow, workflow) if candidate is not None]
    if not workflows:
        raise WorkflowMissing(
            "An execution needs a workflow: create one with ml.create_workflow(name, workflow_type) and pass it in the "
            "configuration or as workflow=."
        )
    if len(workflows) == 2 and workflows[0] != workflows[1]:
        raise ConflictingWorkflow("The configuration and workflow= name different workflows: pass only one of them.")
    return lookup_workflow(connection, workflows[0]) if isinstance(workflows[0], str) else workflows[0]


def _create_dry_run(
    connection: Connection,
    configuration: ExecutionConfiguration,
    description: str,
    datasets: list[DatasetSpec],
    assets: list[Asset],
) -> Execution:
    import tempfile

    parent = connection.working_folder(DRY_RUN_RID)
    with translate_os_errors(f"Cannot create a folder in {parent}", parent):
        create_folder(parent, connection.folder)
        folder = Path(tempfile.mkdtemp(dir=parent))
    journal = Journal(folder / JOURNAL_FILENAME)
    intent = CreationStarted(
        rid=DRY_RUN_RID, description=description, folder=escape_surrogates(str(folder)), dry_run=True
    )
    journal.append(intent)
    Inputs(connection, journal, DRY_RUN_RID).record(datasets, assets)
    row = {"RID": DRY_RUN_RID, "Description": description, "Status": Status.created}
    return Execution(connection, row, folder, configuration=configuration)


def _upload_metadata_files(outputs: Outputs, files: list[StagedAsset], rid: RID) -> None:
    if unsent := outputs.upload_metadata_files(files):
        raise UploadFailed(f"Failed to upload the metadata files of execution {rid}: {unsent[0].reason}")


def _sync_metadata_files(journal: Journal, files: list[StagedAsset]) -> None:
    """Flush the metadata files and the journal that lists them to disk, with the names of both."""
    folder = journal.path.parent
    paths = [file.path for file in files]
    with translate_os_errors(f"Cannot flush the files in {folder} to disk", folder):
        for path in dict.fromkeys([*paths, *(path.parent for path in paths), journal.path, folder, folder.parent]):
            sync_path(path)


def _discard(connection: Connection, journal: Journal, rid: RID, error: BaseException) -> None:
    """Delete what an interrupted creation has written; if that fails, mark the row as failed."""
    stored = [file.stored.url for file in journal.state.files.values() if file.stored is not None]
    try:
        with limit_repeats(MAX_UNDO_SECONDS):
            connection.catalog.delete(MLTable.execution, {"RID": rid})  # with its links
            _delete_unlinked_files(connection, stored)
    except Exception:
        log.warning("Failed to delete the row of execution %s after an interrupt.", rid, exc_info=True)
        _mark_failed(connection, journal, rid, error)
    else:
        journal.close()
        shutil.rmtree(journal.path.parent, ignore_errors=True)


def _delete_unlinked_files(connection: Connection, urls: list[str]) -> None:
    """Delete the rows of metadata files, except of those that another execution has too."""
    table = MLAsset.execution_metadata.value
    rows = connection.catalog.select(table, {"URL": urls}) if urls else []
    links = asset_execution_table_name(table)
    linked = {link[table] for link in connection.catalog.select(links, {table: [row["RID"] for row in rows]})}
    if unlinked := [row["RID"] for row in rows if row["RID"] not in linked]:
        connection.catalog.delete(table, {"RID": unlinked})


def _mark_failed(connection: Connection, journal: Journal, rid: RID, error: BaseException) -> None:
    from deriva_ml_core.redaction import redact_text

    detail = redact_text(f"Creation failed: {describe_error(error)}")
    update = StatusUpdate(status=Status.failed, time=utc_now(), previous=Status.created, error=detail)
    row = {"RID": rid, "Status": Status.failed, "Status_Detail": detail}
    try:
        with limit_repeats(MAX_UNDO_SECONDS):
            connection.catalog.update(MLTable.execution, [row])
    except Exception:
        log.warning("Failed to mark the row of execution %s as failed.", rid, exc_info=True)
    try:
        journal.append(StatusSet(update=update))
    except DerivaMLException as reason:  # the row has the status
        log.warning("Failed to write the status of execution %s to %s: %s", rid, journal.path, reason)
