"""A home for tests that kill processes, change users and fill disks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fail_points import MEMORY


@pytest.fixture(autouse=True)
def home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As everywhere, but where nothing waits for a disk, and where another user may look."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("DERIVA_ML_HOME", f"{folder}/home")
        yield Path(folder) / "home"
