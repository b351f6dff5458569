"""Download of a checkpoint, a file or a folder, from a recorded execution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from deriva_ml_core._text import escape_surrogates
from deriva_ml_core.assets.asset_rows import find_shared_rows
from deriva_ml_core.assets.lookup import download_asset, download_assets
from deriva_ml_core.assets.staging import check_file_name
from deriva_ml_core.definitions import RID, MLAsset, Role
from deriva_ml_core.errors import UnknownCheckpoint
from deriva_ml_core.models import BestCorrection
from deriva_ml_core.training.checkpoints import BEST_CHECKPOINT, LAST_CHECKPOINT

if TYPE_CHECKING:
    from deriva_ml_core.execution import RecordedExecution
    from deriva_ml_core.models import Asset

__all__ = [
    "checkpoint_root",
    "fetch_checkpoint",
    "folder_files",
    "list_outputs_newest_first",
    "not_found_message",
    "select_by_name",
]

MODEL_FILE = "Model_File"
MAX_LISTED_FILES = 20
"""Maximum number of files that an error names."""


def fetch_checkpoint(execution: RecordedExecution, folder: Path, which: str = "best") -> Path:
    """Download a checkpoint of an execution and check each file by length and MD5.

    Args:
        execution: The execution, as returned by ``ml.lookup_execution`` or ``ml.find_executions``.
        folder: Destination folder; the path is ``<folder>/<table>/<rid>/<name>``. A file that exists there with its
            recorded bytes is not downloaded again.
        which: ``best`` or ``last``, by the asset types Best_Checkpoint and Last_Checkpoint, or the name of a file or
            folder. The newest is taken if several match. A correction of the best checkpoint counts. Without these
            asset types, both mean the only model file.

    Returns:
        The path of the file or, for a sharded checkpoint, of the folder.

    Raises:
        UnknownCheckpoint: The execution has uploaded no such checkpoint; the message names the existing ones.
        InvalidFileName: A recorded name points outside its folder.
        ChecksumMismatch: The bytes in the store differ from the recorded ones.
    """
    outputs = list_outputs_newest_first(execution)
    asset, root = _select_checkpoint(outputs, which)
    if asset is None:
        raise UnknownCheckpoint(not_found_message(execution, outputs, which))
    for name in (asset.filename, root):
        check_file_name(name)
    if root == asset.filename:
        return download_asset(execution._connection, asset, folder)
    target = folder / asset.table / asset.rid
    parts = folder_files(outputs, asset.table, root)
    download_assets(execution._connection, parts, lambda part: target / check_file_name(part.filename))
    return target / root


def list_outputs_newest_first(execution: RecordedExecution) -> list[Asset]:
    """Return the outputs of an execution by creation time, newest first."""
    outputs = execution.list_assets(Role.output)
    created: dict[str, str] = {}
    for table in dict.fromkeys(asset.table for asset in outputs):
        rids = [asset.rid for asset in outputs if asset.table == table]
        created.update((row["RID"], row["RCT"]) for row in execution._connection.catalog.select(table, {"RID": rids}))
    newest_first = sorted(outputs, key=lambda asset: (created.get(asset.rid, ""), asset.rid), reverse=True)
    return _apply_correction(execution, newest_first)


def _apply_correction(execution: RecordedExecution, outputs: list[Asset]) -> list[Asset]:
    """Return outputs with the best checkpoint of the last correction, also where another execution shares the row.

    In the catalog, a shared row keeps its types.
    """
    shared: set[RID] = set()
    for table in {asset.table for asset in outputs} - {MLAsset.execution_metadata.value}:
        rids = [asset.rid for asset in outputs if asset.table == table]
        shared |= find_shared_rows(execution._connection, execution.execution_rid, table, rids)
    correction = execution._load_state().valid_best_correction if shared else None
    if correction is None:
        return outputs
    return [
        asset.model_copy(update={"asset_types": _corrected_types(asset, correction)}) if asset.rid in shared else asset
        for asset in outputs
    ]


def _corrected_types(asset: Asset, correction: BestCorrection) -> tuple[str, ...]:
    others = tuple(name for name in asset.asset_types if name != BEST_CHECKPOINT)
    return (*others, BEST_CHECKPOINT) if asset.rid in correction.assets else others


def _select_checkpoint(outputs: Sequence[Asset], which: str) -> tuple[Asset | None, str]:
    """Return the newest file of the requested checkpoint, and the checkpoint's name."""
    term = {"best": BEST_CHECKPOINT, "last": LAST_CHECKPOINT}.get(which)
    if term is None:
        return select_by_name(outputs, which)
    typed = [asset for asset in outputs if term in asset.asset_types]
    if typed:
        return typed[0], checkpoint_root(typed[0], typed)
    models = [asset for asset in outputs if MODEL_FILE in asset.asset_types]
    roots = {checkpoint_root(model, models) for model in models}
    return (models[0], roots.pop()) if len(roots) == 1 else (None, "")


def select_by_name(outputs: Sequence[Asset], which: str) -> tuple[Asset | None, str]:
    """Return the newest file of a name, or in a folder of that name, and the name."""
    name = escape_surrogates(which.rstrip("/"))
    inside = (asset for asset in outputs if asset.filename.startswith(f"{name}/"))
    exact = (asset for asset in outputs if asset.filename == name)
    return next(exact, None) or next(inside, None), name


def checkpoint_root(asset: Asset, candidates: Iterable[Asset]) -> str:
    """Return the name of the checkpoint that a file belongs to: the file's own name, or a folder's.

    The folder is the first one whose name has a suffix; without one, the longest folder that all candidates in the
    same top folder share.
    """
    parts = PurePosixPath(asset.filename).parts
    for number, part in enumerate(parts[:-1], start=1):
        suffix = PurePosixPath(part).suffix
        if suffix and not suffix[1:].isdigit():  # the ".0" of "v1.0" is not a suffix
            return "/".join(parts[:number])
    common = parts
    for other in candidates:
        if other.table == asset.table and (other_parts := PurePosixPath(other.filename).parts)[:1] == parts[:1]:
            common = _common_prefix(common, other_parts)
    return "/".join(common)


def _common_prefix(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:same]


def folder_files(outputs: Iterable[Asset], table: str, root: str) -> list[Asset]:
    """Return the newest file of each name in a folder."""
    files: dict[str, Asset] = {}
    for asset in outputs:
        if asset.table == table and asset.filename.startswith(f"{root}/"):
            files.setdefault(asset.filename, asset)
    return list(files.values())


def not_found_message(execution: RecordedExecution, outputs: Sequence[Asset], which: str) -> str:
    """Return the message of `UnknownCheckpoint`, which names what the execution has uploaded."""
    checkpoint = f"{which} checkpoint" if which in ("best", "last") else f"checkpoint named {which!r}"
    models = sorted(
        {
            asset.filename
            for asset in outputs
            if {BEST_CHECKPOINT, LAST_CHECKPOINT, MODEL_FILE}.intersection(asset.asset_types)
        }
    )
    names = models or sorted({asset.filename for asset in outputs})
    more = f" and {len(names) - MAX_LISTED_FILES} more" if len(names) > MAX_LISTED_FILES else ""
    available = (
        f"Available: {', '.join(names[:MAX_LISTED_FILES])}{more}; pass one of these names."
        if names
        else "It has uploaded no files."
    )
    return (
        f"Execution {execution.execution_rid} ({execution.status}) has uploaded no {checkpoint}. {available} "
        "Call its upload_execution_outputs() to upload staged files."
    )
