"""Fixtures of the page: a catalog with files of every kind, and a server for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("nicegui", reason="the extra ui is not installed")

from page_samples import FILES
from page_server import PageServer, page_server

from deriva_ml_core.client import DerivaML
from deriva_ml_core.execution import ExecutionConfiguration
from deriva_ml_core.workflow import Workflow

if TYPE_CHECKING:
    from page_browser import Opened
    from page_catalog import Recorded
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a real browser; without one, the test is skipped.

    Playwright's event loop counts as running in this thread until it is stopped, and other modules have their own.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from page_browser import ARGUMENTS, find_browser

    path = find_browser()
    if path is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Return a catalog with runs of every kind."""
    from page_catalog import record_catalog

    return record_catalog(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def recorded_server(recorded: Recorded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """Return a server for that catalog."""
    with page_server(recorded.home, tmp_path_factory.mktemp("started-here")) as running:
        yield running


@pytest.fixture
def opened(browser: Browser, recorded_server: PageServer) -> Iterator[Opened]:
    """Return a logged-in browser; it fails the test if the console has an error or another host is asked."""
    from page_browser import open_page

    with open_page(browser, recorded_server) as page:
        yield page


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
