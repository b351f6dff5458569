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

from deriva_ml_core._files.atomic import write_atomic
from deriva_ml_core._progress import progress_reporter
from deriva_ml_core.assets.retry import RetryingStore
from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets.bag import DatasetBag
from deriva_ml_core.datasets.bag_build import build_bag
from deriva_ml_core.datasets.versions import DatasetVersion, lookup_version
from deriva_ml_core.errors import CatalogReadOnly, ChecksumMismatch, DerivaMLException, DiskFull
from deriva_ml_core.models import DatasetSpec, UploadOptions, UploadProgress

__all__ = ["download_bag"]

CACHE_FOLDER, BUILD_FOLDER_PREFIX = "cache", "building-"
MAX_PARALLEL_DOWNLOADS = 8
"""How many files are brought at a time."""

MAX_LISTED_FILES = 5
"""How many wrong files an error names."""


@dataclass(frozen=True, slots=True)
class _AssetDownload:
    """An asset's file: where it comes from, where it goes, and what it must be."""

    url: str
    path: Path
    temporary_path: Path
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
        DiskFull: The disk has no room; the next call goes on from here.
        StoreUnavailable: The store cannot be reached; the next call goes on from here.
        UnknownRID, WrongTable: The record id names no dataset.
        UnknownVersion: The dataset has no such version.
    """
    from filelock import FileLock

    version = lookup_version(connection, spec.rid, spec.version)
    folder = connection.folder / CACHE_FOLDER / f"{version.dataset}_{version.version}_{version.snapshot}"
    with _translate_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            bag, store = _find_or_build(connection, version, folder), RetryingStore(connection.store)
            if spec.materialize:
                _download_missing(store, bag, version, folder / "incoming", options or UploadOptions())
    return bag


@contextmanager
def _translate_os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except DerivaMLException:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"The disk of the cache {folder} is full; free some space, and the download goes on."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CatalogReadOnly(
                f"The cache {folder} cannot be written ({error.strerror}); let this user write there."
            ) from error
        raise


def _find_or_build(connection: Connection, version: DatasetVersion, folder: Path) -> DatasetBag:
    """The bag with its tables and lists, built unless it is there unchanged."""
    path, sizes = folder / f"Dataset_{version.dataset}", folder / "sizes.json"
    if sizes.exists() and json.loads(sizes.read_text(encoding="utf-8")) == _file_stats(path):
        return DatasetBag(path)
    for left in folder.glob(f"{BUILD_FOLDER_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    # under a new name, as what a killed process had started may still be at work in the old one
    building = Path(mkdtemp(prefix=BUILD_FOLDER_PREFIX, dir=folder))
    new = build_bag(connection, version, building)
    if (path / "data" / "asset").exists():
        (path / "data" / "asset").rename(new / "data" / "asset")
    shutil.rmtree(path, ignore_errors=True)
    new.rename(path)
    write_atomic(sizes, json.dumps(_file_stats(path)))
    shutil.rmtree(building)
    return DatasetBag(path)


def _file_stats(bag: Path) -> dict[str, list[int]]:
    """Size and modification time of each table and list of a bag."""
    files = (file for folder in (bag, bag / "data") if folder.is_dir() for file in folder.iterdir() if file.is_file())
    return {str(file.relative_to(bag)): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _download_missing(
    store: ObjectStore, bag: DatasetBag, version: DatasetVersion, temporary_folder: Path, options: UploadOptions
) -> None:
    """Bring the files that are not there as they were brought: with their length, and the version's time as theirs."""
    time = int(version.created.timestamp())
    missing = [file for file in _list_downloads(bag, temporary_folder) if not _is_downloaded(file, time)]
    if not missing:
        return
    temporary_folder.mkdir(exist_ok=True)
    title = f"dataset {version.dataset} {version.version}"
    with progress_reporter(None, f"Downloading {title}:") as tell:
        wrong = _download_all(store, missing, time, options, tell or (lambda _: None))
    if wrong:
        more = f" and {len(wrong) - MAX_LISTED_FILES} more" if len(wrong) > MAX_LISTED_FILES else ""
        raise ChecksumMismatch(f"In {title} these are not as recorded: {'; '.join(wrong[:MAX_LISTED_FILES])}{more}.")
    shutil.rmtree(temporary_folder)


def _download_all(
    store: ObjectStore,
    missing: Sequence[_AssetDownload],
    time: int,
    options: UploadOptions,
    progress_callback: Callable[[UploadProgress], None],
) -> list[str]:
    """Bring files, several at a time; those whose bytes are wrong are returned, any other failure ends it."""
    size, done, wrong = sum(file.length for file in missing), 0, []
    with ThreadPoolExecutor(MAX_PARALLEL_DOWNLOADS) as pool:
        bringing = {pool.submit(_download_file, store, file, time, options): file for file in missing}
        try:
            for count, future in enumerate(as_completed(bringing), 1):
                if isinstance(error := future.exception(), ChecksumMismatch):
                    wrong.append(f"{bringing[future].url}: {error}")
                else:
                    future.result()
                done += bringing[future].length
                progress_callback(UploadProgress(files_done=count, files=len(missing), bytes_done=done, bytes=size))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return wrong


def _list_downloads(bag: DatasetBag, temporary_folder: Path) -> Iterator[_AssetDownload]:
    for row, path in bag.iterate_assets():
        yield _AssetDownload(row["URL"], path, temporary_folder / row["RID"], row["Length"], row["MD5"])


def _is_downloaded(file: _AssetDownload, time: int) -> bool:
    try:
        found = file.path.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (file.length, time * 10**9)


def _download_file(store: ObjectStore, file: _AssetDownload, time: int, options: UploadOptions) -> None:
    if not _has_recorded_bytes(file):
        store.get(file.url, file.temporary_path, length=file.length, md5=file.md5, options=options)
        file.temporary_path.chmod(0o444)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.temporary_path.replace(file.path)
    # the last step: a file with this time is one that was checked and not touched since
    os.utime(file.path, (time, time))


def _has_recorded_bytes(file: _AssetDownload) -> bool:
    """Whether the right bytes are there with another time, as after the cache was copied."""
    if not file.path.is_file() or file.path.stat().st_size != file.length:
        return False
    with file.path.open("rb") as bytes_:
        return hashlib.file_digest(bytes_, "md5").hexdigest() == file.md5
