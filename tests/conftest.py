"""What all tests share: a home of their own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DERIVA_ML_HOME that no other test shares, and none of the caller's own settings."""
    for name in (
        "DERIVA_ML_WORKFLOW_URL",
        "DERIVA_ML_WORKFLOW_CHECKSUM",
        "DERIVA_ML_REQUIRE_CLEAN",
        "DERIVA_ML_DISABLED_PLUGINS",
    ):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("DERIVA_ML_HOME", str(folder))
    return folder
