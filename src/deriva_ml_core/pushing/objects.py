"""Bytes on their way from one store to the other: several files at a time, checked, and never sent twice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event
from urllib.parse import urlparse
from urllib.request import url2pathname

from pydantic import JsonValue

from deriva_ml_core.assets.retry import RetryingStore
from deriva_ml_core.backend import Row
from deriva_ml_core.crew import as_done
from deriva_ml_core.definitions import RID, Handover
from deriva_ml_core.errors import ChecksumMismatch
from deriva_ml_core.models import StoredObject, UploadOptions, UploadProgress
from deriva_ml_core.pushing.origin import origin
from deriva_ml_core.pushing.passage import Passage

__all__ = ["Files", "bring_objects", "put_file"]

Files = Mapping[RID, tuple[str, Row]]
"""The asset table and the row of each file."""


class _Stopped(Exception):
    """A push has ended while a file was on its way."""


def bring_objects(
    passage: Passage,
    files: Files,
    options: UploadOptions,
    tell: Callable[[UploadProgress], None] | None,
) -> dict[RID, StoredObject]:
    """Bring files' bytes into the target's store; those that are there by the ledger are not sent.

    An embedded store's own file is sent as it lies; of a file on a server a copy is brought to a folder first.

    Args:
        passage: From where, and where to.
        files: The files.
        options: How to send.
        tell: Told of the progress, before the first and after each file.

    Raises:
        ChecksumMismatch: An object of the source is lost, or not what was recorded.
    """
    stored = {rid: known for rid, (_, row) in files.items() if (known := _known(passage, row)) is not None}
    waiting = [(rid, *file) for rid, file in files.items() if rid not in stored]
    size, done = sum(row["Length"] for _, _, row in waiting), 0
    if tell is not None and waiting:
        tell(UploadProgress(files_done=0, files=len(waiting), bytes_done=0, bytes=size))
    stop = Event()
    stores = RetryingStore(passage.source.store), RetryingStore(passage.target.store)
    workers = options.upload_workers or max(store.at_once for store in stores)
    bring = partial(_bring, passage, options, stop)
    with closing(as_done(bring, waiting, workers, name="deriva-ml-push", stop=stop)) as sending:
        for count, ((rid, _, row), kept) in enumerate(sending, 1):
            stored[rid] = kept
            done += row["Length"]
            passage.files, passage.bytes = passage.files + 1, passage.bytes + row["Length"]
            if tell is not None:
                name = row["Filename"] or rid
                tell(UploadProgress(files_done=count, files=len(waiting), bytes_done=done, bytes=size, filename=name))
    return stored


def _known(passage: Passage, row: Row) -> StoredObject | None:
    """What the ledger says of a file whose row was not made yet."""
    name = origin(row)
    return None if name in passage.ledger.there else passage.ledger.stored.get(name)


def _bring(passage: Passage, options: UploadOptions, stop: Event, file: tuple[RID, str, Row]) -> StoredObject:
    _, table, row = file
    local = _local_object(passage, row)
    name, filename = origin(row), row["Filename"] or row["RID"]
    put = partial(put_file, passage, name, table, filename, options=options, stop=stop)
    stored = put(local, handover=Handover.share) if local is not None else _through(passage, row, options, put)
    if (stored.md5, stored.length) != (row["MD5"], row["Length"]):
        raise ChecksumMismatch(
            f"The object {row['URL']} of {passage.here.name} is damaged: it has {stored.length} bytes with MD5 "
            f"{stored.md5}, not {row['Length']} with {row['MD5']}. Put back a copy of it, and push again."
        )
    passage.ledger.keep(name, stored)
    return stored


def _local_object(passage: Passage, row: Row) -> Path | None:
    """The file in which a store on this machine has an object; None where it is elsewhere."""
    source = passage.source.store.source(row["URL"])
    if not source.startswith("file:"):
        return None
    path = Path(url2pathname(urlparse(source).path))
    if not path.is_file() or path.stat().st_size != row["Length"]:
        passage.source.store.verify(row["URL"], length=row["Length"], md5=row["MD5"])  # which says what is wrong
    return path


def _through(passage: Passage, row: Row, options: UploadOptions, put: Callable[..., StoredObject]) -> StoredObject:
    """Bring an object here, and from here there."""
    file = passage.folder / hashlib.sha256(origin(row).encode()).hexdigest()[:32]
    if not (file.is_file() and file.stat().st_size == row["Length"]):
        if origin(row) in passage.ledger.notes:
            try:
                return put(file, handover=Handover.move)  # the store may have taken it before this process began
            except FileNotFoundError:
                pass
        RetryingStore(passage.source.store).get(row["URL"], file, length=row["Length"], md5=row["MD5"], options=options)
    stored = put(file, handover=Handover.move)
    file.unlink(missing_ok=True)
    return stored


def put_file(
    passage: Passage,
    name: str,
    table: str,
    filename: str,
    file: Path,
    *,
    handover: Handover,
    options: UploadOptions,
    stop: Event | None = None,
) -> StoredObject:
    """Store a file at the target, going on where an earlier push stopped in the middle of it."""

    def note(said: JsonValue) -> None:
        passage.ledger.note(name, said)
        if stop is not None and stop.is_set():
            raise _Stopped

    return RetryingStore(passage.target.store).put(
        table,
        filename,
        file,
        handover=handover,
        options=options,
        resume=passage.ledger.notes.get(name),
        note=note,
    )
