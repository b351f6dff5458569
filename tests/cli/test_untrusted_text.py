"""Untrusted texts of a catalog: no command prints their control characters or interprets their markup."""

from __future__ import annotations

from pathlib import Path

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import Status
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

BAD = "\x1b[31m[bold]\x9b2J\r\u202e[/nothing]:boom:"


@pytest.fixture
def exe(ml: DerivaML) -> Execution:
    """An execution in which every free text has control characters and markup."""
    ml.add_term("Workflow_Type", BAD, BAD)
    workflow = Workflow(
        name=BAD, workflow_type=BAD, description=BAD, url=f"https://example.org/{BAD}", checksum="4" * 40
    )
    dataset = ml.create_dataset(BAD)
    config = ExecutionConfiguration(workflow=workflow, description=BAD, parameters={BAD: BAD}, datasets=[dataset.rid])
    with pytest.raises(ValueError), ml.create_execution(config) as exe:
        exe.asset_file_path("Model", f"{BAD.replace('/', '')}.pt", Description=BAD).write_text("m")
        exe.update_status(Status.running, BAD)
        raise ValueError(BAD)
    exe.upload_execution_outputs()
    exe.asset_file_path("Model", "late\x1b.pt").write_text("late")
    return exe


def test_commands_escape_untrusted_text(cli, ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """No command prints a control character of such an execution, and markup is shown as text."""
    (model,) = [asset for asset in exe.list_assets("Output") if asset.table == "Model"]
    other = ml.create_execution(ExecutionConfiguration(workflow=exe.workflow_rid, description="Other"))
    (dataset,) = exe.list_input_datasets()
    rid = exe.execution_rid
    for args in (
        ("list",),
        ("list", "--text", BAD),
        *(("show", each, "--full") for each in (rid, model.rid, dataset.rid, exe.workflow_rid)),
        ("status", rid),
        ("abort", rid),
        ("diff", rid, other.execution_rid),
        ("lineage", rid),
        ("lineage", rid, "--dot"),
        ("lineage", rid, "--mermaid"),
        ("workflows",),
        ("workflows", "--type", BAD + "x"),
        ("datasets",),
        ("vocabulary",),
        ("upload",),
        ("download", model.rid, "--into", str(tmp_path / "in")),
        ("verify", model.rid),
        ("cleanup", "--dry-run"),
        ("reproduce", rid, "--into", str(tmp_path / "again")),
        ("list", "--sort", BAD),
        ("export", rid, "--files", "all", "--into", str(tmp_path / "crate")),
        ("export", rid, "--format", "prov-json"),
    ):
        result = cli(*args, columns=200)
        output = result.stdout + result.stderr
        assert not {"\x1b", "\x9b", "\r", "\u202e"} & set(output), args
        assert output, args
    assert r"\x1b[31m[bold]\x9b2J \x202e[/nothing]:boom:" in cli("show", rid, columns=200).stdout
