"""``deriva-ml verify``."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.models import Asset


@pytest.fixture
def asset(run) -> Asset:
    return next(each for each in run("A run", ["model.pt"]).list_assets("Output") if each.table == "Model")


def object_of(ml: DerivaML, asset: Asset) -> Path:
    return Path(ml.connection.store.source(asset.url).removeprefix("file://"))


def test_all_is_well(ask, ml: DerivaML, run, asset: Asset) -> None:
    """Untouched, an execution, an asset, a dataset and the whole catalog are as they were recorded."""
    dataset = ml.create_dataset("Models")
    dataset.add_dataset_members([asset.rid])
    for words in ((run("B").execution_rid,), (asset.rid,), (dataset.rid,), ("--all",)):
        said = ask("verify", *words, "--json")
        assert (said.code, said.json["problems"]) == (0, []), words
    assert ask("verify", dataset.rid, "--json").json["objects"] == 1
    assert "All is as it was recorded" in ask("verify", "--all").out


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_object(ask, ml: DerivaML, asset: Asset, whole: bool) -> None:
    """An object of which one byte was changed, or that is gone, is named, and it ends with 1."""
    path = object_of(ml, asset)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"X") if whole else path.unlink()
    for words in ((asset.rid,), ("--all",)):
        said = ask("verify", *words, "--json")
        (problem,) = said.json["problems"]
        assert (said.code, problem["what"], problem["rid"], problem["name"]) == (1, "object", asset.rid, "model.pt")
    assert "1 problem in" in ask("verify", asset.rid).out


def test_a_link_to_nothing(ask, ml: DerivaML, home: Path, asset: Asset) -> None:
    """A row that names another which is gone is found."""
    ml.close()
    with sqlite3.connect(home / "local" / "catalog.sqlite") as file:
        file.execute("PRAGMA foreign_keys = OFF")
        file.execute("DELETE FROM Model WHERE RID = ?", (asset.rid,))
    said = ask("verify", "--all", "--json")
    assert said.code == 1
    assert {(each["what"], each["name"]) for each in said.json["problems"]} == {("link", "Model")}


def test_equal_bytes_are_read_once(ask, ml: DerivaML, run) -> None:
    """An object that two rows name is read once."""
    exe = run("Same")
    for name in ("a.txt", "b.txt"):
        exe.asset_file_path("Execution_Asset", name).write_text("equal")
    exe.upload_execution_outputs()
    found = ask("verify", "--all", "--json").json
    assets = exe.list_assets()
    assert found["objects"] == len({asset.md5 for asset in assets}) < len(assets)


def test_wrong_use(ask, run) -> None:
    """Neither a record id nor --all, both, and a workflow, which has no files, are wrong use."""
    workflow = run().workflow_rid
    for words in ((), ("--all", "1-0001"), (workflow,), ("no rid",)):
        assert ask("verify", *words).code == 2, words
