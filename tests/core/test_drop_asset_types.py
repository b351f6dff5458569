"""Types that are added to a staged file and removed again before its upload."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import InvalidFileName
from deriva_ml_core.execution import Execution


def test_dropped_type_is_not_recorded(ml: DerivaML, exe: Execution) -> None:
    """A type that was added and dropped is not recorded; types of the registration and later ones are."""
    with exe:
        path = exe.asset_file_path("Model", "a.ckpt", asset_types="Model_File")
        path.write_text("weights")
        exe.add_asset_types(path, "Best_Checkpoint")
        exe.drop_asset_types(path, ["Best_Checkpoint", "Last_Checkpoint", "Model_File"])
        exe.add_asset_types(path, "Last_Checkpoint")
    (asset,) = exe.upload_execution_outputs()["Model"]
    assert set(ml.lookup_asset(asset.rid).asset_types) == {"Model_File", "Last_Checkpoint"}


def test_dropped_type_is_in_the_journal(ml: DerivaML, exe: Execution) -> None:
    """A restored execution does not have the dropped type."""
    with exe:
        path = exe.asset_file_path("Model", "a.ckpt")
        path.write_text("weights")
        exe.add_asset_types(path, "Best_Checkpoint")
        exe.drop_asset_types(path, "Best_Checkpoint")
        (staged,) = ml.restore_execution(exe.execution_rid).staged_assets()
        assert staged.asset_types == ("Model",)


def test_drop_raises_for_an_uploaded_file(exe: Execution) -> None:
    """Types of an uploaded file stay, since the file is no longer staged."""
    with exe:
        path = exe.asset_file_path("Model", "a.ckpt")
        path.write_text("weights")
        exe.upload_execution_outputs()
        with pytest.raises(InvalidFileName):
            exe.drop_asset_types(path, "Best_Checkpoint")
