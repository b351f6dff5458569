"""Catalogs and home folders for tests that kill processes, change users and fill disks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fail_points import MEMORY
from sandboxes import EmbeddedSandbox, Sandbox, ServerSandbox

from fakes.deriva_server import serving


@pytest.fixture(autouse=True)
def home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder in memory, so that nothing waits for a disk, and readable by other users."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("DERIVA_ML_HOME", f"{folder}/home")
        yield Path(folder) / "home"


@pytest.fixture(scope="module", params=["embedded", "server"])
def sandbox(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A catalog of either kind in which a program is killed again and again."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        if request.param == "embedded":
            yield EmbeddedSandbox(Path(folder))
            return
        with serving(tmp_path_factory.mktemp("hatrac")) as fake:
            yield ServerSandbox(Path(folder), fake)
