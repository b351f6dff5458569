"""Rows of another shape, such as other programs write: each is named, and every other row is listed."""

from __future__ import annotations

import json
import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.errors import MalformedData
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

NOT_TEXT, NOT_UTF_8, NUL = b"\xff\x00blob", "CAST(x'e9ff' AS TEXT)", "a\0b"


def write_column(home: Path, table: str, rid: str, column: str, value: Any) -> None:
    """Set a column by SQL, as a program that does not know the catalog's rules."""
    is_sql = value == NOT_UTF_8
    with sqlite3.connect(home / "local" / "catalog.sqlite") as catalog:
        statement = f'UPDATE "{table}" SET "{column}" = {value if is_sql else "?"} WHERE RID = ?'
        assert catalog.execute(statement, (rid,) if is_sql else (value, rid)).rowcount == 1
    catalog.close()


def record_run(ml: DerivaML, config: ExecutionConfiguration, name: str) -> Execution:
    """Record a completed run with one uploaded file."""
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Model", name).write_text(f"the bytes of {name}")
    exe.upload_execution_outputs()
    return exe


@pytest.fixture
def runs(ml: DerivaML, config: ExecutionConfiguration) -> tuple[Execution, Execution]:
    """Return two completed runs."""
    return record_run(ml, config, "one"), record_run(ml, config, "two")


@pytest.mark.parametrize("column", ["Status", "Status_Detail", "Description", "Duration"])
def test_text_of_another_shape_is_shown(
    ml: DerivaML, runs: tuple[Execution, Execution], home: Path, column: str
) -> None:
    """A text column of an execution with bytes, NUL or unknown text can be read; both runs are listed."""
    damaged, intact = (run.execution_rid for run in runs)
    for value in (NOT_TEXT, NOT_UTF_8, NUL, "Queued", 7):
        write_column(home, "Execution", damaged, column, value)
        listed = ml.list_executions(limit=10, page=1).executions
        assert {each.rid for each in listed} == {damaged, intact}
        assert {each.execution_rid for each in ml.find_executions()} == {damaged, intact}
        json.dumps([each.to_dict() for each in listed], default=str).encode()
        assert ml.describe(damaged) is not None
        assert isinstance(ml.lookup_execution(damaged)._repr_html_(), str)
        assert ml.restore_execution(damaged).execution_rid == damaged


def test_time_of_another_shape_is_named(
    ml: DerivaML, runs: tuple[Execution, Execution], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A creation time that is none is an error with table, RID and column; the list goes on without the row."""
    damaged, intact = (run.execution_rid for run in runs)
    for value in ("yesterday", NOT_TEXT, ""):
        write_column(home, "Execution", damaged, "RCT", value)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert [each.rid for each in ml.list_executions(limit=10, page=1).executions] == [intact]
        assert f"Execution {damaged} has an unexpected value in RCT" in caplog.text
        assert {each.execution_rid for each in ml.find_executions()} == {damaged, intact}
        with pytest.raises(MalformedData, match=f"Execution {damaged} .*RCT"):
            _ = ml.lookup_execution(damaged).created


def test_time_without_zone_is_utc(ml: DerivaML, config: ExecutionConfiguration, home: Path) -> None:
    """A creation time without a zone is one in UTC."""
    rid = record_run(ml, config, "one").execution_rid
    write_column(home, "Execution", rid, "RCT", "2026-01-01")
    (listed,) = ml.list_executions(limit=10, page=1).executions
    assert listed.created is not None
    assert listed.created.isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize("table", ["Workflow", "Dataset", "Dataset_Version"])
def test_times_in_other_lists(ml: DerivaML, exe: Execution, home: Path, table: str) -> None:
    """A workflow or dataset with a time that is none is left out of its list; the others are listed."""
    first, second = (exe.create_dataset(f"Dataset {number}") for number in range(2))
    rids = {
        "Workflow": str(exe.workflow_rid),
        "Dataset": first.dataset_rid,
        "Dataset_Version": ml.select_rows("Dataset", {"RID": first.dataset_rid})[0]["Version"],
    }
    write_column(home, table, rids[table], "RCT", "yesterday")
    datasets = [each.rid for each in ml.list_datasets(limit=10, page=1).datasets]
    workflows = [each.rid for each in ml.list_workflows(limit=10, page=1).workflows]
    assert sorted(datasets) == sorted(
        {first.dataset_rid, second.dataset_rid} - ({first.dataset_rid} if "Dataset" in table else set())
    )
    assert workflows == ([] if table == "Workflow" else [exe.workflow_rid])
    assert len(ml.list_executions(limit=10, page=1).executions) == 1


@pytest.mark.parametrize("table", ["Execution", "Workflow", "Dataset"])
def test_rid_of_another_shape(
    ml: DerivaML, config: ExecutionConfiguration, home: Path, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    """A row whose RID is none is left out of every list, and a message names it."""
    exe = ml.create_execution(config)
    workflow = ml.add_workflow(Workflow(name="other", workflow_type="Training", url="https://example.org/other.py"))
    datasets = [ml.create_dataset(text).rid for text in ("one", "two")]
    damaged = {"Execution": ml.create_execution(config).execution_rid, "Workflow": workflow, "Dataset": datasets[0]}
    write_column(home, table, damaged[table], "RID", "../a")
    intact = {"Execution": [exe.execution_rid], "Workflow": [exe.workflow_rid], "Dataset": datasets[1:]}
    with caplog.at_level(logging.WARNING):
        found = {
            "Execution": [each.execution_rid for each in ml.find_executions()],
            "Workflow": [each.rid for each in ml.find_workflows()],
            "Dataset": [each.rid for each in ml.find_datasets()],
        }[table]
        listed = {
            "Execution": lambda: [each.rid for each in ml.list_executions().executions],
            "Workflow": lambda: [each.rid for each in ml.list_workflows().workflows],
            "Dataset": lambda: [each.rid for each in ml.list_datasets().datasets],
        }[table]()
    assert found == listed == intact[table]
    assert caplog.text.count(f"{table} ../a has an unexpected value in RID: '../a'") == 2


def test_asset_with_a_foreign_name(ml: DerivaML, config: ExecutionConfiguration, home: Path, tmp_path: Path) -> None:
    """An asset whose name is bytes or has a NUL can be listed, shown and downloaded."""
    exe = record_run(ml, config, "one")
    (asset,) = [each for each in exe.list_assets("Output") if each.table == "Model"]
    other = ml.create_execution(config)
    for number, (column, value) in enumerate(
        [("Filename", NOT_TEXT), ("Filename", NOT_UTF_8), ("Filename", NUL), ("Description", NOT_TEXT)]
    ):
        write_column(home, "Model", asset.rid, column, value)
        assets = ml.lookup_execution(exe.execution_rid).list_assets("Output")
        (listed,) = [each for each in assets if each.table == "Model"]
        assert isinstance(listed.filename, str)
        assert ml.describe(asset.rid) is not None
        assert other.download_asset(asset.rid, tmp_path / str(number)).read_text() == "the bytes of one"


def test_asset_with_a_foreign_address(
    ml: DerivaML, config: ExecutionConfiguration, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An asset whose address or checksum is none is named by list and verification; it is not downloaded."""
    exe = record_run(ml, config, "one")
    (asset,) = [each for each in exe.list_assets("Output") if each.table == "Model"]
    (row,) = ml.select_rows("Model", {"RID": asset.rid})
    other = ml.create_execution(config)
    for column, value in [("URL", NOT_TEXT), ("MD5", NOT_TEXT), ("MD5", NUL)]:
        write_column(home, "Model", asset.rid, column, value)
        caplog.clear()
        assert asset.rid not in {each.rid for each in ml.lookup_execution(exe.execution_rid).list_assets("Output")}
        assert f"Model {asset.rid} has an unexpected value in {column}" in caplog.text
        with pytest.raises(MalformedData, match=f"Model {asset.rid} .*{column}"):
            other.download_asset(asset.rid, tmp_path)
        assert [problem.rid for problem in ml.verify().problems] == [asset.rid]
        write_column(home, "Model", asset.rid, column, row[column])


def test_dataset_version_of_another_shape(ml: DerivaML, exe: Execution, home: Path) -> None:
    """A version that is none is an error naming its row; the other dataset is listed."""
    first, second = (exe.create_dataset(f"Dataset {number}") for number in range(2))
    version = ml.select_rows("Dataset", {"RID": first.dataset_rid})[0]["Version"]
    write_column(home, "Dataset_Version", version, "Version", "newest")
    assert {each.rid for each in exe.list_output_datasets()} == {second.dataset_rid}
    assert len(ml.list_datasets(limit=10, page=1).datasets) == 2
    assert ml.describe(exe.execution_rid) is not None


def test_environment_snapshot_of_another_shape(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An environment snapshot of another client does not stop the description or the restoration of its run."""
    exe = ml.create_execution(config)
    path = exe.working_dir / "records" / "environment_snapshot_9.json"
    path.parent.mkdir(exist_ok=True)
    for content in (
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"environment": [], "source": 1}',
        b'{"environment": {"python": 7}}',
    ):
        path.write_bytes(content)
        assert ml.describe(exe.execution_rid).environment.command == ()


def test_unreadable_journal(ml: DerivaML, config: ExecutionConfiguration, caplog: pytest.LogCaptureFixture) -> None:
    """A journal that cannot be read is named in a warning; its execution is listed with the row's status."""
    damaged, intact = (ml.create_execution(config).execution_rid for _ in range(2))
    journal = ml.lookup_execution(damaged).working_dir / "journal.jsonl"
    journal.unlink()
    journal.symlink_to("/proc/self/mem")  # opens, and cannot be read from its start
    assert {each.rid for each in ml.list_executions(limit=10, page=1).executions} == {damaged, intact}
    assert "journal.jsonl" in caplog.text
