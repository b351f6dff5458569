"""The cache of bags: each version of a dataset is brought to this machine once, and goes on after an interruption."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from deriva_ml_core.assets.progress import shown
from deriva_ml_core.assets.retry import RetryingStore
from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.bag.build import build_bag
from deriva_ml_core.bag.reading import DatasetBag
from deriva_ml_core.connection import Connection
from deriva_ml_core.dataset.versions import DatasetVersion, lookup_version
from deriva_ml_core.errors import CatalogReadOnly, ChecksumMismatch, DerivaMLException, StoreFull
from deriva_ml_core.models import DatasetSpec, UploadOptions, UploadProgress

__all__ = ["download_bag"]

CACHE, BUILDING = "cache", "building-"
IN_FLIGHT = 8
"""How many files are brought at a time."""

NAMED = 5
"""How many wrong files an error names."""


@dataclass(frozen=True, slots=True)
class _File:
    """An asset's file: where it comes from, where it goes, and what it must be."""

    url: str
    path: Path
    incoming: Path
    length: int
    md5: str


def download_bag(connection: Connection, spec: DatasetSpec, options: UploadOptions | None = None) -> DatasetBag:
    """Bring a dataset's version to this machine, or find it there.

    The cache knows a version by its dataset, number and snapshot. A bag that is complete costs one look at each file;
    files that were changed, deleted or not yet brought are brought again, each checked by length and MD5.

    Args:
        connection: The catalog and store; the cache lies in its folder.
        spec: The dataset, its version (the current one where none is given), and whether files are brought.
        options: How transfers are repeated.

    Raises:
        CatalogReadOnly: The cache cannot be written.
        ChecksumMismatch: The store's bytes are not those recorded; the files are named, and all others were brought.
        StoreFull: The disk has no room; the next call goes on from here.
        StoreUnavailable: The store cannot be reached; the next call goes on from here.
        UnknownRID, WrongTable: The record id names no dataset.
        UnknownVersion: The dataset has no such version.
    """
    from filelock import FileLock

    version = lookup_version(connection, spec.rid, spec.version)
    folder = connection.folder / CACHE / f"{version.dataset}_{version.version}_{version.snapshot}"
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            bag, store = _built(connection, version, folder), RetryingStore(connection.store)
            if spec.materialize:
                _materialize(store, bag, version, folder / "incoming", options or UploadOptions())
    return bag


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except DerivaMLException:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"The disk of the cache {folder} is full; free some space, and the download goes on."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CatalogReadOnly(
                f"The cache {folder} cannot be written ({error.strerror}); let this user write there."
            ) from error
        raise


def _built(connection: Connection, version: DatasetVersion, folder: Path) -> DatasetBag:
    """The bag with its tables and lists, built unless it is there unchanged."""
    path, sizes = folder / f"Dataset_{version.dataset}", folder / "sizes.json"
    if sizes.exists() and json.loads(sizes.read_text(encoding="utf-8")) == _sizes(path):
        return DatasetBag(path)
    for left in folder.glob(f"{BUILDING}*"):
        shutil.rmtree(left, ignore_errors=True)
    # under a new name, as what a killed process had started may still be at work in the old one
    building = Path(mkdtemp(prefix=BUILDING, dir=folder))
    new = build_bag(connection, version, building)
    if (path / "data" / "asset").exists():
        (path / "data" / "asset").rename(new / "data" / "asset")
    shutil.rmtree(path, ignore_errors=True)
    new.rename(path)
    _write(sizes, json.dumps(_sizes(path)))
    shutil.rmtree(building)
    return DatasetBag(path)


def _sizes(bag: Path) -> dict[str, list[int]]:
    """Size and modification time of each table and list of a bag."""
    files = (file for folder in (bag, bag / "data") if folder.is_dir() for file in folder.iterdir() if file.is_file())
    return {str(file.relative_to(bag)): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _write(file: Path, text: str) -> None:
    partial = file.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _materialize(
    store: ObjectStore, bag: DatasetBag, version: DatasetVersion, incoming: Path, options: UploadOptions
) -> None:
    """Bring the files that are not there as they were brought: with their length, and the version's time as theirs."""
    time = int(version.created.timestamp())
    missing = [file for file in _files(bag, incoming) if not _is_there(file, time)]
    if not missing:
        return
    incoming.mkdir(exist_ok=True)
    title = f"dataset {version.dataset} {version.version}"
    with shown(None, f"Downloading {title}:") as tell:
        wrong = _bring_all(store, missing, time, options, tell or (lambda _: None))
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise ChecksumMismatch(f"In {title} these are not as recorded: {'; '.join(wrong[:NAMED])}{more}.")
    shutil.rmtree(incoming)


def _bring_all(
    store: ObjectStore,
    missing: Sequence[_File],
    time: int,
    options: UploadOptions,
    tell: Callable[[UploadProgress], None],
) -> list[str]:
    """Bring files, several at a time; those whose bytes are wrong are returned, any other failure ends it."""
    size, done, wrong = sum(file.length for file in missing), 0, []
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        bringing = {pool.submit(_bring, store, file, time, options): file for file in missing}
        try:
            for count, future in enumerate(as_completed(bringing), 1):
                if isinstance(error := future.exception(), ChecksumMismatch):
                    wrong.append(f"{bringing[future].url}: {error}")
                else:
                    future.result()
                done += bringing[future].length
                tell(UploadProgress(files_done=count, files=len(missing), bytes_done=done, bytes=size))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return wrong


def _files(bag: DatasetBag, incoming: Path) -> Iterator[_File]:
    for row, path in bag.iterate_assets():
        yield _File(row["URL"], path, incoming / row["RID"], row["Length"], row["MD5"])


def _is_there(file: _File, time: int) -> bool:
    try:
        found = file.path.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (file.length, time * 10**9)


def _bring(store: ObjectStore, file: _File, time: int, options: UploadOptions) -> None:
    if not _same_bytes(file):
        store.get(file.url, file.incoming, length=file.length, md5=file.md5, options=options)
        file.incoming.chmod(0o444)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.incoming.replace(file.path)
    # the last step: a file with this time is one that was checked and not touched since
    os.utime(file.path, (time, time))


def _same_bytes(file: _File) -> bool:
    """Whether the right bytes are there with another time, as after the cache was copied."""
    if not file.path.is_file() or file.path.stat().st_size != file.length:
        return False
    with file.path.open("rb") as bytes_:
        return hashlib.file_digest(bytes_, "md5").hexdigest() == file.md5
