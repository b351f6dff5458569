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


def test_download_asset(cli, asset: Asset, tmp_path: Path) -> None:
    """An asset is downloaded under its own name, and no other file is left in the folder."""
    found = cli("download", asset.rid, "--into", str(tmp_path / "a" / "b"), "--json").json
    assert (Path(found["path"]).name, Path(found["path"]).stat().st_size) == ("model.pt", asset.length)
    assert [each.name for each in (tmp_path / "a" / "b").iterdir()] == ["model.pt"]


def test_existing_file_is_kept(cli, asset: Asset, tmp_path: Path) -> None:
    """An existing file is replaced only with --force."""
    (tmp_path / "model.pt").write_text("mine")
    result = cli("download", asset.rid, "--into", str(tmp_path))
    assert (result.code, (tmp_path / "model.pt").read_text()) == (1, "mine")
    assert "--force" in result.stderr
    assert cli("download", asset.rid, "--into", str(tmp_path), "--force").code == 0
    assert (tmp_path / "model.pt").stat().st_size == asset.length


def test_damaged_object(cli, ml: DerivaML, asset: Asset, tmp_path: Path) -> None:
    """A damaged object exits with 1 and leaves no file."""
    stored = Path(ml.connection.store.source(asset.url).removeprefix("file://"))
    stored.chmod(0o644)
    stored.write_bytes(b"x" * asset.length)
    assert cli("download", asset.rid, "--into", str(tmp_path / "in")).code == 1
    assert list((tmp_path / "in").iterdir()) == []


def test_download_dataset(cli, ml: DerivaML, asset: Asset, tmp_path: Path) -> None:
    """A dataset is downloaded as a valid bag, in the current or a given version."""
    dataset = ml.create_dataset("Models")
    dataset.add_dataset_members([asset.rid])
    into = ("--into", str(tmp_path))
    found = cli("download", dataset.rid, *into, "--json").json
    assert (found["version"], Path(found["path"]).name) == ("0.2.0", f"Dataset_{dataset.rid}_0.2.0")
    bag = DatasetBag(Path(found["path"]))
    bag.validate()
    assert len(bag.list_dataset_members()["Model"]) == 1
    old = cli("download", dataset.rid, "--version", "0.1.0", *into, "--json").json
    assert DatasetBag(Path(old["path"])).list_dataset_members().get("Model", []) == []
    assert cli("download", dataset.rid, *into).code == 1
    assert cli("download", dataset.rid, *into, "--force").code == 0


def test_invalid_usage(cli, ml: DerivaML, asset: Asset, run) -> None:
    """The RID of an execution, --version for an asset, and an unknown version exit with 2."""
    assert cli("download", run().execution_rid).code == 2
    assert cli("download", asset.rid, "--version", "0.1.0").code == 2
    assert cli("download", ml.create_dataset("Empty").rid, "--version", "9.9.9").code == 2
