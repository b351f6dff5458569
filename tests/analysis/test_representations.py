"""What notebooks and terminals show for clients, workflows, datasets, assets, lists and the answers of a client."""

from __future__ import annotations

import pickle
import re
import shutil
from base64 import b64decode
from collections.abc import Callable
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import Runs
from rich.console import Console

from deriva_ml_core.analysis.lineage import Edge, Lineage, Node
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.models import Asset
from deriva_ml_core.training import TrainingReporter
from deriva_ml_core.workflow import Workflow
from html_reader import text_of

EVIL = "<script>alert('x')</script>\x1b[31m\x07"
SHOWN = "<script>alert('x')</script>\\x1b[31m\\x07"
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def printed(answer: object) -> str:
    """Return what rich prints."""
    screen = StringIO()
    Console(file=screen, width=400, force_terminal=True, color_system=None).print(answer)
    return screen.getvalue()


def train(ml: DerivaML, lr: float, description: str = "") -> str:
    """Record a training with a parameter and a metric, and return its RID."""
    workflow = Workflow(name="Fit", workflow_type="Training", url="https://example.org/fit.py", checksum="1" * 40)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow, description=description)) as exe:
        exe.log_params({"lr": lr, "seed": 1})
        reporter = TrainingReporter(exe, checkpoints="none", curves=False)
        reporter.begin_fit(1)
        reporter.end_epoch(1, {"loss": lr / 2})
        reporter.end_fit()
    return exe.execution_rid


def test_client(ml: DerivaML) -> None:
    """A client shows its catalog and the newest runs; an empty one says so."""
    assert "The catalog has no executions yet." in text_of(ml._repr_html_())
    rid = train(ml, 0.5, "First")
    texts = text_of(ml._repr_html_())
    assert texts[0] == f"DerivaML {ml.connection.catalog.name}"
    assert {rid, "Completed", "First", "Newest executions"} <= set(texts)
    assert rid in printed(ml)


def test_client_that_cannot_be_reached(ml: DerivaML, home: Path) -> None:
    """A catalog that is gone is named, not raised."""
    ml.find_workflows()
    ml.close()
    (home / "local" / "catalog.sqlite").rename(home / "local" / "away")
    (home / "local" / "catalog.sqlite").mkdir()
    assert text_of(ml._repr_html_())[0] == "DerivaML"


def test_list_of_executions(ml: DerivaML) -> None:
    """A list shows the parameters that differ and the metrics; it is a list, and its slice shows a table too."""
    rids = [train(ml, 0.5, "One"), train(ml, 0.25, "Two")]
    found = ml.find_executions()
    assert isinstance(found, list)
    assert [run.execution_rid for run in found] == rids[::-1]
    texts = text_of(found._repr_html_())
    assert texts[:9] == [
        "2 executions",
        "RID",
        "Status",
        "Created",
        "lr",
        "loss",
        "Duration",
        "Workflow",
        "Description",
    ]
    row = texts[9 : texts.index(rids[0])]
    assert [row[0], row[1], row[3], row[4], row[6], row[7]] == [rids[1], "Completed", "0.25", "0.125", "Fit", "Two"]
    assert "seed" not in texts
    assert text_of(found[:1]._repr_html_())[0] == "1 execution"
    assert text_of(ml.find_executions(where="lr > 9")._repr_html_()) == ["0 executions"]
    assert type(pickle.loads(pickle.dumps(found[:0]))) is list
    assert repr(found) == repr(list(found))
    assert "0.125" in printed(found)


def test_pages(ml: DerivaML) -> None:
    """Pages of executions, workflows and datasets are tables, and say whether another one follows."""
    train(ml, 0.5)
    rid = train(ml, 0.25)
    dataset = ml.create_dataset("Digits", "Training")
    page = text_of(ml.list_executions(limit=1)._repr_html_())
    assert rid in page
    assert page[-1] == "There is another page."
    assert {"Fit", "Training"} <= set(text_of(ml.list_workflows()._repr_html_()))
    assert {dataset.rid, "0.1.0", "Digits"} <= set(text_of(ml.list_datasets()._repr_html_()))


def test_workflow(ml: DerivaML) -> None:
    """A workflow shows type, checksum and its web page, before and after it is registered."""
    workflow = Workflow(name="Fit", workflow_type="Training", url="https://example.org/fit.py", checksum="1" * 40)
    texts = text_of(workflow._repr_html_())
    assert texts[0] == "Workflow Fit"
    assert texts[-1] == "not registered yet"
    rid = ml.add_workflow(workflow)
    html = ml.lookup_workflow(rid)._repr_html_()
    assert text_of(html) == [f"Workflow {rid}: Fit", "type", "Training", "checksum", "1" * 40]
    assert 'href="https://example.org/fit.py"' in html


def test_dataset_and_bag(ml: DerivaML, runs: Runs) -> None:
    """A dataset shows its members and versions, its bag the folder."""
    dataset = ml.lookup_dataset(runs.dataset)
    texts = text_of(dataset._repr_html_())
    assert texts[0] == f"Dataset {runs.dataset}, version 0.2.0"
    assert texts[texts.index("Model") + 1] == "1"
    assert texts.index("0.2.0") < texts.index("0.1.0")
    bag = dataset.download_dataset_bag()
    texts = text_of(bag._repr_html_())
    assert texts[0] == f"Bag of dataset {runs.dataset}, version 0.2.0"
    assert any(text.startswith(str(bag.path)[:80]) for text in texts)
    assert repr(dataset).startswith("<Dataset ")


def upload(ml: DerivaML, config: ExecutionConfiguration, name: str, content: bytes) -> Asset:
    with ml.create_execution(config) as exe:
        exe.asset_file_path("Image", name).write_bytes(content)
    exe.upload_execution_outputs()
    return next(
        asset for asset in ml.lookup_execution(exe.execution_rid).list_assets("Output") if asset.table == "Image"
    )


def test_asset(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """An asset shows its row; of a small raster image also the image, if its bytes are here."""
    asset = upload(ml, config, "a.png", PNG)
    texts = text_of(asset._repr_html_())
    assert texts[0] == f"a.png ({asset.rid})"
    assert {"Image", "70 B", asset.md5} <= set(texts)
    assert "data:image/png;base64,iVBOR" in asset._repr_html_()
    assert ml.lookup_asset(asset.rid)._repr_html_().count("<img") == 1
    copy = pickle.loads(pickle.dumps(asset))
    assert copy == asset
    assert "<img" not in copy._repr_html_()
    earlier = Asset.__new__(Asset)
    earlier.__setstate__({**asset.__getstate__(), "__pydantic_private__": None})  # as version 0.1 pickled it
    assert earlier == asset
    assert earlier._repr_html_() == copy._repr_html_()
    assert "<img" not in asset.model_copy(update={"md5": "0" * 32})._repr_html_()
    cached = ml.download_asset(asset)
    shutil.rmtree(ml.connection.folder / "objects")
    assert "<img" in asset._repr_html_()
    cached.unlink()
    assert "<img" not in asset._repr_html_()


@pytest.mark.parametrize(("name", "content"), [
    ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'></svg>"),
    ("a.png", b"<html><script>alert(1)</script>"),
    ("a.png", PNG + b"\0" * 2**18),
    ("empty.png", b""),
])  # fmt: skip
def test_asset_that_is_no_small_image(ml: DerivaML, config: ExecutionConfiguration, name: str, content: bytes) -> None:
    """Other bytes, whatever the file's name, and large images are not embedded."""
    assert "<img" not in upload(ml, config, name, content)._repr_html_()


def test_card_of_an_execution(ml: DerivaML) -> None:
    """The card of an execution shows ten of its parameters and metrics, escaped, and counts the others."""
    workflow = Workflow(name="Fit", workflow_type="Training", url="https://example.org/fit.py", checksum="1" * 40)
    with ml.create_execution(ExecutionConfiguration(workflow=workflow)) as exe:
        exe.log_params({"a": EVIL, **{f"p{number:02d}": number for number in range(15)}})
        reporter = TrainingReporter(exe, checkpoints="none", curves=False)
        reporter.begin_fit(1)
        reporter.end_epoch(1, {"loss": 0.5, "val_loss": float("nan"), EVIL: 1.0})
        for execution in (exe, ml.lookup_execution(exe.execution_rid)):
            exe._runtime.background.drain()
            texts = text_of(execution._repr_html_())
            start = texts.index("Parameters")
            assert texts[start + 1 : start + 3] == ["a", SHOWN]
            assert "and 6 more" in texts
            start = texts.index("loss")
            assert texts[start : start + 5] == ["loss", "0.5", "best 0.5 at 1", "val_loss", "not finite"]
            assert texts.count(SHOWN) == 2


def graph(count: int, name: str = "") -> Lineage:
    """Return a chain of runs and files, the start in its middle."""
    rids = [f"1-{number:04d}" for number in range(count)]
    kinds = (("Model", ""), ("Execution", "Failed"))
    nodes = {rid: Node(rid, kinds[number % 2][0], name, kinds[number % 2][1]) for number, rid in enumerate(rids)}
    edges = [Edge(source, product) for source, product in pairwise(rids)]
    middle = count // 2
    return Lineage(rids[middle], nodes, tuple(edges[:middle][::-1]), tuple(edges[middle:]), (), False)


def boxes(svg: str) -> dict[str, tuple[float, float]]:
    """Return the position of each box by RID."""
    found = re.findall(r'<g><title>\w+ (1-\w+)[^<]*</title><rect x="([\d.]+)" y="([\d.]+)"', svg)
    return {rid: (float(x), float(y)) for rid, x, y in found}


def test_lineage(ml: DerivaML, runs: Runs) -> None:
    """The picture has what a row is derived from on its left, and what used it on its right."""
    lineage = ml.lineage(runs.model.rid)
    html = lineage._repr_html_()
    text_of(html, allow_svg=True)
    places = boxes(lineage.to_svg())
    assert places.keys() == lineage.nodes.keys()
    assert places[runs.first][0] < places[runs.model.rid][0] < places[runs.dataset][0]
    assert len(set(places.values())) == len(places)
    assert f"Model {runs.model.rid}" in printed(lineage)


def test_picture_is_bounded() -> None:
    """Of 1,000 nodes, the 200 nearest to the start are shown, and the others are counted."""
    html = graph(1000)._repr_html_()
    assert html.count("<rect") == 200
    assert "800 more nodes are not shown." in text_of(html, allow_svg=True)
    assert {"1-0500", "1-0401", "1-0599"} <= boxes(html).keys()
    assert graph(10).to_svg(max_nodes=3).count("<rect") == 3


def test_picture_of_a_cycle() -> None:
    """Rows that were derived from each other are drawn once each."""
    nodes = {rid: Node(rid, "Dataset", "") for rid in ("1-A", "1-B", "1-C")}
    edges = (Edge("1-A", "1-B"), Edge("1-B", "1-C"), Edge("1-C", "1-A"), Edge("1-A", "1-A"))
    assert boxes(Lineage("1-A", nodes, edges, edges, (), False).to_svg()).keys() == nodes.keys()


def test_hostile_names_in_a_picture() -> None:
    """Names in a picture are text."""
    lineage = graph(3, EVIL)
    assert sum(SHOWN in text for text in text_of(lineage._repr_html_(), allow_svg=True)) == 3  # the tooltips
    assert "<script" not in lineage.to_svg()
    assert "\x1b[31m" not in printed(lineage)


def test_comparison(ml: DerivaML, runs: Runs) -> None:
    """A comparison is a table with a column for each run; of equal runs it says so."""
    texts = text_of(ml.compare(runs.first, runs.second)._repr_html_())
    assert texts[0] == f"Executions {runs.first}, {runs.second}"
    start = texts.index("optimizer.lr")
    assert texts[start : start + 3] == ["optimizer.lr", "-", "0.1"]
    assert any(re.fullmatch(r"Packages \(\d+ equal\)", text) for text in texts)
    assert "They do not differ." in text_of(ml.compare(runs.first, runs.first)._repr_html_())


def test_verification(ml: DerivaML, runs: Runs) -> None:
    """A verification counts what it read, and lists every problem."""
    assert text_of(ml.verify(runs.model.rid)._repr_html_())[0].startswith("No problems in 1 object, ")
    shutil.rmtree(ml.connection.folder / "objects")
    texts = text_of(ml.verify(runs.model.rid)._repr_html_())
    assert texts[0].startswith("1 problem in 1 object, ")
    assert {"Model", runs.model.rid, "model.pt"} <= set(texts)


def test_descriptions(ml: DerivaML, runs: Runs) -> None:
    """A description of each kind of row shows what it is."""
    shows: dict[str, Callable[[list[str]], Any]] = {
        runs.second: lambda texts: {f"Execution {runs.second}", "Failed", "Parameters", "optimizer.lr", "Statuses"},
        runs.workflow: lambda texts: {"Newest executions", runs.second},
        runs.dataset: lambda texts: {f"Dataset {runs.dataset}, version 0.2.0", "Members", "Model"},
        runs.model.rid: lambda texts: {f"model.pt ({runs.model.rid})", "Executions", "Input", "Output"},
    }
    for rid, expected in shows.items():
        answer = ml.describe(rid)
        texts = text_of(answer._repr_html_())
        assert expected(texts) <= set(texts)
        assert next(iter(texts)) in printed(answer)
    row = ml.select_rows("Dataset_Version")[0]
    assert row["RID"] in text_of(ml.describe(row["RID"])._repr_html_())


def test_hostile_catalog(ml: DerivaML) -> None:
    """No text of the catalog is markup or an escape code in any representation."""
    workflow = Workflow(name=EVIL, workflow_type="Training", description=EVIL, url="javascript:x", checksum="2" * 40)
    config = ExecutionConfiguration(workflow=workflow, description=EVIL, parameters={EVIL: EVIL})
    with ml.create_execution(config) as exe:
        exe.update_status(exe.status, EVIL)
        exe.asset_file_path("Image", "<b>.png").write_bytes(PNG)
        dataset = exe.create_dataset(EVIL)
    exe.upload_execution_outputs()
    (image,) = (asset for asset in exe.list_assets("Output") if asset.table == "Image")
    dataset.add_dataset_members([image.rid])
    other = ml.create_execution(config)
    answers: list[Any] = [
        ml,
        ml.find_executions(),
        ml.list_executions(),
        ml.list_workflows(),
        ml.list_datasets(),
        ml.find_workflows()[0],
        dataset,
        dataset.download_dataset_bag(),
        image,
        ml.lineage(image.rid),
        ml.compare(exe.execution_rid, other.execution_rid),
        *(ml.describe(rid) for rid in (exe.execution_rid, exe.workflow_rid or "", dataset.rid, image.rid)),
    ]
    for answer in answers:
        html = answer._repr_html_()
        text_of(html, allow_svg=True)
        assert "<script" not in html
        assert 'href="javascript' not in html
        assert "\x1b" not in html and "\x07" not in html
        assert "\x1b[31m" not in printed(answer) and "\x07" not in printed(answer)
    assert isinstance(ml.find_executions()[0], RecordedExecution)
