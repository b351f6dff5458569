"""The folder store: the inode rule, damage, full disks, and what a killed process left."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_samples import in_child, open_to_all, small_disk, unprivileged

from deriva_ml_core.backends.embedded import FolderStore
from deriva_ml_core.backends.folder.durability import MAX_SINGLE_FSYNCS, make_durable
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.errors import ChecksumMismatch, DerivaMLException, DiskFull, FileConflict, StoreUnavailable
from deriva_ml_core.models import StoredObject, UploadOptions

OPTIONS = UploadOptions()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "local")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "local" / "staged.bin"
    path.parent.mkdir()
    path.write_bytes(b"some bytes")
    return path


def put(store: FolderStore, file: Path, handover: TransferMode = TransferMode.move) -> StoredObject:
    return store.put("Image", "a.png", file, handover=handover, options=OPTIONS)


def place(store: FolderStore, stored: StoredObject) -> Path:
    return Path(store.source(stored.url).removeprefix("file://"))


def everything(folder: Path) -> Iterator[Path]:
    return (path for path in (folder / "objects").rglob("*") if path.is_file())


# The inode rule ------------------------------------------------------------------------------------------------------


def test_an_owned_file_is_moved(store: FolderStore, file: Path) -> None:
    """What was handed out is renamed into its place, under its digest, read-only; its time and inode stay."""
    before = file.stat()
    stored = put(store, file)
    path, after = place(store, stored), place(store, stored).stat()
    assert not file.exists()
    assert (path.name, path.parent.name) == (stored.md5, stored.md5[:2])
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert after.st_mode & 0o777 == 0o444


def test_a_big_owned_file_costs_no_room(store: FolderStore, tmp_path: Path) -> None:
    """Moving a big file allocates no blocks, and copying a foreign one allocates its size once."""

    def used() -> int:
        return sum(path.stat().st_blocks for path in tmp_path.rglob("*") if path.is_file()) * 512

    size = 32 * 2**20
    big = tmp_path / "local" / "big.bin"
    big.parent.mkdir()
    big.write_bytes(os.urandom(size))
    before = used()
    put(store, big)
    store.sync()
    assert used() == before
    foreign = tmp_path / "foreign.bin"
    foreign.write_bytes(os.urandom(size))
    between = used()
    put(store, foreign, TransferMode.copy)
    store.sync()
    assert size <= used() - between < size + 2**20


def test_a_foreign_file_keeps_its_time(store: FolderStore, file: Path) -> None:
    """A copy has the time of its original, and is read-only."""
    os.utime(file, ns=(10**18, 10**18 + 7))
    found = place(store, put(store, file, TransferMode.copy)).stat()
    assert (found.st_mtime_ns, found.st_mode & 0o777) == (10**18 + 7, 0o444)


def test_a_shared_file_has_two_names(store: FolderStore, file: Path) -> None:
    """A file that is shared is one file under two names, read-only under both, and nothing of it is copied."""
    inode = file.stat().st_ino
    stored = put(store, file, TransferMode.hardlink)
    found = place(store, stored).stat()
    assert (found.st_ino, found.st_nlink, found.st_mode & 0o777) == (inode, 2, 0o444)
    assert file.stat().st_ino == inode
    assert len(list(everything(file.parent))) == 1


def test_a_shared_file_is_read_once(store: FolderStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is shared, also for a second name, is read for its MD5 and not once more."""
    read: list[str] = []
    opened = Path.open

    def watched(path: Path, mode: str = "r", buffering: int = -1) -> Any:
        read.append(path.name)
        return opened(path, mode, buffering)

    monkeypatch.setattr(Path, "open", watched)
    put(store, file, TransferMode.hardlink)
    put(store, file, TransferMode.hardlink)
    assert len(read) == 2


def test_a_file_that_changes_while_it_is_shared_is_copied(
    store: FolderStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written in place after a file was read, against what was promised, makes it a copy of the new bytes."""
    chmod = Path.chmod

    def late(path: Path, mode: int) -> None:
        if mode == 0o444 and path.samefile(file):
            with file.open("ab") as opened:
                opened.write(b" and more")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", late)
    stored = put(store, file, TransferMode.hardlink)
    assert place(store, stored).read_bytes() == b"some bytes and more"
    assert not place(store, stored).samefile(file)
    store.verify(stored.url, length=stored.length, md5=stored.md5)
    assert len(list(everything(file.parent))) == 1


def test_a_file_elsewhere_is_not_shared_but_copied(store: FolderStore, tmp_path: Path) -> None:
    """A file on another disk cannot have a second name here: it is copied, and stays."""
    with small_disk(tmp_path / "disk", 2**20) as disk:
        elsewhere = disk / "file"
        elsewhere.write_bytes(b"elsewhere")
        stored = put(store, elsewhere, TransferMode.hardlink)
        assert place(store, stored).read_bytes() == elsewhere.read_bytes() == b"elsewhere"
        assert place(store, stored).stat().st_dev != elsewhere.stat().st_dev


def test_an_owned_file_with_another_name_is_copied(store: FolderStore, file: Path) -> None:
    """A file that has another name still is copied; the name that was handed out goes all the same."""
    other = file.with_name("other")
    os.link(file, other)
    stored = put(store, file)
    assert not file.exists()
    assert other.stat().st_ino != place(store, stored).stat().st_ino


def test_an_owned_file_elsewhere(store: FolderStore, tmp_path: Path) -> None:
    """A file on another file system is copied into the store, and then goes, as if it had been moved."""
    with small_disk(tmp_path / "elsewhere", 2**20) as disk:
        file = disk / "staged.bin"
        file.write_bytes(b"from elsewhere")
        notes: list[object] = []
        stored = store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, note=notes.append)
        assert not file.exists()
        assert place(store, stored).read_bytes() == b"from elsewhere"
        assert (
            store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, resume=notes[-1]) == stored
        )  # type: ignore[arg-type]


def test_written_again_after_put(store: FolderStore, file: Path) -> None:
    """Whoever opens the path again for writing, root too, writes another file."""
    stored = put(store, file)
    with file.open("wb") as opened:
        opened.write(b"other")
    with file.open("r+b") as opened:
        opened.write(b"OTHER")
    store.verify(stored.url, length=stored.length, md5=stored.md5)


def test_written_while_it_is_put(store: FolderStore, tmp_path: Path) -> None:
    """A file that is written while it is read for its digest is stored with the digest of what is stored."""
    file = tmp_path / "local" / "log.txt"
    file.parent.mkdir()
    file.write_bytes(b"x" * 2**22)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with file.open("ab") as opened:
                opened.write(b"one more line\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        stored = put(store, file, TransferMode.copy)
    finally:
        stop.set()
        writer.join()
    store.verify(stored.url, length=stored.length, md5=stored.md5)


def test_changed_between_digest_and_move(store: FolderStore, file: Path) -> None:
    """A file that changes after its digest was taken is read again: object and digest always agree."""

    def write_once(_: object) -> None:
        if file.stat().st_mode & 0o222 and file.read_bytes() == b"some bytes":
            file.write_bytes(b"other bytes, and more")

    stored = store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, note=write_once)
    assert place(store, stored).read_bytes() == b"other bytes, and more"
    store.verify(stored.url, length=stored.length, md5=stored.md5)


def test_always_changing(store: FolderStore, file: Path) -> None:
    """A file that changes at each look is at last copied as it is."""

    def write(_: object) -> None:
        if file.exists():
            file.chmod(0o644)
            file.write_bytes(os.urandom(64))

    stored = store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, note=write)
    store.verify(stored.url, length=stored.length, md5=stored.md5)
    assert not file.exists()


# Equal bytes, damage -------------------------------------------------------------------------------------------------


def test_equal_bytes_are_kept_once(store: FolderStore, file: Path, tmp_path: Path) -> None:
    """Bytes that are there already are not stored again, and the owned file goes."""
    first = place(store, put(store, file, TransferMode.copy))
    inode = first.stat().st_ino
    put(store, file, TransferMode.copy)
    put(store, file)
    assert not file.exists()
    assert first.stat().st_ino == inode
    assert list(everything(tmp_path / "local")) == [first]


def flip(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_flipped_bytes_are_found_and_named(store: FolderStore, file: Path, tmp_path: Path) -> None:
    """An object whose bytes changed in place is found at verifying and at bringing, named, and not brought."""
    stored = put(store, file)
    flip(place(store, stored))
    for act in (
        lambda: store.verify(stored.url, length=stored.length, md5=stored.md5),
        lambda: store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=OPTIONS),
    ):
        with pytest.raises(ChecksumMismatch, match="is damaged") as raised:
            act()
        assert stored.url in str(raised.value)
        assert str(place(store, stored)) in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"local", "home"}


@pytest.mark.parametrize("handover", list(TransferMode))
def test_a_damaged_object_is_made_good(store: FolderStore, file: Path, handover: TransferMode) -> None:
    """Storing the right bytes again puts them in the place of a damaged object."""
    flip(place(store, put(store, file, TransferMode.copy)))
    stored = put(store, file, handover)
    store.verify(stored.url, length=stored.length, md5=stored.md5)


def test_a_lost_object_is_named(store: FolderStore, file: Path, tmp_path: Path) -> None:
    """An object that is gone is said to be lost."""
    stored = put(store, file)
    place(store, stored).unlink()
    with pytest.raises(ChecksumMismatch, match=r"a\.png.* is lost"):
        store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=OPTIONS)


COLLISION = (
    # Wang and Yu, "How to Break MD5 and Other Hash Functions", 2005: two messages with one MD5
    "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a085125e8f7cdc99f"
    "d91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0e99f33420f577ee8ce54b67080a80d1e"
    "c69821bcb6a8839396f9652b6ff72a70",
    "d131dd02c5e6eec4693d9a0698aff95c2fcab50712467eab4004583eb8fb7f8955ad340609f4b30283e4888325f1415a085125e8f7cdc99f"
    "d91dbd7280373c5bd8823e3156348f5bae6dacd436c919c6dd53e23487da03fd02396306d248cda0e99f33420f577ee8ce54b67080280d1e"
    "c69821bcb6a8839396f965ab6ff72a70",
)


def test_two_files_with_one_digest(store: FolderStore, tmp_path: Path) -> None:
    """Different bytes with the same MD5 are refused; neither object nor file is touched."""
    files = [tmp_path / "one", tmp_path / "other"]
    for file, text in zip(files, COLLISION, strict=True):
        file.write_bytes(bytes.fromhex(text))
    assert len({hashlib.md5(file.read_bytes()).hexdigest() for file in files}) == 1
    stored = put(store, files[0], TransferMode.copy)
    with pytest.raises(FileConflict, match="same MD5"):
        put(store, files[1])
    assert place(store, stored).read_bytes() == bytes.fromhex(COLLISION[0])
    assert files[1].read_bytes() == bytes.fromhex(COLLISION[1])


# Interrupted ---------------------------------------------------------------------------------------------------------


def test_what_a_killed_copy_left_is_removed(store: FolderStore, file: Path, tmp_path: Path) -> None:
    """A copy that a killed process left half done is found by its note and removed."""
    notes: list[object] = []

    def die() -> None:
        store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS, note=notes.append)

    die()
    half = tmp_path / "local" / "objects" / notes[0]["draft"]  # type: ignore[index]
    half.write_bytes(b"som")
    store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS, resume=notes[0])  # type: ignore[arg-type]
    assert not half.exists()


@pytest.mark.parametrize("note", [{"draft": "../../staged.bin"}, {"draft": "draft-/../../../staged.bin"}, {}, "x", 7])
def test_strange_notes(store: FolderStore, file: Path, note: object) -> None:
    """A note that is not ours removes nothing and hinders nothing."""
    stored = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS, resume=note)  # type: ignore[arg-type]
    assert stored.length == file.stat().st_size


def test_a_note_of_what_is_not_there(store: FolderStore, tmp_path: Path) -> None:
    """A file that is gone, and is not in the store either, is not there."""
    note = {"md5": "0" * 32, "length": 1}
    with pytest.raises(FileNotFoundError):
        store.put("Image", "a.png", tmp_path / "gone", handover=TransferMode.move, options=OPTIONS, resume=note)  # type: ignore[arg-type]


@pytest.mark.parametrize("left", [b"", b"some", b"some bytes", b"some bytes and more", b"wrong"])
def test_an_interrupted_copy_goes_on(store: FolderStore, file: Path, tmp_path: Path, left: bytes) -> None:
    """Bringing an object goes on from what an interrupted call left, and begins again where that is wrong."""
    stored = put(store, file)
    (tmp_path / f".{stored.md5}.part").write_bytes(left)
    store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=OPTIONS)
    assert (tmp_path / "copy").read_bytes() == b"some bytes"
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_two_bring_one_object_to_one_place(store: FolderStore, tmp_path: Path) -> None:
    """Several that bring the same object to the same place at once all succeed."""
    file = tmp_path / "big"
    file.write_bytes(os.urandom(2**23))
    stored = put(store, file, TransferMode.copy)
    wrong: list[BaseException] = []

    def bring() -> None:
        try:
            for _ in range(5):
                store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=OPTIONS)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


# Disks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, MAX_SINGLE_FSYNCS, MAX_SINGLE_FSYNCS + 1, 200])
def test_durable(tmp_path: Path, count: int) -> None:
    """Few files, many, and ones that have gone since, are made durable."""
    files = [tmp_path / "a" / f"{number % 7}" / f"{number}" for number in range(count)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    files[0].unlink()
    make_durable(files, tmp_path)


def test_a_full_disk(tmp_path: Path) -> None:
    """Where there is no room nothing of the object is left, the file stays, and the error says what is missing."""
    file = tmp_path / "big.bin"
    file.write_bytes(os.urandom(3 * 2**20))
    with small_disk(tmp_path / "disk", 2 * 2**20) as disk:
        store = FolderStore(disk / "local")
        for handover in TransferMode:
            with pytest.raises(DiskFull, match=rf"{3 * 2**20} bytes.*\d+ free.*Free some space") as raised:
                put(store, file, handover)
            assert isinstance(raised.value, OSError)
            assert isinstance(raised.value, DerivaMLException)
            assert not isinstance(raised.value, StoreUnavailable)
        assert list(everything(disk / "local")) == []
        assert file.stat().st_size == 3 * 2**20
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        assert put(store, file).length == 3 * 2**20


def test_no_room_for_a_copy(store: FolderStore, tmp_path: Path) -> None:
    """Where there is no room at the target the call says so, leaves nothing under that name, and may be repeated."""
    file = tmp_path / "big.bin"
    file.write_bytes(os.urandom(3 * 2**20))
    stored = put(store, file, TransferMode.copy)
    with small_disk(tmp_path / "disk", 2 * 2**20) as disk:
        with pytest.raises(DiskFull, match="Free some space"):
            store.get(stored.url, disk / "copy", length=stored.length, md5=stored.md5, options=OPTIONS)
        assert not (disk / "copy").exists()
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        store.get(stored.url, disk / "copy", length=stored.length, md5=stored.md5, options=OPTIONS)
        assert (disk / "copy").read_bytes() == file.read_bytes()


LAST_PIECE = """
import resource, sys
from pathlib import Path
from deriva_ml_core.backends.folder.store import FolderStore
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.models import UploadOptions
folder, file = map(Path, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**19, resource.RLIM_INFINITY))
FolderStore(folder).put("Image", "a.bin", file, handover=TransferMode.copy, options=UploadOptions())
"""


def test_a_write_that_takes_only_a_part(tmp_path: Path) -> None:
    """Where a file's last piece is written in part, as on a disk that fills up just there, nothing is stored."""
    file = tmp_path / "two.bin"
    file.write_bytes(os.urandom(2 * 2**20))
    child = [sys.executable, "-c", LAST_PIECE, tmp_path / "local", file]
    assert "StoreUnavailable" in subprocess.run(child, capture_output=True, text=True, check=False).stderr
    assert [path for path in (tmp_path / "local").rglob("*") if path.is_file()] == []


def test_a_store_that_cannot_be_written() -> None:
    """A store in a folder that this user may not write says so."""
    with open_to_all() as folder:
        store = FolderStore(folder / "local")
        (folder / "warm").write_bytes(b"x")
        put(store, folder / "warm")
        (folder / "file").write_bytes(b"y")
        (folder / "local" / "objects").chmod(0o555)
        said = in_child(lambda: put(store, folder / "file", TransferMode.copy) and None, user=unprivileged())
    assert said.startswith("CatalogReadOnly")
    assert "objects" in said


def test_a_file_that_cannot_be_read() -> None:
    """A file that this user may not read is that file's own fault: the store is not blamed."""
    with open_to_all() as folder:
        store = FolderStore(folder / "local")
        (folder / "local").mkdir(mode=0o777)
        (folder / "local").chmod(0o777)
        (folder / "file").write_bytes(b"y")
        (folder / "file").chmod(0)
        said = in_child(lambda: put(store, folder / "file", TransferMode.copy) and None, user=unprivileged())
    assert said.startswith("PermissionError")
    assert str(folder / "file") in said


def test_another_users_file() -> None:
    """An owned file whose mode this user may not change is copied, and goes."""
    user = unprivileged()
    if user is None:
        pytest.skip("only root can make another user's file")
    with open_to_all() as folder:
        store = FolderStore(folder / "local")
        (folder / "local").mkdir()
        (folder / "local").chmod(0o777)
        file = folder / "local" / "file"
        file.write_bytes(b"y")

        def take() -> None:
            stored = put(store, file)
            store.verify(stored.url, length=stored.length, md5=stored.md5)
            assert place(store, stored).stat().st_uid == user

        assert in_child(take, user=user) == ""
        assert not file.exists()
