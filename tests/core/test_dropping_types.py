"""Types that a staged file got and loses again before it is sent: the best so far is not the best for ever."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import InvalidFileName
from deriva_ml_core.execution import Execution


def test_what_was_dropped_is_not_recorded(ml: DerivaML, exe: Execution) -> None:
    """A type that was added and dropped is not in the catalog; one added later is, and those of the registration."""
    with exe:
        path = exe.asset_file_path("Model", "a.ckpt", asset_types="Model_File")
        path.write_text("weights")
        exe.add_asset_types(path, "Best_Checkpoint")
        exe.drop_asset_types(path, ["Best_Checkpoint", "Last_Checkpoint", "Model_File"])
        exe.add_asset_types(path, "Last_Checkpoint")
    (asset,) = exe.upload_execution_outputs()["Model"]
    assert set(ml.lookup_asset(asset.rid).asset_types) == {"Model_File", "Last_Checkpoint"}


def test_another_process_sees_what_was_dropped(ml: DerivaML, exe: Execution) -> None:
    """It is in the journal: whoever restores the run sends the file without that type."""
    with exe:
        path = exe.asset_file_path("Model", "a.ckpt")
        path.write_text("weights")
        exe.add_asset_types(path, "Best_Checkpoint")
        exe.drop_asset_types(path, "Best_Checkpoint")
        (staged,) = ml.restore_execution(exe.execution_rid).staged_assets()
        assert staged.asset_types == ("Model",)


def test_of_an_uploaded_file_nothing_is_dropped(exe: Execution) -> None:
    """What the catalog has stays: the file is not staged any more."""
    with exe:
        path = exe.asset_file_path("Model", "a.ckpt")
        path.write_text("weights")
        exe.upload_execution_outputs()
        with pytest.raises(InvalidFileName):
            exe.drop_asset_types(path, "Best_Checkpoint")
