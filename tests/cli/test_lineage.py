"""``deriva-ml lineage``."""

from __future__ import annotations

import pytest

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.models import Asset


@pytest.fixture
def chain(ml: DerivaML, config: ExecutionConfiguration) -> tuple[Execution, str, Execution, Asset, Execution]:
    """Images that one execution made, a dataset of them, a training on it, its model, and an inference with that."""
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


def edges(said) -> set[tuple[str, str]]:
    return {(edge["source"], edge["product"]) for edge in said.json["edges"]}


def test_back_and_on(ask, chain) -> None:
    """From the training the way leads back to what made its dataset's images, and on to what used its model."""
    importing, dataset, training, model, inference = chain
    said = ask("lineage", training.execution_rid, "--json")
    assert edges(said) == {
        (importing.execution_rid, dataset),
        (dataset, training.execution_rid),
        (training.execution_rid, model.rid),
        (model.rid, inference.execution_rid),
    }
    names = {node["rid"]: node["name"] for node in said.json["nodes"]}
    assert (names[importing.execution_rid], names[dataset], names[model.rid]) == ("Import", "Scans", "model.pt")
    assert said.json["cut"] is False


def test_from_each_end(ask, chain) -> None:
    """The same chain is found from a file at its beginning and from the execution at its end."""
    importing, dataset, training, model, inference = chain
    image = next(asset for asset in importing.list_assets("Output") if asset.table == "Image")
    on = edges(ask("lineage", image.rid, "--json"))
    assert {(image.rid, dataset), (dataset, training.execution_rid), (model.rid, inference.execution_rid)} <= on
    back = edges(ask("lineage", inference.execution_rid, "--json"))
    assert {(importing.execution_rid, dataset), (model.rid, inference.execution_rid)} <= back


def test_many_neighbours_are_counted(ask, chain) -> None:
    """Of many files only some are followed, and the others are counted."""
    importing, *_ = chain
    said = ask("lineage", importing.execution_rid, "--siblings", "1", "--json")
    (left,) = [each for each in said.json["left_out"] if each["table"] == "Image"]
    assert (left["rid"], left["direction"], left["count"]) == (importing.execution_rid, "made into", 3)
    assert "and 3 more of Image" in ask("lineage", importing.execution_rid, "--siblings", "1").out


@pytest.mark.parametrize("bound", ["--depth", "--limit"])
def test_a_long_way_is_cut(ask, chain, bound: str) -> None:
    """A walk that is bounded says that there is more, and names nothing beyond its bounds."""
    said = ask("lineage", chain[2].execution_rid, bound, "2", "--json")
    assert said.json["cut"] is True
    named = {node["rid"] for node in said.json["nodes"]}
    assert {end for edge in edges(said) for end in edge} <= named
    assert "There is more" in ask("lineage", chain[2].execution_rid, bound, "2").out


def test_a_circle_ends(ask, ml: DerivaML, chain) -> None:
    """A dataset that holds what was made from it is walked once around, and what comes again is only named."""
    _, dataset, training, model, _ = chain
    ml.lookup_dataset(dataset).add_dataset_members([model.rid])
    said = ask("lineage", dataset, "--json")
    assert {(dataset, training.execution_rid), (model.rid, dataset), (training.execution_rid, dataset)} <= edges(said)
    assert "(see above)" in ask("lineage", dataset).out


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_it_fits(ask, chain, columns: int) -> None:
    """The tree fits on the screen."""
    out = ask("lineage", chain[4].execution_rid, columns=columns).out
    assert max(map(len, out.splitlines())) <= columns
    assert f"Execution {chain[0].execution_rid} Import" in out


def test_drawings(ask, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """Mermaid and Graphviz get every node and edge, and no letter of a name that they would read as their own."""
    bad = 'a "quote" [x](y) </b>\\ end; %%{init}%%'
    with ml.create_execution(config.model_copy(update={"description": bad})) as exe:
        exe.asset_file_path("Model", "m.pt").write_text("m")
    exe.upload_execution_outputs()
    mermaid = ask("lineage", exe.execution_rid, "--mermaid").out
    assert mermaid.startswith("flowchart LR\n")
    assert "n0 --> n1" in mermaid or "n1 --> n0" in mermaid
    (line,) = [line for line in mermaid.splitlines() if "Execution" in line]
    assert line.count('"') == 2
    assert not set("[]{}%;<>\\") & set(line.partition("<br/>")[2].replace(";", "").removesuffix('"])'))
    dot = ask("lineage", exe.execution_rid, "--dot").out
    assert r"a \"quote\" [x](y) </b>\\ end" in dot
    assert f'"{exe.execution_rid}" -> ' in dot


def test_wrong_use(ask, exe: Execution) -> None:
    """Two kinds of drawing at once, and a workflow, from which nothing is made, are wrong use."""
    assert ask("lineage", exe.execution_rid, "--dot", "--json").code == 2
    assert ask("lineage", exe.workflow_rid).code == 2


def test_versions_are_one_neighbour(ask, ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A dataset of which one execution made several versions is made from one execution, and nothing is left out."""
    with ml.create_execution(config) as exe:
        dataset = exe.create_dataset("Scans")
        for _ in range(3):
            dataset.increment_version("minor")
    found = ask("lineage", dataset.rid, "--siblings", "1", "--json").json
    assert found["edges"] == [{"source": exe.execution_rid, "product": dataset.rid}]
    assert found["left_out"] == []
