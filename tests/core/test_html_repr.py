"""The HTML representation of executions in notebooks."""

from __future__ import annotations

import re
import shutil
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from typing import Any, cast

import pytest

from deriva_ml_core.backend import Catalog, Row
from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import Execution, ExecutionConfiguration
from deriva_ml_core.execution.recorded import RecordedExecution
from deriva_ml_core.models import AssetSpec, DatasetSpec
from deriva_ml_core.workflow import Workflow
from html_reader import text_of

PNG = b"\x89PNG\r\n\x1a\nnot more than its head"


def embedded_image(html: str) -> bytes | None:
    found = re.search(r'src="data:image/png;base64,([^"]+)"', html)
    return b64decode(found[1]) if found else None


@contextmanager
def unreachable_catalog(home: Path) -> Iterator[None]:
    """Replace the catalog file by a folder for a while; the working folders stay."""
    catalog, away = home / "local" / "catalog.sqlite", home / "local" / "away.sqlite"
    catalog.rename(away)
    catalog.mkdir()
    try:
        yield
    finally:
        catalog.rmdir()
        away.rename(catalog)


def test_ended_run(ml: DerivaML, exe: Execution) -> None:
    """Shows status, description, workflow link, outputs with type, size and MD5, and the metadata files by name."""
    with exe:
        exe.asset_file_path("Model", "m.pt", asset_types=["Model_File"]).write_bytes(b"x" * 5000)
    exe.upload_execution_outputs()
    for execution in (exe, ml.lookup_execution(exe.execution_rid)):
        html = execution._repr_html_()
        texts = text_of(html)
        assert texts[:2] == [f"Execution {exe.execution_rid}", "Completed"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC · \d+\.\d s", texts[2])
        assert "A test" in texts
        assert 'href="https://github.com/org/repo/blob/abc/train.py"' in html
        start = texts.index("m.pt")
        assert texts[start : start + 4] == ["m.pt", "Model_File", "5.0 kB", md5(b"x" * 5000).hexdigest()[:8]]
        assert "configuration.json" in texts[texts.index("Records") :]


def test_running_run(exe: Execution) -> None:
    """Shows the current message and the staged files, written or not."""
    with exe:
        exe.update_status(exe.status, "Epoch 3/10: loss=0.5")
        exe.asset_file_path("Model", "m.pt").write_bytes(b"12")
        exe.asset_file_path("Model", "later.pt")
        texts = text_of(exe._repr_html_())
    assert texts[1] == "Running"
    assert "· for " in texts[2]
    assert "Epoch 3/10: loss=0.5" in texts
    start = texts.index("m.pt")
    assert texts[start : start + 8] == ["m.pt", "Model", "2 B", "staged", "later.pt", "Model", "not written", "staged"]


def test_new_execution(exe: Execution) -> None:
    """A new execution has no inputs and no outputs."""
    texts = text_of(exe._repr_html_())
    assert texts[1] == "Created"
    assert texts[texts.index("Inputs") + 1] == texts[texts.index("Outputs") + 1] == "none"


def test_inputs(ml: DerivaML, exe: Execution, config: ExecutionConfiguration) -> None:
    """Lists datasets with their versions, and assets."""
    with exe:
        dataset = exe.create_dataset("Digits")
        exe.asset_file_path("Image", "1.png").write_bytes(b"1")
    (image,) = exe.upload_execution_outputs()["Image"]
    spec, asset = DatasetSpec(rid=dataset.dataset_rid, version="0.1.0"), AssetSpec(rid=image.rid)
    second = ml.create_execution(config.model_copy(update={"datasets": [spec], "assets": [asset]}))
    texts = text_of(second._repr_html_())
    start = texts.index("Inputs")
    assert texts[start + 1 : start + 3] == [
        f"Dataset {dataset.dataset_rid}, version 0.1.0",
        f"1.png (Image {image.rid})",
    ]


@pytest.mark.parametrize("place", ["working folder", "staged", "store", "too large", "no image", "nowhere"])
def test_curves(ml: DerivaML, exe: Execution, place: str, tmp_path: Path) -> None:
    """Curves are shown from any place; files that are too large or no PNG are left out."""
    content = {"too large": PNG + b"x" * 2**20, "no image": b"<svg>"}.get(place, PNG)
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
    assert embedded_image(execution._repr_html_()) == (PNG if place in ("working folder", "staged", "store") else None)
    if place == "staged":
        exe.upload_execution_outputs()


def test_texts_are_escaped(ml: DerivaML) -> None:
    """Names, descriptions and messages are escaped; only web pages are linked."""
    evil = "<script>alert('x')</script><img src=x onerror=\"alert(1)\">"
    workflow = Workflow(name=evil, workflow_type="Training", url="javascript:alert(1)", checksum="0" * 40)
    exe = ml.create_execution(ExecutionConfiguration(workflow=workflow, description=evil))
    with exe:
        exe.update_status(exe.status, evil)
        exe.asset_file_path("Model", "<b onclick=1>.pt").write_bytes(b"")
        html = exe._repr_html_()
    assert text_of(html).count(evil) == 3
    assert "<b onclick=1>.pt" in text_of(html)
    assert "<script" not in html
    assert "href" not in html


def test_long_lists_are_truncated(exe: Execution) -> None:
    """Shows ten files and the number of others; long texts end with an ellipsis."""
    with exe:
        for number in range(25):
            exe.asset_file_path("Model", f"{number:02d}.pt").write_bytes(b"")
        exe.update_status(exe.status, "y" * 5000)
        texts = text_of(exe._repr_html_())
    assert [each for each in texts if each.endswith(".pt")] == [f"{number:02d}.pt" for number in range(10)]
    assert "and 15 more" in texts
    assert "y" * 599 + "…" in texts


def test_best_and_last_checkpoints_come_first(exe: Execution) -> None:
    """Best and last checkpoints are listed before other files."""
    with exe:
        for number in range(25):
            types = {20: ["Best_Checkpoint"], 24: ["Last_Checkpoint"]}.get(number, ["Model_File"])
            exe.asset_file_path("Model", f"{number:02d}.pt", asset_types=types).write_text(str(number))
    exe.upload_execution_outputs()
    texts = text_of(exe._repr_html_())
    assert [each for each in texts if each.endswith(".pt")][:3] == ["20.pt", "24.pt", "00.pt"]


def test_unreachable_catalog(ml: DerivaML, exe: Execution, home: Path) -> None:
    """Reports that the catalog cannot be read and shows the contents of the journal."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"12")
    exe.upload_execution_outputs()
    recorded = DerivaML().lookup_execution(exe.execution_rid)
    recorded._connection.catalog.close()
    with unreachable_catalog(home):
        texts = text_of(recorded._repr_html_())
    assert texts[1] == "Completed"
    assert texts[texts.index("m.pt") + 2] == "2 B"
    assert any(each.startswith("The catalog cannot be read") for each in texts)


class CountingCatalog:
    """A catalog that counts queries.\n\n    Args:\n        catalog: The wrapped catalog.\n"""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.queries = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def select(self, *args: Any, **kwargs: Any) -> list[Row]:
        self.queries += 1
        return self._catalog.select(*args, **kwargs)


def count_queries(ml: DerivaML, exe: Execution) -> int:
    """Return the number of catalog queries that the HTML of an execution needs."""
    catalog = CountingCatalog(ml.connection.catalog)
    connection = replace(ml.connection, backend=replace(ml.connection.backend, catalog=cast(Catalog, catalog)))
    row = catalog.select("Execution", {"RID": exe.execution_rid})[0]
    assert "Outputs" in text_of(RecordedExecution(connection, row)._repr_html_())
    return catalog.queries


def test_number_of_queries_is_constant(ml: DerivaML, exe: Execution) -> None:
    """Thirty files need as many queries as one."""
    with exe:
        exe.asset_file_path("Model", "m.pt").write_bytes(b"12")
    exe.upload_execution_outputs()
    one = count_queries(ml, exe)
    for number in range(30):
        exe.asset_file_path("Model", f"{number}.pt").write_bytes(b"")
    exe.upload_execution_outputs()
    assert count_queries(ml, exe) == one < 20


def test_dry_run(ml: DerivaML, config: ExecutionConfiguration) -> None:
    """A dry run is in no catalog and has a representation."""
    with ml.create_execution(config, dry_run=True) as exe:
        assert text_of(exe._repr_html_())[:2] == ["Execution 0000", "Running"]


def test_tags_are_shown_as_text(ml: DerivaML, exe: Execution) -> None:
    """Tags are listed, escaped; a run without tags has no line for them."""
    assert "Tags" not in text_of(exe._repr_html_())
    exe.add_tags("<b>good", "paper")
    parts = text_of(exe._repr_html_())
    assert parts[parts.index("Tags") + 1] == "<b>good, paper"
