"""Contract tests of the `ObjectStore` protocol: subclass, override one fixture, and run pytest."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import ChecksumMismatch, DerivaMLException, InvalidFileName
from deriva_ml_core.models import StoredObject, UploadOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["ObjectStoreContract", "SyncLog"]

CONTENT = bytes(range(256)) * 40

OPTIONS = UploadOptions(chunk_size=4096)

FILE_NAMES = (
    "plain.png", "two words.png", "epoch=3-step=100.ckpt", "model.weights.h5", "no_extension", ".hidden",
    "a/b c/d.png", "naïve 図.png", "100%.txt", "a:b?c#d&e+f.txt", "quote'\".txt", "%2e%2e", "x" * 255, "...",
)  # fmt: skip

TRAVERSAL_NAMES = ("", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "a\0b")


class SimulatedKill(BaseException):
    """Stands for a kill of the process in the middle of a step."""


def read_object(store: ObjectStore, stored: StoredObject, target: Path) -> bytes:
    """Return the bytes of an object."""
    store.get(stored.url, target, length=stored.length, md5=stored.md5, options=OPTIONS)
    return target.read_bytes()


def local_path(store: ObjectStore, stored: StoredObject) -> Path:
    """Return the path of an object in a store on this machine."""
    return Path(url2pathname(urlsplit(store.source(stored.url)).path))


def put_from_child(store: ObjectStore, file: Path) -> None:
    """Store a file. Runs in another process."""
    store.put("Image", "same.png", file, handover=TransferMode.copy, options=OPTIONS)
    store.sync()


def kill_after_notes(count: int, notes: list[JsonValue]) -> Callable[[JsonValue], None]:
    """Return a `note` callback that appends to `notes` and raises `SimulatedKill` after `count` calls."""

    def note(state: JsonValue) -> None:
        notes.append(state)
        if len(notes) == count:
            raise SimulatedKill

    return note


class SyncLog:
    """What a store with local files has flushed to disk. The store's file layer reports each flush, before it happens.

    Args:
        folder: The store's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.error: OSError | None = None
        """Raised by each report: the disk fails."""
        self._files: set[tuple[int, ...]] = set()
        self._names: set[tuple[Path, str]] = set()

    def report_file(self, file: Path | int) -> None:
        """Record that a file, given as path or descriptor, is flushed."""
        self._raise_error()
        self._files.add(_file_version(os.stat(file)))  # noqa: PTH116 - it may be a descriptor

    def report_folder(self, folder: Path) -> None:
        """Record that the names in a folder are flushed."""
        self._raise_error()
        self._names.update((folder, path.name) for path in folder.iterdir())

    def report_path(self, path: Path) -> None:
        """Record that a file or the names in a folder are flushed."""
        (self.report_folder if path.is_dir() else self.report_file)(path)

    def report_file_system(self) -> None:
        """Record that all files are flushed."""
        for path in (self.folder, *self.folder.rglob("*")):
            self.report_path(path)

    def missing_flushes(self, path: Path) -> Iterator[str]:
        """Yield what is not on disk of a file: its bytes, and each name from the store's folder to the file."""
        if _file_version(path.stat()) not in self._files:
            yield f"the bytes of {path}"
        for name in (path, *path.parents):
            if name == self.folder:
                return
            if (name.parent, name.name) not in self._names:
                yield f"the name {name}"

    def _raise_error(self) -> None:
        if self.error is not None:
            raise self.error


def _file_version(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class ObjectStoreContract:
    """Contract tests of `deriva_ml_core.backend.ObjectStore`. Override the fixture `store`.

    A store with files on this machine also overrides the fixture `sync_log`, and reports its flushes to the log.
    """

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the store of one test."""
        raise NotImplementedError("override the fixture store")

    @pytest.fixture
    def sync_log(self) -> SyncLog | None:
        """Return the log that the store reports its flushes to. None if its files are on another machine."""
        return None

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """Return a file outside the store."""
        path = tmp_path / "file.bin"
        path.write_bytes(CONTENT)
        return path

    @pytest.mark.parametrize("handover", list(TransferMode))
    def test_bytes_round_trip(self, store: ObjectStore, file: Path, tmp_path: Path, handover: TransferMode) -> None:
        """A stored file is returned unchanged, with its length and MD5."""
        stored = store.put("Image", "a.png", file, handover=handover, options=OPTIONS)
        store.sync()
        assert (stored.md5, stored.length) == (hashlib.md5(CONTENT).hexdigest(), len(CONTENT))
        assert read_object(store, stored, tmp_path / "new folder" / "copy") == CONTENT

    def test_url(self, store: ObjectStore, file: Path) -> None:
        """An object's URL contains table, MD5, file name and version."""
        stored = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS)
        assert re.search(rf"/hatrac/Image/{stored.md5}\.a\.png:[^:/]+$", stored.url)

    @pytest.mark.parametrize("name", FILE_NAMES)
    def test_names(self, store: ObjectStore, file: Path, tmp_path: Path, name: str) -> None:
        """Every file name is accepted, including sub-folders, and is one segment of the URL."""
        stored = store.put("Image", name, file, handover=TransferMode.copy, options=OPTIONS)
        assert re.search(r"/hatrac/Image/[^/?#\s]+:[^/:]+$", stored.url)
        assert read_object(store, stored, tmp_path / "copy") == CONTENT

    @pytest.mark.parametrize("name", TRAVERSAL_NAMES)
    def test_path_traversal(self, store: ObjectStore, file: Path, name: str) -> None:
        """A name that leaves its folder is refused."""
        with pytest.raises(InvalidFileName):
            store.put("Image", name, file, handover=TransferMode.move, options=OPTIONS)
        assert file.read_bytes() == CONTENT

    def test_empty_file(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """An empty file can be stored."""
        file.write_bytes(b"")
        assert (
            read_object(
                store, store.put("Image", "a", file, handover=TransferMode.move, options=OPTIONS), tmp_path / "copy"
            )
            == b""
        )

    def test_put_twice(self, store: ObjectStore, file: Path) -> None:
        """The same bytes under the same name are the same object."""
        first = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS)
        assert store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS) == first

    def test_two_names(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """The same bytes under another name have another URL, and both can be read."""
        first = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS)
        second = store.put("Image", "b.png", file, handover=TransferMode.move, options=OPTIONS)
        assert first.url != second.url
        assert read_object(store, first, tmp_path / "1") == read_object(store, second, tmp_path / "2") == CONTENT

    def test_copied_file_is_unchanged(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A copied file stays unchanged, and writing to it later does not change the object."""
        before = file.stat()
        stored = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS)
        after = file.stat()
        assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)
        with file.open("r+b") as opened:
            opened.write(b"other")
        assert read_object(store, stored, tmp_path / "copy") == CONTENT

    @pytest.mark.parametrize("handover", list(TransferMode))
    def test_link(self, store: ObjectStore, file: Path, tmp_path: Path, handover: TransferMode) -> None:
        """A symbolic link is followed. The link and its target stay."""
        link = tmp_path / "link"
        link.symlink_to(file)
        stored = store.put("Image", "a.png", link, handover=handover, options=OPTIONS)
        with link.open("r+b") as opened:
            opened.write(b"other")
        assert read_object(store, stored, tmp_path / "copy") == CONTENT

    def test_moved_path_written_again(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """Writing to the path of a moved file does not change the object."""
        stored = store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS)
        with file.open("a+b") as opened:
            opened.write(b"more")
        assert read_object(store, stored, tmp_path / "copy") == CONTENT

    def test_moved_file_with_another_name(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A moved file with another hard link does not share its bytes with that link."""
        other = tmp_path / "other name"
        os.link(file, other)
        stored = store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS)
        with other.open("r+b") as opened:
            opened.write(b"other")
        assert read_object(store, stored, tmp_path / "copy") == CONTENT

    def test_hardlinked_file_stays(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A hard-linked file stays. Replacing or deleting it does not change the object."""
        stored = store.put("Image", "a.png", file, handover=TransferMode.hardlink, options=OPTIONS)
        store.sync()
        assert file.read_bytes() == CONTENT
        (tmp_path / "other").write_bytes(b"other")
        (tmp_path / "other").replace(file)
        assert read_object(store, stored, tmp_path / "1") == CONTENT
        assert file.read_bytes() == b"other"
        file.unlink()
        assert read_object(store, stored, tmp_path / "2") == CONTENT
        store.verify(stored.url, length=stored.length, md5=stored.md5)

    def test_hardlink_under_several_names(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A file can be hard-linked under several names, also if the store already has its bytes."""
        (tmp_path / "before").write_bytes(CONTENT)
        store.put("Image", "a.png", tmp_path / "before", handover=TransferMode.move, options=OPTIONS)
        stored = [
            store.put("Image", name, file, handover=TransferMode.hardlink, options=OPTIONS) for name in ("a", "b", "a")
        ]
        file.unlink()
        assert stored[0] == stored[2] != stored[1]
        assert read_object(store, stored[0], tmp_path / "1") == read_object(store, stored[1], tmp_path / "2") == CONTENT

    @pytest.mark.parametrize("handover", list(TransferMode))
    def test_fifo(self, store: ObjectStore, tmp_path: Path, handover: TransferMode) -> None:
        """A fifo raises InvalidFileName at once, and is not read."""
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(InvalidFileName, match="fifo"):
            store.put("Image", "a.png", tmp_path / "fifo", handover=handover, options=OPTIONS)

    def test_no_file(self, store: ObjectStore, tmp_path: Path) -> None:
        """A missing file raises FileNotFoundError, and a folder raises InvalidFileName."""
        with pytest.raises(FileNotFoundError):
            store.put("Image", "a.png", tmp_path / "none", handover=TransferMode.move, options=OPTIONS)
        with pytest.raises(InvalidFileName):
            store.put("Image", "a.png", tmp_path, handover=TransferMode.move, options=OPTIONS)

    @pytest.mark.parametrize("at", [1, 2, 3])
    @pytest.mark.parametrize("handover", list(TransferMode))
    def test_killed_during_put(
        self, store: ObjectStore, file: Path, tmp_path: Path, handover: TransferMode, at: int
    ) -> None:
        """A put that was killed after any note is completed by the next put with that note."""
        notes: list[JsonValue] = []
        with suppress(SimulatedKill):
            store.put("Image", "a.png", file, handover=handover, options=OPTIONS, note=kill_after_notes(at, notes))
        stored = store.put(
            "Image", "a.png", file, handover=handover, options=OPTIONS, resume=notes[-1] if notes else None
        )
        assert read_object(store, stored, tmp_path / "copy") == CONTENT

    def test_resume_after_move(self, store: ObjectStore, file: Path) -> None:
        """A file that was already moved into the store is found by its last note."""
        notes: list[JsonValue] = []
        first = store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, note=notes.append)
        if file.exists():
            pytest.skip("this store does not move files")
        assert store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, resume=notes[-1]) == first

    def test_checksum_mismatch(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """An object with unexpected bytes is reported by URL, and nothing is left at the target."""
        stored = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS)
        store.verify(stored.url, length=stored.length, md5=stored.md5)
        for length, md5 in ((stored.length + 1, stored.md5), (stored.length, "0" * 32)):
            with pytest.raises(ChecksumMismatch, match=re.escape(stored.url)):
                store.verify(stored.url, length=length, md5=md5)
            with pytest.raises(ChecksumMismatch, match=re.escape(stored.url)):
                store.get(stored.url, tmp_path / "copy", length=length, md5=md5, options=OPTIONS)
        assert [path.name for path in tmp_path.iterdir() if path.name == "copy"] == []

    def test_existing_target_is_replaced(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """An existing file at the target is replaced completely."""
        stored = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS)
        (tmp_path / "copy").write_bytes(b"x" * 2 * len(CONTENT))
        assert read_object(store, stored, tmp_path / "copy") == CONTENT

    def test_download_is_independent(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """Writing to a downloaded file does not change the object."""
        stored = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS)
        read_object(store, stored, tmp_path / "copy")
        with (tmp_path / "copy").open("r+b") as opened:
            opened.write(b"other")
        assert read_object(store, stored, tmp_path / "second") == CONTENT

    def test_source(self, store: ObjectStore, file: Path) -> None:
        """An object has a full URL for a bag's fetch.txt."""
        stored = store.put("Image", "a b.png", file, handover=TransferMode.copy, options=OPTIONS)
        assert re.fullmatch(r"[a-z]+:\S+", store.source(stored.url))

    def test_use_after_close(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A closed store opens again on the next call."""
        store.close()
        assert (
            read_object(
                store, store.put("Image", "a", file, handover=TransferMode.copy, options=OPTIONS), tmp_path / "copy"
            )
            == CONTENT
        )

    @pytest.mark.parametrize("handover", list(TransferMode))
    @pytest.mark.parametrize(("count", "size"), [(1, 10), (2, 9 * 2**20), (40, 10)])
    def test_sync_flushes_objects(
        self,
        store: ObjectStore,
        sync_log: SyncLog | None,
        tmp_path: Path,
        handover: TransferMode,
        count: int,
        size: int,
    ) -> None:
        """After `sync`, the bytes and the names of all stored objects are on disk."""
        if sync_log is None:
            pytest.skip("the store's files are on another machine")
        stored = []
        for number in range(count):
            (tmp_path / str(number)).write_bytes(f"{number:010}".encode() + bytes(size - 10))
            stored.append(store.put("Image", f"{number}", tmp_path / str(number), handover=handover, options=OPTIONS))
        store.sync()
        paths = [local_path(store, one) for one in stored]
        assert [missing for path in paths for missing in sync_log.missing_flushes(path)] == []

    def test_failed_sync_is_repeated(self, store: ObjectStore, sync_log: SyncLog | None, file: Path) -> None:
        """If the disk fails, `sync` raises, and the next `sync` flushes the same objects."""
        if sync_log is None:
            pytest.skip("the store's files are on another machine")
        stored = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS)
        sync_log.error = OSError(errno.EIO, os.strerror(errno.EIO))
        with pytest.raises(DerivaMLException, match=re.escape(os.strerror(errno.EIO))):
            store.sync()
        sync_log.error = None
        assert list(sync_log.missing_flushes(local_path(store, stored))) != []
        store.sync()
        assert list(sync_log.missing_flushes(local_path(store, stored))) == []

    def test_sync(self, store: ObjectStore, tmp_path: Path) -> None:
        """One call makes any number of objects durable, and can be repeated."""
        store.sync()
        for number in range(40):
            (tmp_path / str(number)).write_bytes(f"{number}".encode())
            store.put("Image", f"{number}", tmp_path / str(number), handover=TransferMode.move, options=OPTIONS)
        store.sync()
        store.sync()

    def test_preferred_concurrency(self, store: ObjectStore) -> None:
        """The preferred number of parallel transfers is at least one."""
        assert store.preferred_concurrency >= 1

    def test_threads(self, store: ObjectStore, tmp_path: Path) -> None:
        """Several threads can store equal and different bytes at once."""

        def put(number: int) -> StoredObject:
            path = tmp_path / f"{number}"
            path.write_bytes(CONTENT + b"x" * (number % 3))
            return store.put("Image", "same.png", path, handover=list(TransferMode)[number % 3], options=OPTIONS)

        with ThreadPoolExecutor(8) as threads:
            stored = list(threads.map(put, range(24)))
        assert len({one.url for one in stored}) == 3
        assert read_object(store, stored[0], tmp_path / "copy") == CONTENT

    def test_fork(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A forked process can use its parent's store, and so can the parent afterwards."""
        child = multiprocessing.get_context("fork").Process(target=put_from_child, args=(store, file))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert (
            read_object(
                store, store.put("Image", "b", file, handover=TransferMode.copy, options=OPTIONS), tmp_path / "copy"
            )
            == CONTENT
        )
