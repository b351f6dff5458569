"""``deriva-ml download``."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.datasets import DatasetBag
from deriva_ml_core.models import Asset


@pytest.fixture
def asset(run) -> Asset:
    return next(each for each in run("A run", ["sub/model.pt"]).list_assets("Output") if each.table == "Model")


def test_an_asset(ask, asset: Asset, tmp_path: Path) -> None:
    """An asset comes under its own name with the bytes that were recorded, and nothing else is left there."""
    found = ask("download", asset.rid, "--into", str(tmp_path / "a" / "b"), "--json").json
    assert (Path(found["path"]).name, Path(found["path"]).stat().st_size) == ("model.pt", asset.length)
    assert [each.name for each in (tmp_path / "a" / "b").iterdir()] == ["model.pt"]


def test_nothing_is_replaced_unasked(ask, asset: Asset, tmp_path: Path) -> None:
    """A file of that name stays, unless --force says otherwise."""
    (tmp_path / "model.pt").write_text("mine")
    said = ask("download", asset.rid, "--into", str(tmp_path))
    assert (said.code, (tmp_path / "model.pt").read_text()) == (1, "mine")
    assert "--force" in said.complaint
    assert ask("download", asset.rid, "--into", str(tmp_path), "--force").code == 0
    assert (tmp_path / "model.pt").stat().st_size == asset.length


def test_damaged_bytes_are_not_brought(ask, ml: DerivaML, asset: Asset, tmp_path: Path) -> None:
    """Bytes that are not those recorded are told, and nothing is left."""
    stored = Path(ml.connection.store.source(asset.url).removeprefix("file://"))
    stored.chmod(0o644)
    stored.write_bytes(b"x" * asset.length)
    assert ask("download", asset.rid, "--into", str(tmp_path / "in")).code == 1
    assert list((tmp_path / "in").iterdir()) == []


def test_a_version_of_a_dataset(ask, ml: DerivaML, asset: Asset, tmp_path: Path) -> None:
    """A version of a dataset comes as a bag that is valid, the present one unless another is named."""
    dataset = ml.create_dataset("Models")
    dataset.add_dataset_members([asset.rid])
    into = ("--into", str(tmp_path))
    found = ask("download", dataset.rid, *into, "--json").json
    assert (found["version"], Path(found["path"]).name) == ("0.2.0", f"Dataset_{dataset.rid}_0.2.0")
    bag = DatasetBag(Path(found["path"]))
    bag.validate()
    assert len(bag.list_dataset_members()["Model"]) == 1
    old = ask("download", dataset.rid, "--version", "0.1.0", *into, "--json").json
    assert DatasetBag(Path(old["path"])).list_dataset_members().get("Model", []) == []
    assert ask("download", dataset.rid, *into).code == 1
    assert ask("download", dataset.rid, *into, "--force").code == 0


def test_wrong_use(ask, ml: DerivaML, asset: Asset, run) -> None:
    """An execution is no file, an asset has no versions, and a version that does not exist is told."""
    assert ask("download", run().execution_rid).code == 2
    assert ask("download", asset.rid, "--version", "0.1.0").code == 2
    assert ask("download", ml.create_dataset("Empty").rid, "--version", "9.9.9").code == 2
