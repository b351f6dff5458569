"""Folder store: moves, hard links and copies, damaged objects, full disks and killed processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_samples import run_in_child, small_disk, unprivileged_user, world_writable_folder

from deriva_ml_core._files.atomic import copy_atomic
from deriva_ml_core.backends.embedded import FolderStore
from deriva_ml_core.backends.folder.durability import MAX_SINGLE_FSYNCS, Disk, make_durable
from deriva_ml_core.backends.folder.store import BACKGROUND_FSYNC_SIZE
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


def object_path(store: FolderStore, stored: StoredObject) -> Path:
    return Path(store.source(stored.url).removeprefix("file://"))


def list_objects(folder: Path) -> Iterator[Path]:
    return (path for path in (folder / "objects").rglob("*") if path.is_file() and path.name != ".gitignore")


# Reflinks ------------------------------------------------------------------------------------------------------------


def clone(target: int, request: int, source: int) -> int:
    """Do what ioctl_ficlone(2) does on a file system with reflinks."""
    assert request == 0x40049409
    os.pwrite(target, os.pread(source, os.fstat(source).st_size, 0), 0)
    return 0


def test_copy_is_a_reflink_where_possible(
    store: FolderStore, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy shares the bytes on disk, and its MD5 is that of the clone, even if the original changes meanwhile."""

    def clone_and_change(target: int, request: int, source: int) -> int:
        clone(target, request, source)
        (tmp_path / "local" / "staged.bin").write_bytes(b"other bytes, written meanwhile")
        return 0

    monkeypatch.setattr(fcntl, "ioctl", clone_and_change)
    stored = put(store, file, TransferMode.copy)
    assert object_path(store, stored).read_bytes() == b"some bytes"
    assert (stored.md5, stored.length) == (hashlib.md5(b"some bytes").hexdigest(), 10)
    assert object_path(store, stored).stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM])
def test_copy_without_reflinks(store: FolderStore, file: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Where the file system refuses a reflink, the bytes are copied once."""

    def refuse(*_: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    stored = put(store, file, TransferMode.copy)
    assert object_path(store, stored).read_bytes() == file.read_bytes() == b"some bytes"
    assert stored.md5 == hashlib.md5(b"some bytes").hexdigest()
    assert not object_path(store, stored).samefile(file)


def test_copy_atomic_is_a_reflink_where_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An original that is copied when it is registered shares its bytes on disk too."""
    requests = []
    monkeypatch.setattr(fcntl, "ioctl", lambda *args: requests.append(args[1]) or clone(*args))
    (tmp_path / "original").write_bytes(b"content")
    copy_atomic(tmp_path / "original", tmp_path / "copy")
    assert ((tmp_path / "copy").read_bytes(), requests) == (b"content", [0x40049409])


# Moves, hard links and copies ----------------------------------------------------------------------------------------


def test_put_moves_file(store: FolderStore, file: Path) -> None:
    """A moved file is renamed to its digest and read-only, with its time and inode."""
    before = file.stat()
    stored = put(store, file)
    path, after = object_path(store, stored), object_path(store, stored).stat()
    assert not file.exists()
    assert (path.name, path.parent.name) == (stored.md5, stored.md5[:2])
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    assert after.st_mode & 0o777 == 0o444


def test_disk_usage_of_move_and_copy(store: FolderStore, tmp_path: Path) -> None:
    """A move allocates no blocks, and a copy allocates the size of the file once."""

    def used() -> int:
        files = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".gitignore")
        return sum(path.stat().st_blocks for path in files) * 512

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


def test_copy_keeps_modification_time(store: FolderStore, file: Path) -> None:
    """A copy has the modification time of its original, and is read-only."""
    os.utime(file, ns=(10**18, 10**18 + 7))
    found = object_path(store, put(store, file, TransferMode.copy)).stat()
    assert (found.st_mtime_ns, found.st_mode & 0o777) == (10**18 + 7, 0o444)


def test_put_hardlinks_file(store: FolderStore, file: Path) -> None:
    """A hard-linked file is one read-only file with two names, and no bytes are copied."""
    inode = file.stat().st_ino
    stored = put(store, file, TransferMode.hardlink)
    found = object_path(store, stored).stat()
    assert (found.st_ino, found.st_nlink, found.st_mode & 0o777) == (inode, 2, 0o444)
    assert file.stat().st_ino == inode
    assert len(list(list_objects(file.parent))) == 1


def test_hardlinked_file_is_read_once(store: FolderStore, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard-linked file is read once per put."""
    read: list[str] = []
    opened = Path.open

    def watched(path: Path, *args: Any, **options: Any) -> Any:
        read.append(path.name)
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", watched)
    put(store, file, TransferMode.hardlink)
    put(store, file, TransferMode.hardlink)
    assert len([name for name in read if name != ".gitignore"]) == 2


def test_file_changed_during_hardlink_is_copied(
    store: FolderStore, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written while it is hard-linked is copied with its new bytes."""
    chmod = Path.chmod

    def late(path: Path, mode: int) -> None:
        if mode == 0o444 and path.samefile(file):
            with file.open("ab") as opened:
                opened.write(b" and more")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", late)
    stored = put(store, file, TransferMode.hardlink)
    assert object_path(store, stored).read_bytes() == b"some bytes and more"
    assert not object_path(store, stored).samefile(file)
    store.verify(stored.url, length=stored.length, md5=stored.md5)
    assert len(list(list_objects(file.parent))) == 1


def test_hardlink_across_file_systems(store: FolderStore, tmp_path: Path) -> None:
    """A file on another file system is copied instead of hard-linked, and stays."""
    with small_disk(tmp_path / "disk", 2**20) as disk:
        elsewhere = disk / "file"
        elsewhere.write_bytes(b"elsewhere")
        stored = put(store, elsewhere, TransferMode.hardlink)
        assert object_path(store, stored).read_bytes() == elsewhere.read_bytes() == b"elsewhere"
        assert object_path(store, stored).stat().st_dev != elsewhere.stat().st_dev


def test_move_of_file_with_hardlinks(store: FolderStore, file: Path) -> None:
    """A file with several hard links is copied, and the moved name is deleted."""
    other = file.with_name("other")
    os.link(file, other)
    stored = put(store, file)
    assert not file.exists()
    assert other.stat().st_ino != object_path(store, stored).stat().st_ino


def test_move_across_file_systems(store: FolderStore, tmp_path: Path) -> None:
    """A file on another file system is copied and then deleted."""
    with small_disk(tmp_path / "elsewhere", 2**20) as disk:
        file = disk / "staged.bin"
        file.write_bytes(b"from elsewhere")
        notes: list[object] = []
        stored = store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, note=notes.append)
        assert not file.exists()
        assert object_path(store, stored).read_bytes() == b"from elsewhere"
        assert (
            store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, resume=notes[-1]) == stored
        )  # type: ignore[arg-type]


def test_path_is_written_after_move(store: FolderStore, file: Path) -> None:
    """Writing to the path of a moved file, also as root, writes another file."""
    stored = put(store, file)
    with file.open("wb") as opened:
        opened.write(b"other")
    with file.open("r+b") as opened:
        opened.write(b"OTHER")
    store.verify(stored.url, length=stored.length, md5=stored.md5)


def test_file_is_written_during_copy(store: FolderStore, tmp_path: Path) -> None:
    """A file that is written while it is copied is stored with the digest of the stored bytes."""
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


def test_file_is_changed_before_move(store: FolderStore, file: Path) -> None:
    """A file that changes after its digest was computed is read again."""

    def write_once(_: object) -> None:
        if file.stat().st_mode & 0o222 and file.read_bytes() == b"some bytes":
            file.write_bytes(b"other bytes, and more")

    stored = store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, note=write_once)
    assert object_path(store, stored).read_bytes() == b"other bytes, and more"
    store.verify(stored.url, length=stored.length, md5=stored.md5)


def test_file_keeps_changing(store: FolderStore, file: Path) -> None:
    """A file that changes on every attempt is finally copied as it is."""

    def write(_: object) -> None:
        if file.exists():
            file.chmod(0o644)
            file.write_bytes(os.urandom(64))

    stored = store.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, note=write)
    store.verify(stored.url, length=stored.length, md5=stored.md5)
    assert not file.exists()


# Equal and damaged objects -------------------------------------------------------------------------------------------


def test_equal_bytes_are_stored_once(store: FolderStore, file: Path, tmp_path: Path) -> None:
    """Equal bytes are stored once, and a moved file is deleted."""
    first = object_path(store, put(store, file, TransferMode.copy))
    inode = first.stat().st_ino
    put(store, file, TransferMode.copy)
    put(store, file)
    assert not file.exists()
    assert first.stat().st_ino == inode
    assert list(list_objects(tmp_path / "local")) == [first]


def damage(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_damaged_object(store: FolderStore, file: Path, tmp_path: Path) -> None:
    """A damaged object is reported by `verify` and `get` with its URL and path, and is not copied."""
    stored = put(store, file)
    damage(object_path(store, stored))
    for act in (
        lambda: store.verify(stored.url, length=stored.length, md5=stored.md5),
        lambda: store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=OPTIONS),
    ):
        with pytest.raises(ChecksumMismatch, match="is damaged") as raised:
            act()
        assert stored.url in str(raised.value)
        assert str(object_path(store, stored)) in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"local", "home"}


@pytest.mark.parametrize("handover", list(TransferMode))
def test_put_repairs_damaged_object(store: FolderStore, file: Path, handover: TransferMode) -> None:
    """Storing the original bytes again replaces a damaged object."""
    damage(object_path(store, put(store, file, TransferMode.copy)))
    stored = put(store, file, handover)
    store.verify(stored.url, length=stored.length, md5=stored.md5)


def test_lost_object(store: FolderStore, file: Path, tmp_path: Path) -> None:
    """A missing object is reported with its URL."""
    stored = put(store, file)
    object_path(store, stored).unlink()
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


def test_md5_collision(store: FolderStore, tmp_path: Path) -> None:
    """Different bytes with the same MD5 are refused, and neither the object nor the file is changed."""
    files = [tmp_path / "one", tmp_path / "other"]
    for file, text in zip(files, COLLISION, strict=True):
        file.write_bytes(bytes.fromhex(text))
    assert len({hashlib.md5(file.read_bytes()).hexdigest() for file in files}) == 1
    stored = put(store, files[0], TransferMode.copy)
    with pytest.raises(FileConflict, match="same MD5"):
        put(store, files[1])
    assert object_path(store, stored).read_bytes() == bytes.fromhex(COLLISION[0])
    assert files[1].read_bytes() == bytes.fromhex(COLLISION[1])


# Interruptions -------------------------------------------------------------------------------------------------------


def test_put_deletes_draft_of_killed_copy(store: FolderStore, file: Path, tmp_path: Path) -> None:
    """The next put deletes the incomplete copy of a killed process."""
    notes: list[object] = []
    store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS, note=notes.append)
    draft = tmp_path / "local" / "objects" / notes[0]["draft"]  # type: ignore[index]
    draft.write_bytes(b"som")
    store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS, resume=notes[0])  # type: ignore[arg-type]
    assert not draft.exists()


@pytest.mark.parametrize("note", [{"draft": "../../staged.bin"}, {"draft": "draft-/../../../staged.bin"}, {}, "x", 7])
def test_invalid_resume_note(store: FolderStore, file: Path, note: object) -> None:
    """An unknown note deletes nothing, and the file is stored."""
    stored = store.put("Image", "a.png", file, handover=TransferMode.copy, options=OPTIONS, resume=note)  # type: ignore[arg-type]
    assert stored.length == file.stat().st_size


def test_resume_note_of_missing_object(store: FolderStore, tmp_path: Path) -> None:
    """A file that is missing, and not in the store either, raises FileNotFoundError."""
    note = {"md5": "0" * 32, "length": 1}
    with pytest.raises(FileNotFoundError):
        store.put("Image", "a.png", tmp_path / "gone", handover=TransferMode.move, options=OPTIONS, resume=note)  # type: ignore[arg-type]


@pytest.mark.parametrize("left", [b"", b"some", b"some bytes", b"some bytes and more", b"wrong"])
def test_get_resumes(store: FolderStore, file: Path, tmp_path: Path, left: bytes) -> None:
    """`get` resumes an interrupted copy, and starts again if the partial file is wrong."""
    stored = put(store, file)
    (tmp_path / f".{stored.md5}.part").write_bytes(left)
    store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=OPTIONS)
    assert (tmp_path / "copy").read_bytes() == b"some bytes"
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_concurrent_gets_to_one_target(store: FolderStore, tmp_path: Path) -> None:
    """Several threads can copy the same object to the same target at once."""
    file = tmp_path / "big"
    file.write_bytes(os.urandom(2**23))
    stored = put(store, file, TransferMode.copy)
    errors: list[BaseException] = []

    def get_repeatedly() -> None:
        try:
            for _ in range(5):
                store.get(stored.url, tmp_path / "copy", length=stored.length, md5=stored.md5, options=OPTIONS)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=get_repeatedly) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


# Disks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, MAX_SINGLE_FSYNCS, MAX_SINGLE_FSYNCS + 1, 200])
def test_make_durable(tmp_path: Path, count: int) -> None:
    """Any number of files can be made durable."""
    files = [tmp_path / "a" / f"{number % 7}" / f"{number}" for number in range(count)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    make_durable(files, tmp_path, Disk())
    files[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"a/0/0"):
        make_durable(files, tmp_path, Disk())


@pytest.mark.parametrize("count", [2, 40])
def test_lost_object_is_not_durable(tmp_path: Path, count: int) -> None:
    """An object that was deleted before it was flushed is named, once, and the others are flushed."""
    store = FolderStore(tmp_path / "local")
    objects = []
    for number in range(count):
        file = tmp_path / f"{number}.bin"
        file.write_bytes(b"%d" % number)
        md5 = store.put("Image", file.name, file, handover=TransferMode.copy, options=UploadOptions()).md5
        objects.append(tmp_path / "local/objects" / md5[:2] / md5)
    objects[0].unlink()
    with pytest.raises(ChecksumMismatch, match=rf"{objects[0]} was deleted .*[Uu]pload .* again"):
        store.sync()
    store.sync()


class WatchedDisk(Disk):
    """Notes what is flushed; a flush of an open file fails."""

    def __init__(self) -> None:
        self.flushed: list[Path] = []

    def sync_path(self, path: Path) -> None:
        self.flushed.append(path)
        super().sync_path(path)

    def sync_descriptor(self, descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_object_of_a_killed_process_is_flushed(store: FolderStore, file: Path, tmp_path: Path) -> None:
    """A process was killed between move and flush: the next one finds the object, and flushes it and its folders."""
    stored, disk = put(store, file), WatchedDisk()
    again = FolderStore(tmp_path / "local", disk=disk)
    note: dict[str, Any] = {"md5": stored.md5, "length": stored.length}
    assert again.put("Image", "a.png", file, handover=TransferMode.move, options=OPTIONS, resume=note) == stored
    again.sync()
    path = object_path(store, stored)
    assert disk.flushed == [path, path.parent, path.parent.parent, tmp_path / "local"]


@pytest.mark.parametrize("handover", [TransferMode.move, TransferMode.hardlink])
def test_failed_flush_of_a_large_file(tmp_path: Path, handover: TransferMode) -> None:
    """A large file is flushed while it is read; if that fails, it counts as not stored."""
    store, file = FolderStore(tmp_path / "local", disk=WatchedDisk()), tmp_path / "local" / "large"
    file.parent.mkdir()
    with file.open("wb") as large:
        large.truncate(BACKGROUND_FSYNC_SIZE)
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        put(store, file, handover)
    assert list(list_objects(tmp_path / "local")) == []


class OpenFileDisk(Disk):
    """Counts the flushes of open files."""

    def __init__(self) -> None:
        self.flushes = 0

    def sync_descriptor(self, descriptor: int) -> None:
        super().sync_descriptor(descriptor)
        self.flushes += 1


def test_large_file_is_flushed_without_a_thread(tmp_path: Path, refuse_threads: Callable[[int], None]) -> None:
    """If the system refuses the thread that flushes a large file, the file is flushed once and stored."""
    disk, file = OpenFileDisk(), tmp_path / "large"
    with file.open("wb") as large:
        large.truncate(BACKGROUND_FSYNC_SIZE)
    refuse_threads(1)
    stored = put(FolderStore(tmp_path / "local", disk=disk), file, TransferMode.move)
    assert (stored.length, disk.flushes) == (8_388_608, 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux flushes a whole file system")
def test_failed_flush_of_a_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of syncfs(2) is raised; it refuses a descriptor that only names a path."""
    open_descriptor = os.open
    monkeypatch.setattr(os, "open", lambda path, flags: open_descriptor(path, flags | os.O_PATH))
    with pytest.raises(OSError, match="Bad file descriptor"):
        Disk().sync_file_system(tmp_path)


def test_disk_full_on_put(tmp_path: Path) -> None:
    """A put to a full disk leaves no object and keeps the file, and the error states sizes and remedy."""
    file = tmp_path / "big.bin"
    file.write_bytes(os.urandom(3 * 2**20))
    with small_disk(tmp_path / "disk", 2 * 2**20) as disk:
        store = FolderStore(disk / "local")
        for handover in TransferMode:
            with pytest.raises(DiskFull, match=r"3\.1 MB.*\d+(\.\d+)? [kM]B free.*Free some space") as raised:
                put(store, file, handover)
            assert isinstance(raised.value, OSError)
            assert isinstance(raised.value, DerivaMLException)
            assert not isinstance(raised.value, StoreUnavailable)
        assert list(list_objects(disk / "local")) == []
        assert file.stat().st_size == 3 * 2**20
        subprocess.run(["mount", "-o", "remount,size=16m", disk], check=True)
        assert put(store, file).length == 3 * 2**20


def test_disk_full_on_get(store: FolderStore, tmp_path: Path) -> None:
    """A `get` to a full disk raises, leaves nothing at the target, and can be repeated."""
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


PARTIAL_WRITE = """
import resource, sys
from pathlib import Path
from deriva_ml_core.backends.folder.store import FolderStore
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.models import UploadOptions
folder, file = map(Path, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**19, resource.RLIM_INFINITY))
FolderStore(folder).put("Image", "a.bin", file, handover=TransferMode.copy, options=UploadOptions())
"""


def test_partial_write(tmp_path: Path) -> None:
    """If the last write of a file is partial, nothing is stored."""
    file = tmp_path / "two.bin"
    file.write_bytes(os.urandom(2 * 2**20))
    child = [sys.executable, "-c", PARTIAL_WRITE, tmp_path / "local", file]
    assert "StoreUnavailable" in subprocess.run(child, capture_output=True, text=True, check=False).stderr
    assert [path.name for path in (tmp_path / "local").rglob("*") if path.is_file()] == [".gitignore"]


def test_read_only_store() -> None:
    """A put into a read-only store raises with the folder."""
    with world_writable_folder() as folder:
        store = FolderStore(folder / "local")
        (folder / "warm").write_bytes(b"x")
        put(store, folder / "warm")
        (folder / "file").write_bytes(b"y")
        (folder / "local" / "objects").chmod(0o555)
        message = run_in_child(
            lambda: put(store, folder / "file", TransferMode.copy) and None, user=unprivileged_user()
        )
    assert message.startswith("CatalogReadOnly")
    assert "objects" in message


def test_unreadable_file() -> None:
    """An unreadable file raises PermissionError with its path, not an error of the store."""
    with world_writable_folder() as folder:
        store = FolderStore(folder / "local")
        (folder / "local").mkdir(mode=0o777)
        (folder / "local").chmod(0o777)
        (folder / "file").write_bytes(b"y")
        (folder / "file").chmod(0)
        message = run_in_child(
            lambda: put(store, folder / "file", TransferMode.copy) and None, user=unprivileged_user()
        )
    assert message.startswith("PermissionError")
    assert str(folder / "file") in message


def test_move_of_another_users_file() -> None:
    """A moved file whose mode this user cannot change is copied and deleted."""
    user = unprivileged_user()
    if user is None:
        pytest.skip("only root can make another user's file")
    with world_writable_folder() as folder:
        store = FolderStore(folder / "local")
        (folder / "local").mkdir()
        (folder / "local").chmod(0o777)
        file = folder / "local" / "file"
        file.write_bytes(b"y")

        def take() -> None:
            stored = put(store, file)
            store.verify(stored.url, length=stored.length, md5=stored.md5)
            assert object_path(store, stored).stat().st_uid == user

        assert run_in_child(take, user=user) == ""
        assert not file.exists()
