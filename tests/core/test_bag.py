"""Bags of datasets: valid, complete, brought once, and good again after anything that happens to them."""

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
    """Three images, two of the same bytes."""
    made = create_dataset(connection, description="Photographs", dataset_types=["Training"])
    made.add_dataset_members(insert_images(connection, {"a.png": b"first", "b.png": b"second", "c.png": b"first"}))
    return made


class Counted:
    """A store that counts what is asked of it and can fail; all else is the store's own."""

    def __init__(self, store: ObjectStore, failing: int = 0) -> None:
        self._store = store
        self.failing = failing
        self.brought: list[str] = []

    def get(self, url: str, target: Path, *, length: int, md5: str, options: UploadOptions) -> None:
        if self.failing:
            self.failing -= 1
            raise StoreUnavailable("The wire was cut.")
        self.brought.append(url)
        self._store.get(url, target, length=length, md5=md5, options=options)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.fixture
def counted(connection: Connection) -> tuple[Connection, Counted]:
    store = Counted(connection.store)
    return replace(connection, backend=replace(connection.backend, store=store)), store


def spec(dataset: Dataset, **more: object) -> DatasetSpec:
    return DatasetSpec.model_validate({"rid": dataset.rid, **more})


def files(bag: DatasetBag, table: str = "Image") -> dict[str, bytes]:
    """The bytes behind each member of a table, by original name."""
    rows = bag.list_dataset_members(recurse=True)[table]
    return {row["Original_Filename"]: Path(row["Filename"]).read_bytes() for row in rows}


def valid(bag: DatasetBag) -> bool:
    """Whether bdbag itself finds the bag complete and each byte right."""
    config = bag.path.parent.parent / "bdbag.json"
    config.write_text('{"bag_config": {}}')
    bdbag_api.validate_bag(str(bag.path), fast=False, config_file=str(config))
    return True


def test_a_bag_is_valid_and_has_the_files(dataset: Dataset) -> None:
    """A materialized bag satisfies bdbag, and each Filename is the local path of the right bytes."""
    bag = dataset.download_dataset_bag()
    assert valid(bag)
    bag.validate()
    assert files(bag) == {"a.png": b"first", "b.png": b"second", "c.png": b"first"}
    assert {path.name for path in bag.path.iterdir()} == {
        "bag-info.txt",
        "bagit.txt",
        "data",
        "fetch.txt",
        "manifest-md5.txt",
        "tagmanifest-md5.txt",
    }


def test_rows_are_the_catalogs(connection: Connection, dataset: Dataset) -> None:
    """A bag's member rows are those of the catalog, column for column, but for the local path."""
    bag = dataset.download_dataset_bag()
    rows = [{**row, "Filename": row["Original_Filename"]} for row in bag.list_dataset_members()["Image"]]
    for row in rows:
        del row["Original_Filename"]
    assert rows == dataset.list_dataset_members()["Image"]


def test_a_bag_says_what_it_is(dataset: Dataset) -> None:
    """A bag can be opened again with its folder alone and knows dataset, version, description and types."""
    bag = DatasetBag(dataset.download_dataset_bag().path)
    assert (bag.dataset_rid, bag.version) == (dataset.rid, "0.2.0")
    assert (bag.description, bag.dataset_types) == ("Photographs", ("Training",))
    assert bag.path.name == f"Dataset_{dataset.rid}"


def test_a_bag_can_be_pickled_and_moved(dataset: Dataset, tmp_path: Path) -> None:
    """A bag is read in another place and survives pickling, as data loaders' workers need."""
    bag = dataset.download_dataset_bag()
    copied = DatasetBag(shutil.copytree(bag.path, tmp_path / "elsewhere"))
    copied.validate()
    assert files(pickle.loads(pickle.dumps(copied))) == files(bag)
    assert all(row["Filename"].startswith(str(tmp_path / "elsewhere")) for row in copied.get_table("Image"))


def test_rows_only(dataset: Dataset) -> None:
    """With materialize=False there are rows and lists, no files; the bag's structure is valid, Filename is the name."""
    bag = dataset.download_dataset_bag(materialize=False)
    bag.validate()
    bdbag_api.validate_bag_structure(str(bag.path), skip_remote=True)
    assert [row["Filename"] for row in bag.list_dataset_members()["Image"]] == ["a.png", "b.png", "c.png"]
    assert not (bag.path / "data" / "asset").exists()
    assert len((bag.path / "fetch.txt").read_text().splitlines()) == 3


def test_rows_first_files_later(dataset: Dataset, counted: tuple[Connection, Counted]) -> None:
    """A bag without files gets them in place when they are asked for, and keeps them when they are not."""
    connection, store = counted
    bare = download_bag(connection, spec(dataset, materialize=False))
    assert store.brought == []
    full = download_bag(connection, spec(dataset))
    assert full.path == bare.path
    assert valid(full)
    assert len(store.brought) == 3
    again = download_bag(connection, spec(dataset, materialize=False))
    assert files(again)["a.png"] == b"first"


def test_the_second_time_nothing_is_brought(
    dataset: Dataset, counted: tuple[Connection, Counted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same version a second time needs no transfer and a few looks at the catalog, however it is named."""
    connection, store = counted
    first = download_bag(connection, spec(dataset))
    reads = []
    original = type(connection.catalog).select
    monkeypatch.setattr(
        type(connection.catalog), "select", lambda *args, **named: reads.append(args) or original(*args, **named)
    )
    for again in (spec(dataset), spec(dataset, version="0.2.0")):
        assert download_bag(connection, again).path == first.path
    assert len(store.brought) == 3
    assert len(reads) <= 4


def test_versions_are_kept_apart(connection: Connection, dataset: Dataset) -> None:
    """Each version has a bag of its own, with its own values and members, also when both are on this machine."""
    (rid,) = insert_images(connection, {"d.png": b"fourth"})
    old = dataset.list_dataset_members()["Image"][0]["RID"]
    connection.catalog.update("Image", [{"RID": old, "Description": "Changed"}])
    dataset.add_dataset_members([rid])
    before, after = dataset.download_dataset_bag("0.2.0"), dataset.download_dataset_bag()
    assert len(before.list_dataset_members()["Image"]) == 3
    assert files(after)["d.png"] == b"fourth"
    assert [bag.list_dataset_members()["Image"][0]["Description"] for bag in (before, after)] == [None, "Changed"]
    assert [bag.version for bag in (before, after)] == ["0.2.0", "0.3.0"]
    with pytest.raises(UnknownVersion, match=r"7\.0\.0"):
        dataset.download_dataset_bag("7.0.0")


def test_a_deleted_asset_is_still_in_old_versions(connection: Connection, dataset: Dataset) -> None:
    """The bag of a version has a member whose row was deleted since."""
    (gone, *_) = dataset.list_dataset_members()["Image"]
    connection.catalog.delete("Image", {"RID": gone["RID"]})
    assert files(dataset.download_dataset_bag("0.2.0"))["a.png"] == b"first"


@pytest.mark.parametrize("harm", ["change", "rewrite", "delete", "table", "list", "all"])
def test_a_cached_bag_that_was_harmed_is_mended(
    dataset: Dataset, counted: tuple[Connection, Counted], harm: str
) -> None:
    """A file or table of a cached bag that was changed or deleted is noticed, and only what is wrong is brought."""
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
    mended = download_bag(connection, spec(dataset))
    assert valid(mended)
    assert files(mended) == {"a.png": b"first", "b.png": b"second", "c.png": b"first"}
    assert len(store.brought) == 3 + {"table": 0, "list": 0, "all": 3}.get(harm, 1)


def test_a_copied_cache_is_looked_through_not_brought_again(
    dataset: Dataset, counted: tuple[Connection, Counted]
) -> None:
    """Files with the right bytes and another time are checked here instead of being brought again."""
    connection, store = counted
    bag = download_bag(connection, spec(dataset))
    for row in bag.list_dataset_members()["Image"]:
        os.utime(row["Filename"])
    assert valid(download_bag(connection, spec(dataset)))
    assert len(store.brought) == 3


def test_a_changed_bag_never_changes_the_store(connection: Connection, dataset: Dataset) -> None:
    """What a user writes into a bag's file does not reach the stored object."""
    row = dataset.list_dataset_members()["Image"][0]
    file = Path(dataset.download_dataset_bag().list_dataset_members()["Image"][0]["Filename"])
    file.chmod(0o644)
    file.write_bytes(b"overwritten")
    connection.store.verify(row["URL"], length=row["Length"], md5=row["MD5"])


def test_damaged_objects_are_named(connection: Connection, dataset: Dataset) -> None:
    """An object with flipped bytes is found at the download and named; the others are there afterwards."""
    broken = dataset.list_dataset_members()["Image"][1]
    (stored,) = connection.folder.glob(f"objects/**/{broken['MD5']}")
    stored.chmod(0o644)
    stored.write_bytes(b"flip!!")
    with pytest.raises(ChecksumMismatch, match=broken["URL"]):
        dataset.download_dataset_bag()
    bag = dataset.download_dataset_bag(materialize=False)
    assert files_there(bag) == {"a.png", "c.png"}
    stored.write_bytes(b"second")
    assert valid(dataset.download_dataset_bag())


def files_there(bag: DatasetBag) -> set[str]:
    rows = bag.list_dataset_members()["Image"]
    return {row["Original_Filename"] for row in rows if Path(row["Filename"]).exists()}


def test_transfers_are_repeated(dataset: Dataset, counted: tuple[Connection, Counted]) -> None:
    """A transfer that fails in passing is tried again."""
    connection, store = counted
    store.failing = 2
    assert valid(download_bag(connection, spec(dataset), AT_ONCE))


def test_an_interrupted_download_goes_on(dataset: Dataset, counted: tuple[Connection, Counted]) -> None:
    """When the store goes away the download fails, and the next one brings only what is missing."""
    connection, store = counted

    class Cut(Counted):
        def get(self, url: str, *args: object, **named: object) -> None:
            if ".b.png" in url:
                raise StoreUnavailable("The wire was cut.")
            super().get(url, *args, **named)  # type: ignore[arg-type]

    cut = replace(connection, backend=replace(connection.backend, store=Cut(store)))
    with pytest.raises(StoreUnavailable):
        download_bag(cut, spec(dataset), UploadOptions(max_retries=0))
    before = len(store.brought)
    assert valid(download_bag(connection, spec(dataset)))
    assert before + 1 <= len(store.brought) <= 3
    assert sum(".b.png" in url for url in store.brought) == 1


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


def downloader(connection: Connection, dataset: Dataset, pause: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", DOWNLOADER, str(connection.folder), dataset.rid, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_killed_download_goes_on(connection: Connection) -> None:
    """After SIGKILL in the middle the next download keeps what was there and brings the rest."""
    made = create_dataset(connection)
    made.add_dataset_members(insert_images(connection, {f"{n}.png": f"bytes {n}".encode() for n in range(100)}))
    child = downloader(connection, made, 0.05)
    assert child.stdout is not None
    for _ in range(30):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    there = len(list((connection.folder / "cache").glob("*/Dataset_*/data/asset/Image/*/*.png")))
    assert 0 < there < 100
    store = Counted(connection.store)
    bag = download_bag(replace(connection, backend=replace(connection.backend, store=store)), spec(made))
    assert valid(bag)
    assert len(store.brought) == 100 - there


@pytest.mark.parametrize("after", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_a_download_killed_at_any_time_can_be_repeated(connection: Connection, dataset: Dataset, after: float) -> None:
    """Whenever a download is killed, also while the bag is built, the next one gives a valid bag."""
    child = downloader(connection, dataset, 0.1)
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert valid(dataset.download_dataset_bag())


def test_a_full_disk(connection: Connection) -> None:
    """A download onto a full disk says so at once, and goes on when there is room."""
    made = create_dataset(connection)
    made.add_dataset_members(insert_images(connection, {f"{n}.bin": os.urandom(2**18) for n in range(8)}))
    with small_disk(connection.folder / "cache", 2**20) as disk:
        with pytest.raises(DiskFull, match=str(disk)):
            made.download_dataset_bag()
        subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
        assert valid(made.download_dataset_bag())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(connection: Connection, dataset: Dataset) -> None:
    """A download into a read-only folder says that it cannot be written."""
    cache = connection.folder / "cache"
    cache.mkdir(mode=0o555)
    with pytest.raises(CatalogReadOnly, match=str(cache)):
        dataset.download_dataset_bag()


def test_processes_that_want_the_same_bag(connection: Connection, dataset: Dataset) -> None:
    """Two processes that download the same version at once both get it, and each file is brought once."""
    children = [downloader(connection, dataset, 0.05) for _ in range(2)]
    answers = [child.communicate() for child in children]
    assert [error.decode() for _, error in answers] == ["", ""]
    assert len(b"".join(out for out, _ in answers).split()) == 3
    assert valid(dataset.download_dataset_bag())


def test_threads_that_want_the_same_bag(dataset: Dataset, counted: tuple[Connection, Counted]) -> None:
    """Threads that download the same version at once all get it, and each file is brought once."""
    connection, store = counted
    with ThreadPoolExecutor(4) as pool:
        bags = list(pool.map(lambda _: download_bag(connection, spec(dataset)), range(4)))
    assert len({bag.path for bag in bags}) == 1
    assert len(store.brought) == 3


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
    """Whatever an asset is called, the bag is valid, the file lies within it, and the row keeps the true name."""
    made = create_dataset(connection)
    made.add_dataset_members(insert_images(connection, {name: name.encode() for name in NAMES}))
    bag = made.download_dataset_bag()
    assert valid(bag)
    assert files(bag) == {name: name.encode() for name in NAMES}
    for row in bag.list_dataset_members()["Image"]:
        assert Path(row["Filename"]).resolve().is_relative_to(bag.path.resolve() / "data" / "asset")
    kept = [name for name in NAMES if Path(name).name in {Path(row["Filename"]).name for row in bag.get_table("Image")}]
    assert {"with spaces.png", "ünïcödé 日本.png", "95%.png", "sub/folder/file.txt", ".hidden"} <= set(kept)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_safe_names(name: str) -> None:
    """A safe name has only parts that a file system takes, climbs nowhere, and is its own safe name."""
    safe = safe_name(name)
    assert not safe.is_absolute()
    assert safe.parts
    for part in safe.parts:
        assert part not in ("", ".", "..")
        assert part == part.strip()
        assert len(part.splitlines()) == 1
        assert len(part.encode()) <= 255
    assert safe_name(str(safe)) == safe


def test_names_that_climb_out_stay_in() -> None:
    """A name made to leave its folder stays in the asset's own."""
    for name in ("../../../etc/passwd", "/etc/passwd", "a/../../b", "..", "", None):
        parts = asset_path("Image", "1-A", name).parts
        assert parts[:4] == ("data", "asset", "Image", "1-A")
        assert ".." not in parts


def test_an_empty_dataset(connection: Connection) -> None:
    """The bag of an empty dataset is valid and lists nothing."""
    bag = create_dataset(connection, description="Nothing").download_dataset_bag()
    assert valid(bag)
    bag.validate()
    assert bag.list_dataset_members() == {"Dataset": [], "File": [], "Model": [], "Image": []}
    assert bag.get_table("Image") == []
    assert bag.version == "0.1.0"


def test_nested_datasets_are_in_the_bag(connection: Connection, dataset: Dataset) -> None:
    """A parent's bag has the rows and files of all nested datasets, which can be read by themselves."""
    outer, other = create_dataset(connection, description="All"), create_dataset(connection, dataset_types=["Testing"])
    shared = dataset.list_dataset_members()["Image"][0]["RID"]
    other.add_dataset_members([shared, *insert_images(connection, {"d.png": b"fourth"})])
    outer.add_dataset_members([dataset.rid, other.rid])
    bag = outer.download_dataset_bag()
    assert valid(bag)
    assert bag.list_dataset_members()["Image"] == []
    assert set(files(bag)) == {"a.png", "b.png", "c.png", "d.png"}
    assert len(bag.list_dataset_members(recurse=True)["Image"]) == 4
    train, test = bag.list_dataset_children()
    assert (train.dataset_rid, train.version, train.dataset_types) == (dataset.rid, "0.2.0", ("Training",))
    assert set(files(test)) == {"a.png", "d.png"}
    assert [each.dataset_rid for each in bag.list_dataset_children(recurse=True)] == [dataset.rid, other.rid]


def test_plain_rows_terms_and_what_rows_refer_to(connection: Connection) -> None:
    """Rows of plain tables come with their types, and the terms and rows that members refer to come along."""
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
    made = create_dataset(connection, dataset_types=["Validation"])
    made.add_dataset_members(add)
    bag = made.download_dataset_bag(materialize=False)
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
def test_every_value_comes_back(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    """A table of a bag gives back each value and its type: empty text is not no text, 1 is not 1.0 and not True."""
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
def test_awkward_texts_come_back(tmp_path: Path, value: str) -> None:
    """Texts that CSV files are bad at come back as they were."""
    file = TableFile(tmp_path / "table.csv", {"RID": "text", "Text": "text"})
    file.add_rows([{"RID": "1-A", "Text": value}])
    file.close()
    assert list(read_table(tmp_path / "table.csv", {"RID": "text", "Text": "text"})) == [{"RID": "1-A", "Text": value}]


def test_dataframes(dataset: Dataset) -> None:
    """Where pandas is installed a table is a DataFrame with numbers as numbers; an empty table has its columns."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    bag = dataset.download_dataset_bag()
    frame = bag.get_table_as_dataframe("Image")
    assert list(frame["Original_Filename"]) == ["a.png", "b.png", "c.png"]
    assert frame["Length"].sum() == 16
    assert pandas.api.types.is_integer_dtype(frame["Length"])
    empty = bag.get_table_as_dataframe("Model")
    assert len(empty) == 0
    assert "Filename" in empty.columns


def test_an_unknown_table_is_refused(dataset: Dataset) -> None:
    """A table that the bag does not have is an error that names those it has."""
    with pytest.raises(UnknownTable, match=r"'Imagery'; it has .*Image"):
        dataset.download_dataset_bag(materialize=False).get_table("Imagery")


def test_a_folder_that_is_no_bag(tmp_path: Path) -> None:
    """A folder without a dataset's bag is an error that names it."""
    with pytest.raises(InvalidBag, match=str(tmp_path)):
        DatasetBag(tmp_path)


def test_validate_finds_what_was_done_to_a_bag(dataset: Dataset) -> None:
    """validate names a file whose bytes were changed, and one that does not belong there."""
    bag = dataset.download_dataset_bag()
    stranger = bag.path / "data" / "stranger.txt"
    stranger.write_text("I was not here")
    with pytest.raises(InvalidBag, match=r"stranger\.txt"):
        bag.validate()
    stranger.unlink()
    file = Path(bag.list_dataset_members()["Image"][0]["Filename"])
    file.chmod(0o644)
    file.write_bytes(b"other")
    with pytest.raises(ChecksumMismatch, match=r"a\.png"):
        bag.validate()


def test_the_process_is_left_alone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A download changes neither the current folder nor the user's home, and says nothing."""
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    (tmp_path / "user").mkdir()
    here = Path.cwd()
    folders = []
    monkeypatch.setattr(os, "chdir", lambda folder: folders.append(folder))
    with caplog.at_level(logging.INFO):
        dataset.download_dataset_bag().validate()
    assert folders == []
    assert Path.cwd() == here
    assert list((tmp_path / "user").iterdir()) == []
    assert [record.name for record in caplog.records if record.name.startswith(("bagit", "bdbag"))] == []


def test_big_files_in_a_bag(connection: Connection) -> None:
    """Files of several megabytes are brought whole."""
    content = random.Random(0).randbytes(5 * 2**20 + 1)
    made = create_dataset(connection)
    made.add_dataset_members(insert_images(connection, {"volume.nii": content}))
    assert files(made.download_dataset_bag()) == {"volume.nii": content}
