"""Fixtures of the page: a catalog with files of every kind, and a server for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nicegui", reason="the extra ui is not installed")

from page_samples import FILES
from page_server import PageServer, page_server

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Return the DERIVA_ML_HOME of a catalog with one run, and the RIDs of its files by their names."""
    home = tmp_path_factory.mktemp("home")
    workflow = Workflow(
        name="Test", workflow_type="Training", url="https://example.org/blob/abc/t.py", checksum="1" * 40
    )
    with DerivaML(f"file:{home / 'local'}") as ml:
        with ml.create_execution(ExecutionConfiguration(workflow=workflow, description="With files")) as exe:
            for name, content in FILES.items():
                exe.asset_file_path("Execution_Asset", name).write_bytes(content)
        sent = exe.upload_execution_outputs()["Execution_Asset"]
    return home, {asset.filename: asset.rid for asset in sent} | {"the run": exe.execution_rid}


@pytest.fixture(scope="module")
def server(stored: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """Return a server for that catalog."""
    with page_server(stored[0], tmp_path_factory.mktemp("started-here")) as running:
        yield running


@pytest.fixture(scope="module")
def rids(stored: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """Return the RIDs of the catalog's files by their names."""
    return stored[1]
