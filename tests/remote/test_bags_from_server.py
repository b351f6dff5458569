"""Bags from a server are the same as bags from an embedded catalog."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from bdbag import bdbag_api

from deriva_ml_core.client import DerivaML
from deriva_ml_core.datasets import DatasetBag
from deriva_ml_core.errors import LoginRequired
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow
from fakes.deriva_server import DerivaServer
from fakes.faults import Fault, Harm
from fakes.web import Answer

CONTENTS = {f"folder/{number} ü.png": bytes([number]) * 100 for number in range(12)}


def download_bag(ml: DerivaML) -> DatasetBag:
    """Create a dataset of images with a nested dataset, and download it as a bag."""
    workflow = Workflow(name="w", workflow_type="Training", url="https://example.org/w.py", checksum="0" * 40)
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, description="d"))
    with exe:
        for name, content in CONTENTS.items():
            exe.asset_file_path("Image", name).write_bytes(content)
    images = [asset.rid for asset in exe.upload_execution_outputs()["Image"]]
    ml.add_dataset_element_type("Image")
    inner = exe.create_dataset(description="inner", dataset_types=["Testing"])
    inner.add_dataset_members(images[:3])
    outer = exe.create_dataset(description="outer", dataset_types=["Training"])
    outer.add_dataset_members([*images[3:], inner.rid])
    return outer.download_dataset_bag()


def layout(bag: DatasetBag) -> dict[str, list[str]]:
    """Return the tables of a bag with their columns and row counts, and its files."""
    tables = {}
    for file in sorted(bag.path.rglob("*.csv")):
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
        tables[str(file.relative_to(bag.path))] = [*rows[0], str(len(rows))]
    tables["files"] = sorted(path.name for path in bag.path.rglob("*.png"))
    return tables


@pytest.fixture
def remote(ml: DerivaML) -> DatasetBag:
    return download_bag(ml)


def test_same_layout(remote: DatasetBag, tmp_path: Path) -> None:
    """Tables, columns, row counts and files equal those from an embedded catalog."""
    assert layout(remote) == layout(download_bag(DerivaML(f"file:{tmp_path / 'embedded'}")))


def test_bag_is_valid_with_urls(remote: DatasetBag, fake: DerivaServer) -> None:
    """The bag is valid by its standard, and fetch.txt has the server's URL of each file."""
    bdbag_api.validate_bag(str(remote.path), fast=False)
    entries = (remote.path / "fetch.txt").read_text(encoding="utf-8").splitlines()
    assert len(entries) == len(CONTENTS)
    assert all(line.startswith(f"{fake.hostname}/hatrac/Image/") for line in entries)
    images = remote.list_dataset_members(recurse=True)["Image"]
    assert sorted(Path(row["Filename"]).read_bytes() for row in images) == sorted(CONTENTS.values())


def test_session_expires_during_download(ml: DerivaML, fake: DerivaServer) -> None:
    """Downloaded files are kept if the session expires; the next call downloads the others."""
    bag = download_bag(ml)
    dataset = ml.lookup_dataset(bag.dataset_rid)
    dataset.increment_version("major")
    shutil.rmtree(ml.connection.folder / "cache")
    fake.faults.add(Fault(Harm.answer, "GET", path="^/hatrac/", skip=5, times=1000, reply=Answer.text(401, "")))
    with pytest.raises(LoginRequired, match="Log in"):
        dataset.download_dataset_bag()
    fake.faults.clear()
    fake.requests.clear()
    assert len(list(dataset.download_dataset_bag().path.rglob("*.png"))) == len(CONTENTS)
    downloaded = [request.path for request in fake.requests if request.path.startswith("/hatrac/")]
    assert 0 < len(downloaded) == len(set(downloaded)) < len(CONTENTS)
