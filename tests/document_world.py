"""Catalog, RIDs and user functions that the examples of the mission document assume."""

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


OpenClient = Callable[[pluggy.PluginManager | None], DerivaML]
"""Function that opens the catalog, optionally with other plugins."""


def create_catalog(folder: Path, open_client: OpenClient | None = None) -> None:
    """Create the datasets, assets, workflow and execution that the document names.

    Args:
        folder: Folder of the catalog and of its files.
        open_client: Function that opens another, existing catalog instead.
    """
    open_client = open_client or (lambda plugins: DerivaML(f"file:{folder}", plugins=plugins))
    ml = open_client(None)
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
    create_failed_execution(open_client, "1-XYZ")
    ml.close()


def add_image(ml: DerivaML, folder: Path, rid: str) -> None:
    """Upload an image with this RID."""
    file = folder / f"{rid}.png"
    file.write_text(f"the pixels of {rid}")
    store, catalog = ml.connection.store, ml.connection.catalog
    stored = store.put("Image", file.name, file, handover=TransferMode.move, options=UploadOptions())
    store.sync()
    row = {"RID": rid, "Filename": file.name, "URL": stored.url, "Length": stored.length, "MD5": stored.md5}
    catalog.insert("Image", [row])


def create_failed_execution(open_client: OpenClient, rid: str) -> None:
    """Create an execution with this RID that failed."""
    plugins = load_plugins({})
    plugins.register(NextRIDPlugin(rid))
    ml = open_client(plugins)
    workflow = Workflow(name="Earlier", workflow_type="Training", url="https://example.org/earlier.py")
    config = ExecutionConfiguration(workflow=workflow, description="Cut short", assets=["2-GHI"])
    try:
        with ml.create_execution(config):
            raise RuntimeError("cut short")
    except RuntimeError:
        ml.close()


class CatalogWithNextRID:
    """Catalog whose next reserved RID is fixed."""

    def __init__(self, catalog: Catalog, rid: str) -> None:
        self._catalog = catalog
        self._rid = rid

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def reserve(self, count: int) -> list[str]:
        assert count == 1
        return [self._rid]


@dataclass
class NextRIDPlugin:
    """Plugin that makes the catalog reserve a fixed RID."""

    rid: str

    @hookimpl(wrapper=True)
    def connect(self, address: Address) -> Generator[None, Backend, Backend]:
        backend = yield
        return replace(backend, catalog=CatalogWithNextRID(backend.catalog, self.rid))  # type: ignore[arg-type]


STAND_INS = '''\
"""Functions of the reader, which the document does not define."""

import torch

from deriva_ml import Status

ResNet50 = lambda: torch.nn.Linear(2, 1)


def create_dataloader(bag):
    return bag.list_dataset_members()["Image"]


def train_epoch(model, images):
    assert [open(image["Filename"]).read() for image in images] == ["the pixels of 2-GHI", "the pixels of 2-JKL"]
    return 0.25
'''
"""Module in the folder of the Complete Example when it runs as a script."""
