"""The public names of executions, and the old names that still work."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import DerivaMLDeprecationWarning
from deriva_ml_core.execution import Execution, RecordedExecution

RECORDED_NAMES = {
    "add_tags",
    "created",
    "description",
    "duration",
    "execution_rid",
    "fetch_checkpoint",
    "info",
    "list_assets",
    "list_best_corrections",
    "list_input_datasets",
    "list_media",
    "list_metrics",
    "list_nested_executions",
    "list_output_datasets",
    "list_parent_executions",
    "list_statuses",
    "metric_rows",
    "metrics",
    "metrics_dataframe",
    "params",
    "read_console",
    "remove_tags",
    "start_time",
    "status",
    "status_detail",
    "stop_time",
    "tags",
    "url",
    "user",
    "workflow_rid",
    "working_dir",
}
LIVE_NAMES = {
    "add_asset_types",
    "add_exit_callback",
    "add_nested_execution",
    "asset_file_path",
    "asset_paths",
    "configuration",
    "create_dataset",
    "datasets",
    "download_asset",
    "download_dataset_bag",
    "drop_asset_types",
    "dry_run",
    "forget",
    "is_rank_zero",
    "keep_in_place",
    "log_figure",
    "log_image",
    "log_params",
    "log_table",
    "mark_immutable",
    "rank",
    "record_input",
    "staged_assets",
    "update_status",
    "upload_execution_outputs",
}


def public_names(value: object) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


def test_public_names_of_an_execution(exe: Execution) -> None:
    """Completion on an execution lists the documented methods and properties, and nothing else."""
    assert public_names(exe) == RECORDED_NAMES | LIVE_NAMES
    assert public_names(Execution) == public_names(exe) - {"configuration"}


def test_public_names_of_a_recorded_execution(ml: DerivaML, exe: Execution) -> None:
    """Completion on a recorded execution lists the documented methods and properties, and nothing else."""
    recorded = ml.lookup_execution(exe.execution_rid)
    assert public_names(recorded) == RECORDED_NAMES
    assert public_names(RecordedExecution) == RECORDED_NAMES


@pytest.mark.parametrize("is_live", [True, False])
def test_old_names_of_a_recorded_execution(ml: DerivaML, exe: Execution, is_live: bool) -> None:
    """`record` and `connection` return what they did, and warn at the line that uses them."""
    execution: RecordedExecution = exe if is_live else ml.lookup_execution(exe.execution_rid)
    with pytest.warns(DerivaMLDeprecationWarning, match=r"Execution\.record is deprecated .* use info\.") as warned:
        assert execution.record.rid == exe.execution_rid  # type: ignore[attr-defined]
    assert warned[0].filename == __file__
    with pytest.warns(DerivaMLDeprecationWarning, match=r"Execution\.connection .* use the DerivaML object") as warned:
        assert execution.connection is execution._connection  # type: ignore[attr-defined]
    assert warned[0].filename == __file__


def test_old_names_of_an_execution(exe: Execution) -> None:
    """`seal`, `at_end` and `follower` do what the new names do, and warn at the line that uses them."""
    errors: list[BaseException | None] = []
    with exe:
        path = exe.asset_file_path("Model", "m.pt")
        path.write_bytes(b"weights")
        with pytest.warns(DerivaMLDeprecationWarning, match=r"Execution\.seal .* use mark_immutable\.") as warned:
            exe.seal(path)  # type: ignore[attr-defined]
        assert warned[0].filename == __file__
        (asset,) = exe.upload_execution_outputs()["Model"]
        assert path.stat().st_nlink == 2
        with pytest.warns(DerivaMLDeprecationWarning, match=r"Execution\.at_end .* use add_exit_callback\.") as warned:
            exe.at_end(errors.append)  # type: ignore[attr-defined]
        assert warned[0].filename == __file__
    assert errors == [None]
    with pytest.warns(DerivaMLDeprecationWarning, match=r"Execution\.follower .* use not execution\.is_rank_zero\."):
        assert exe.follower is False  # type: ignore[attr-defined]
    assert asset.filename == "m.pt"


def test_unknown_name_raises(exe: Execution) -> None:
    """A name that never existed raises AttributeError as usual."""
    with pytest.raises(AttributeError, match="'Execution' object has no attribute 'nonsense'"):
        exe.nonsense  # type: ignore[attr-defined]  # noqa: B018
