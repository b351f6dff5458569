"""Transfer of files between two stores: several in parallel, verified, each sent once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from urllib.parse import urlparse
from urllib.request import url2pathname

from pydantic import JsonValue

from deriva_ml_core._concurrency.thread_pool import map_unordered
from deriva_ml_core._files.partial_download import has_bytes
from deriva_ml_core._retry import RetryingStore
from deriva_ml_core.backend import Row
from deriva_ml_core.definitions import RID, TransferMode
from deriva_ml_core.errors import ChecksumMismatch
from deriva_ml_core.models import StoredObject, UploadOptions, UploadProgress
from deriva_ml_core.push.context import PushContext, global_row_id

__all__ = ["AssetFiles", "copy_objects", "put_file"]

AssetFiles = Mapping[RID, tuple[str, Row]]
"""The asset table and the row of each file."""


FLUSH_INTERVAL = 1.0
"""Seconds after which stored files are flushed and recorded, so that an interrupted push repeats little work."""


class _TransferStopped(Exception):
    """The push ended during the transfer of a file."""


def copy_objects(
    context: PushContext,
    files: AssetFiles,
    options: UploadOptions,
    progress_callback: Callable[[UploadProgress], None] | None,
) -> dict[RID, StoredObject]:
    """Copy files into the target's store, without those that the ledger records as stored.

    The ledger records a file as stored after it is flushed to disk, so that no row names an object that can be lost.
    A file in a store on this machine is sent directly; one on a server is downloaded to a temporary file first.

    Args:
        context: State of the push.
        files: The files.
        options: Options of the file transfer.
        progress_callback: Called with the progress before the first file and after each file.

    Raises:
        ChecksumMismatch: An object of the source is lost, or differs from what was recorded.
        StoreUnavailable: The objects cannot be flushed to disk.
    """
    stored = {
        rid: stored_object
        for rid, (_, row) in files.items()
        if (stored_object := _find_stored_object(context, row)) is not None
    }
    waiting = [(rid, *file) for rid, file in files.items() if rid not in stored]
    size, done = sum(row["Length"] for _, _, row in waiting), 0
    if progress_callback is not None and waiting:
        progress_callback(UploadProgress(files_done=0, files=len(waiting), bytes_done=0, bytes=size))
    stop = Event()
    stores = RetryingStore(context.source_connection.store), RetryingStore(context.target_connection.store)
    workers = options.upload_workers or max(store.preferred_concurrency for store in stores)
    unsynced: dict[str, StoredObject] = {}
    last_flush = monotonic()
    transfer = partial(_copy_object, context, options, stop)
    with closing(map_unordered(transfer, waiting, workers, name="deriva-ml-push", stop=stop)) as results:
        for count, ((rid, _, row), stored_object) in enumerate(results, 1):
            stored[rid] = unsynced[global_row_id(row)] = stored_object
            if monotonic() - last_flush > FLUSH_INTERVAL:
                _record_stored(context, unsynced)
                unsynced, last_flush = {}, monotonic()
            done += row["Length"]
            context.files_sent, context.bytes_sent = context.files_sent + 1, context.bytes_sent + row["Length"]
            if progress_callback is not None:
                name = row["Filename"] or rid
                progress_callback(
                    UploadProgress(files_done=count, files=len(waiting), bytes_done=done, bytes=size, filename=name)
                )
    _record_stored(context, unsynced)
    return stored


def _record_stored(context: PushContext, objects: Mapping[str, StoredObject]) -> None:
    if objects:
        context.target_connection.store.sync()
        context.ledger.record_stored(objects)


def _find_stored_object(context: PushContext, row: Row) -> StoredObject | None:
    """Return a file's object from the ledger if its row was not created yet, and has not changed since."""
    name = global_row_id(row)
    stored = None if name in context.ledger.confirmed_rids else context.ledger.stored_objects.get(name)
    return stored if stored is not None and (stored.md5, stored.length) == (row["MD5"], row["Length"]) else None


def _copy_object(context: PushContext, options: UploadOptions, stop: Event, file: tuple[RID, str, Row]) -> StoredObject:
    _, table, row = file
    local = _local_object_path(context, row)
    name, filename = global_row_id(row), row["Filename"] or row["RID"]
    put = partial(put_file, context, name, table, filename, options=options, stop=stop)
    stored = (
        put(local, handover=TransferMode.hardlink)
        if local is not None
        else _copy_via_temporary_file(context, row, options, put)
    )
    if (stored.md5, stored.length) != (row["MD5"], row["Length"]):
        raise ChecksumMismatch(
            f"The object {row['URL']} of {context.source.name} is damaged: it has {stored.length} bytes with MD5 "
            f"{stored.md5}, not {row['Length']} with {row['MD5']}. Restore it from a copy, and push again."
        )
    return stored


def _local_object_path(context: PushContext, row: Row) -> Path | None:
    """Return the path of an object in a store on this machine; None for other stores."""
    source = context.source_connection.store.source(row["URL"])
    if not source.startswith("file:"):
        return None
    path = Path(url2pathname(urlparse(source).path))
    if not path.is_file() or path.stat().st_size != row["Length"]:
        # raises the error that describes the damage
        context.source_connection.store.verify(row["URL"], length=row["Length"], md5=row["MD5"])
    return path


def _copy_via_temporary_file(
    context: PushContext, row: Row, options: UploadOptions, put: Callable[..., StoredObject]
) -> StoredObject:
    """Download an object to a temporary file, and upload it from there."""
    file = context.transfer_folder / hashlib.sha256(global_row_id(row).encode()).hexdigest()[:32]
    if not has_bytes(file, length=row["Length"], md5=row["MD5"]):
        if global_row_id(row) in context.ledger.resume_data:
            try:
                return put(file, handover=TransferMode.move)  # an earlier process may have stored it already
            except FileNotFoundError:
                pass
        RetryingStore(context.source_connection.store).get(
            row["URL"], file, length=row["Length"], md5=row["MD5"], options=options
        )
    stored = put(file, handover=TransferMode.move)
    file.unlink(missing_ok=True)
    return stored


def put_file(
    context: PushContext,
    file_id: str,
    table: str,
    filename: str,
    file: Path,
    *,
    handover: TransferMode,
    options: UploadOptions,
    stop: Event | None = None,
) -> StoredObject:
    """Store a file at the target, resuming an interrupted transfer of an earlier push."""

    def record_progress(data: JsonValue) -> None:
        context.ledger.record_progress(file_id, data)
        if stop is not None and stop.is_set():
            raise _TransferStopped

    return RetryingStore(context.target_connection.store).put(
        table,
        filename,
        file,
        handover=handover,
        options=options,
        resume=context.ledger.resume_data.get(file_id),
        note=record_progress,
    )
