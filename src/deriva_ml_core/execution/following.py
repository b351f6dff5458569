"""One execution for all processes of a training: rank zero's, which the others follow and write nothing to."""

from __future__ import annotations

import os
from typing import Any

from deriva_ml_core.assets.recorded import lookup_assets
from deriva_ml_core.connection import Connection
from deriva_ml_core.dataset import resolve_version
from deriva_ml_core.definitions import DRY_RUN_RID, RID, MLTable, Role, Status
from deriva_ml_core.errors import ConfigurationError
from deriva_ml_core.execution import creation, restoration
from deriva_ml_core.execution.configuration import ExecutionConfiguration
from deriva_ml_core.execution.live import Execution
from deriva_ml_core.execution.made import register_execution
from deriva_ml_core.execution.rendezvous import DEFAULT_TIMEOUT, TIMEOUT_VARIABLE, CreateCall, RankMessage
from deriva_ml_core.models import DatasetSpec
from deriva_ml_core.notices import warn
from deriva_ml_core.ranks import RANK_VARIABLE, current_rank
from deriva_ml_core.workflow import Workflow

__all__ = ["create_execution", "restore_execution", "resume_execution"]


def create_execution(
    connection: Connection, configuration: ExecutionConfiguration, workflow: Workflow | RID | None, *, dry_run: bool
) -> Execution:
    """Make an execution, or follow that of rank zero; see ``DerivaML.create_execution``."""
    from deriva_ml_core.redaction import redact_text

    rank = current_rank(os.environ)
    if dry_run:
        if rank:
            return _open_as_nonzero_rank(connection, RankMessage(rid=DRY_RUN_RID), rank, configuration)
        trial = creation.create_execution(connection, configuration, workflow, dry_run=True)
        register_execution(trial, configuration.workflow or workflow, os.environ)
        return trial
    call = CreateCall(connection, os.environ)
    if rank:
        return _open_as_nonzero_rank(connection, _receive_message(call, rank, connection), rank, configuration)
    try:
        execution = creation.create_execution(connection, configuration, workflow, dry_run=False)
    except Exception as error:
        call.publish(RankMessage(error=(type(error).__name__, redact_text(str(error)))), rank=rank)
        raise
    call.publish(RankMessage(rid=execution.execution_rid, folder=execution.working_dir), rank=rank)
    register_execution(execution, configuration.workflow or workflow, os.environ)
    return execution


def restore_execution(connection: Connection, rid: RID) -> Execution:
    """Find an execution again, or follow rank zero in it; see ``DerivaML.restore_execution``."""
    if rank := current_rank(os.environ):
        return _open_as_nonzero_rank(connection, RankMessage(rid=rid), rank)
    return restoration.restore_execution(connection, rid)


def resume_execution(connection: Connection, rid: RID) -> Execution:
    """Find an execution again to go on with it, or follow rank zero in it; see ``DerivaML.resume_execution``."""
    if rank := current_rank(os.environ):
        return _open_as_nonzero_rank(connection, RankMessage(rid=rid), rank)
    execution = restoration.resume_execution(connection, rid)
    register_execution(execution, None, os.environ)
    return execution


def _receive_message(call: CreateCall, rank: int, connection: Connection) -> RankMessage:
    """Rank zero's word, waited for; a word without an execution where none came."""
    seconds = _rendezvous_timeout()
    was_in_vain = call.timed_out
    if (word := call.wait(seconds)) is not None:
        word.raise_error()
        return word
    if not was_in_vain:
        warn(
            f"This process has rank {rank}, and that of rank zero did not tell it of its execution within {seconds:g} "
            f"seconds: it goes on without one. They meet in {connection.folder}, which all nodes should share; "
            f"{TIMEOUT_VARIABLE} says how long to wait, and {RANK_VARIABLE}=0 makes a process stand for itself."
        )
    return RankMessage(rid=DRY_RUN_RID)


def _rendezvous_timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        return float(text) if text else DEFAULT_TIMEOUT
    except ValueError as error:
        raise ConfigurationError(f"{TIMEOUT_VARIABLE}={text!r} is no number of seconds.") from error


def _open_as_nonzero_rank(
    connection: Connection, message: RankMessage, rank: int, configuration: ExecutionConfiguration | None = None
) -> Execution:
    folder = message.folder or connection.working_folder(message.rid)
    row = _load_row(connection, message.rid, configuration)
    execution = Execution(connection, row, folder, configuration=configuration, restored=True, rank=rank)
    if configuration is not None:
        known = {spec.rid: spec.version for spec in execution.info.datasets}
        datasets = [_pin_recorded_version(connection, spec, known) for spec in configuration.datasets]
        execution._runtime.inputs.record(datasets, lookup_assets(connection, configuration.asset_rids))
    elif not folder.is_dir():
        execution._runtime.inputs.record(execution.list_input_datasets(), execution.list_assets(Role.input))
    return execution


def _pin_recorded_version(
    connection: Connection, spec: DatasetSpec, recorded_versions: dict[RID, str | None]
) -> DatasetSpec:
    """The version that rank zero took, where that can be seen from here."""
    if spec.version is None and spec.rid in recorded_versions:
        return spec.model_copy(update={"version": recorded_versions[spec.rid]})
    return resolve_version(connection, spec)


def _load_row(connection: Connection, rid: RID, configuration: ExecutionConfiguration | None) -> dict[str, Any]:
    if rid != DRY_RUN_RID and (rows := connection.catalog.select(MLTable.execution, {"RID": rid})):
        return rows[0]
    description = "" if configuration is None else configuration.description
    return {"RID": rid, "Description": description, "Status": Status.created}
