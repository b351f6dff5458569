"""How an execution comes to be: checked, recorded with its inputs, and its records kept, or said to have failed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core.assets.lookup import lookup_assets
from deriva_ml_core.assets.staging import StagingArea
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import resolve_version
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLTable, Status
from deriva_ml_core.errors import ConflictingWorkflow, UploadFailed, WorkflowMissing
from deriva_ml_core.execution.configuration import ExecutionConfiguration
from deriva_ml_core.execution.execution import Execution
from deriva_ml_core.execution.inputs import Inputs
from deriva_ml_core.execution.outputs import Outputs
from deriva_ml_core.execution.recorded import JOURNAL_FILENAME
from deriva_ml_core.journal.journal import Journal
from deriva_ml_core.journal.process_identity import ProcessIdentity
from deriva_ml_core.journal.state import Created, CreationStarted, ProcessAttached, StatusSet, utc_now
from deriva_ml_core.models import Asset, DatasetSpec, StagedAsset, StatusUpdate
from deriva_ml_core.workflow import Workflow, lookup_workflow, register_workflow

__all__ = ["create_execution"]

log = logging.getLogger(__name__)


def create_execution(
    connection: Connection, configuration: ExecutionConfiguration, workflow: Workflow | RID | None, *, dry_run: bool
) -> Execution:
    """Make an execution; see ``DerivaML.create_execution``."""
    from deriva_ml_core.execution.metadata_files import write_metadata_files
    from deriva_ml_core.redaction import redact_text

    description = redact_text(configuration.description)
    chosen = _select_workflow(connection, configuration, workflow)
    datasets = [resolve_version(connection, spec) for spec in configuration.datasets]
    assets = lookup_assets(connection, configuration.asset_rids)
    if dry_run:
        return _create_dry_run(connection, configuration, description, datasets, assets)
    workflow_rid = register_workflow(connection, chosen)
    row, journal = _insert_row(connection, description, workflow_rid)
    rid, folder = row["RID"], journal.path.parent
    try:
        Inputs(connection, journal, rid).record(datasets, assets)
        staging = StagingArea(connection, journal, folder / "outputs")
        records = write_metadata_files(
            connection,
            staging,
            folder,
            configuration=configuration,
            workflow=chosen,
            workflow_rid=workflow_rid,
            datasets=datasets,
        )
        _upload_metadata_files(Outputs(connection, journal, staging, rid), records, rid)
    except BaseException as error:
        _mark_failed(connection, journal, rid, error)
        raise
    journal.append(Created())
    journal.close()
    execution = Execution(connection, row, folder, configuration=configuration)
    execution._runtime.status_tracker.record_created()
    return execution


def _insert_row(connection: Connection, description: str, workflow_rid: RID) -> tuple[dict[str, Any], Journal]:
    """Make the row, and before it the journal that knows of it."""
    (rid,) = connection.catalog.reserve(1)
    folder = connection.working_folder(rid)
    journal = Journal(folder / JOURNAL_FILENAME)
    intent = CreationStarted(rid=rid, description=description, workflow_rid=workflow_rid, folder=str(folder))
    with translate_os_errors(f"The working folder {folder} cannot be made", folder.parent):
        folder.mkdir(parents=True)
        journal.append(intent, ProcessAttached(lease=ProcessIdentity.current()))
    given = {"Workflow": workflow_rid, "Description": description, "Status": Status.created, "Status_Detail": ""}
    (row,) = connection.catalog.insert_missing(MLTable.execution, [{"RID": rid, **given}], "RID")
    return row, journal


def _select_workflow(
    connection: Connection, configuration: ExecutionConfiguration, workflow: Workflow | RID | None
) -> Workflow:
    given = [each for each in (configuration.workflow, workflow) if each is not None]
    if not given:
        raise WorkflowMissing(
            "An execution needs a workflow: make one with ml.create_workflow(name, workflow_type) and give it in the "
            "configuration or as workflow=."
        )
    if len(given) == 2 and given[0] != given[1]:
        raise ConflictingWorkflow("The configuration has one workflow and workflow= is another: give one of them.")
    return lookup_workflow(connection, given[0]) if isinstance(given[0], str) else given[0]


def _create_dry_run(
    connection: Connection,
    configuration: ExecutionConfiguration,
    description: str,
    datasets: list[DatasetSpec],
    assets: list[Asset],
) -> Execution:
    import tempfile

    parent = connection.working_folder(DRY_RUN_RID)
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    journal = Journal(folder / JOURNAL_FILENAME)
    intent = CreationStarted(rid=DRY_RUN_RID, description=description, folder=str(folder), dry_run=True)
    journal.append(intent)
    Inputs(connection, journal, DRY_RUN_RID).record(datasets, assets)
    row = {"RID": DRY_RUN_RID, "Description": description, "Status": Status.created}
    return Execution(connection, row, folder, configuration=configuration)


def _upload_metadata_files(outputs: Outputs, files: list[StagedAsset], rid: RID) -> None:
    if left := outputs.upload_metadata_files(files):
        raise UploadFailed(f"The records of execution {rid} could not be kept: {left[0].reason}")


def _mark_failed(connection: Connection, journal: Journal, rid: RID, error: BaseException) -> None:
    from deriva_ml_core.redaction import redact_text

    detail = redact_text(f"It could not be created: {type(error).__name__}: {error}")
    update = StatusUpdate(status=Status.failed, time=utc_now(), previous=Status.created, error=detail)
    try:
        journal.append(StatusSet(update=update))
        connection.catalog.update(MLTable.execution, [{"RID": rid, "Status": Status.failed, "Status_Detail": detail}])
    except Exception:
        log.warning("The row of execution %s could not be marked as failed.", rid, exc_info=True)
