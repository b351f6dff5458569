"""Downloads of assets: whatever a catalog has as names, files are written below the target folder."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import ChecksumMismatch, FileConflict, InvalidFileName, WrongTable
from deriva_ml_core.execution import Execution
from deriva_ml_core.models import Asset


@pytest.fixture
def asset(exe: Execution) -> Asset:
    """Return a stored asset."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"weights")
    return exe.upload_execution_outputs()["Model"][0]


FILE_NAMES = {
    "folder/m.pt": "folder/m.pt",
    "../m.pt": "m.pt",
    "folder/../../../../m.pt": "m.pt",
    "/tmp/m.pt": "m.pt",
    "..": None,
    "folder/..": None,
    "m\0.pt": None,
    "": None,
}
"""Recorded file names, and where the file is in the folder of its row; None where the RID names it."""


def test_recorded_file_name_stays_below_the_folder(ml: DerivaML, asset: Asset, tmp_path: Path) -> None:
    """A name that leads out of the folder loses its folders; one that names no file becomes the RID."""
    for number, (name, expected) in enumerate(FILE_NAMES.items()):
        top = tmp_path / str(number)
        folder = top / "one" / "two" / "three"
        path = download_asset(ml.connection, asset.model_copy(update={"filename": name}), folder)
        assert path == folder / "Model" / asset.rid / (expected or asset.rid)
        assert path.read_bytes() == b"weights"
        assert [each for each in top.rglob("*") if each.is_file()] == [path]


def test_recorded_table_and_rid_that_name_no_folder(ml: DerivaML, asset: Asset, tmp_path: Path) -> None:
    """A table or RID that leads out of the folder is refused, and nothing is written."""
    for field, part in product(("table", "rid"), ("..", "../Model", "/tmp", "a/b", "")):
        with pytest.raises(InvalidFileName, match="cannot name a folder"):
            download_asset(ml.connection, asset.model_copy(update={field: part}), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_download_of_a_client(ml: DerivaML, asset: Asset, tmp_path: Path) -> None:
    """`ml.download_asset` returns the file in the cache, or under its own name in a folder, which it makes."""
    cached = ml.download_asset(asset.rid)
    assert (cached.name, cached.read_bytes()) == ("m.pt", b"weights")
    assert cached.is_relative_to(ml.connection.folder / "cache" / "files")
    cached.chmod(0o600)
    cached.write_bytes(b"damaged")
    assert ml.download_asset(asset).read_bytes() == b"weights"
    assert ml.download_asset(asset, tmp_path / "a" / "b") == tmp_path / "a" / "b" / "m.pt"
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["m.pt"]


def test_download_keeps_an_existing_file(ml: DerivaML, asset: Asset, tmp_path: Path) -> None:
    """An existing file is replaced only with ``overwrite=True``; a damaged object leaves it as it is."""
    mine = tmp_path / "m.pt"
    mine.write_bytes(b"mine")
    with pytest.raises(FileConflict, match="overwrite=True"):
        ml.download_asset(asset, tmp_path)
    assert mine.read_bytes() == b"mine"
    assert ml.download_asset(asset, tmp_path, overwrite=True).read_bytes() == b"weights"
    with pytest.raises(ChecksumMismatch):
        ml.download_asset(asset.model_copy(update={"length": 3}), tmp_path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir() if file.name != "home"] == ["m.pt"]
    assert mine.read_bytes() == b"weights"


def test_download_of_an_execution(ml: DerivaML, exe: Execution) -> None:
    """The RID of a row without a file is an error."""
    with pytest.raises(WrongTable, match="not an asset table"):
        ml.download_asset(exe.execution_rid)
