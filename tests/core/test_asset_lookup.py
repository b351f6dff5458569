"""Downloads of assets: whatever a catalog has as names, files are written below the target folder."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from deriva_ml_core.assets.lookup import download_asset
from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import InvalidFileName
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
