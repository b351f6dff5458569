"""``deriva-ml workflows``, ``datasets``, ``vocabulary`` and ``plugins``."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.workflow import Workflow


def add_workflow(ml: DerivaML, name: str, kind: str = "Training") -> str:
    digest = f"{abs(hash(name)):040x}"[:40]
    return ml.add_workflow(
        Workflow(name=name, workflow_type=kind, url=f"https://example.org/{name}.py", checksum=digest)
    )


def test_workflows(cli, ml: DerivaML) -> None:
    """Workflows are listed newest first, in pages, and filtered by type and text."""
    made = [
        add_workflow(ml, name, kind)
        for name, kind in (("one", "Training"), ("two", "Inference"), ("three", "Training"))
    ]
    found = cli("workflows", "--json").json
    assert [each["rid"] for each in found["workflows"]] == made[::-1]
    assert found["workflows"][0]["url"] == "https://example.org/three.py"
    page = cli("workflows", "--json", "-n", "2", "--page", "2").json
    assert ([each["rid"] for each in page["workflows"]], page["more"]) == (made[:1], False)
    assert [each["rid"] for each in cli("workflows", "--type", "Inference", "--json").json["workflows"]] == [made[1]]
    assert [each["rid"] for each in cli("workflows", "--text", "THREE", "--json").json["workflows"]] == [made[2]]
    assert cli("workflows", "--type", "Nothing").code == 2
    assert "No workflow matches" in cli("workflows", "--text", "nowhere").stdout


def test_datasets(cli, ml: DerivaML) -> None:
    """Datasets are listed with types and current version; deleted ones only with --deleted."""
    scans, gone = ml.create_dataset("Scans", ["Training", "File"]), ml.create_dataset("Gone")
    scans.add_dataset_members([ml.create_dataset("Inner").rid])
    ml.delete_dataset(gone)
    found = {each["rid"]: each for each in cli("datasets", "--json").json["datasets"]}
    assert (found[scans.rid]["version"], found[scans.rid]["types"]) == ("0.2.0", ["File", "Training"])
    assert gone.rid not in found
    assert "(deleted) Gone" in cli("datasets", "--deleted").stdout
    assert [each["rid"] for each in cli("datasets", "--text", "scan", "--json").json["datasets"]] == [scans.rid]


def test_vocabulary(cli, ml: DerivaML) -> None:
    """One vocabulary or all are listed with descriptions; an unknown one prints the existing names."""
    ml.add_term("Workflow_Type", "Forecast", "Looks [bold]ahead[/bold]")
    assert cli("vocabulary", "Workflow_Type", "--json").json["Workflow_Type"]["Forecast"] == "Looks [bold]ahead[/bold]"
    assert "Looks [bold]ahead[/bold]" in cli("vocabulary", "Workflow_Type").stdout
    assert {"Asset_Type", "Dataset_Type"} < set(cli("vocabulary", "--json").json)
    result = cli("vocabulary", "Colours")
    assert result.code == 2
    assert "Workflow_Type" in result.stderr


def test_plugins(cli) -> None:
    """The built-in plugins are listed with their hooks."""
    found = {each["name"]: each for each in cli("plugins", "--json").json["plugins"]}
    assert "detect_source" in found["source_script"]["hooks"]
    assert "built in" in cli("plugins").stdout


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_lists_fit_the_terminal(cli, ml: DerivaML, columns: int) -> None:
    """No line is longer than the terminal is wide."""
    add_workflow(ml, "long" * 50)
    ml.create_dataset("long " * 50, ["Training", "Validation", "Augmented"])
    for command in ("workflows", "datasets", "vocabulary", "plugins"):
        out = cli(command, columns=columns).stdout
        assert max(map(len, out.splitlines())) <= columns, command
