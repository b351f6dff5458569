"""Download of a checkpoint, a file or a folder, from a recorded execution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from deriva_ml_core._files.partial_download import has_bytes
from deriva_ml_core._retry import RetryingStore
from deriva_ml_core._text import escape_surrogates
from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.assets.staging import check_file_name
from deriva_ml_core.definitions import Role
from deriva_ml_core.errors import UnknownCheckpoint
from deriva_ml_core.models import UploadOptions
from deriva_ml_core.training.checkpoints import BEST_CHECKPOINT, LAST_CHECKPOINT

if TYPE_CHECKING:
    from deriva_ml_core.execution.recorded import RecordedExecution
    from deriva_ml_core.models import Asset

__all__ = ["fetch_checkpoint"]

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
            folder. The newest is taken if several match. Without these asset types, both mean the only model file.

    Returns:
        The path of the file or, for a sharded checkpoint, of the folder.

    Raises:
        UnknownCheckpoint: The execution has uploaded no such checkpoint; the message names the existing ones.
        InvalidFileName: A recorded name points outside its folder.
        ChecksumMismatch: The bytes in the store differ from the recorded ones.
    """
    outputs = _list_outputs_newest_first(execution)
    asset, root = _select_checkpoint(outputs, which)
    if asset is None:
        raise UnknownCheckpoint(_not_found_message(execution, outputs, which))
    for name in (asset.filename, root):
        check_file_name(name)
    if root == asset.filename:
        return download_asset(execution._connection, asset, folder)
    target = folder / asset.table / asset.rid
    for part in _folder_files(outputs, asset.table, root):
        path = target / check_file_name(part.filename)
        if not has_bytes(path, length=part.length, md5=part.md5):
            path.parent.mkdir(parents=True, exist_ok=True)
            RetryingStore(execution._connection.store).get(
                part.url, path, length=part.length, md5=part.md5, options=UploadOptions()
            )
    return target / root


def _list_outputs_newest_first(execution: RecordedExecution) -> list[Asset]:
    """Return the outputs of an execution by creation time, newest first."""
    outputs = execution.list_assets(Role.output)
    created: dict[str, str] = {}
    for table in dict.fromkeys(asset.table for asset in outputs):
        rids = [asset.rid for asset in outputs if asset.table == table]
        created.update((row["RID"], row["RCT"]) for row in execution._connection.catalog.select(table, {"RID": rids}))
    return sorted(outputs, key=lambda asset: (created.get(asset.rid, ""), asset.rid), reverse=True)


def _select_checkpoint(outputs: Sequence[Asset], which: str) -> tuple[Asset | None, str]:
    """Return the newest file of the requested checkpoint, and the checkpoint's name."""
    term = {"best": BEST_CHECKPOINT, "last": LAST_CHECKPOINT}.get(which)
    if term is None:
        name = escape_surrogates(which.rstrip("/"))
        inside = (asset for asset in outputs if asset.filename.startswith(f"{name}/"))
        exact = (asset for asset in outputs if asset.filename == name)
        return next(exact, None) or next(inside, None), name
    typed = [asset for asset in outputs if term in asset.asset_types]
    if typed:
        return typed[0], _checkpoint_root(typed[0], typed)
    models = [asset for asset in outputs if MODEL_FILE in asset.asset_types]
    roots = {_checkpoint_root(model, models) for model in models}
    return (models[0], roots.pop()) if len(roots) == 1 else (None, "")


def _checkpoint_root(asset: Asset, candidates: Iterable[Asset]) -> str:
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


def _folder_files(outputs: Iterable[Asset], table: str, root: str) -> list[Asset]:
    """Return the newest file of each name in a folder."""
    files: dict[str, Asset] = {}
    for asset in outputs:
        if asset.table == table and asset.filename.startswith(f"{root}/"):
            files.setdefault(asset.filename, asset)
    return list(files.values())


def _not_found_message(execution: RecordedExecution, outputs: Sequence[Asset], which: str) -> str:
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
