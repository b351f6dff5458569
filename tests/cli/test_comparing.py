"""``deriva-ml diff``."""

from __future__ import annotations

import json
import shutil

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow


def by_name(said) -> dict[tuple[str, str], tuple[object, object]]:
    return {(each["section"], each["name"]): (each["left"], each["right"]) for each in said.json["differences"]}


def test_an_execution_does_not_differ_from_itself(ask, run) -> None:
    """Compared with itself nothing differs, and what is equal is counted."""
    rid = run("Same", [], [{"loss": float("nan")}]).execution_rid
    said = ask("diff", rid, rid, "--json")
    assert (said.code, said.json["differences"]) == (0, [])
    assert said.json["equal"]["packages"] > 10
    assert "do not differ" in ask("diff", rid, rid).out


def test_what_differs(ask, ml: DerivaML, config: ExecutionConfiguration, run) -> None:
    """Parameters by dotted names, code, inputs and metrics are told for both."""
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
    found = by_name(ask("diff", *made, "--json"))
    assert found["configuration", "optimizer.lr"] == (0.1, 0.2)
    assert ("configuration", "optimizer.name") not in found
    assert found["code", "checksum"][1] == "3" * 40
    assert found["inputs", f"dataset {dataset.rid}"] == (None, "0.1.0")


def test_metrics_and_packages(ask, run) -> None:
    """The last and best metrics differ where they do, and so do the versions of packages, as they were recorded."""
    one, other = (run("A run", [], [{"loss": value, "same": 1.0}]) for value in (1.0, 2.0))
    (snapshot,) = (other.working_dir / "records").glob("environment_snapshot_*.json")
    content = json.loads(snapshot.read_text())
    content["environment"]["packages"]["pluggy"] = "0.0.1"
    snapshot.write_text(json.dumps(content))
    found = by_name(ask("diff", one.execution_rid, other.execution_rid, "--json"))
    assert found["metrics", "loss, best"] == (1.0, 2.0)
    assert ("metrics", "same, last") not in found
    assert [name for section, name in found if section == "packages"] == ["pluggy"]


def test_from_what_was_kept(ask, run) -> None:
    """The same differences are found when the working folders are gone."""
    runs = [run("A run", [], [{"loss": value}]) for value in (1.0, 2.0)]
    rids = [exe.execution_rid for exe in runs]
    before = ask("diff", *rids, "--json").json
    for exe in runs:
        shutil.rmtree(exe.working_dir)
    assert ask("diff", *rids, "--json").json == before


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_fits(ask, run, columns: int) -> None:
    """The two columns fit on the screen, whatever is compared."""
    rids = [run(word * 90).execution_rid for word in ("ab", "cd")]
    out = ask("diff", *rids, columns=columns).out
    assert max(map(len, out.splitlines())) <= columns
    assert "description" in out


def test_wrong_use(ask, run) -> None:
    """One record id alone, or one of something else, is wrong use."""
    exe = run()
    assert ask("diff", exe.execution_rid).code == 2
    assert ask("diff", exe.execution_rid, exe.workflow_rid).code == 2
