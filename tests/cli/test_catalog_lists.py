"""``deriva-ml workflows``, ``datasets``, ``vocabulary``, ``plugins``: what a catalog has beside executions."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.workflow import Workflow


def add_workflow(ml: DerivaML, name: str, kind: str = "Training") -> str:
    digest = f"{abs(hash(name)):040x}"[:40]
    return ml.add_workflow(
        Workflow(name=name, workflow_type=kind, url=f"https://example.org/{name}.py", checksum=digest)
    )


def test_workflows(ask, ml: DerivaML) -> None:
    """Workflows come newest first, page by page, and are found by type and by words."""
    made = [
        add_workflow(ml, name, kind)
        for name, kind in (("one", "Training"), ("two", "Inference"), ("three", "Training"))
    ]
    found = ask("workflows", "--json").json
    assert [each["rid"] for each in found["workflows"]] == made[::-1]
    assert found["workflows"][0]["url"] == "https://example.org/three.py"
    page = ask("workflows", "--json", "-n", "2", "--page", "2").json
    assert ([each["rid"] for each in page["workflows"]], page["more"]) == (made[:1], False)
    assert [each["rid"] for each in ask("workflows", "--type", "Inference", "--json").json["workflows"]] == [made[1]]
    assert [each["rid"] for each in ask("workflows", "--text", "THREE", "--json").json["workflows"]] == [made[2]]
    assert ask("workflows", "--type", "Nothing").code == 2
    assert "No workflow matches" in ask("workflows", "--text", "nowhere").out


def test_datasets(ask, ml: DerivaML) -> None:
    """Datasets come with types and present version; deleted ones only when they are asked for."""
    scans, gone = ml.create_dataset("Scans", ["Training", "File"]), ml.create_dataset("Gone")
    scans.add_dataset_members([ml.create_dataset("Inner").rid])
    ml.delete_dataset(gone)
    found = {each["rid"]: each for each in ask("datasets", "--json").json["datasets"]}
    assert (found[scans.rid]["version"], found[scans.rid]["types"]) == ("0.2.0", ["File", "Training"])
    assert gone.rid not in found
    assert "(deleted) Gone" in ask("datasets", "--deleted").out
    assert [each["rid"] for each in ask("datasets", "--text", "scan", "--json").json["datasets"]] == [scans.rid]


def test_vocabulary(ask, ml: DerivaML) -> None:
    """One vocabulary is shown with what its terms mean, or all; one that does not exist names those that do."""
    ml.add_term("Workflow_Type", "Forecast", "Looks [bold]ahead[/bold]")
    assert ask("vocabulary", "Workflow_Type", "--json").json["Workflow_Type"]["Forecast"] == "Looks [bold]ahead[/bold]"
    assert "Looks [bold]ahead[/bold]" in ask("vocabulary", "Workflow_Type").out
    assert {"Asset_Type", "Dataset_Type"} < set(ask("vocabulary", "--json").json)
    said = ask("vocabulary", "Colours")
    assert said.code == 2
    assert "Workflow_Type" in said.complaint


def test_plugins(ask) -> None:
    """The built-ins are named with the hooks that they answer."""
    found = {each["name"]: each for each in ask("plugins", "--json").json["plugins"]}
    assert "detect_source" in found["source_script"]["hooks"]
    assert "built in" in ask("plugins").out


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_they_fit(ask, ml: DerivaML, columns: int) -> None:
    """Every list fits on the screen."""
    add_workflow(ml, "long" * 50)
    ml.create_dataset("long " * 50, ["Training", "Validation", "Augmented"])
    for command in ("workflows", "datasets", "vocabulary", "plugins"):
        out = ask(command, columns=columns).out
        assert max(map(len, out.splitlines())) <= columns, command
