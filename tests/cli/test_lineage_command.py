"""``deriva-ml lineage``."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import Asset


@pytest.fixture
def chain(ml: DerivaML, config: ExecutionConfiguration) -> tuple[Execution, str, Execution, Asset, Execution]:
    """An import of images, a dataset of them, a training with it, its model, and an inference with the model."""
    with ml.create_execution(config.model_copy(update={"description": "Import"})) as importing:
        for number in range(4):
            importing.asset_file_path("Image", f"{number}.png").write_text(f"pixels {number}")
    images = importing.upload_execution_outputs()["Image"]
    dataset = ml.create_dataset("Scans")
    dataset.add_dataset_members([image.rid for image in images])
    with ml.create_execution(config.model_copy(update={"description": "Train"})) as training:
        training.download_dataset_bag(dataset.rid)
        training.asset_file_path("Model", "model.pt").write_text("weights")
    (model,) = training.upload_execution_outputs()["Model"]
    with ml.create_execution(config.model_copy(update={"description": "Infer"})) as inference:
        inference.download_asset(model)
    return importing, dataset.rid, training, model, inference


def edges(result) -> set[tuple[str, str]]:
    return {(edge["source"], edge["product"]) for edge in result.json["edges"]}


def test_both_directions(cli, chain) -> None:
    """From a training the lineage leads to the import of its images and to the use of its model."""
    importing, dataset, training, model, inference = chain
    result = cli("lineage", training.execution_rid, "--json")
    assert edges(result) == {
        (importing.execution_rid, dataset),
        (dataset, training.execution_rid),
        (training.execution_rid, model.rid),
        (model.rid, inference.execution_rid),
    }
    names = {node["rid"]: node["name"] for node in result.json["nodes"]}
    assert (names[importing.execution_rid], names[dataset], names[model.rid]) == ("Import", "Scans", "model.pt")
    assert result.json["cut"] is False


def test_from_both_ends(cli, chain) -> None:
    """The same chain is found from its first file and from its last execution."""
    importing, dataset, training, model, inference = chain
    image = next(asset for asset in importing.list_assets("Output") if asset.table == "Image")
    on = edges(cli("lineage", image.rid, "--json"))
    assert {(image.rid, dataset), (dataset, training.execution_rid), (model.rid, inference.execution_rid)} <= on
    back = edges(cli("lineage", inference.execution_rid, "--json"))
    assert {(importing.execution_rid, dataset), (model.rid, inference.execution_rid)} <= back


def test_siblings_are_limited(cli, chain) -> None:
    """Only --siblings neighbours are followed; the others are counted."""
    importing, *_ = chain
    result = cli("lineage", importing.execution_rid, "--siblings", "1", "--json")
    (left,) = [each for each in result.json["left_out"] if each["table"] == "Image"]
    assert (left["rid"], left["direction"], left["count"]) == (importing.execution_rid, "made into", 3)
    assert "and 3 more of Image" in cli("lineage", importing.execution_rid, "--siblings", "1").stdout


@pytest.mark.parametrize("bound", ["--depth", "--limit"])
def test_bounds(cli, chain, bound: str) -> None:
    """A search that reaches its bounds says that there is more, and has no edges beyond them."""
    result = cli("lineage", chain[2].execution_rid, bound, "2", "--json")
    assert result.json["cut"] is True
    rids = {node["rid"] for node in result.json["nodes"]}
    assert {end for edge in edges(result) for end in edge} <= rids
    assert "There is more" in cli("lineage", chain[2].execution_rid, bound, "2").stdout


def test_cycle(cli, ml: DerivaML, chain) -> None:
    """A cycle is followed once; repeated nodes are marked."""
    _, dataset, training, model, _ = chain
    ml.lookup_dataset(dataset).add_dataset_members([model.rid])
    result = cli("lineage", dataset, "--json")
    assert {(dataset, training.execution_rid), (model.rid, dataset), (training.execution_rid, dataset)} <= edges(result)
    assert "(see above)" in cli("lineage", dataset).stdout


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_fits_the_terminal(cli, chain, columns: int) -> None:
    """No line is longer than the terminal is wide."""
    out = cli("lineage", chain[4].execution_rid, columns=columns).stdout
    assert max(map(len, out.splitlines())) <= columns
    assert f"Execution {chain[0].execution_rid} Import" in out


def test_diagrams(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Mermaid and Graphviz output has every node and edge, and special characters are escaped."""
    bad = 'a "quote" [x](y) </b>\\ end; %%{init}%%'
    with ml.create_execution(config.model_copy(update={"description": bad})) as exe:
        exe.asset_file_path("Model", "m.pt").write_text("m")
    exe.upload_execution_outputs()
    mermaid = cli("lineage", exe.execution_rid, "--mermaid").stdout
    assert mermaid.startswith("flowchart LR\n")
    assert "n0 --> n1" in mermaid or "n1 --> n0" in mermaid
    (line,) = [line for line in mermaid.splitlines() if "Execution" in line]
    assert line.count('"') == 2
    assert not set("[]{}%;<>\\") & set(line.partition("<br/>")[2].replace(";", "").removesuffix('"])'))
    dot = cli("lineage", exe.execution_rid, "--dot").stdout
    assert r"a \"quote\" [x](y) </b>\\ end" in dot
    assert f'"{exe.execution_rid}" -> ' in dot


def test_invalid_usage(cli, exe: Execution) -> None:
    """Two output formats, and the RID of a workflow, exit with 2."""
    assert cli("lineage", exe.execution_rid, "--dot", "--json").code == 2
    assert cli("lineage", exe.workflow_rid).code == 2


def test_dataset_versions_are_one_neighbour(cli, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Several versions of a dataset by one execution give one edge, and nothing is left out."""
    with ml.create_execution(config) as exe:
        dataset = exe.create_dataset("Scans")
        for _ in range(3):
            dataset.increment_version("minor")
    found = cli("lineage", dataset.rid, "--siblings", "1", "--json").json
    assert found["edges"] == [{"source": exe.execution_rid, "product": dataset.rid}]
    assert found["left_out"] == []
