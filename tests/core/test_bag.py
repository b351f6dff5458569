"""Bags of datasets: valid, complete, downloaded once, and repaired after damage."""

from __future__ import annotations

import logging
import os
import pickle
import random
import shutil
import signal
import string
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from bdbag import bdbag_api
from dataset_samples import insert_images, insert_subjects, open_embedded
from embedded_samples import small_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deriva_ml_core.backend import ObjectStore
from deriva_ml_core.connection import Connection
from deriva_ml_core.datasets import Dataset, DatasetBag, add_dataset_element_type, create_dataset
from deriva_ml_core.datasets.bag_build import asset_path, safe_name
from deriva_ml_core.datasets.bag_cache import download_bag
from deriva_ml_core.datasets.bag_tables import TableFile, read_table
from deriva_ml_core.errors import (
    CatalogReadOnly,
    ChecksumMismatch,
    DiskFull,
    InvalidBag,
    StoreUnavailable,
    UnknownTable,
    UnknownVersion,
)
from deriva_ml_core.models import DatasetSpec, UploadOptions
from deriva_ml_core.schema import Column, ForeignKey, asset_tables

AT_ONCE = UploadOptions(max_retries=2, retry_delay=0)


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return open_embedded(tmp_path / "catalog")


@pytest.fixture
def dataset(connection: Connection) -> Dataset:
    """A dataset with three images, two of which have the same bytes."""
    dataset = create_dataset(connection, description="Photographs", dataset_types=["Training"])
    dataset.add_dataset_members(insert_images(connection, {"a.png": b"first", "b.png": b"second", "c.png": b"first"}))
    return dataset


class CountingStore:
    """A store that counts downloads and can fail; all else is the real store's."""

    def __init__(self, store: ObjectStore, failing: int = 0) -> None:
        self._store = store
        self.failing = failing
        self.downloads: list[str] = []

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:
        if self.failing:
            self.failing -= 1
            raise StoreUnavailable("The wire was cut.")
        self.downloads.append(url)
        self._store.get(url, target, length=length, md5=md5, options=options)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.fixture
def counted(connection: Connection) -> tuple[Connection, CountingStore]:
    store = CountingStore(connection.store)
    return replace(connection, backend=replace(connection.backend, store=store)), store


def spec(dataset: Dataset, **more: object) -> DatasetSpec:
    return DatasetSpec.model_validate({"rid": dataset.rid, **more})


def read_members(bag: DatasetBag, table: str = "Image") -> dict[str, bytes]:
    """Return the bytes of each member of a table, by original name."""
    rows = bag.list_dataset_members(recurse=True)[table]
    return {row["Original_Filename"]: Path(row["Filename"]).read_bytes() for row in rows}


def is_valid(bag: DatasetBag) -> bool:
    """Whether bdbag finds the bag complete and every byte right."""
    config = bag.path.parent.parent / "bdbag.json"
    config.write_text('{"bag_config": {}}')
    bdbag_api.validate_bag(str(bag.path), fast=False, config_file=str(config))
    return True


def test_bag_is_valid_and_has_the_files(dataset: Dataset) -> None:
    """A bag is valid for bdbag, and each Filename is the local path of the right bytes."""
    bag = dataset.download_dataset_bag()
    assert is_valid(bag)
    bag.validate()
    assert read_members(bag) == {"a.png": b"first", "b.png": b"second", "c.png": b"first"}
    assert {path.name for path in bag.path.iterdir()} == {
        "bag-info.txt",
        "bagit.txt",
        "data",
        "fetch.txt",
        "manifest-md5.txt",
        "tagmanifest-md5.txt",
    }


def test_rows_equal_the_catalogs(connection: Connection, dataset: Dataset) -> None:
    """A bag's member rows equal those of the catalog, except for the local path."""
    bag = dataset.download_dataset_bag()
    rows = [{**row, "Filename": row["Original_Filename"]} for row in bag.list_dataset_members()["Image"]]
    for row in rows:
        del row["Original_Filename"]
    assert rows == dataset.list_dataset_members()["Image"]


def test_bag_opens_from_its_folder(dataset: Dataset) -> None:
    """A bag opened from its folder has the dataset, version, description and types."""
    bag = DatasetBag(dataset.download_dataset_bag().path)
    assert (bag.dataset_rid, bag.version) == (dataset.rid, "0.2.0")
    assert (bag.description, bag.dataset_types) == ("Photographs", ("Training",))
    assert bag.path.name == f"Dataset_{dataset.rid}"


def test_bag_can_be_pickled_and_moved(dataset: Dataset, tmp_path: Path) -> None:
    """A bag can be copied to another folder and pickled, as data loader workers need."""
    bag = dataset.download_dataset_bag()
    copied = DatasetBag(shutil.copytree(bag.path, tmp_path / "elsewhere"))
    copied.validate()
    assert read_members(pickle.loads(pickle.dumps(copied))) == read_members(bag)
    assert all(row["Filename"].startswith(str(tmp_path / "elsewhere")) for row in copied.get_table("Image"))


def test_rows_only(dataset: Dataset) -> None:
    """With materialize=False the bag has rows and lists but no files; its structure is valid."""
    bag = dataset.download_dataset_bag(materialize=False)
    bag.validate()
    bdbag_api.validate_bag_structure(str(bag.path), skip_remote=True)
    assert [row["Filename"] for row in bag.list_dataset_members()["Image"]] == ["a.png", "b.png", "c.png"]
    assert not (bag.path / "data" / "asset").exists()
    assert len((bag.path / "fetch.txt").read_text().splitlines()) == 3


def test_rows_first_files_later(dataset: Dataset, counted: tuple[Connection, CountingStore]) -> None:
    """A bag without files gets them when they are requested, and keeps them afterwards."""
    connection, store = counted
    bare = download_bag(connection, spec(dataset, materialize=False))
    assert store.downloads == []
    full = download_bag(connection, spec(dataset))
    assert full.path == bare.path
    assert is_valid(full)
    assert len(store.downloads) == 3
    again = download_bag(connection, spec(dataset, materialize=False))
    assert read_members(again)["a.png"] == b"first"


def test_download_without_threads(
    dataset: Dataset, counted: tuple[Connection, CountingStore], refuse_threads: Callable[[int], None]
) -> None:
    """If the system refuses threads, the files of a bag are downloaded in the calling thread."""
    connection, store = counted
    refuse_threads(1_000)
    bag = download_bag(connection, spec(dataset))
    assert read_members(bag) == {"a.png": b"first", "b.png": b"second", "c.png": b"first"}
    assert len(store.downloads) == 3


def test_second_download_transfers_nothing(
    dataset: Dataset, counted: tuple[Connection, CountingStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second download of a version needs no transfer and few catalog queries."""
    connection, store = counted
    first = download_bag(connection, spec(dataset))
    reads = []
    original = type(connection.catalog).select
    monkeypatch.setattr(
        type(connection.catalog), "select", lambda *args, **named: reads.append(args) or original(*args, **named)
    )
    for again in (spec(dataset), spec(dataset, version="0.2.0")):
        assert download_bag(connection, again).path == first.path
    assert len(store.downloads) == 3
    assert len(reads) <= 4


def test_versions_have_separate_bags(connection: Connection, dataset: Dataset) -> None:
    """Each version has its own bag, with its own values and members."""
    (rid,) = insert_images(connection, {"d.png": b"fourth"})
    old = dataset.list_dataset_members()["Image"][0]["RID"]
    connection.catalog.update("Image", [{"RID": old, "Description": "Changed"}])
    dataset.add_dataset_members([rid])
    before, after = dataset.download_dataset_bag("0.2.0"), dataset.download_dataset_bag()
    assert len(before.list_dataset_members()["Image"]) == 3
    assert read_members(after)["d.png"] == b"fourth"
    assert [bag.list_dataset_members()["Image"][0]["Description"] for bag in (before, after)] == [None, "Changed"]
    assert [bag.version for bag in (before, after)] == ["0.2.0", "0.3.0"]
    with pytest.raises(UnknownVersion, match=r"7\.0\.0"):
        dataset.download_dataset_bag("7.0.0")


def test_deleted_asset_is_in_old_versions(connection: Connection, dataset: Dataset) -> None:
    """The bag of a version contains a member whose row was deleted since."""
    (deleted, *_) = dataset.list_dataset_members()["Image"]
    connection.catalog.delete("Image", {"RID": deleted["RID"]})
    assert read_members(dataset.download_dataset_bag("0.2.0"))["a.png"] == b"first"


@pytest.mark.parametrize("harm", ["change", "rewrite", "delete", "table", "list", "all"])
def test_damaged_bag_is_repaired(dataset: Dataset, counted: tuple[Connection, CountingStore], harm: str) -> None:
    """A changed or deleted file or table of a cached bag is detected, and only that is downloaded again."""
    connection, store = counted
    bag = download_bag(connection, spec(dataset))
    file = Path(bag.list_dataset_members()["Image"][0]["Filename"])
    tables = {"table": bag.path / "data" / "Image.csv", "list": bag.path / "manifest-md5.txt"}
    match harm:
        case "change":
            file.chmod(0o644)
            file.write_bytes(b"other")
        case "rewrite":
            file.chmod(0o644)
            file.write_bytes(b"longer than before")
        case "delete":
            file.unlink()
        case "all":
            shutil.rmtree(bag.path)
        case _:
            tables[harm].chmod(0o644)
            tables[harm].write_bytes(b"nonsense")
    repaired = download_bag(connection, spec(dataset))
    assert is_valid(repaired)
    assert read_members(repaired) == {"a.png": b"first", "b.png": b"second", "c.png": b"first"}
    assert len(store.downloads) == 3 + {"table": 0, "list": 0, "all": 3}.get(harm, 1)


def test_copied_cache_is_checked_locally(dataset: Dataset, counted: tuple[Connection, CountingStore]) -> None:
    """Files with the right bytes and another modification time are checked, not downloaded again."""
    connection, store = counted
    bag = download_bag(connection, spec(dataset))
    for row in bag.list_dataset_members()["Image"]:
        os.utime(row["Filename"])
    assert is_valid(download_bag(connection, spec(dataset)))
    assert len(store.downloads) == 3


def test_changing_a_bag_does_not_change_the_store(connection: Connection, dataset: Dataset) -> None:
    """A write to a bag's file does not reach the stored object."""
    row = dataset.list_dataset_members()["Image"][0]
    file = Path(dataset.download_dataset_bag().list_dataset_members()["Image"][0]["Filename"])
    file.chmod(0o644)
    file.write_bytes(b"overwritten")
    connection.store.verify(row["URL"], length=row["Length"], md5=row["MD5"])


def test_damaged_object_is_named(connection: Connection, dataset: Dataset) -> None:
    """The error names an object with wrong bytes; the other files are downloaded."""
    broken = dataset.list_dataset_members()["Image"][1]
    (stored,) = connection.folder.glob(f"objects/**/{broken['MD5']}")
    stored.chmod(0o644)
    stored.write_bytes(b"flip!!")
    with pytest.raises(ChecksumMismatch, match=broken["URL"]):
        dataset.download_dataset_bag()
    bag = dataset.download_dataset_bag(materialize=False)
    assert downloaded_names(bag) == {"a.png", "c.png"}
    stored.write_bytes(b"second")
    assert is_valid(dataset.download_dataset_bag())


def downloaded_names(bag: DatasetBag) -> set[str]:
    rows = bag.list_dataset_members()["Image"]
    return {row["Original_Filename"] for row in rows if Path(row["Filename"]).exists()}


def test_transfers_are_retried(dataset: Dataset, counted: tuple[Connection, CountingStore]) -> None:
    """A transfer with a transient error is retried."""
    connection, store = counted
    store.failing = 2
    assert is_valid(download_bag(connection, spec(dataset), AT_ONCE))


def test_interrupted_download_resumes(dataset: Dataset, counted: tuple[Connection, CountingStore]) -> None:
    """If the store becomes unavailable, the download fails, and the next one transfers only what is missing."""
    connection, store = counted

    class Cut(CountingStore):
        def get(self, url: str, *args: object, **named: object) -> None:
            if ".b.png" in url:
                raise StoreUnavailable("The wire was cut.")
            super().get(url, *args, **named)  # type: ignore[arg-type]

    cut = replace(connection, backend=replace(connection.backend, store=Cut(store)))
    with pytest.raises(StoreUnavailable):
        download_bag(cut, spec(dataset), UploadOptions(max_retries=0))
    before = len(store.downloads)
    assert is_valid(download_bag(connection, spec(dataset)))
    assert before + 1 <= len(store.downloads) <= 3
    assert sum(".b.png" in url for url in store.downloads) == 1


DOWNLOADER = """
import os, sys, time
from dataclasses import replace
from pathlib import Path
from deriva_ml_core.datasets.bag_cache import download_bag
from deriva_ml_core.connection import open_connection
from deriva_ml_core.models import Address, DatasetSpec
folder, rid, pause = sys.argv[1:]
connection = open_connection(Address(hostname=f"file:{folder}"))
class Slow:
    def __init__(self, store): self._store = store
    def get(self, url, *args, **named):
        time.sleep(float(pause))
        os.write(1, f"{url}\\n".encode())
        self._store.get(url, *args, **named)
    def __getattr__(self, name): return getattr(self._store, name)
connection = replace(connection, backend=replace(connection.backend, store=Slow(connection.store)))
bag = download_bag(connection, DatasetSpec(rid=rid))
assert all(Path(row["Filename"]).exists() for row in bag.list_dataset_members()["Image"])
"""


def start_downloader(connection: Connection, dataset: Dataset, pause: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", DOWNLOADER, str(connection.folder), dataset.rid, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_killed_download_resumes(connection: Connection) -> None:
    """After SIGKILL, the next download keeps the files that exist and transfers the rest."""
    dataset = create_dataset(connection)
    dataset.add_dataset_members(insert_images(connection, {f"{n}.png": f"bytes {n}".encode() for n in range(100)}))
    child = start_downloader(connection, dataset, 0.05)
    assert child.stdout is not None
    for _ in range(30):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    downloaded = len(list((connection.folder / "cache").glob("*/Dataset_*/data/asset/Image/*/*.png")))
    assert 0 < downloaded < 100
    store = CountingStore(connection.store)
    bag = download_bag(replace(connection, backend=replace(connection.backend, store=store)), spec(dataset))
    assert is_valid(bag)
    assert len(store.downloads) == 100 - downloaded


@pytest.mark.parametrize("after", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_download_killed_at_any_time(connection: Connection, dataset: Dataset, after: float) -> None:
    """A download after a killed one gives a valid bag, whenever that was killed."""
    child = start_downloader(connection, dataset, 0.1)
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert is_valid(dataset.download_dataset_bag())


def test_full_disk(connection: Connection) -> None:
    """A download to a full disk fails at once, and resumes when there is space."""
    dataset = create_dataset(connection)
    dataset.add_dataset_members(insert_images(connection, {f"{n}.bin": os.urandom(2**18) for n in range(8)}))
    with small_disk(connection.folder / "cache", 2**20) as disk:
        with pytest.raises(DiskFull, match=str(disk)):
            dataset.download_dataset_bag()
        subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
        assert is_valid(dataset.download_dataset_bag())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_cache(connection: Connection, dataset: Dataset) -> None:
    """A download into a read-only folder raises an error that names the folder."""
    cache = connection.folder / "cache"
    cache.mkdir(mode=0o555)
    with pytest.raises(CatalogReadOnly, match=str(cache)):
        dataset.download_dataset_bag()


def test_concurrent_processes(connection: Connection, dataset: Dataset) -> None:
    """Two processes that download a version at once both get it, with one transfer per file."""
    children = [start_downloader(connection, dataset, 0.05) for _ in range(2)]
    answers = [child.communicate() for child in children]
    assert [error.decode() for _, error in answers] == ["", ""]
    assert len(b"".join(out for out, _ in answers).split()) == 3
    assert is_valid(dataset.download_dataset_bag())


def test_concurrent_threads(dataset: Dataset, counted: tuple[Connection, CountingStore]) -> None:
    """Threads that download a version at once all get it, with one transfer per file."""
    connection, store = counted
    with ThreadPoolExecutor(4) as pool:
        bags = list(pool.map(lambda _: download_bag(connection, spec(dataset)), range(4)))
    assert len({bag.path for bag in bags}) == 1
    assert len(store.downloads) == 3


NAMES = [
    "with spaces.png",
    " leading and trailing ",
    "ünïcödé 日本.png",
    "e\u0301 decomposed.png",
    "\u00e9 composed.png",
    "95%.png",
    "%0Aline.png",
    "a%20b.png",
    "tab\tnewline\n.png",
    "next\u0085line\u2028.png",
    "back\\slash.png",
    "*star",
    "~home",
    ".hidden",
    "no_extension",
    "sub/folder/file.txt",
    "x" * 251 + ".png",
    "é" * 125 + ".npy",
    "epoch=3-step=100.ckpt",
    "'quoted' \"twice\",;.csv",
]


def test_any_file_name(connection: Connection) -> None:
    """For every file name the bag is valid, the file is inside it, and the row has the original name."""
    dataset = create_dataset(connection)
    dataset.add_dataset_members(insert_images(connection, {name: name.encode() for name in NAMES}))
    bag = dataset.download_dataset_bag()
    assert is_valid(bag)
    assert read_members(bag) == {name: name.encode() for name in NAMES}
    for row in bag.list_dataset_members()["Image"]:
        assert Path(row["Filename"]).resolve().is_relative_to(bag.path.resolve() / "data" / "asset")
    names = [
        name for name in NAMES if Path(name).name in {Path(row["Filename"]).name for row in bag.get_table("Image")}
    ]
    assert {"with spaces.png", "ünïcödé 日本.png", "95%.png", "sub/folder/file.txt", ".hidden"} <= set(names)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_safe_names(name: str) -> None:
    """A safe name has valid parts, stays inside the folder, and is its own safe name."""
    safe = safe_name(name)
    assert not safe.is_absolute()
    assert safe.parts
    for part in safe.parts:
        assert part not in ("", ".", "..")
        assert part == part.strip()
        assert len(part.splitlines()) == 1
        assert len(part.encode()) <= 255
    assert safe_name(str(safe)) == safe


def test_names_stay_inside() -> None:
    """A name that leads out of its folder stays in the asset's folder."""
    for name in ("../../../etc/passwd", "/etc/passwd", "a/../../b", "..", "", None):
        parts = asset_path("Image", "1-A", name).parts
        assert parts[:4] == ("data", "asset", "Image", "1-A")
        assert ".." not in parts


def test_empty_dataset(connection: Connection) -> None:
    """The bag of an empty dataset is valid and lists nothing."""
    bag = create_dataset(connection, description="Nothing").download_dataset_bag()
    assert is_valid(bag)
    bag.validate()
    assert bag.list_dataset_members() == {"Dataset": [], "File": [], "Model": [], "Image": []}
    assert bag.get_table("Image") == []
    assert bag.version == "0.1.0"


def test_nested_datasets(connection: Connection, dataset: Dataset) -> None:
    """A parent's bag contains the rows and files of all nested datasets, which can be read separately."""
    outer, other = create_dataset(connection, description="All"), create_dataset(connection, dataset_types=["Testing"])
    shared = dataset.list_dataset_members()["Image"][0]["RID"]
    other.add_dataset_members([shared, *insert_images(connection, {"d.png": b"fourth"})])
    outer.add_dataset_members([dataset.rid, other.rid])
    bag = outer.download_dataset_bag()
    assert is_valid(bag)
    assert bag.list_dataset_members()["Image"] == []
    assert set(read_members(bag)) == {"a.png", "b.png", "c.png", "d.png"}
    assert len(bag.list_dataset_members(recurse=True)["Image"]) == 4
    train, test = bag.list_dataset_children()
    assert (train.dataset_rid, train.version, train.dataset_types) == (dataset.rid, "0.2.0", ("Training",))
    assert set(read_members(test)) == {"a.png", "d.png"}
    assert [each.dataset_rid for each in bag.list_dataset_children(recurse=True)] == [dataset.rid, other.rid]


def test_referenced_rows(connection: Connection) -> None:
    """Plain tables keep their types, and the terms and rows that members refer to are included."""
    add, subject_rids = [], insert_subjects(connection, ["Ada", "Bob"])
    connection.catalog.update("Subject", [{"RID": subject_rids[0], "Age": 36, "Weight": 0.1, "Ill": False}])
    connection.catalog.create_tables(
        asset_tables(
            "Scan", Column("Subject"), Column("Slices", "int4"), foreign_keys=(ForeignKey("Subject", "Subject"),)
        )
    )
    add_dataset_element_type(connection, "Scan")
    add_dataset_element_type(connection, "Subject")
    add = connection.catalog.reserve(1)
    md5 = "d41d8cd98f00b204e9800998ecf8427e"
    row = {"RID": add[0], "URL": f"/hatrac/Scan/{md5}.s.dcm:1", "Filename": "s.dcm", "Length": 0, "MD5": md5}
    connection.catalog.insert("Scan", [{**row, "Subject": subject_rids[0], "Slices": 12}])
    connection.catalog.insert("Scan_Asset_Type", [{"Scan": add[0], "Asset_Type": "Image"}])
    dataset = create_dataset(connection, dataset_types=["Validation"])
    dataset.add_dataset_members(add)
    bag = dataset.download_dataset_bag(materialize=False)
    assert bag.list_dataset_members()["Scan"][0]["Slices"] == 12
    assert bag.list_dataset_members()["Subject"] == []
    (subject,) = bag.get_table("Subject")
    assert (subject["Name"], subject["Age"], subject["Weight"], subject["Ill"]) == ("Ada", 36, 0.1, False)
    assert [term["Name"] for term in bag.get_table("Asset_Type")] == ["Image"]
    assert [term["Name"] for term in bag.get_table("Dataset_Type")] == ["Validation"]
    assert [link["Asset_Type"] for link in bag.get_table("Scan_Asset_Type")] == ["Image"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = {
    "text": TEXTS,
    "int8": st.integers(-(2**63), 2**63 - 1),
    "float8": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "text[]": st.lists(TEXTS),
    "jsonb": st.dictionaries(st.text(string.ascii_letters), st.integers() | st.text(string.printable)),
}
ROWS = st.fixed_dictionaries({type_: st.none() | values for type_, values in VALUES.items()})


@given(st.lists(ROWS, max_size=10))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=50
)
def test_values_round_trip(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    """A table preserves each value and its type: empty text is not None, and 1 is neither 1.0 nor True."""
    path = tmp_path / "table.csv"
    path.unlink(missing_ok=True)
    types = {"RID": "text", **{type_: type_ for type_ in VALUES}}
    given_rows = [{"RID": f"1-{number}", **row} for number, row in enumerate(rows)]
    file = TableFile(path, types)
    for _ in range(2):
        file.add_rows(given_rows)
    file.close()
    back = list(read_table(path, types))
    assert back == given_rows
    assert all(type(old[name]) is type(new[name]) for old, new in zip(given_rows, back, strict=True) for name in types)


@pytest.mark.parametrize("value", ["", '"', '""', '"""', "\r", "\n", "\r\n", " ", "\x00", ",", "x" * 200_000, "\u2028"])
def test_special_texts_round_trip(tmp_path: Path, value: str) -> None:
    """Texts with quotes, line breaks and other special characters are preserved."""
    file = TableFile(tmp_path / "table.csv", {"RID": "text", "Text": "text"})
    file.add_rows([{"RID": "1-A", "Text": value}])
    file.close()
    assert list(read_table(tmp_path / "table.csv", {"RID": "text", "Text": "text"})) == [{"RID": "1-A", "Text": value}]


def test_dataframes(dataset: Dataset) -> None:
    """A table becomes a DataFrame with numeric columns; an empty table has its columns."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    bag = dataset.download_dataset_bag()
    frame = bag.get_table_as_dataframe("Image")
    assert list(frame["Original_Filename"]) == ["a.png", "b.png", "c.png"]
    assert frame["Length"].sum() == 16
    assert pandas.api.types.is_integer_dtype(frame["Length"])
    empty = bag.get_table_as_dataframe("Model")
    assert len(empty) == 0
    assert "Filename" in empty.columns


def test_unknown_table(dataset: Dataset) -> None:
    """The error lists the tables of the bag."""
    with pytest.raises(UnknownTable, match=r"'Imagery'; it has .*Image"):
        dataset.download_dataset_bag(materialize=False).get_table("Imagery")


def test_folder_that_is_not_a_bag(tmp_path: Path) -> None:
    """The error names the folder."""
    with pytest.raises(InvalidBag, match=str(tmp_path)):
        DatasetBag(tmp_path)


def test_validate(dataset: Dataset) -> None:
    """validate names a file with wrong bytes and an unexpected file."""
    bag = dataset.download_dataset_bag()
    stranger = bag.path / "data" / "stranger.txt"
    stranger.write_text("unexpected")
    with pytest.raises(InvalidBag, match=r"stranger\.txt"):
        bag.validate()
    stranger.unlink()
    file = Path(bag.list_dataset_members()["Image"][0]["Filename"])
    file.chmod(0o644)
    file.write_bytes(b"other")
    with pytest.raises(ChecksumMismatch, match=r"a\.png"):
        bag.validate()


def test_no_side_effects(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A download changes neither the working directory nor the user's home, and logs nothing."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    (tmp_path / "user").mkdir()
    folder = Path.cwd()
    folders = []
    monkeypatch.setattr(os, "chdir", lambda folder: folders.append(folder))
    with caplog.at_level(logging.INFO):
        dataset.download_dataset_bag().validate()
    assert folders == []
    assert Path.cwd() == folder
    assert list((tmp_path / "user").iterdir()) == []
    assert [record.name for record in caplog.records if record.name.startswith(("bagit", "bdbag"))] == []


def test_large_file(connection: Connection) -> None:
    """A file of several megabytes is downloaded completely."""
    content = random.Random(0).randbytes(5 * 2**20 + 1)
    dataset = create_dataset(connection)
    dataset.add_dataset_members(insert_images(connection, {"volume.nii": content}))
    assert read_members(dataset.download_dataset_bag()) == {"volume.nii": content}
