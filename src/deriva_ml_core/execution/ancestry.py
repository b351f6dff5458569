"""Where a file came from that another execution made: recorded as an input, so that the lineage leads there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from deriva_ml_core.connection import Connection
from deriva_ml_core.definitions import RID, MLTable, Role
from deriva_ml_core.execution.live import Execution
from deriva_ml_core.execution.provenance import RecordedExecution
from deriva_ml_core.execution.restoration import restore_execution
from deriva_ml_core.models import Asset

__all__ = ["record_files_as_inputs"]


def record_files_as_inputs(execution: Execution, producer: RID, path: Path) -> list[Asset]:
    """Record what an earlier execution made, and lies or lay here as a file or a folder, as inputs of an execution.

    What the earlier one staged and did not send yet, since it was killed say, is sent for it. Of what lies here no
    more, since it was moved into the store say, the last that was sent from here is meant.

    Args:
        execution: What it goes into.
        producer: The execution that made it.
        path: The file, or the folder of files.

    Returns:
        What was recorded; empty where the earlier execution does not know these bytes.

    Raises:
        UnknownRID, WrongTable: There is no such execution in this catalog.
        UploadFailed: It is staged there and cannot be sent.
    """
    connection = execution.connection
    files = [each for each in sorted(path.rglob("*")) if each.is_file()] if path.is_dir() else [path]
    if not path.exists():
        assets = _find_uploaded_from(connection, producer, path)
    elif len(assets := list(_match_outputs(connection, producer, files))) < len(files):
        _upload_staged_files(connection, producer, files)
        assets = list(_match_outputs(connection, producer, files))
    for asset in assets:
        execution.record_input(asset)
    return assets


def _match_outputs(connection: Connection, producer: RID, files: list[Path]) -> Iterator[Asset]:
    """The earlier execution's outputs whose bytes these are."""
    outputs = _list_outputs(connection, producer)
    for file in files:
        size = file.stat().st_size
        alike = [asset for asset in outputs if asset.length == size and Path(asset.filename).name == file.name]
        if alike:
            with file.open("rb") as opened:
                md5 = hashlib.file_digest(opened, "md5").hexdigest()
            yield from [asset for asset in alike if asset.md5 == md5][:1]


def _upload_staged_files(connection: Connection, producer: RID, files: list[Path]) -> None:
    restored = restore_execution(connection, producer)
    if staged := [asset.path for asset in restored.staged_assets() if {asset.path, asset.original} & {*files}]:
        restored.upload_execution_outputs(only=staged, clean_folder=False)


def _find_uploaded_from(connection: Connection, producer: RID, path: Path) -> list[Asset]:
    """What the earlier execution sent from a place, or from the folder there."""
    last: dict[Path, RID | None] = {}
    for file in restore_execution(connection, producer)._runtime.journal.state.files.values():
        if path in (file.asset.path, file.asset.original) or path in file.asset.path.parents:
            last[file.asset.path] = file.rid
    return [asset for asset in _list_outputs(connection, producer) if asset.rid in last.values()]


def _list_outputs(connection: Connection, producer: RID) -> list[Asset]:
    return RecordedExecution(connection, connection.require_row(MLTable.execution, producer)).list_assets(Role.output)
