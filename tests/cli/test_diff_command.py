"""``deriva-ml diff``."""

from __future__ import annotations

import json
import shutil

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.training import TrainingReporter
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


def test_ten_runs_of_a_sweep(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Of many runs, each value of a difference is listed with the runs that have it; equal values need ``--all``."""
    rids = []
    for number in range(10):
        parameters = {"lr": 0.1 if number < 9 else 0.2, "depth": 3, "folder": "x"}
        with ml.create_execution(config.model_copy(update={"parameters": parameters})) as exe:
            pass
        rids.append(exe.execution_rid)
    found = cli("diff", *rids, "--json").json
    assert found["executions"] == rids
    configuration = [each for each in found["differences"] if each["section"] == "configuration"]
    assert configuration == [
        {"section": "configuration", "name": "lr", "values": {**dict.fromkeys(rids[:9], 0.1), rids[9]: 0.2}}
    ]
    assert {each["section"] for each in found["differences"]} <= {"outcome", "configuration"}
    assert "equal_values" not in found
    result = cli("diff", *rids, columns=80).stdout
    assert max(map(len, result.splitlines())) <= 80
    (line,) = [line for line in result.splitlines() if rids[9] in line and "0.2" in line]
    assert rids[0] not in line
    assert "depth" not in result
    complete = cli("diff", *rids, "--all")
    assert "depth" in complete.stdout
    assert cli("diff", *rids, "--all", "--json").json["equal_values"]["configuration"] == {"depth": 3, "folder": "x"}


def test_three_runs(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Three runs have a column each."""
    rids = []
    for lr in (1, 2, 3):
        with ml.create_execution(config.model_copy(update={"parameters": {"lr": lr}})) as exe:
            pass
        rids.append(exe.execution_rid)
    lines = cli("diff", *rids, columns=80).stdout.splitlines()
    assert any(line.split() == ["lr", "1", "2", "3"] for line in lines)
    assert any(line.split() == rids for line in lines)


def test_one_run(cli, run) -> None:
    """A single execution is an error of usage."""
    result = cli("diff", run("One").execution_rid)
    assert (result.code, "at least two" in result.stderr) == (2, True)


def test_lists_are_compared_by_name(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An item that is added to a list of settings is one difference, and own RIDs in texts are none."""
    stop, save = {"name": "Stop", "patience": 3}, {"name": "Save", "every": 1}
    made = []
    for callbacks in ([stop, save, save], [{"name": "Log"}, stop, {**save, "every": 2}, save]):
        exe = ml.create_execution(config)
        with exe:
            reporter = TrainingReporter(exe, curves=False, checkpoints="none")
            reporter.begin_fit(1, settings={"callbacks": callbacks, "folder": f"/x/{exe.execution_rid}/y"})
            reporter.end_fit()
        made.append(exe.execution_rid)
    found = by_name(cli("diff", *made, "--json"))
    assert {name: values for (section, name), values in found.items() if section == "configuration"} == {
        "fit.callbacks.Log": (None, True),
        "fit.callbacks.Save.every": (1, 2),
    }
