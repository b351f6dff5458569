"""Corrections of which checkpoint of an execution is the best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deriva_ml_core.assets.asset_rows import find_shared_rows, move_type_link
from deriva_ml_core.definitions import RID, MLAsset, MLVocab
from deriva_ml_core.errors import AlreadyBestCheckpoint, UnknownCheckpoint
from deriva_ml_core.execution.recorded import RecordedExecution, lookup_execution
from deriva_ml_core.execution.restore import open_for_correction
from deriva_ml_core.journal.state import BestCorrected, TypesAdded, TypesRemoved, utc_now
from deriva_ml_core.models import Asset, BestCorrection
from deriva_ml_core.training.checkpoint_download import (
    checkpoint_root,
    folder_files,
    list_outputs_newest_first,
    not_found_message,
    select_by_name,
)
from deriva_ml_core.training.checkpoints import BEST_CHECKPOINT

if TYPE_CHECKING:
    from deriva_ml_core.connection import Connection
    from deriva_ml_core.execution import Execution

__all__ = ["correct_best_checkpoint"]


def correct_best_checkpoint(connection: Connection, rid: RID, checkpoint: RID | str, reason: str) -> None:
    """Name another checkpoint as the best; see ``DerivaML.correct_best_checkpoint``."""
    from deriva_ml_core.redaction import redact_text  # many patterns to compile

    connection.terms.require(MLVocab.asset_type, [BEST_CHECKPOINT])
    with open_for_correction(connection, rid, reason) as (execution, stated_reason, user):
        recorded = lookup_execution(connection, rid)
        outputs = [asset for asset in list_outputs_newest_first(recorded) if asset.table != MLAsset.execution_metadata]
        name, files = _find_checkpoint(recorded, outputs, checkpoint)
        former = [asset for asset in outputs if BEST_CHECKPOINT in asset.asset_types]
        if {asset.rid for asset in former} == {asset.rid for asset in files}:
            raise AlreadyBestCheckpoint(f"{name} is already the best checkpoint of execution {rid}.")
        correction = BestCorrection(
            checkpoint=name,
            assets=tuple(asset.rid for asset in files),
            previous=checkpoint_root(former[0], former) if former else None,
            previous_assets=tuple(asset.rid for asset in former),
            reason=redact_text(stated_reason),
            corrected_by=user,
            time=utc_now(),
        )
        _move_best_type(execution, correction, former, files)


def _move_best_type(
    execution: Execution, correction: BestCorrection, former: Sequence[Asset], files: Sequence[Asset]
) -> None:
    """Write a correction to the journal, and move the type in the catalog."""
    runtime, connection, rid = execution._runtime, execution._connection, execution.execution_rid
    kept = {asset.rid for asset in files}
    removed = [asset for asset in former if asset.rid not in kept]
    shared: set[RID] = set()
    for table in {asset.table for asset in files}:
        shared |= find_shared_rows(connection, rid, table, [each.rid for each in files if each.table == table])
    # the files' own events: a later upload writes the types that these have
    local = {key: file for key, file in runtime.journal.state.files.items() if file.rid is not None}
    former_rids = {asset.rid for asset in removed}
    types = (BEST_CHECKPOINT,)
    runtime.journal.append(
        BestCorrected(time=correction.time, correction=correction),
        *(TypesRemoved(key=key, types=types) for key, file in local.items() if file.rid in former_rids),
        *(TypesAdded(key=key, types=types) for key, file in local.items() if file.rid in kept - shared),
    )
    move_type_link(connection, rid, BEST_CHECKPOINT, removed=removed, added=files)
    runtime.outputs.link_types()


def _find_checkpoint(
    execution: RecordedExecution, outputs: Sequence[Asset], checkpoint: RID | str
) -> tuple[str, list[Asset]]:
    """Return name and files of the checkpoint that a RID or a name means.

    Raises:
        UnknownCheckpoint: There is none, or the RID is that of one of several files in a folder.
    """
    asset = next((asset for asset in outputs if asset.rid == checkpoint), None)
    if asset is None:
        asset, root = select_by_name(outputs, checkpoint)
    else:
        root = checkpoint_root(asset, [asset])
    if asset is None:
        raise UnknownCheckpoint(not_found_message(execution, outputs, checkpoint))
    if root != asset.filename:
        return root, folder_files(outputs, asset.table, root)
    folder = str(PurePosixPath(root).parent)
    if asset.rid == checkpoint and len(folder_files(outputs, asset.table, folder)) > 1:
        raise UnknownCheckpoint(
            f"{asset.rid} is one of several files in the folder {folder!r} of execution {execution.execution_rid}. "
            f"Name the checkpoint: {folder!r} for all of them, or {root!r} for this one."
        )
    return root, [asset]
