"""What the document's examples take for granted: a catalog with their record ids, and the reader's own functions."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pluggy

from deriva_ml_core.backend import Backend, Catalog
from deriva_ml_core.client import DerivaML
from deriva_ml_core.definitions import TransferMode
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.models import Address, UploadOptions
from deriva_ml_core.plugins import hookimpl, load_plugins
from deriva_ml_core.workflow import Workflow

SCRIPT_URL = "https://github.com/org/repo/blob/abc123/train.py"


Open = Callable[[pluggy.PluginManager | None], DerivaML]
"""How to open the catalog, with plugins of one's own."""


def make_catalog(folder: Path, opened: Open | None = None) -> None:
    """Make a catalog in which the datasets, assets, workflow and execution exist that the document names.

    Args:
        folder: Where it is made, and where files for it lie.
        opened: How to open another catalog, which is there already.
    """
    opened = opened or (lambda plugins: DerivaML(f"file:{folder}", plugins=plugins))
    ml = opened(None)
    catalog = ml.connection.catalog
    add_image(ml, folder, "2-GHI")
    add_image(ml, folder, "2-JKL")
    ml.add_dataset_element_type("Image")
    catalog.insert("Dataset", [{"RID": rid, "Description": "Images"} for rid in ("1-ABC", "1-DEF")])
    for rid, parts in {"1-ABC": ["minor"], "1-DEF": ["minor", "major", "minor", "minor"]}.items():
        dataset = ml.lookup_dataset(rid)
        for part in parts:
            dataset.increment_version(part)
    ml.lookup_dataset("1-ABC").add_dataset_members({"Image": ["2-GHI", "2-JKL"]})
    workflow = {"RID": "2-ABC1", "Name": "Known", "Workflow_Type": "Inference", "URL": SCRIPT_URL, "Checksum": "c0ffee"}
    catalog.insert("Workflow", [workflow])
    make_execution(opened, "1-XYZ")
    ml.close()


def add_image(ml: DerivaML, folder: Path, rid: str) -> None:
    """An image that was uploaded before, under this record id."""
    file = folder / f"{rid}.png"
    file.write_text(f"the pixels of {rid}")
    store, catalog = ml.connection.store, ml.connection.catalog
    stored = store.put("Image", file.name, file, handover=TransferMode.move, options=UploadOptions())
    store.sync()
    row = {"RID": rid, "Filename": file.name, "URL": stored.url, "Length": stored.length, "MD5": stored.md5}
    catalog.insert("Image", [row])


def make_execution(opened: Open, rid: str) -> None:
    """A run that was cut short, under this record id."""
    plugins = load_plugins({})
    plugins.register(NextRID(rid))
    ml = opened(plugins)
    workflow = Workflow(name="Earlier", workflow_type="Training", url="https://example.org/earlier.py")
    config = ExecutionConfiguration(workflow=workflow, description="Cut short", assets=["2-GHI"])
    try:
        with ml.create_execution(config):
            raise RuntimeError("cut short")
    except RuntimeError:
        ml.close()


class Reserving:
    """A catalog whose next reserved record id is known."""

    def __init__(self, catalog: Catalog, rid: str) -> None:
        self._catalog = catalog
        self._rid = rid

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def reserve(self, count: int) -> list[str]:
        assert count == 1
        return [self._rid]


@dataclass
class NextRID:
    """Has the embedded catalog give out one certain record id."""

    rid: str

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:
        backend = yield
        return replace(backend, catalog=Reserving(backend.catalog, self.rid))  # type: ignore[arg-type]


STAND_INS = '''\
"""The reader's own functions, which the document leaves open."""

import torch

from deriva_ml import Status

ResNet50 = lambda: torch.nn.Linear(2, 1)


def create_dataloader(bag):
    return bag.list_dataset_members()["Image"]


def train_epoch(model, images):
    assert [open(image["Filename"]).read() for image in images] == ["the pixels of 2-GHI", "the pixels of 2-JKL"]
    return 0.25
'''
"""A module that stands beside the Complete Example where it is run as a script."""
