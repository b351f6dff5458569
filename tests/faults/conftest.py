"""A home for tests that kill processes, change users and fill disks, and the catalogs in which they do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fail_points import MEMORY
from worlds import EmbeddedWorld, ServerWorld, World

from fakes.deriva_server import serving


@pytest.fixture(autouse=True)
def home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As everywhere, but where nothing waits for a disk, and where another user may look."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("DERIVA_ML_HOME", f"{folder}/home")
        yield Path(folder) / "home"


@pytest.fixture(scope="module", params=["embedded", "server"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A catalog of either kind, in which a program is killed again and again."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        if request.param == "embedded":
            yield EmbeddedWorld(Path(folder))
            return
        with serving(tmp_path_factory.mktemp("hatrac")) as fake:
            yield ServerWorld(Path(folder), fake)
