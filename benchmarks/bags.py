"""Time to download a dataset with its files, for the first time and from the cache."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, comparison_figure
from benchmarks.fixtures import execution_configuration, open_catalog, unique_bytes
from benchmarks.scale import Scale
from benchmarks.timing import compare, time_call
from deriva_ml import DerivaML


def run(scale: Scale, folder: Path) -> Iterator[Figure]:
    """Compare downloads with a copy and an MD5 of each file, and cached downloads with a stat of each file."""
    for size in scale.bags:
        yield from _download(size, scale, folder / str(size))


def _download(size: int, scale: Scale, home: Path) -> Iterator[Figure]:
    ml = open_catalog(home)
    dataset = ml.lookup_dataset(_create_dataset(ml, size, scale.file_bytes))
    objects = sorted((home / "objects").glob("*/*"))

    def cold() -> float:
        shutil.rmtree(home / "cache", ignore_errors=True)
        return time_call(dataset.download_dataset_bag)

    rounds = max(1, min(scale.rounds, 30_000 // size))
    comparison = compare(cold, lambda: _time_copy(objects, home / "bare"), rounds)
    yield comparison_figure(f"download a bag of {size:,} files", "copy + MD5 of the files", comparison)
    comparison = compare(
        lambda: time_call(dataset.download_dataset_bag),
        lambda: time_call(lambda: [path.stat() for path in objects]),
        scale.heavy_rounds,
    )
    yield comparison_figure(f"the same bag of {size:,} from the cache", "stat of each file", comparison)


def _create_dataset(ml: DerivaML, size: int, length: int) -> str:
    ml.add_dataset_element_type("Image")
    with ml.create_execution(execution_configuration()) as exe:
        for number in range(size):
            exe.asset_file_path("Image", f"image-{number}.png").write_bytes(unique_bytes(length))
    uploaded = exe.upload_execution_outputs()
    dataset = ml.create_dataset("A benchmark")
    dataset.add_dataset_members([asset.rid for asset in uploaded["Image"]])
    return dataset.rid


def _time_copy(objects: list[Path], folder: Path) -> float:
    folder.mkdir()

    def copy() -> None:
        for path in objects:
            copied = Path(shutil.copyfile(path, folder / path.name))
            assert hashlib.md5(copied.read_bytes()).hexdigest() == path.name

    taken = time_call(copy)
    shutil.rmtree(folder)
    return taken
