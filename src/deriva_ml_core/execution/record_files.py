"""Files that describe a run, found among its assets, and read from its working folder or from the store."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from deriva_ml_core._files.atomic import scratch_folder
from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import MLAsset, Role
from deriva_ml_core.journal.state import ExecutionState
from deriva_ml_core.models import Asset

__all__ = ["METRICS_TYPES", "fetch_metadata_file", "select_metadata_assets"]

METRICS_TYPES = ("Metrics_File",)

MAX_DOWNLOAD_BYTES = 256 * 2**20
"""Largest file, in bytes, that is downloaded only to be shown."""


class WithState(Protocol):
    """An execution whose journal lists the files that it wrote itself."""

    def _load_state(self) -> ExecutionState: ...


@contextmanager
def fetch_metadata_file(
    connection: Connection,
    execution: WithState,
    assets: Sequence[Asset],
    name: str,
    types: Collection[str] = (),
    *,
    local_path: Path | None = None,
    is_prefix: bool = False,
) -> Iterator[Path | None]:
    """Provide one of the files that describe an execution, downloaded if need be.

    Args:
        connection: The catalog.
        execution: The execution.
        assets: The execution's assets.
        name: The file's name.
        types: The asset types of the file, see `select_metadata_assets`.
        local_path: The file in the working folder; used if it exists.
        is_prefix: Whether `name` is only the beginning of the file's name.

    Yields:
        The file, valid inside the ``with`` block; None if there is no such file or it is over `MAX_DOWNLOAD_BYTES`.
    """
    # another user's file may not be readable; its copy in the store is
    if local_path is not None and os.access(local_path, os.R_OK):
        yield local_path
        return
    matching = select_metadata_assets(execution, assets, name, types, is_prefix=is_prefix)
    if not matching or matching[-1].length > MAX_DOWNLOAD_BYTES:
        yield None
        return
    with scratch_folder(connection.folder) as folder:
        yield download_asset(connection, matching[-1], folder)


def select_metadata_assets(
    execution: WithState,
    assets: Sequence[Asset],
    name: str,
    types: Collection[str] = (),
    *,
    is_prefix: bool = False,
) -> list[Asset]:
    """Return the copies of one of the files that describe an execution, the newest last.

    A name alone does not identify such a file: an input, or another output, can have the same name. The file is an
    output with one of its asset types. If that leaves a choice, the journal lists the files that the run itself wrote.

    Args:
        execution: The execution.
        assets: The execution's assets.
        name: The file's name.
        types: The asset types that only files of this kind have; empty if there are none. A catalog that lacks them has
            the type Execution_Metadata instead.
        is_prefix: Whether `name` is only the beginning of the file's name.
    """
    table = MLAsset.execution_metadata
    named = [
        asset
        for asset in assets
        if asset.table == table
        and asset.role == Role.output
        and (asset.filename.startswith(name) if is_prefix else asset.filename == name)
    ]
    typed = [asset for asset in named if not asset.asset_types or {table, *types}.intersection(asset.asset_types)]
    specific = [asset for asset in typed if set(types).intersection(asset.asset_types)]
    if not typed or len(specific) == 1:
        return specific
    order = {rid: number for number, rid in enumerate(execution._load_state().own_record_rids())}
    if not order:  # no journal, or one that lists no files
        return specific or typed
    own = [asset for asset in typed if asset.rid in order]
    return sorted(own, key=lambda asset: order[asset.rid]) or specific
