"""What it costs to download a dataset with its files, the first time and from the cache."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, compared
from benchmarks.measure import beside, seconds
from benchmarks.places import configuration, fresh_bytes, open_catalog
from benchmarks.scale import Scale
from deriva_ml import DerivaML


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Time whole downloads beside a copy and an md5 of each file, and beside a look at each file."""
    for size in scale.bags:
        yield from _download(size, scale, folder / str(size))


def _download(size: int, scale: Scale, home: Path) -> Iterator[Figure]:
    ml = open_catalog(home)
    dataset = ml.lookup_dataset(_made(ml, size, scale.file_bytes))
    objects = sorted((home / "objects").glob("*/*"))

    def cold() -> float:
        shutil.rmtree(home / "cache", ignore_errors=True)
        return seconds(dataset.download_dataset_bag)

    taken = beside(cold, lambda: _copied(objects, home / "bare"), max(1, min(scale.rounds, 30_000 // size)))
    yield compared(f"a bag of {size:,} files downloaded", "copy + md5 of the files", taken)
    taken = beside(
        lambda: seconds(dataset.download_dataset_bag),
        lambda: seconds(lambda: [path.stat() for path in objects]),
        scale.heavy_rounds,
    )
    yield compared(f"the same bag of {size:,} from the cache", "one stat of each file", taken)


def _made(ml: DerivaML, size: int, length: int) -> str:
    ml.add_dataset_element_type("Image")
    with ml.create_execution(configuration()) as exe:
        for number in range(size):
            exe.asset_file_path("Image", f"image-{number}.png").write_bytes(fresh_bytes(length))
    sent = exe.upload_execution_outputs()
    dataset = ml.create_dataset("A benchmark")
    dataset.add_dataset_members([asset.rid for asset in sent["Image"]])
    return dataset.rid


def _copied(objects: list[Path], folder: Path) -> float:
    folder.mkdir()

    def copy() -> None:
        for path in objects:
            copied = Path(shutil.copyfile(path, folder / path.name))
            assert hashlib.md5(copied.read_bytes()).hexdigest() == path.name

    taken = seconds(copy)
    shutil.rmtree(folder)
    return taken
