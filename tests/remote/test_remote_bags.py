"""A bag that is made from a server is the bag that the embedded catalog gives."""

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


def bag_of(ml: DerivaML) -> DatasetBag:
    """A dataset of images, with one in it, brought here."""
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
    """The tables in a bag with their columns, and how many files there are beside them."""
    found = {}
    for file in sorted(bag.path.rglob("*.csv")):
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.reader(lines))
        found[str(file.relative_to(bag.path))] = [*rows[0], str(len(rows))]
    found["files"] = sorted(path.name for path in bag.path.rglob("*.png"))
    return found


@pytest.fixture
def remote(ml: DerivaML) -> DatasetBag:
    return bag_of(ml)


def test_the_same_layout(remote: DatasetBag, tmp_path: Path) -> None:
    """Tables, columns, numbers of rows and files are the same as of an embedded catalog."""
    assert layout(remote) == layout(bag_of(DerivaML(f"file:{tmp_path / 'embedded'}")))


def test_it_is_valid_and_says_where_files_are(remote: DatasetBag, fake: DerivaServer) -> None:
    """The bag is one by its own standard, and its fetch.txt has the server's URL of each file."""
    bdbag_api.validate_bag(str(remote.path), fast=False)
    fetched = (remote.path / "fetch.txt").read_text(encoding="utf-8").splitlines()
    assert len(fetched) == len(CONTENTS)
    assert all(line.startswith(f"{fake.hostname}/hatrac/Image/") for line in fetched)
    images = remote.list_dataset_members(recurse=True)["Image"]
    assert sorted(Path(row["Filename"]).read_bytes() for row in images) == sorted(CONTENTS.values())


def test_a_download_in_which_the_session_ends(ml: DerivaML, fake: DerivaServer) -> None:
    """Files that came stay, and after a login the next call brings the others."""
    bag = bag_of(ml)
    dataset = ml.lookup_dataset(bag.dataset_rid)
    dataset.increment_version("major")
    shutil.rmtree(ml.connection.folder / "cache")
    fake.faults.add(Fault(Harm.answer, "GET", path="^/hatrac/", skip=5, times=1000, reply=Answer.text(401, "")))
    with pytest.raises(LoginRequired, match="Log in"):
        dataset.download_dataset_bag()
    fake.faults.clear()
    fake.requests.clear()
    assert len(list(dataset.download_dataset_bag().path.rglob("*.png"))) == len(CONTENTS)
    brought = [request.path for request in fake.requests if request.path.startswith("/hatrac/")]
    assert 0 < len(brought) == len(set(brought)) < len(CONTENTS)
