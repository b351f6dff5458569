"""``deriva-ml diff``."""

from __future__ import annotations

import json
import shutil

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow


def by_name(result) -> dict[tuple[str, str], tuple[object, object]]:
    return {(each["section"], each["name"]): (each["left"], each["right"]) for each in result.json["differences"]}


def test_no_difference_to_itself(cli, run) -> None:
    """An execution does not differ from itself; its equal values are counted."""
    rid = run("Same", [], [{"loss": float("nan")}]).execution_rid
    result = cli("diff", rid, rid, "--json")
    assert (result.code, result.json["differences"]) == (0, [])
    assert result.json["equal"]["packages"] > 10
    assert "do not differ" in cli("diff", rid, rid).stdout


def test_differences(cli, ml: DerivaML, config: ExecutionConfiguration, run) -> None:
    """Differing parameters (by dotted names), code and inputs are listed with both values."""
    dataset = ml.create_dataset("Scans")
    other = Workflow(name="Other", workflow_type="Training", url="https://example.org/o.py", checksum="3" * 40)
    made = []
    for rate, workflow in ((0.1, config.workflow), (0.2, other)):
        parameters = {"optimizer": {"lr": rate, "name": "adam"}}
        with ml.create_execution(config.model_copy(update={"parameters": parameters, "workflow": workflow})) as exe:
            exe.asset_file_path("Model", "m.pt").write_text(f"{rate}")
            if workflow is other:
                exe.download_dataset_bag(dataset.rid)
        exe.upload_execution_outputs()
        made.append(exe.execution_rid)
    found = by_name(cli("diff", *made, "--json"))
    assert found["configuration", "optimizer.lr"] == (0.1, 0.2)
    assert ("configuration", "optimizer.name") not in found
    assert found["code", "checksum"][1] == "3" * 40
    assert found["inputs", f"dataset {dataset.rid}"] == (None, "0.1.0")


def test_metrics_and_packages(cli, run) -> None:
    """Differing metrics and package versions are listed, equal ones are not."""
    one, other = (run("A run", [], [{"loss": value, "same": 1.0}]) for value in (1.0, 2.0))
    (snapshot,) = (other.working_dir / "records").glob("environment_snapshot_*.json")
    content = json.loads(snapshot.read_text())
    content["environment"]["packages"]["pluggy"] = "0.0.1"
    snapshot.write_text(json.dumps(content))
    found = by_name(cli("diff", one.execution_rid, other.execution_rid, "--json"))
    assert found["metrics", "loss, best"] == (1.0, 2.0)
    assert ("metrics", "same, last") not in found
    assert [name for section, name in found if section == "packages"] == ["pluggy"]


def test_without_working_folders(cli, run) -> None:
    """The differences are the same after the working folders are deleted."""
    runs = [run("A run", [], [{"loss": value}]) for value in (1.0, 2.0)]
    rids = [exe.execution_rid for exe in runs]
    before = cli("diff", *rids, "--json").json
    for exe in runs:
        shutil.rmtree(exe.working_dir)
    assert cli("diff", *rids, "--json").json == before


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_fits_the_terminal(cli, run, columns: int) -> None:
    """No line is longer than the terminal is wide."""
    rids = [run(word * 90).execution_rid for word in ("ab", "cd")]
    out = cli("diff", *rids, columns=columns).stdout
    assert max(map(len, out.splitlines())) <= columns
    assert "description" in out


def test_invalid_usage(cli, run) -> None:
    """A single RID and the RID of a workflow exit with 2."""
    exe = run()
    assert cli("diff", exe.execution_rid).code == 2
    assert cli("diff", exe.execution_rid, exe.workflow_rid).code == 2
