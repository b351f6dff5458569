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


def object_path(ml: DerivaML, asset: Asset) -> Path:
    return Path(ml.connection.store.source(asset.url).removeprefix("file://"))


def test_no_problems(cli, ml: DerivaML, run, asset: Asset) -> None:
    """Without damage, an execution, an asset, a dataset and the whole catalog verify."""
    dataset = ml.create_dataset("Models")
    dataset.add_dataset_members([asset.rid])
    for args in ((run("B").execution_rid,), (asset.rid,), (dataset.rid,), ("--all",)):
        result = cli("verify", *args, "--json")
        assert (result.code, result.json["problems"]) == (0, []), args
    assert cli("verify", dataset.rid, "--json").json["objects"] == 1
    assert "No problems" in cli("verify", "--all").stdout


@pytest.mark.parametrize("whole", [True, False])
def test_damaged_object(cli, ml: DerivaML, asset: Asset, whole: bool) -> None:
    """A changed or missing object is a problem, and the exit code is 1."""
    path = object_path(ml, asset)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"X") if whole else path.unlink()
    for args in ((asset.rid,), ("--all",)):
        result = cli("verify", *args, "--json")
        (problem,) = result.json["problems"]
        assert (result.code, problem["what"], problem["rid"], problem["name"]) == (1, "object", asset.rid, "model.pt")
    assert "1 problem in" in cli("verify", asset.rid).stdout


def test_missing_row(cli, ml: DerivaML, home: Path, asset: Asset) -> None:
    """A row that refers to a missing row is a problem."""
    ml.close()
    with sqlite3.connect(home / "local" / "catalog.sqlite") as file:
        file.execute("PRAGMA foreign_keys = OFF")
        file.execute("DELETE FROM Model WHERE RID = ?", (asset.rid,))
    result = cli("verify", "--all", "--json")
    assert result.code == 1
    assert {(each["what"], each["name"]) for each in result.json["problems"]} == {("link", "Model")}


def test_shared_object_is_read_once(cli, ml: DerivaML, run) -> None:
    """An object of two rows is read once."""
    exe = run("Same")
    for name in ("a.txt", "b.txt"):
        exe.asset_file_path("Execution_Asset", name).write_text("equal")
    exe.upload_execution_outputs()
    found = cli("verify", "--all", "--json").json
    assets = exe.list_assets()
    assert found["objects"] == len({asset.md5 for asset in assets}) < len(assets)


def test_invalid_usage(cli, run) -> None:
    """No argument, both a RID and --all, the RID of a workflow, and an invalid RID exit with 2."""
    workflow = run().workflow_rid
    for args in ((), ("--all", "1-0001"), (workflow,), ("no rid",)):
        assert cli("verify", *args).code == 2, args
