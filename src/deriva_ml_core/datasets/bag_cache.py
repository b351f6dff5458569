"""Cache of bags: each version of a dataset is downloaded once, and an interrupted download is resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from deriva_ml_core._concurrency.thread_pool import map_unordered
from deriva_ml_core._files.atomic import write_atomic
from deriva_ml_core._files.locks import SharedLock
from deriva_ml_core._files.os_errors import translate_os_errors
from deriva_ml_core._files.partial_download import has_bytes
from deriva_ml_core._files.permissions import create_folder, object_mode
from deriva_ml_core._progress import progress_reporter
from deriva_ml_core._retry import RetryingStore
from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets.bag import DatasetBag, iterate_assets
from deriva_ml_core.datasets.bag_build import build_bag
from deriva_ml_core.datasets.versions import DatasetVersion, lookup_version
from deriva_ml_core.errors import ChecksumMismatch
from deriva_ml_core.models import DatasetSpec, UploadOptions, UploadProgress

__all__ = ["IN_USE_NAME", "download_bag"]

IN_USE_NAME = "in-use"
"""Name of the file that a process keeps locked while it uses a cached bag."""

CACHE_FOLDER, BUILD_FOLDER_PREFIX = "cache", "building-"
MAX_PARALLEL_DOWNLOADS = 8
"""Number of files downloaded at a time."""

MAX_LISTED_FILES = 5
"""Number of wrong files that an error names."""


@dataclass(frozen=True, slots=True)
class _AssetDownload:
    """An asset's file: its URL, its paths, and the expected length and MD5."""

    url: str
    path: Path
    temporary_path: Path
    length: int
    md5: str


def download_bag(connection: Connection, spec: DatasetSpec, options: UploadOptions | None = None) -> DatasetBag:
    """Download a version of a dataset, or return it from the cache.

    The cache identifies a version by its dataset, number and snapshot. A process keeps the version in the cache while
    it has the bag. For a complete bag, one ``stat`` per file is enough. Files that are missing or were changed are
    downloaded, and checked by length and MD5.

    Args:
        connection: The catalog and store; the cache is in its folder.
        spec: The dataset, its version (None for the current one), and whether to download files.
        options: How transfers are retried.

    Raises:
        CatalogReadOnly: The cache cannot be written.
        ChecksumMismatch: The store's bytes differ from those recorded. The message names the files; all others are
            downloaded.
        DiskFull: The disk is full; the next call resumes the download.
        StoreUnavailable: The store cannot be reached; the next call resumes the download.
        UnknownRID, WrongTable: The RID names no dataset.
        UnknownVersion: The dataset has no such version.
    """
    from filelock import FileLock

    version = lookup_version(connection, spec.rid, spec.version)
    folder = connection.folder / CACHE_FOLDER / f"{version.dataset}_{version.version}_{version.snapshot}"
    with translate_os_errors(f"Cannot download dataset {version.dataset} {version.version}", folder):
        create_folder(folder, connection.folder)
        with FileLock(folder / "lock"):
            lock = SharedLock(folder / IN_USE_NAME)
            bag, store = _find_or_build(connection, version, folder), RetryingStore(connection.store)
            if spec.materialize:
                _download_missing(store, bag, version, folder / "incoming", options or UploadOptions())
    bag._lock = lock
    return bag


def _find_or_build(connection: Connection, version: DatasetVersion, folder: Path) -> DatasetBag:
    """Return the bag with its tables and lists; build it unless it exists unchanged."""
    path, sizes = folder / f"Dataset_{version.dataset}", folder / "sizes.json"
    if sizes.exists() and json.loads(sizes.read_text(encoding="utf-8")) == _file_stats(path):
        return DatasetBag(path)
    for left in folder.glob(f"{BUILD_FOLDER_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    # a new name, as a subprocess of a killed process may still be writing in the old folder
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
    """Return size and modification time of each table and list of a bag."""
    files = (file for folder in (bag, bag / "data") if folder.is_dir() for file in folder.iterdir() if file.is_file())
    return {str(file.relative_to(bag)): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _download_missing(
    store: ObjectStore, bag: DatasetBag, version: DatasetVersion, temporary_folder: Path, options: UploadOptions
) -> None:
    """Download the files that are missing or changed.

    A downloaded file has the recorded length, and the creation time of the version as its modification time.
    """
    time = int(version.created.timestamp())
    missing = [file for file in _list_downloads(bag, temporary_folder) if not _is_downloaded(file, time)]
    if not missing:
        return
    temporary_folder.mkdir(exist_ok=True)
    title = f"dataset {version.dataset} {version.version}"
    with progress_reporter(None, f"Downloading {title}:") as report:
        wrong = _download_all(store, missing, time, options, report or (lambda _: None))
    if wrong:
        more = f" and {len(wrong) - MAX_LISTED_FILES} more" if len(wrong) > MAX_LISTED_FILES else ""
        raise ChecksumMismatch(
            f"The files of {title} differ from those recorded: {'; '.join(wrong[:MAX_LISTED_FILES])}{more}."
        )
    shutil.rmtree(temporary_folder)


def _download_all(
    store: ObjectStore,
    missing: Sequence[_AssetDownload],
    time: int,
    options: UploadOptions,
    progress_callback: Callable[[UploadProgress], None],
) -> list[str]:
    """Download files in parallel; returns messages for those with wrong bytes, and raises any other error."""
    size, done, wrong = sum(file.length for file in missing), 0, []

    def download(file: _AssetDownload) -> str:
        try:
            _download_file(store, file, time, options)
        except ChecksumMismatch as error:
            return f"{file.url}: {error}"
        return ""

    with closing(map_unordered(download, missing, MAX_PARALLEL_DOWNLOADS, name="deriva-ml-download")) as results:
        for count, (file, problem) in enumerate(results, 1):
            if problem:
                wrong.append(problem)
            done += file.length
            progress_callback(UploadProgress(files_done=count, files=len(missing), bytes_done=done, bytes=size))
    return wrong


def _list_downloads(bag: DatasetBag, temporary_folder: Path) -> Iterator[_AssetDownload]:
    for row, path in iterate_assets(bag):
        # in a folder outside the bag, as a partial file in it would make the bag invalid
        yield _AssetDownload(row["URL"], path, temporary_folder / row["RID"], row["Length"], row["MD5"])


def _is_downloaded(file: _AssetDownload, time: int) -> bool:
    try:
        status = file.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.length, time * 10**9)


def _download_file(store: ObjectStore, file: _AssetDownload, time: int, options: UploadOptions) -> None:
    if not _has_recorded_bytes(file):
        store.get(file.url, file.temporary_path, length=file.length, md5=file.md5, options=options)
        file.temporary_path.chmod(object_mode(file.temporary_path.stat().st_mode))
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.temporary_path.replace(file.path)
    # the last step: this modification time marks a file as checked and not touched since
    os.utime(file.path, (time, time))


def _has_recorded_bytes(file: _AssetDownload) -> bool:
    """Whether the file has the right bytes but another modification time, as after copying the cache."""
    return has_bytes(file.path, length=file.length, md5=file.md5)
