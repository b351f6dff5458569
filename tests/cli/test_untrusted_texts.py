"""Texts of a catalog are anybody's: no screen obeys what is in them."""

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
    """An execution in which every text that somebody may choose is a bad one."""
    ml.add_term("Workflow_Type", BAD, BAD)
    workflow = Workflow(
        name=BAD, workflow_type=BAD, description=BAD, url=f"https://example.org/{BAD}", checksum="4" * 40
    )
    dataset = ml.create_dataset(BAD)
    config = ExecutionConfiguration(workflow=workflow, description=BAD, parameters={BAD: BAD}, datasets=[dataset.rid])
    with pytest.raises(ValueError), ml.create_execution(config) as made:
        made.asset_file_path("Model", f"{BAD.replace('/', '')}.pt", Description=BAD).write_text("m")
        made.update_status(Status.running, BAD)
        raise ValueError(BAD)
    made.upload_execution_outputs()
    made.asset_file_path("Model", "late\x1b.pt").write_text("late")
    return made


def test_no_screen_obeys(ask, ml: DerivaML, exe: Execution, tmp_path: Path) -> None:
    """Whatever is shown of such an execution, no escape code reaches the terminal, and markup is shown as it is."""
    (model,) = [asset for asset in exe.list_assets("Output") if asset.table == "Model"]
    other = ml.create_execution(ExecutionConfiguration(workflow=exe.workflow_rid, description="Other"))
    (dataset,) = exe.list_input_datasets()
    rid = exe.execution_rid
    for words in (
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
        said = ask(*words, columns=200)
        seen = said.out + said.complaint
        assert not {"\x1b", "\x9b", "\r", "\u202e"} & set(seen), words
        assert seen, words
    assert r"\x1b[31m[bold]\x9b2J \x202e[/nothing]:boom:" in ask("show", rid, columns=200).out
