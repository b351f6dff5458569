"""The files that tell of an execution, read where they are: in its working folder here, or in the store."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from deriva_ml_core.assets.recorded import download_asset
from deriva_ml_core.execution.provenance import JOURNAL_FILENAME, load_local_state
from deriva_ml_core.journal.file import load_state
from deriva_ml_core.journal.story import ExecutionState

if TYPE_CHECKING:
    from deriva_ml_core.client import DerivaML
    from deriva_ml_core.execution import RecordedExecution
    from deriva_ml_core.models import Asset

__all__ = [
    "MAX_DOWNLOAD_BYTES",
    "load_configuration",
    "safe_file_name",
    "fetch_metadata_file",
    "read_json_object",
    "load_execution_state",
]

MAX_DOWNLOAD_BYTES = 256 * 2**20
"""Bytes up to which a kept file is brought from the store only to be shown."""

METADATA_TABLE = "Execution_Metadata"


def load_execution_state(ml: DerivaML, rid: str, assets: Sequence[Asset]) -> ExecutionState:
    """What an execution's journal tells, here or as it was kept; an empty story where there is none."""
    if (story := load_local_state(ml.connection, rid)) is not None:
        return story
    with fetch_metadata_file(ml, assets, JOURNAL_FILENAME) as file:
        return load_state(file) if file else ExecutionState()


def load_configuration(ml: DerivaML, execution: RecordedExecution, assets: Sequence[Asset]) -> Mapping[str, Any]:
    """What ``configuration.json`` of an execution says; empty where none was kept."""
    name = "configuration.json"
    with fetch_metadata_file(ml, assets, name, local_path=execution.working_dir / "records" / name) as file:
        return read_json_object(file)


@contextmanager
def fetch_metadata_file(
    ml: DerivaML, assets: Sequence[Asset], name: str, *, local_path: Path | None = None, is_prefix: bool = False
) -> Iterator[Path | None]:
    """One of the files that describe an execution.

    Args:
        ml: The catalog.
        assets: The execution's assets.
        name: The file's name.
        local_path: Where it lies on this machine, which is newer than what was sent, where it is there.
        is_prefix: Whether `name` is only how the name begins.

    Yields:
        The file; None where there is none, or one that is too large to be brought.
    """
    if local_path is not None and local_path.is_file():
        yield local_path
        return
    found = [
        asset
        for asset in assets
        if asset.table == METADATA_TABLE and (asset.filename.startswith(name) if is_prefix else asset.filename == name)
    ]
    if not found or found[-1].length > MAX_DOWNLOAD_BYTES:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield download_asset(ml.connection, found[-1], Path(folder))


def safe_file_name(asset: Asset) -> str:
    """The name of an asset's file without folders; its record id where that would be no name of a file."""
    name = PurePosixPath(asset.filename).name
    return asset.rid if name in ("", ".", "..") else name


def read_json_object(file: Path | None) -> Mapping[str, Any]:
    """The object that a file holds; empty where it holds none, or there is no file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
