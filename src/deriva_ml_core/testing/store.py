"""What every object store promises, as tests: subclass, give one, and run pytest."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.definitions import Handover
from deriva_ml_core.errors import ChecksumMismatch, InvalidFileName
from deriva_ml_core.models import StoredObject, UploadOptions

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["ObjectStoreContract"]

BYTES = bytes(range(256)) * 40

OPTIONS = UploadOptions(chunk_size=4096)

NAMES = (
    "plain.png", "two words.png", "epoch=3-step=100.ckpt", "model.weights.h5", "no_extension", ".hidden",
    "a/b c/d.png", "naïve 図.png", "100%.txt", "a:b?c#d&e+f.txt", "quote'\".txt", "%2e%2e", "x" * 255, "...",
)  # fmt: skip

CLIMBING = ("", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "a\0b")


class Killed(BaseException):
    """What ends a process in the middle of a step, as far as a test can."""


def read(store: ObjectStore, stored: StoredObject, target: Path) -> bytes:
    """The bytes of an object."""
    store.get(stored.url, target, length=stored.length, md5=stored.md5, options=OPTIONS)
    return target.read_bytes()


def put_elsewhere(store: ObjectStore, file: Path) -> None:
    """Store a file from another process."""
    store.put("Image", "same.png", file, handover=Handover.copy, options=OPTIONS)
    store.sync()


def killing(at: int, heard: list[JsonValue]) -> Callable[[JsonValue], None]:
    """A note that is written down, and after the given number of them the process dies."""

    def note(said: JsonValue) -> None:
        heard.append(said)
        if len(heard) == at:
            raise Killed

    return note


class ObjectStoreContract:
    """The promises of `deriva_ml_core.backend.ObjectStore`; override `store`."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """The store of one test."""
        raise NotImplementedError("override the fixture store")

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A file that lies beside the store."""
        path = tmp_path / "file.bin"
        path.write_bytes(BYTES)
        return path

    @pytest.mark.parametrize("handover", list(Handover))
    def test_bytes_come_back(self, store: ObjectStore, file: Path, tmp_path: Path, handover: Handover) -> None:
        """What was put is what comes back, with its length and MD5."""
        stored = store.put("Image", "a.png", file, handover=handover, options=OPTIONS)
        store.sync()
        assert (stored.md5, stored.length) == (hashlib.md5(BYTES).hexdigest(), len(BYTES))
        assert read(store, stored, tmp_path / "new folder" / "copy") == BYTES

    def test_url(self, store: ObjectStore, file: Path) -> None:
        """An object's URL has table, MD5, filename and version."""
        stored = store.put("Image", "a.png", file, handover=Handover.copy, options=OPTIONS)
        assert re.search(rf"/hatrac/Image/{stored.md5}\.a\.png:[^:/]+$", stored.url)

    @pytest.mark.parametrize("name", NAMES)
    def test_names(self, store: ObjectStore, file: Path, tmp_path: Path, name: str) -> None:
        """Any file name names an object, sub-folders included, and is one part of its URL."""
        stored = store.put("Image", name, file, handover=Handover.copy, options=OPTIONS)
        assert re.search(r"/hatrac/Image/[^/?#\s]+:[^/:]+$", stored.url)
        assert read(store, stored, tmp_path / "copy") == BYTES

    @pytest.mark.parametrize("name", CLIMBING)
    def test_names_that_climb_out(self, store: ObjectStore, file: Path, name: str) -> None:
        """A name that climbs out of its folder is refused."""
        with pytest.raises(InvalidFileName):
            store.put("Image", name, file, handover=Handover.move, options=OPTIONS)
        assert file.read_bytes() == BYTES

    def test_empty_file(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A file may have no bytes."""
        file.write_bytes(b"")
        assert (
            read(store, store.put("Image", "a", file, handover=Handover.move, options=OPTIONS), tmp_path / "copy")
            == b""
        )

    def test_again(self, store: ObjectStore, file: Path) -> None:
        """The same bytes under the same name are the same object."""
        first = store.put("Image", "a.png", file, handover=Handover.copy, options=OPTIONS)
        assert store.put("Image", "a.png", file, handover=Handover.move, options=OPTIONS) == first

    def test_two_names(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """The same bytes under another name have another URL, and both can be had."""
        first = store.put("Image", "a.png", file, handover=Handover.copy, options=OPTIONS)
        second = store.put("Image", "b.png", file, handover=Handover.move, options=OPTIONS)
        assert first.url != second.url
        assert read(store, first, tmp_path / "1") == read(store, second, tmp_path / "2") == BYTES

    def test_foreign_file_stays(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A file that is to be copied stays as it is, and may be written again without changing the object."""
        before = file.stat()
        stored = store.put("Image", "a.png", file, handover=Handover.copy, options=OPTIONS)
        after = file.stat()
        assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)
        with file.open("r+b") as opened:
            opened.write(b"other")
        assert read(store, stored, tmp_path / "copy") == BYTES

    @pytest.mark.parametrize("handover", list(Handover))
    def test_link(self, store: ObjectStore, file: Path, tmp_path: Path, handover: Handover) -> None:
        """A link is followed; it and the file that it names stay."""
        link = tmp_path / "link"
        link.symlink_to(file)
        stored = store.put("Image", "a.png", link, handover=handover, options=OPTIONS)
        with link.open("r+b") as opened:
            opened.write(b"other")
        assert read(store, stored, tmp_path / "copy") == BYTES

    def test_moved_path_written_again(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A path whose file the store took may be opened for writing again: the object does not change."""
        stored = store.put("Image", "a.png", file, handover=Handover.move, options=OPTIONS)
        with file.open("a+b") as opened:
            opened.write(b"more")
        assert read(store, stored, tmp_path / "copy") == BYTES

    def test_moved_file_with_another_name(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A file to be moved that has another name still is not shared with it."""
        other = tmp_path / "other name"
        os.link(file, other)
        stored = store.put("Image", "a.png", file, handover=Handover.move, options=OPTIONS)
        with other.open("r+b") as opened:
            opened.write(b"other")
        assert read(store, stored, tmp_path / "copy") == BYTES

    def test_shared_file_stays(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A file that is to be shared stays in its place; another one there, or none, changes the object in nothing."""
        stored = store.put("Image", "a.png", file, handover=Handover.share, options=OPTIONS)
        store.sync()
        assert file.read_bytes() == BYTES
        (tmp_path / "other").write_bytes(b"other")
        (tmp_path / "other").replace(file)
        assert read(store, stored, tmp_path / "1") == BYTES
        assert file.read_bytes() == b"other"
        file.unlink()
        assert read(store, stored, tmp_path / "2") == BYTES
        store.verify(stored.url, length=stored.length, md5=stored.md5)

    def test_shared_again(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A file may be shared under several names, and its object got from a file of the same bytes before."""
        (tmp_path / "before").write_bytes(BYTES)
        store.put("Image", "a.png", tmp_path / "before", handover=Handover.move, options=OPTIONS)
        stored = [store.put("Image", name, file, handover=Handover.share, options=OPTIONS) for name in ("a", "b", "a")]
        file.unlink()
        assert stored[0] == stored[2] != stored[1]
        assert read(store, stored[0], tmp_path / "1") == read(store, stored[1], tmp_path / "2") == BYTES

    def test_no_file(self, store: ObjectStore, tmp_path: Path) -> None:
        """A file that is not there raises FileNotFoundError; a folder is no file."""
        with pytest.raises(FileNotFoundError):
            store.put("Image", "a.png", tmp_path / "none", handover=Handover.move, options=OPTIONS)
        with pytest.raises(InvalidFileName):
            store.put("Image", "a.png", tmp_path, handover=Handover.move, options=OPTIONS)

    @pytest.mark.parametrize("at", [1, 2, 3])
    @pytest.mark.parametrize("handover", list(Handover))
    def test_killed_while_putting(
        self, store: ObjectStore, file: Path, tmp_path: Path, handover: Handover, at: int
    ) -> None:
        """A put that died after any note is done by the next one, which gets that note."""
        heard: list[JsonValue] = []
        with suppress(Killed):
            store.put("Image", "a.png", file, handover=handover, options=OPTIONS, note=killing(at, heard))
        stored = store.put(
            "Image", "a.png", file, handover=handover, options=OPTIONS, resume=heard[-1] if heard else None
        )
        assert read(store, stored, tmp_path / "copy") == BYTES

    def test_taken_before(self, store: ObjectStore, file: Path) -> None:
        """A file that is gone since the store took it is found by its last note."""
        heard: list[JsonValue] = []
        first = store.put("Image", "a.png", file, handover=Handover.move, options=OPTIONS, note=heard.append)
        if file.exists():
            pytest.skip("this store leaves the file to its owner")
        assert store.put("Image", "a.png", file, handover=Handover.move, options=OPTIONS, resume=heard[-1]) == first

    def test_other_bytes_are_found_out(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """An object whose bytes are not those expected is named, and nothing is left at the target."""
        stored = store.put("Image", "a.png", file, handover=Handover.copy, options=OPTIONS)
        store.verify(stored.url, length=stored.length, md5=stored.md5)
        for length, md5 in ((stored.length + 1, stored.md5), (stored.length, "0" * 32)):
            with pytest.raises(ChecksumMismatch, match=re.escape(stored.url)):
                store.verify(stored.url, length=length, md5=md5)
            with pytest.raises(ChecksumMismatch, match=re.escape(stored.url)):
                store.get(stored.url, tmp_path / "copy", length=length, md5=md5, options=OPTIONS)
        assert [path.name for path in tmp_path.iterdir() if path.name == "copy"] == []

    def test_existing_target_is_replaced(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """What was at the target before is replaced as a whole."""
        stored = store.put("Image", "a.png", file, handover=Handover.copy, options=OPTIONS)
        (tmp_path / "copy").write_bytes(b"x" * 2 * len(BYTES))
        assert read(store, stored, tmp_path / "copy") == BYTES

    def test_copy_is_the_callers(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """What was brought may be written: the object does not change."""
        stored = store.put("Image", "a.png", file, handover=Handover.copy, options=OPTIONS)
        read(store, stored, tmp_path / "copy")
        with (tmp_path / "copy").open("r+b") as opened:
            opened.write(b"other")
        assert read(store, stored, tmp_path / "second") == BYTES

    def test_source(self, store: ObjectStore, file: Path) -> None:
        """An object has a full URL for a bag's fetch.txt."""
        stored = store.put("Image", "a b.png", file, handover=Handover.copy, options=OPTIONS)
        assert re.fullmatch(r"[a-z]+:\S+", store.source(stored.url))

    def test_use_after_close(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A closed store opens again by itself."""
        store.close()
        assert (
            read(store, store.put("Image", "a", file, handover=Handover.copy, options=OPTIONS), tmp_path / "copy")
            == BYTES
        )

    def test_sync(self, store: ObjectStore, tmp_path: Path) -> None:
        """Few or many objects, and none, are made durable by one call, which may be repeated."""
        store.sync()
        for number in range(40):
            (tmp_path / str(number)).write_bytes(f"{number}".encode())
            store.put("Image", f"{number}", tmp_path / str(number), handover=Handover.move, options=OPTIONS)
        store.sync()
        store.sync()

    def test_at_once(self, store: ObjectStore) -> None:
        """It says how many files it takes at once with profit: at least one."""
        assert store.at_once >= 1

    def test_threads(self, store: ObjectStore, tmp_path: Path) -> None:
        """Several threads may put the same bytes and different ones at once."""

        def put(number: int) -> StoredObject:
            path = tmp_path / f"{number}"
            path.write_bytes(BYTES + b"x" * (number % 3))
            return store.put("Image", "same.png", path, handover=list(Handover)[number % 3], options=OPTIONS)

        with ThreadPoolExecutor(8) as threads:
            stored = list(threads.map(put, range(24)))
        assert len({one.url for one in stored}) == 3
        assert read(store, stored[0], tmp_path / "copy") == BYTES

    def test_fork(self, store: ObjectStore, file: Path, tmp_path: Path) -> None:
        """A forked process may use the store that its parent opened, and the parent after it."""
        child = multiprocessing.get_context("fork").Process(target=put_elsewhere, args=(store, file))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert (
            read(store, store.put("Image", "b", file, handover=Handover.copy, options=OPTIONS), tmp_path / "copy")
            == BYTES
        )
