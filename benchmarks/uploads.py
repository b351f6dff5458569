"""Time to register and upload many small files and one big file."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import execution_configuration, open_catalog, unique_bytes
from benchmarks.scale import Scale
from benchmarks.timing import compare, time_call
from deriva_ml import DerivaML, Execution
from deriva_ml_core.backends.folder.durability import Disk, make_durable


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time uploads after the ``with`` block. The time to write the files is excluded on both sides."""
    ml = open_catalog(folder / "home")
    rounds = scale.heavy_rounds
    store_folder = folder / "home" / "bare"
    comparison = compare(
        lambda: _time_small_files(ml, scale), lambda: _time_bare_store(store_folder, scale), 2 * rounds
    )
    what = f"register and upload {scale.files:,} files of {scale.file_bytes:,} bytes"
    yield comparison_figure(what, "rename + MD5 + one sync", comparison, target=5)
    big = _BigFile(ml, scale.big_bytes)
    size = f"{scale.big_bytes / 2**20:g} MiB"
    comparison = compare(big.upload_staged, lambda: big.time_pass(_digest), rounds)
    yield comparison_figure(f"upload a new file of {size}", "one MD5 pass", comparison, target=1.2)
    yield Figure("its copies on disk", big.pop_copies(), "copies", target=0.01)
    comparison = compare(big.upload_original, lambda: big.time_pass(_digest_and_copy), rounds)
    yield comparison_figure(f"register and upload an existing file of {size}", "one MD5 pass + one copy", comparison)
    yield Figure("its copies on disk", big.pop_copies(), "copies", target=1.01)


def _time_small_files(ml: DerivaML, scale: Scale) -> float:
    with ml.create_execution(execution_configuration()) as exe:
        paths: list[Path] = []
        names = [f"image-{number}.png" for number in range(scale.files)]
        registering = time_call(lambda: paths.extend(exe.asset_file_path("Image", name) for name in names))
        for path in paths:
            path.write_bytes(unique_bytes(scale.file_bytes))
    return registering + time_call(exe.upload_execution_outputs)


def _time_bare_store(folder: Path, scale: Scale) -> float:
    folder.mkdir()
    paths = [folder / f"image-{number}.png" for number in range(scale.files)]
    for path in paths:
        path.write_bytes(unique_bytes(scale.file_bytes))

    def store() -> None:
        objects = [path.rename(folder / hashlib.md5(path.read_bytes()).hexdigest()) for path in paths]
        make_durable(objects, folder, Disk())

    seconds = time_call(store)
    shutil.rmtree(folder)
    return seconds


class _BigFile:
    """Uploads a big file, and measures how many additional copies remain on disk."""

    def __init__(self, ml: DerivaML, length: int) -> None:
        self._ml = ml
        self._home = ml.connection.folder
        self._length = length
        self._copies: list[float] = []

    def upload_staged(self) -> float:
        """Upload a new file that was written to its staged path."""
        with self._ml.create_execution(execution_configuration()) as exe:
            path = exe.asset_file_path("Model", "model.pt")
            path.write_bytes(unique_bytes(self._length))
        return self._upload(exe, inode=path.stat().st_ino)

    def upload_original(self) -> float:
        """Register and upload an existing file."""
        file = self._write_original()
        with self._ml.create_execution(execution_configuration()) as exe:
            exe.asset_file_path("Model", file)
        return self._upload(exe, inode=file.stat().st_ino)

    def time_pass(self, function: Callable[[Path], object]) -> float:
        """Return the seconds that a function takes on a new file, as the baseline of an upload."""
        file = self._write_original()
        seconds = time_call(lambda: function(file))
        shutil.rmtree(file.parent)
        return seconds

    def pop_copies(self) -> float:
        """Return the median number of copies since the last call, as a share of the file's bytes."""
        copies, self._copies = median(self._copies), []
        return copies

    def _write_original(self) -> Path:
        file = self._home.parent / "original" / "model.pt"
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(unique_bytes(self._length))
        return file

    def _upload(self, exe: Execution, inode: int) -> float:
        before = _used_bytes(self._home)
        seconds = time_call(exe.upload_execution_outputs)
        # a copy whose original was deleted uses no additional blocks, but has another inode
        (stored,) = (path for path in (self._home / "objects").glob("*/*") if path.stat().st_size == self._length)
        was_moved = stored.stat().st_ino == inode
        growth = max(_used_bytes(self._home) - before, 0 if was_moved else self._length)
        self._copies.append(round(growth / self._length, 3))
        stored.unlink()
        return seconds


def _used_bytes(folder: Path) -> int:
    """Return the bytes of the blocks that the files of a folder use, without the catalog's database."""
    stats = (path.stat() for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name)
    return sum({stat.st_ino: 512 * stat.st_blocks for stat in stats}.values())


def _digest(file: Path) -> None:
    with file.open("rb", buffering=0) as opened:
        hashlib.file_digest(opened, "md5")


def _digest_and_copy(file: Path) -> None:
    _digest(file)
    shutil.copyfile(file, file.with_name("copy.pt"))
