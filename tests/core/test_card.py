"""The card that a notebook shows of an execution."""

from __future__ import annotations

import re
import shutil
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import md5
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.models import AssetSpec, DatasetSpec
from deriva_ml_core.workflow import Workflow

PNG = b"\x89PNG\r\n\x1a\nnot more than its head"


class Text(HTMLParser):
    """The words of a page; every tag must be closed again."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def words(html: str) -> list[str]:
    """What a card says."""
    text = Text()
    text.feed(html)
    assert text.open == []
    assert text.tags <= {"div", "b", "span", "table", "tr", "td", "br", "a", "img"}
    return [each for each in text.words if each]


def picture(html: str) -> bytes | None:
    found = re.search(r'src="data:image/png;base64,([^"]+)"', html)
    return b64decode(found[1]) if found else None


@contextmanager
def unreachable(home: Path) -> Iterator[None]:
    """The catalog's and the store's folder is elsewhere for a while, but for the working folders."""
    catalog, away = home / "local" / "catalog.sqlite", home / "local" / "away.sqlite"
    catalog.rename(away)
    catalog.mkdir()
    try:
        yield
    finally:
        catalog.rmdir()
        away.rename(catalog)


def test_a_run_that_ended(ml: DerivaML, exe: Execution) -> None:
    """State, words, workflow with its link, outputs with type, size and MD5; the run's own records by name."""
    with exe:
        exe.asset_file_path("Model", "m.pt", asset_types=["Model_File"]).write_bytes(b"x" * 5000)
    exe.upload_execution_outputs()
    for execution in (exe, ml.lookup_execution(exe.execution_rid)):
        html = execution._repr_html_()
        said = words(html)
        assert said[:2] == [f"Execution {exe.execution_rid}", "Completed"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC · \d+\.\d s", said[2])
        assert "A test" in said
        assert 'href="https://github.com/org/repo/blob/abc/train.py"' in html
        start = said.index("m.pt")
        assert said[start : start + 4] == ["m.pt", "Model_File", "5.0 kB", md5(b"x" * 5000).hexdigest()[:8]]
        assert "configuration.json" in said[said.index("Records") :]


def test_a_live_run(exe: Execution) -> None:
    """Its words of now, and the files that wait, written or not."""
    with exe:
        exe.update_status(exe.status, "Epoch 3/10: loss=0.5")
        exe.asset_file_path("Model", "m.pt").write_bytes(b"12")
        exe.asset_file_path("Model", "later.pt")
        said = words(exe._repr_html_())
    assert said[1] == "Running"
    assert "· for " in said[2]
    assert "Epoch 3/10: loss=0.5" in said
    start = said.index("m.pt")
    assert said[start : start + 8] == ["m.pt", "Model", "2 B", "staged", "later.pt", "Model", "not written", "staged"]


def test_a_run_that_has_not_begun(exe: Execution) -> None:
    """Nothing went in and nothing came out."""
    said = words(exe._repr_html_())
    assert said[1] == "Created"
    assert said[said.index("Inputs") + 1] == said[said.index("Outputs") + 1] == "none"


def test_what_went_in(ml: DerivaML, exe: Execution, config: ExecutionConfiguration) -> None:
    """Datasets with their versions, and assets."""
    with exe:
        dataset = exe.create_dataset("Digits")
        exe.asset_file_path("Image", "1.png").write_bytes(b"1")
    (image,) = exe.upload_execution_outputs()["Image"]
    spec, asset = DatasetSpec(rid=dataset.dataset_rid, version="0.1.0"), AssetSpec(rid=image.rid)
    second = ml.create_execution(config.model_copy(update={"datasets": [spec], "assets": [asset]}))
    said = words(second._repr_html_())
    start = said.index("Inputs")
    assert said[start + 1 : start + 3] == [
        f"Dataset {dataset.dataset_rid}, version 0.1.0",
        f"1.png (Image {image.rid})",
    ]


@pytest.mark.parametrize("place", ["working folder", "staged", "store", "too large", "no picture", "nowhere"])
def test_the_curves(ml: DerivaML, exe: Execution, place: str, tmp_path: Path) -> None:
    """Wherever they are; what is too large for a notebook, or is no PNG, is left out."""
    content = {"too large": PNG + b"x" * 2**20, "no picture": b"<svg>"}.get(place, PNG)
    if place != "nowhere":
        with exe:
            if place == "working folder":
                (exe.working_dir / "training_curves.png").write_bytes(content)
            else:
                exe.asset_file_path("Execution_Metadata", "training_curves.png").write_bytes(content)
        if place != "staged":
            exe.upload_execution_outputs()
    execution = ml.lookup_execution(exe.execution_rid)
    if place == "store":
        shutil.rmtree(exe.working_dir)
    assert picture(execution._repr_html_()) == (PNG if place in ("working folder", "staged", "store") else None)
    if place == "staged":
        exe.upload_execution_outputs()


def test_all_texts_are_escaped(ml: DerivaML) -> None:
    """Whatever stands in names, descriptions and words; and only web pages are linked to."""
    evil = "<script>alert('x')</script><img src=x onerror=\"alert(1)\">"
    workflow = Workflow(name=evil, workflow_type="Training", url="javascript:alert(1)", checksum="0" * 40)
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, description=evil))
    with exe:
        exe.update_status(exe.status, evil)
        exe.asset_file_path("Model", "<b onclick=1>.pt").write_bytes(b"")
        html = exe._repr_html_()
    assert words(html).count(evil) == 3
    assert "<b onclick=1>.pt" in words(html)
    assert "<script" not in html
    assert "href" not in html


def test_long_lists_are_cut(exe: Execution) -> None:
    """Ten files, and how many more there are; long texts end with an ellipsis."""
    with exe:
        for number in range(25):
            exe.asset_file_path("Model", f"{number:02d}.pt").write_bytes(b"")
        exe.update_status(exe.status, "y" * 5000)
        said = words(exe._repr_html_())
    assert [each for each in said if each.endswith(".pt")] == [f"{number:02d}.pt" for number in range(10)]
    assert "and 15 more" in said
    assert "y" * 599 + "…" in said


def test_best_and_last_come_first(exe: Execution) -> None:
    """So that they are seen among many."""
    with exe:
        for number in range(25):
            types = {20: ["Best_Checkpoint"], 24: ["Last_Checkpoint"]}.get(number, ["Model_File"])
            exe.asset_file_path("Model", f"{number:02d}.pt", asset_types=types).write_text(str(number))
    exe.upload_execution_outputs()
    said = words(exe._repr_html_())
    assert [each for each in said if each.endswith(".pt")][:3] == ["20.pt", "24.pt", "00.pt"]


def test_a_catalog_that_cannot_be_reached(ml: DerivaML, exe: Execution, home: Path) -> None:
    """The card says so, and tells what the journal knows."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"12")
    exe.upload_execution_outputs()
    recorded = DerivaML().lookup_execution(exe.execution_rid)
    recorded._connection.catalog.close()
    with unreachable(home):
        said = words(recorded._repr_html_())
    assert said[1] == "Completed"
    assert said[said.index("m.pt") + 2] == "2 B"
    assert any(each.startswith("The catalog cannot be read") for each in said)


class Counting:
    """A catalog that counts what it is asked.

    Args:
        catalog: What answers.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def select(self, *given: Any, **named: Any) -> list[Row]:
        self.asked += 1
        return self._catalog.select(*given, **named)


def questions(ml: DerivaML, exe: Execution) -> int:
    """How often the card of an execution asks the catalog."""
    catalog = Counting(ml.connection.catalog)
    connection = replace(ml.connection, backend=replace(ml.connection.backend, catalog=cast(Catalog, catalog)))
    row = catalog.select("Execution", {"RID": exe.execution_rid})[0]
    assert "Outputs" in words(RecordedExecution(connection, row)._repr_html_())
    return catalog.asked


def test_a_card_asks_little(ml: DerivaML, exe: Execution) -> None:
    """As many questions for thirty files as for one."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"12")
    exe.upload_execution_outputs()
    one = questions(ml, exe)
    for number in range(30):
        exe.asset_file_path("Model", f"{number}.pt").write_bytes(b"")
    exe.upload_execution_outputs()
    assert questions(ml, exe) == one < 20


def test_a_dry_run(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """It is in no catalog, and has a card."""
    with ml.create_execution(config, dry_run=True) as exe:
        assert words(exe._repr_html_())[:2] == ["Execution 0000", "Running"]
