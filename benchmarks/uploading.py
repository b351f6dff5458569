"""What it costs to register and upload files: many small ones, and a big one."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, compared
from benchmarks.measure import beside, seconds
from benchmarks.places import configuration, fresh_bytes, open_catalog
from benchmarks.scale import Scale
from deriva_ml import DerivaML, Execution
from deriva_ml_core.backends.folder.durability import make_durable


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time uploads after the ``with``; the writing of the files themselves counts on neither side."""
    ml = open_catalog(folder / "home")
    rounds = scale.heavy_rounds
    taken = beside(lambda: _many(ml, scale), lambda: _many_bare(folder / "home" / "bare", scale), 2 * rounds)
    what = f"{scale.files:,} files of {scale.file_bytes:,} bytes registered, uploaded, recorded"
    yield compared(what, "rename + md5 + one sync", taken, target=5)
    big = _Big(ml, scale.big_bytes)
    size = f"{scale.big_bytes / 2**20:g} MiB"
    taken = beside(big.handed_out, lambda: big.bare(_digested), rounds)
    yield compared(f"a file of {size} that we handed out, uploaded", "one md5 pass", taken, target=1.2)
    yield Figure("its copies on the disk", big.copies(), "copies", target=0.01)
    taken = beside(big.original, lambda: big.bare(_copied), rounds)
    yield compared(f"an existing file of {size} registered, uploaded", "one md5 pass + one copy", taken)
    yield Figure("its copies on the disk", big.copies(), "copies", target=1.01)


def _many(ml: DerivaML, scale: Scale) -> float:
    with ml.create_execution(configuration()) as exe:
        paths: list[Path] = []
        names = [f"image-{number}.png" for number in range(scale.files)]
        registering = seconds(lambda: paths.extend(exe.asset_file_path("Image", name) for name in names))
        for path in paths:
            path.write_bytes(fresh_bytes(scale.file_bytes))
    return registering + seconds(exe.upload_execution_outputs)


def _many_bare(folder: Path, scale: Scale) -> float:
    folder.mkdir()
    paths = [folder / f"image-{number}.png" for number in range(scale.files)]
    for path in paths:
        path.write_bytes(fresh_bytes(scale.file_bytes))

    def store() -> None:
        objects = [path.rename(folder / hashlib.md5(path.read_bytes()).hexdigest()) for path in paths]
        make_durable(objects, folder)

    taken = seconds(store)
    shutil.rmtree(folder)
    return taken


class _Big:
    """Uploads of one big file, and how many copies of it each of them left behind."""

    def __init__(self, ml: DerivaML, length: int) -> None:
        self._ml = ml
        self._home = ml.connection.folder
        self._length = length
        self._copies: list[float] = []

    def handed_out(self) -> float:
        """Upload a file written to a path that we handed out."""
        with self._ml.create_execution(configuration()) as exe:
            path = exe.asset_file_path("Model", "model.pt")
            path.write_bytes(fresh_bytes(self._length))
        return self._uploaded(exe, inode=path.stat().st_ino)

    def original(self) -> float:
        """Register and upload a file of the user's own."""
        file = self._written()
        with self._ml.create_execution(configuration()) as exe:
            exe.asset_file_path("Model", file)
        return self._uploaded(exe, inode=file.stat().st_ino)

    def bare(self, pass_: Callable[[Path], object]) -> float:
        """Do with a new file the least that can be done."""
        file = self._written()
        taken = seconds(lambda: pass_(file))
        shutil.rmtree(file.parent)
        return taken

    def copies(self) -> float:
        """The median of the copies since this was last asked, as a share of the file's bytes."""
        found, self._copies = median(self._copies), []
        return found

    def _written(self) -> Path:
        file = self._home.parent / "original" / "model.pt"
        file.parent.mkdir(exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(fresh_bytes(self._length))
        return file

    def _uploaded(self, exe: Execution, inode: int) -> float:
        before = _used(self._home)
        taken = seconds(exe.upload_execution_outputs)
        # a copy whose original is then deleted uses no more blocks, but another inode
        (stored,) = (path for path in (self._home / "objects").glob("*/*") if path.stat().st_size == self._length)
        moved_in = stored.stat().st_ino == inode
        growth = max(_used(self._home) - before, 0 if moved_in else self._length)
        self._copies.append(round(growth / self._length, 3))
        stored.unlink()
        return taken


def _used(folder: Path) -> int:
    """Bytes of the blocks that a folder uses, the catalog's own apart."""
    files = (path.stat() for path in folder.rglob("*") if path.is_file() and "sqlite" not in path.name)
    return sum({found.st_ino: 512 * found.st_blocks for found in files}.values())


def _digested(file: Path) -> None:
    with file.open("rb", buffering=0) as opened:
        hashlib.file_digest(opened, "md5")


def _copied(file: Path) -> None:
    _digested(file)
    shutil.copyfile(file, file.with_name("copy.pt"))
